"""Chains and trees of element-wise operators as one `lepton.Elementwise` program.

A group grows from its last node backwards over producers whose every reader is in the group and
whose result has the group's shape, so no intermediate is computed twice or broadcast.
QuantizeLinear and DequantizeLinear are instructions like others; a DequantizeLinear is cheap enough
to be repeated in every group that reads it. A program of one 8-bit tensor and no other is a table
of 256 entries.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lepton_rt.graph.ir import Array, Attr, Graph, Node

from .attributes import int_attr
from .editor import Editor
from .evaluate import evaluate
from .programs import MAX_INPUTS, Program, literal, node_compute, translatable, translate
from .scale_quantize import differ_by_powers_of_two

__all__ = ["fuse_elementwise"]

_MOST_NODES = 40
_MOST_INPUTS = MAX_INPUTS // 2
_FLOAT32 = np.dtype(np.float32)
_QUANTISED = {"QuantizeLinear", "DequantizeLinear"}


def fuse_elementwise(graph: Graph) -> Graph:
    """Fuses groups of element-wise nodes."""
    editor = Editor(graph)
    for node in reversed(list(editor.nodes())):
        if editor.producer(node.outputs[0] if node.outputs else "") is not node:
            continue  # already part of a group
        group = _grow(editor, node)
        if group is not None and len(group.nodes) > 1:
            _rewrite(editor, group)
    return editor.finish()


@dataclass
class _Group:
    sink: Node
    compute: str
    nodes: dict[int, Node] = field(default_factory=dict)

    def __contains__(self, node: Node | None) -> bool:
        return node is not None and id(node) in self.nodes


def _grow(editor: Editor, sink: Node) -> _Group | None:
    compute = _compute(editor, sink, sink=True)
    if compute is None or _has_kernel(editor, sink):
        return None
    group = _Group(sink, compute, {id(sink): sink})
    grown = True
    while grown and len(group.nodes) < _MOST_NODES:
        grown = False
        for node in list(group.nodes.values()):
            for name in node.inputs:
                maker = editor.producer(name) if name else None
                if maker is None or maker in group or not _joins(editor, group, node, maker):
                    continue
                compute, group.nodes[id(maker)] = group.compute, maker
                if compute == "any":
                    group.compute = _compute(editor, maker, sink=False) or compute
                if len(_leaves(editor, group)) > _MOST_INPUTS:
                    del group.nodes[id(maker)]
                    group.compute = compute
                    continue
                grown = True
    return group


def _has_kernel(editor: Editor, node: Node) -> bool:
    """Whether a kernel of QuantizeLinear beats an instruction that reads scales of channels."""
    scales = editor.array(node.inputs[1]) if node.key == "QuantizeLinear" else None
    return scales is not None and differ_by_powers_of_two(scales)


def _leaves(editor: Editor, group: _Group) -> set[str]:
    return {
        name
        for node in group.nodes.values()
        for name in node.inputs
        if name and editor.producer(name) not in group
    }


def _joins(editor: Editor, group: _Group, reader: Node, maker: Node) -> bool:
    """Whether the producer of an operand of `reader` may be computed inside the group."""
    compute = _compute(editor, maker, sink=False)
    if compute is None or len(maker.outputs) != 1:
        return False
    if "any" not in {compute, group.compute} and compute != group.compute:
        return False
    name = maker.outputs[0]
    if reader.key in _QUANTISED and name != reader.inputs[0]:
        return False
    if maker.key == "DequantizeLinear":
        return True
    if editor.pinned(name) or any(_remains(editor, group, r) for r in editor.readers(name)):
        return False
    return _same_extent(editor, group, reader, name)


def _remains(editor: Editor, group: _Group, reader: Node) -> bool:
    """Whether a reader will still be there when the group is one node.

    A DequantizeLinear that is repeated in the group is, where others need its result too.
    """
    if reader not in group:
        return True
    if reader is group.sink or reader.key != "DequantizeLinear":
        return False
    name = reader.outputs[0]
    return editor.pinned(name) or any(other not in group for other in editor.readers(name))


def _same_extent(editor: Editor, group: _Group, reader: Node, name: str) -> bool:
    """Whether an operand of a member surely has the shape of the group's result."""
    others = [other for other in reader.inputs if other and other != name]
    alone = reader.key in _QUANTISED or all(_is_single(editor, other) for other in others)
    shape, whole = editor.shape(name), editor.shape(group.sink.outputs[0])
    if shape is None or whole is None or None in shape or None in whole:
        return alone and reader.key != "DequantizeLinear"
    return shape == whole


def _is_single(editor: Editor, name: str) -> bool:
    array = editor.array(name)
    return array is not None and array.ndim == 0


def _compute(editor: Editor, node: Node, sink: bool) -> str | None:
    """The type a node computes in; "any" when it only handles truth values; None: not fusable."""
    names = [name for name in node.inputs if name]
    dtypes = [editor.dtype(name) for name in names]
    out = editor.dtype(node.outputs[0]) if node.outputs else None
    if node.domain or out is None or any(dtype is None for dtype in dtypes):
        return None
    if node.op in _QUANTISED:
        return "f32" if _linear(editor, node) is not None else None
    known = [dtype for dtype in dtypes if dtype is not None]
    if node.op == "Cast":
        return _cast_compute(known[0], out, sink)
    if not translatable(node):
        return None
    if all(dtype.name == "bool" for dtype in [*known, out]):
        return "any"
    # Narrow types round or wrap between operators; a program would not.
    if any(dtype.name not in {"bool", "float32", "float64", "int64"} for dtype in [*known, out]):
        return None
    return node_compute(node, known)


