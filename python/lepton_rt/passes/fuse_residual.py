"""The quantised residual Add of a block, done in the epilogue of the layer before it.

Matches QLinear layer → Dequantize → Add(Dequantize(r)) → Relu or Clip → Quantize. The layer still
rounds its own result to 8 bits before it adds, so the integers are those of the separate operators.
A layer whose result is float, without the Dequantize, adds before its only rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

from lepton_rt.graph.ir import Attr, Graph, Node

from .activation import fusable_activation
from .editor import Editor
from .quantised import Quantised, dequantised, quantising_reader

__all__ = ["fuse_residual"]

_LAYERS = {"lepton.QLinearConv", "lepton.QLinearMatMul"}
_OPERANDS_BEFORE_RESIDUAL = 9


def fuse_residual(graph: Graph) -> Graph:
    """Fuses quantised Adds into the layers that make one of their operands."""
    editor = Editor(graph)
    order = {id(node): index for index, node in enumerate(editor.nodes())}
    for node in editor.nodes():
        if node.key == "Add":
            _fuse(editor, node, order)
    return editor.finish()


@dataclass
class _Sum:
    """An Add with its activation and its QuantizeLinear."""

    nodes: list[Node]
    target: Quantised
    attrs: dict[str, Attr]


@dataclass
class _Layer:
    """The layer behind one operand of an Add, and the DequantizeLinear between them, if any."""

    node: Node
    dequantize: Node | None


def _fuse(editor: Editor, node: Node, order: dict[int, int]) -> None:
    total = _sum(editor, node)
    if total is None or not _addable(editor, node.inputs):
        return
    candidates = []
    for mine, other in (node.inputs, node.inputs[::-1]):
        layer, residual = _layer(editor, mine, node), dequantised(editor, other)
        if layer is not None and residual is not None and residual.per_tensor and residual.is_8_bit:
            candidates.append((order.get(id(layer.node), -1), layer, residual))
    if candidates:
        # The later layer: the other operand is computed by then.
        _, layer, residual = max(candidates, key=lambda c: c[0])
        _replace(editor, layer, residual, total)


def _addable(editor: Editor, operands: list[str]) -> bool:
    """Whether both operands are computed and surely have equal shapes."""
    if not all(_is_computed(editor, name) for name in operands):
        return False
    shapes = [editor.shape(name) for name in operands]
    if shapes[0] is None or shapes[1] is None or len(shapes[0]) != len(shapes[1]):
        return False
    return all(p is not None and p == q for p, q in zip(*shapes))


def _is_computed(editor: Editor, name: str) -> bool:
    found = dequantised(editor, name)
    return editor.array(name if found is None else found.data) is None


def _sum(editor: Editor, node: Node) -> _Sum | None:
    target = quantising_reader(editor, node.outputs[0])
    nodes, attrs = [node], {}
    if target is None:
        following = fusable_activation(editor, node.outputs[0])
        if following is None:
            return None
        nodes, attrs = [node, following.node], following.attrs
        target = quantising_reader(editor, following.node.outputs[0])
    if target is None or not (target.per_tensor and target.is_8_bit):
        return None
    return _Sum([*nodes, target.node], target, attrs)


def _layer(editor: Editor, operand: str, add: Node) -> _Layer | None:
    """The layer behind an operand, when it has room for a residual and no other readers."""
    if editor.only_reader(operand) is not add:
        return None
    found = dequantised(editor, operand)
    if found is not None and (not found.per_tensor or editor.only_reader(found.data) is None):
        return None
    layer = editor.producer(operand if found is None else found.data)
    if layer is None or layer.key not in _LAYERS or layer.attrs.get("activation"):
        return None
    quantised = len(layer.inputs) > 6 and bool(layer.inputs[6])
    if quantised != (found is not None) or any(layer.inputs[_OPERANDS_BEFORE_RESIDUAL:]):
        return None
    return _Layer(layer, None if found is None else found.node)


def _replace(editor: Editor, layer: _Layer, residual: Quantised, total: _Sum) -> None:
    target, node = total.target, layer.node
    inputs = (node.inputs + [""] * 3)[:_OPERANDS_BEFORE_RESIDUAL]
    inputs += [residual.data, residual.scale, residual.zero_point, target.scale, target.zero_point]
    between = [layer.dequantize] if layer.dequantize is not None else []
    attrs = {**node.attrs, **total.attrs}
    group = [node, *between, *total.nodes]
    editor.replace(group, node.op, inputs, [target.data], attrs, lepton=True)
    editor.drop_unread(residual.node)
