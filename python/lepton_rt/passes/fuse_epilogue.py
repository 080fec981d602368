"""What follows a layer, done while its result is still in registers: bias, residual, activation."""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Attr, Graph, Node

from .activation import fusable_activation
from .editor import Editor

__all__ = ["fuse_epilogue"]

_BIAS = {
    "lepton.Conv": 2,
    "lepton.MatMul": 2,
    "MatMul": 2,
    "lepton.DynamicQuantizeMatMul": 4,
    "lepton.MatMulNBits": 4,
}
"""Layer → index of its operand bias; the residual follows."""
_INTEGER = "lepton.QLinearMatMul"
_INTEGER_BIAS, _INTEGER_SCALE = 8, 6


def fuse_epilogue(graph: Graph) -> Graph:
    """Fuses float32 bias, residual Add, Relu and Clip into layers with a float32 result.

    Into products of integers with a float32 result only the residual: the others are there already.
    """
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key in _BIAS and (node.key != "MatMul" or _is_matrix_product(editor, node)):
            _fuse(editor, node)
        if node.key == _INTEGER and not any(node.inputs[_INTEGER_SCALE : _INTEGER_SCALE + 2]):
            _add_residual(editor, node, _INTEGER_BIAS + 1)
    return editor.finish()


def _is_matrix_product(editor: Editor, node: Node) -> bool:
    """A float MatMul by a matrix: by a vector, the result has no column axis."""
    columns = editor.shape(node.inputs[1])
    floats = all(editor.dtype(name) == np.float32 for name in node.inputs)
    return floats and columns is not None and len(columns) > 1


def _fuse(editor: Editor, node: Node) -> None:
    layer = _add_bias(editor, node)
    layer = _add_residual(editor, layer, _BIAS[layer.key] + 1)
    if layer.attrs.get("activation"):
        return
    following = fusable_activation(editor, layer.outputs[0])
    if following is not None:
        attrs = {**layer.attrs, **following.attrs}
        group = [layer, following.node]
        _replace(editor, group, layer, list(layer.inputs), following.node.outputs[0], attrs)


def _replace(
    editor: Editor,
    group: list[Node],
    layer: Node,
    inputs: list[str],
    output: str,
    attrs: dict[str, Attr],
) -> Node:
    return editor.replace(group, layer.op, inputs, [output], attrs, lepton=True)


def _add_bias(editor: Editor, layer: Node) -> Node:
    """Add of one constant per column or channel."""
    bias = _BIAS[layer.key]
    if layer.attrs.get("activation") or any(layer.inputs[bias:]):
        return layer
    node, other = _following_add(editor, layer.outputs[0])
    if node is None:
        return layer
    addend = editor.array(other)
    columns = (editor.shape(layer.outputs[0]) or (None,))[-1]
    if addend is None or addend.dtype != np.float32 or not isinstance(columns, int):
        return layer
    out, rank = editor.shape(node.outputs[0]), len(editor.shape(layer.outputs[0]) or ())
    if out is None or len(out) != rank or addend.shape[:-1] != (1,) * (addend.ndim - 1):
        return layer
    if addend.ndim == 0 or addend.shape[-1] != columns:
        return layer
    name = editor.constant(addend.reshape(-1), other) if addend.ndim > 1 else other
    inputs = [*_padded(layer, bias), name]
    return _replace(editor, [layer, node], layer, inputs, node.outputs[0], layer.attrs)


def _add_residual(editor: Editor, layer: Node, residual: int) -> Node:
    """Add of a tensor of the same shape, as operand `residual`."""
    if layer.attrs.get("activation") or any(layer.inputs[residual:]):
        return layer
    node, other = _following_add(editor, layer.outputs[0])
    if node is None or editor.array(other) is not None:
        return layer
    if editor.dtype(other) != np.float32 or not _same_shape(editor, layer.outputs[0], other):
        return layer
    inputs = [*_padded(layer, residual), other]
    return _replace(editor, [layer, node], layer, inputs, node.outputs[0], layer.attrs)


def _padded(layer: Node, count: int) -> list[str]:
    """The first `count` operands, omitted ones included."""
    return (layer.inputs + [""] * count)[:count]


def _following_add(editor: Editor, name: str) -> tuple[Node | None, str]:
    node = editor.only_reader(name)
    if node is None or node.key != "Add":
        return None, ""
    return node, node.inputs[1] if node.inputs[0] == name else node.inputs[0]


def _same_shape(editor: Editor, a: str, b: str) -> bool:
    """Whether two tensors surely have equal shapes: every size known or one and the same symbol."""
    first, second = editor.shape(a), editor.shape(b)
    if first is None or second is None or len(first) != len(second):
        return False
    return all(p is not None and p == q for p, q in zip(first, second))