def _cast_compute(source: np.dtype, out: np.dtype, sink: bool) -> str | None:
    """A Cast to float32 is a load, one from float32 is the final store."""
    if out == _FLOAT32 and source.kind in "biuf":
        return "f32"
    return "f32" if sink and source == _FLOAT32 and out.kind in "iuf" and out.itemsize < 8 else None


def _linear(editor: Editor, node: Node) -> tuple[Array, Array] | None:
    """Constant scale and zero point of a Q/DQ node, shaped to broadcast against its operand."""
    scale = editor.array(node.inputs[1])
    if scale is None or scale.dtype != _FLOAT32 or node.attrs.get("block_size", 0):
        return None
    zero_name = node.inputs[2] if len(node.inputs) > 2 else ""
    integers = node.inputs[0] if node.op == "DequantizeLinear" else node.outputs[0]
    dtype = editor.dtype(integers)
    if dtype is None or dtype.kind not in "iu" or dtype.itemsize > 4:
        return None
    if node.op == "QuantizeLinear" and dtype.itemsize > 2:
        return None
    zero = editor.array(zero_name) if zero_name else np.zeros(scale.shape, dtype)
    if zero is None or zero.dtype != dtype:
        return None
    if scale.size == 1:
        return scale.reshape(()), zero.reshape(-1)[0].reshape(())
    shape = editor.shape(node.inputs[0])
    if shape is None or scale.ndim != 1:
        return None
    axis = int_attr(node, "axis", 1) % len(shape)
    dims = (-1,) + (1,) * (len(shape) - 1 - axis)
    return scale.reshape(dims), zero.reshape(dims)


class _Writer:
    """Writes the program of a group."""

    def __init__(self, editor: Editor, group: _Group) -> None:
        self.editor, self.group = editor, group
        self.program = Program()
        self.done: dict[str, str] = {}

    def tensor(self, name: str, reader: Node) -> str:
        """The operand that stands for a tensor."""
        if name in self.done:
            return self.done[name]
        maker = self.editor.producer(name)
        if maker is None or maker not in self.group:
            return self._leaf(name, reader)
        self.done[name] = self.node(maker)
        return self.done[name]

    def node(self, node: Node) -> str:
        """Appends the instructions of a member and of those before it."""
        if node.op in _QUANTISED:
            return self._quantised(node)
        operands = [self.tensor(name, node) if name else "" for name in node.inputs]
        if node.op == "Cast":
            return self.program.emit("Identity", operands[0])
        return translate(self.program, node, operands)

    def _quantised(self, node: Node) -> str:
        linear = _linear(self.editor, node)
        assert linear is not None
        operands = [self.tensor(node.inputs[0], node)]
        operands += [self._array(array, node.inputs[1]) for array in linear]
        if node.op == "DequantizeLinear":
            return self.program.emit("Dequantize", *operands)
        limits = np.iinfo(linear[1].dtype)
        bounds = [literal(limits.min), literal(limits.max)]
        return self.program.emit("Quantize", *operands, *bounds)

    def _array(self, array: Array, hint: str) -> str:
        if array.size == 1:
            return literal(array.reshape(-1)[0])
        return self.program.input(self.editor.constant(np.ascontiguousarray(array), hint))

    def _leaf(self, name: str, reader: Node) -> str:
        array = self.editor.array(name)
        if array is not None and array.size == 1 and array.dtype.kind in "biuf":
            ranks = [len(self.editor.shape(n) or ()) for n in reader.inputs if n and n != name]
            if array.ndim == 0 or max(ranks, default=0) >= array.ndim:
                value = array.reshape(-1)[0]
                return literal(int(value) if array.dtype.kind in "biu" else float(value))
        return self.program.input(name)


def _rewrite(editor: Editor, group: _Group) -> None:
    writer = _Writer(editor, group)
    writer.node(group.sink)
    program, sink = writer.program, group.sink
    members = [node for node in group.nodes.values() if node.key != "DequantizeLinear"]
    repeated = [node for node in group.nodes.values() if node.key == "DequantizeLinear"]
    if sink in repeated:
        repeated.remove(sink)
        members.append(sink)
    text = program.render()
    attrs: dict[str, Attr] = {"program": text, "compute": _final_compute(group)}
    table = _table(editor, program, sink, text)
    if table is not None:
        editor.replace(members, "Lookup", program.inputs, sink.outputs, {"table": table}, True)
    else:
        editor.replace(members, "Elementwise", program.inputs, sink.outputs, attrs, True)
    for node in repeated:
        editor.drop_unread(node)


def _final_compute(group: _Group) -> str:
    return "i64" if group.compute == "any" else group.compute


def _table(editor: Editor, program: Program, sink: Node, text: list[str]) -> Array | None:
    """The program as a table, when it is a function of one 8-bit tensor."""
    if len(program.inputs) != 1 or editor.array(program.inputs[0]) is not None:
        return None
    source, target = editor.dtype(program.inputs[0]), editor.dtype(sink.outputs[0])
    if source is None or target is None or source.name not in {"uint8", "int8"}:
        return None
    if target.name not in {"uint8", "int8", "float32"}:
        return None
    every_byte = np.arange(256, dtype=np.uint8).view(source)
    values = evaluate(text, [every_byte.astype(np.float32)])
    return None if values is None else values.astype(target)
