"""Layers over dynamically quantised activations as one operator.

DynamicQuantizeLinear → MatMulInteger → Cast → Mul by (a_scale · b_scale) is what dynamic
quantisation makes of a MatMul. As `lepton.DynamicQuantizeMatMul` the activations are quantised
inside the layer, and the accumulators are scaled while they are in registers; `fuse_epilogue` adds
bias, residual and activation. Every float operation stays, in the same order.
"""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Graph, Node

from .editor import Editor

__all__ = ["fuse_dynamic_quantize"]

_EIGHT_BITS = (np.dtype(np.uint8), np.dtype(np.int8))


def fuse_dynamic_quantize(graph: Graph) -> Graph:
    """Replaces dynamically quantised matrix products by `lepton.DynamicQuantizeMatMul`."""
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key == "MatMulInteger":
            _matmul(editor, node)
    return editor.finish()


def _matmul(editor: Editor, node: Node) -> None:
    a, b, a_zero, b_zero = [*node.inputs, "", ""][:4]
    source, weights = editor.producer(a), editor.array(b)
    if source is None or source.key != "DynamicQuantizeLinear":
        return
    if source.outputs[::2] != [a, a_zero]:
        return
    if weights is None or weights.ndim != 2 or weights.dtype not in _EIGHT_BITS:
        return
    columns = int(weights.shape[1])
    if weights.size == 0 or (b_zero and not _is_vector(editor, b_zero, columns)):
        return
    cast = editor.only_reader(node.outputs[0])
    if cast is None or cast.key != "Cast" or editor.dtype(cast.outputs[0]) != np.float32:
        return
    scale = editor.only_reader(cast.outputs[0])
    if scale is None or scale.key != "Mul":
        return
    both = editor.producer(_other(scale, cast.outputs[0]))
    if both is None or both.key != "Mul" or source.outputs[1] not in both.inputs:
        return
    b_scale = _other(both, source.outputs[1])
    if not _is_vector(editor, b_scale, columns) or editor.dtype(b_scale) != np.float32:
        return
    inputs = [source.inputs[0], b, b_scale, b_zero]
    editor.replace([node, cast, scale], "DynamicQuantizeMatMul", inputs, scale.outputs, lepton=True)
    editor.drop_unread(both, source)


def _other(node: Node, name: str) -> str:
    return node.inputs[1] if node.inputs[0] == name else node.inputs[0]


def _is_vector(editor: Editor, name: str, columns: int) -> bool:
    """Whether a constant holds one entry, or one per column."""
    array = editor.array(name)
    return array is not None and array.ndim <= 1 and array.size in (1, columns)
