"""The quantised residual Add of a block, done in the epilogue of the layer before it.

Matches QLinear layer → Dequantize → Add(Dequantize(r)) → Relu or Clip → Quantize. The layer still
rounds its own result to 8 bits before it adds, so the integers are those of the separate operators.
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


def _fuse(editor: Editor, node: Node, order: dict[int, int]) -> None:
    operands = [dequantised(editor, name) for name in node.inputs]
    total = _sum(editor, node)
    if total is None or not _addable(editor, operands):
        return
    a, b = operands
    assert a is not None
    assert b is not None
    candidates = []
    for mine, other in ((a, b), (b, a)):
        layer = _layer(editor, mine, node)
        if layer is not None:
            candidates.append((order.get(id(layer), -1), layer, mine, other))
    if candidates:
        # The later layer: the other operand is computed by then.
        _, layer, mine, other = max(candidates, key=lambda c: c[0])
        _replace(editor, layer, mine, other, total)


def _addable(editor: Editor, operands: list[Quantised | None]) -> bool:
    """Whether both operands are 8-bit tensors of surely equal shapes."""
    if len(operands) != 2 or any(x is None or not (x.per_tensor and x.is_8_bit) for x in operands):
        return False
    shapes = [editor.shape(x.data) for x in operands if x is not None]
    if shapes[0] is None or shapes[1] is None or len(shapes[0]) != len(shapes[1]):
        return False
    constant = any(editor.array(x.data) is not None for x in operands if x is not None)
    return not constant and all(p is not None and p == q for p, q in zip(*shapes))


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


def _layer(editor: Editor, operand: Quantised, add: Node) -> Node | None:
    """The layer behind an operand, when it has room for a residual and no other readers."""
    layer = editor.producer(operand.data)
    if layer is None or layer.key not in _LAYERS or layer.attrs.get("activation"):
        return None
    quantised = len(layer.inputs) > 6 and bool(layer.inputs[6])
    if not quantised or any(layer.inputs[_OPERANDS_BEFORE_RESIDUAL:]):
        return None
    alone = editor.only_reader(operand.data) is operand.node
    return layer if alone and editor.only_reader(operand.node.outputs[0]) is add else None


def _replace(editor: Editor, layer: Node, mine: Quantised, other: Quantised, total: _Sum) -> None:
    target = total.target
    inputs = (layer.inputs + [""] * 3)[:_OPERANDS_BEFORE_RESIDUAL]
    inputs += [other.data, other.scale, other.zero_point, target.scale, target.zero_point]
    group = [layer, mine.node, *total.nodes]
    attrs = {**layer.attrs, **total.attrs}
    editor.replace(group, layer.op, inputs, [target.data], attrs, lepton=True)
    editor.drop_unread(other.node)
