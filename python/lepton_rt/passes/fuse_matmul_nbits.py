"""Products by weights in groups of 4 or 8 bits keep them packed.

DequantizeLinear in blocks along the rows of a constant matrix → MatMul becomes
`lepton.MatMulNBits`, which makes floats of the weights where it needs them; `fold_dequantize` would
store them as floats.
"""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Graph, Node

from .attributes import int_attr
from .editor import Editor

__all__ = ["fuse_matmul_nbits"]

_STORED = {"int4", "uint4", "int8", "uint8"}


def fuse_matmul_nbits(graph: Graph) -> Graph:
    """Replaces MatMul by a matrix dequantised in blocks of rows by `lepton.MatMulNBits`."""
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key == "MatMul" or (node.key == "lepton.MatMul" and not any(node.inputs[2:])):
            _matmul(editor, node)
    return editor.finish()


def _matmul(editor: Editor, node: Node) -> None:
    weight = editor.producer(node.inputs[1])
    if weight is None or weight.key != "DequantizeLinear":
        return
    size = int_attr(weight, "block_size", 0)
    operands = [*weight.inputs, ""][:3]
    values, scale, zero = (editor.array(name) for name in operands)
    if size < 1 or values is None or values.ndim != 2 or values.size == 0 or scale is None:
        return
    rows, columns = values.shape
    groups = (-(-rows // size), columns)
    if int_attr(weight, "axis", 1) % 2 != 0 or values.dtype.name not in _STORED:
        return
    if scale.dtype != np.float32 or scale.shape != groups:
        return
    if operands[2] and (zero is None or zero.shape != groups or zero.dtype != values.dtype):
        return
    if editor.dtype(node.inputs[0]) != np.float32 or not editor.shape(node.inputs[0]):
        return
    attrs = {**node.attrs, "block_size": size}
    inputs = [node.inputs[0], *operands]
    editor.replace(node, "MatMulNBits", inputs, node.outputs, attrs, lepton=True)
    editor.drop_unread(weight)
