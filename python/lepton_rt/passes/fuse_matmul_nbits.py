"""Products by weights in groups of 4 or 8 bits keep them packed.

MatMul or Gemm by a constant matrix that a DequantizeLinear makes, transposed or not, becomes
`lepton.MatMulNBits`, which makes floats of the weights where it needs them; `fold_dequantize` would
store them as floats. The groups are blocks of rows of one column, all of its rows, or the whole
matrix; weights whose scales change within a row of a block of columns do become floats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lepton_rt.graph.ir import Array, Graph, Node

from .attributes import float_attr, int_attr, ints_attr
from .editor import Editor

__all__ = ["fuse_matmul_nbits"]

_STORED = {"int4", "uint4", "int8", "uint8"}


def fuse_matmul_nbits(graph: Graph) -> Graph:
    """Replaces products by a matrix dequantised in groups by `lepton.MatMulNBits`."""
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key == "MatMul" or (node.key == "lepton.MatMul" and not any(node.inputs[2:])):
            _fuse(editor, node, turned=False)
        elif node.key == "Gemm" and _is_plain(node):
            _fuse(editor, node, turned=int_attr(node, "transB", 0) == 1)
    return editor.finish()


def _is_plain(node: Node) -> bool:
    scaled = float_attr(node, "alpha", 1.0) != 1.0
    if len(node.inputs) > 2 and node.inputs[2]:
        scaled = scaled or float_attr(node, "beta", 1.0) != 1.0
    return not scaled and not int_attr(node, "transA", 0)


@dataclass
class _Weights:
    """q [k, n] with scale and zero point [groups, n], of `size` rows each."""

    operands: list[str]
    size: int
    makers: list[Node]


def _fuse(editor: Editor, node: Node, turned: bool) -> None:
    if editor.dtype(node.inputs[0]) != np.float32 or not editor.shape(node.inputs[0]):
        return
    weights = _weights(editor, node.inputs[1], turned)
    if weights is None:
        return
    attrs = {k: v for k, v in node.attrs.items() if k not in {"alpha", "beta", "transA", "transB"}}
    attrs["block_size"] = weights.size
    inputs, output = [node.inputs[0], *weights.operands], node.outputs[0]
    added = node.inputs[2] if node.key == "Gemm" and len(node.inputs) > 2 else ""
    if added:
        output = editor.fresh(f"{output}_product", editor.value(output))
        editor.add(node, "Add", [output, added], node.outputs)
    editor.replace(node, "MatMulNBits", inputs, [output], attrs, lepton=True)
    editor.drop_unread(*weights.makers)


def _weights(editor: Editor, name: str, turned: bool) -> _Weights | None:
    makers = []
    source = editor.producer(name)
    if source is not None and source.key == "Transpose":
        if ints_attr(source, "perm", [1, 0]) != [1, 0]:
            return None
        makers, turned = [source], not turned
        source = editor.producer(source.inputs[0])
    if source is None or source.key != "DequantizeLinear":
        return None
    operands = [*source.inputs, ""][:3]
    values, scale, zero = (editor.array(name) for name in operands)
    if values is None or values.ndim != 2 or values.size == 0 or values.dtype.name not in _STORED:
        return None
    if scale is None or scale.dtype != np.float32 or (operands[2] and zero is None):
        return None
    grouped = _grouped(source, values, scale, zero, turned)
    if grouped is None:
        return None
    arrays, axis, size = grouped
    if turned:
        arrays, axis = [np.ascontiguousarray(a.T) for a in arrays], 1 - axis
    if axis != 0:
        return None
    given = [values, scale, *([] if zero is None else [zero])]
    names = [
        name if made is array else editor.constant(made, name)
        for name, made, array in zip(operands, arrays, given)
    ]
    return _Weights(names, size, [*makers, source])


def _grouped(
    node: Node, values: Array, scale: Array, zero: Array | None, turned: bool
) -> tuple[list[Array], int, int] | None:
    """Values, scale and zero point as matrices; the axis and size of their groups."""
    axis, size = int_attr(node, "axis", 1) % 2, int_attr(node, "block_size", 0)
    if zero is not None and (zero.shape != scale.shape or zero.dtype != values.dtype):
        return None
    arrays = [scale] if zero is None else [scale, zero]
    if size > 0:
        groups = list(values.shape)
        groups[axis] = -(-groups[axis] // size)
        return ([values, *arrays], axis, size) if list(scale.shape) == groups else None
    # One scale for each row or column: a group is all that shares one.
    if scale.size == 1:
        axis = 0 if turned else 1
        arrays = [np.full(values.shape[axis], a.reshape(-1)[0], a.dtype) for a in arrays]
    elif scale.shape != (values.shape[axis],):
        return None
    arrays = [np.ascontiguousarray(np.expand_dims(a, 1 - axis)) for a in arrays]
    return [values, *arrays], 1 - axis, values.shape[1 - axis]
