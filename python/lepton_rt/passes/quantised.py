"""Reading QuantizeLinear and DequantizeLinear around an operator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lepton_rt.graph.ir import Array, Node

from .attributes import int_attr
from .editor import Editor

__all__ = ["Quantised", "dequantised", "quantising_reader", "same_grid"]

_EIGHT_BITS = (np.dtype(np.uint8), np.dtype(np.int8))


@dataclass
class Quantised:
    """The integer side of one QuantizeLinear or DequantizeLinear with constant parameters.

    `data` names the integer tensor; `scale` and `zero_point` name scalars or vectors along `axis`
    that exist as constants.
    """

    node: Node
    data: str
    scale: str
    zero_point: str
    scales: Array
    zero_points: Array
    axis: int

    @property
    def dtype(self) -> np.dtype:
        """Element type of the integer tensor."""
        return self.zero_points.dtype

    @property
    def per_tensor(self) -> bool:
        """Whether one scale stands for the whole tensor."""
        return bool(self.scales.size == 1 and self.zero_points.size == 1)

    @property
    def is_8_bit(self) -> bool:
        """Whether the integers are uint8 or int8."""
        return self.dtype in _EIGHT_BITS


def dequantised(editor: Editor, name: str) -> Quantised | None:
    """What a tensor is the dequantisation of, into float32; None for other tensors."""
    node = editor.producer(name) if name else None
    if node is None or node.key != "DequantizeLinear":
        return None
    dtype = editor.dtype(node.inputs[0])
    return None if dtype is None else _read(editor, node, node.inputs[0], dtype)


def quantising_reader(editor: Editor, name: str) -> Quantised | None:
    """The QuantizeLinear that alone reads a tensor."""
    node = editor.only_reader(name)
    if node is None or node.key != "QuantizeLinear" or node.inputs[0] != name:
        return None
    dtype = editor.dtype(node.outputs[0])
    return None if dtype is None else _read(editor, node, node.outputs[0], dtype)


def _read(editor: Editor, node: Node, data: str, dtype: np.dtype) -> Quantised | None:
    scales = editor.array(node.inputs[1])
    if scales is None or scales.dtype != np.float32 or node.attrs.get("block_size", 0):
        return None
    zero_point = node.inputs[2] if len(node.inputs) > 2 else ""
    if not zero_point:
        zero_point = editor.constant(np.zeros(scales.shape, dtype), f"{node.inputs[1]}_zero_point")
    zero_points = editor.array(zero_point)
    if zero_points is None or zero_points.dtype != dtype or not np.all(scales > 0):
        return None
    axis = int_attr(node, "axis", 1)
    return Quantised(node, data, node.inputs[1], zero_point, scales, zero_points, axis)


def same_grid(a: Quantised, b: Quantised) -> bool:
    """Whether two per-tensor quantisations map the same integers to the same reals."""
    return (
        a.per_tensor
        and b.per_tensor
        and a.dtype == b.dtype
        and float(a.scales.reshape(-1)[0]) == float(b.scales.reshape(-1)[0])
        and int(a.zero_points.reshape(-1)[0]) == int(b.zero_points.reshape(-1)[0])
    )
