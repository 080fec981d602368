"""Factors of channels before a QuantizeLinear as scales of its channels.

Products by powers of two and quotients by scales that they divide have the same bits; kernels read
such scales as they are.
"""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Array, Graph, Node

from .editor import Editor
from .quantised import Quantised, quantising_reader

__all__ = ["differ_by_powers_of_two", "scale_quantize"]

_FARTHEST = 40  # exponents of factors and scales: whatever they make of a float is exact, or 0
_LARGEST = np.float32(2.0**_FARTHEST)


def scale_quantize(graph: Graph) -> Graph:
    """Makes QuantizeLinear of x · factors one of x."""
    editor = Editor(graph)
    for node in editor.nodes():
        target = quantising_reader(editor, node.outputs[0]) if node.key == "Mul" else None
        if target is not None and target.per_tensor and target.is_8_bit:
            _fold(editor, node, target)
    return editor.finish()


def differ_by_powers_of_two(scales: Array) -> bool:
    """Whether a vector of scales holds the first one times powers of two."""
    return scales.ndim == 1 and scales.size > 1 and _are_powers(scales[0] / scales)


def _fold(editor: Editor, node: Node, target: Quantised) -> None:
    for x, name in (node.inputs, node.inputs[::-1]):
        factor, shape = editor.array(name), editor.shape(x)
        if factor is None or factor.ndim != 1 or factor.size < 2 or not shape:
            continue
        if shape[-1] != factor.size or editor.dtype(x) != np.float32 or not _are_powers(factor):
            continue
        scale, zero = target.scales.reshape(()), target.zero_points.reshape(-1)[0]
        if not 1 / _LARGEST < scale < _LARGEST:
            continue
        scales = editor.constant(scale / factor, f"{target.scale}_by_channel")
        zeros = editor.constant(np.full(factor.size, zero), f"{target.zero_point}_by_channel")
        both, operands = [node, target.node], [x, scales, zeros]
        editor.replace(both, "QuantizeLinear", operands, [target.data], {"axis": -1})
        return


def _are_powers(factors: Array) -> bool:
    mantissa, exponent = np.frexp(factors)
    return bool(np.all(mantissa == 0.5) and np.all(np.abs(exponent) <= _FARTHEST))
