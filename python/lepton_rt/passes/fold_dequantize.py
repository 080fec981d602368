"""DequantizeLinear of a constant that no integer operator took: its real values as a constant."""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Array, Graph, Node

from .attributes import int_attr
from .editor import Editor

__all__ = ["fold_dequantize"]


def fold_dequantize(graph: Graph) -> Graph:
    """Replaces every remaining DequantizeLinear of constants by its result."""
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key != "DequantizeLinear" or editor.pinned(node.outputs[0]):
            continue
        integers, scale = editor.array(node.inputs[0]), editor.array(node.inputs[1])
        zero_name = node.inputs[2] if len(node.inputs) > 2 else ""
        zero = editor.array(zero_name) if zero_name else None
        if integers is None or scale is None or (zero_name and zero is None):
            continue
        name = editor.constant(_dequantize(node, integers, scale, zero), node.outputs[0])
        editor.redirect(node.outputs[0], name)
        editor.remove(node)
    return editor.finish()


def _dequantize(node: Node, integers: Array, scale: Array, zero: Array | None) -> Array:
    """(x − zero point) · scale, per tensor, along an axis, or in blocks along an axis."""
    axis = int_attr(node, "axis", 1)
    block = int_attr(node, "block_size", 0)

    def spread(parameter: Array) -> Array:
        if parameter.size == 1:
            return parameter.reshape(())
        if block:
            return np.repeat(parameter, block, axis=axis).take(
                range(integers.shape[axis]), axis=axis
            )
        dims = [1] * integers.ndim
        dims[axis] = -1
        return parameter.reshape(dims)

    real = integers.astype(np.float32)
    if zero is not None:
        real = real - spread(zero).astype(np.float32)
    return np.asarray(real * spread(scale).astype(np.float32), scale.dtype)
