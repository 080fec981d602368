"""Flatten before a fully connected layer: the layer's constant weights take the transpose.

Flattening N, H, W, C instead of N, C, H, W permutes the columns. When the flattened tensor reaches
nothing but one MatMul or Gemm with constant weights, the rows of the weights are permuted to match.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_rt.graph.ir import Node, static_dims

from .attributes import int_attr
from .layout_rules import to_channels_last
from .vocabulary import UNARY

if TYPE_CHECKING:
    from .choose_layout import LayoutWalk

__all__ = ["flatten", "permute_weights"]

_LAYERS = {"MatMul", "Gemm", "lepton.MatMul"}


def flatten(walk: LayoutWalk, node: Node) -> bool:
    """Rule for Flatten and Reshape."""
    twin = walk.lazy(node.inputs[0])
    shape = walk.shape(node.inputs[0])
    inner = static_dims(shape[1:]) if shape is not None else None
    if twin is None or inner is None or len(inner) < 2 or not _flattens(walk, node, inner):
        return False
    layer = _layer_after(walk, node.outputs[0])
    if layer is None:
        return False
    columns = np.arange(int(np.prod(inner))).reshape(1, *inner)
    order = columns.transpose(to_channels_last(len(inner) + 1)).reshape(-1)
    walk.row_order[id(layer)] = order
    dims = walk.constant(np.array([0, order.size], np.int64), "shape")
    walk.emit(node, "Reshape", [twin, dims], list(node.outputs))
    return True


def _flattens(walk: LayoutWalk, node: Node, inner: tuple[int, ...]) -> bool:
    """Whether the node makes [N, everything else] of its operand."""
    if node.op == "Flatten":
        return node.attrs.get("axis", 1) == 1
    target = walk.array(node.inputs[1])
    batch = (walk.shape(node.inputs[0]) or (None,))[0]
    if target is None or target.size != 2 or 0 in inner:
        return False
    if int(target[1]) == int(np.prod(inner)):
        return True
    same_batch = int(target[0]) == 0 and not node.attrs.get("allowzero", 0)
    same_batch = same_batch or (isinstance(batch, int) and int(target[0]) == batch)
    return int(target[1]) == -1 and same_batch


def _layer_after(walk: LayoutWalk, name: str) -> Node | None:
    """The layer that alone reads the tensor, through operators that treat all columns alike."""
    while True:
        readers = walk.readers.get(name, [])
        if len(readers) != 1 or name in walk.pinned:
            return None
        node = readers[0]
        if node.key in _LAYERS:
            return node if _has_rows(walk, node, name) else None
        alike = node.key in UNARY or node.op == "Clip"
        if node.key in {"QuantizeLinear", "DequantizeLinear"}:
            scale = walk.array(node.inputs[1])
            alike = scale is not None and scale.ndim == 0
        if not alike or node.inputs[0] != name:
            return None
        name = node.outputs[0]


def _has_rows(walk: LayoutWalk, layer: Node, data: str) -> bool:
    if layer.inputs[0] != data or layer.attrs.get("transA", 0):
        return False
    return _weights(walk, layer) is not None


def _weights(walk: LayoutWalk, layer: Node) -> tuple[Any, Node | None] | None:
    """The constant matrix of a layer, and the DequantizeLinear between it and the layer."""
    name = layer.inputs[1]
    array = walk.array(name)
    if array is not None:
        return (array, None) if array.ndim == 2 else None
    maker = walk.makers.get(name)
    if maker is None or maker.key != "DequantizeLinear" or maker.attrs.get("block_size", 0):
        return None
    array, scale = walk.array(maker.inputs[0]), walk.array(maker.inputs[1])
    if array is None or scale is None or array.ndim != 2:
        return None
    along_rows = int_attr(maker, "axis", 1) % 2 == _row_axis(layer)
    return None if scale.ndim == 1 and scale.size > 1 and along_rows else (array, maker)


def _row_axis(layer: Node) -> int:
    return 1 if layer.attrs.get("transB", 0) else 0


def permute_weights(walk: LayoutWalk, layer: Node) -> list[str]:
    """The operands of a layer whose activations were flattened channels-last."""
    order = walk.row_order[id(layer)]
    found = _weights(walk, layer)
    assert found is not None
    array, maker = found
    name = walk.constant(np.take(array, order, axis=_row_axis(layer)), layer.inputs[1])
    if maker is not None:
        out = walk.fresh(f"{layer.inputs[1]}_nhwc")
        value = walk.graph.value(layer.inputs[1])
        if value is not None:
            walk.graph.values[out] = value
        walk.emit(maker, maker.op, [name, *maker.inputs[1:]], [out], maker.attrs, maker.domain)
        name = out
    return [layer.inputs[0], name, *layer.inputs[2:]]
