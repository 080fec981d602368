"""NumPy evaluators of common operators on constants; each follows the ONNX definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lepton_rt.graph.inference.context import element_dtype
from lepton_rt.graph.inference.shapes import reshape_dims
from lepton_rt.graph.ir import Array, Node

from .attributes import int_attr, ints_attr

__all__ = ["EVALUATORS"]

Inputs = list["Array | None"]
Evaluator = Callable[[Node, Inputs], "list[Array] | None"]
"""Outputs of a node on its inputs (None: omitted); None where the evaluator does not apply."""


def _need(inputs: Inputs, i: int) -> Array:
    array = inputs[i] if i < len(inputs) else None
    if array is None:
        raise ValueError(f"operand {i} is missing")
    return array


def _optional(inputs: Inputs, i: int) -> Array | None:
    return inputs[i] if i < len(inputs) else None


def _plain(function: Callable[..., Any]) -> Evaluator:
    def evaluate(_: Node, inputs: Inputs) -> list[Array]:
        return [np.asarray(function(*(_need(inputs, i) for i in range(len(inputs)))))]

    return evaluate


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    if (b == 0).any():
        raise ValueError("division by zero")
    quotient = np.abs(a) // np.abs(b)
    return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient), a.dtype)


def _cast(node: Node, inputs: Inputs) -> list[Array] | None:
    x, dtype = _need(inputs, 0), element_dtype(int_attr(node, "to", 0))
    if x.dtype.kind not in "biuf" or dtype.kind not in "biuf":
        return None  # strings and types of reduced range have rules of their own
    if x.dtype.kind == "f" and dtype.kind in "iu" and not np.isfinite(x).all():
        return None
    return [x.astype(dtype)]


def _concat(node: Node, inputs: Inputs) -> list[Array]:
    arrays = [_need(inputs, i) for i in range(len(inputs))]
    return [np.concatenate(arrays, int_attr(node, "axis", 0))]


def _gather(node: Node, inputs: Inputs) -> list[Array]:
    data, indices = _need(inputs, 0), _need(inputs, 1)
    return [np.asarray(np.take(data, indices, int_attr(node, "axis", 0)))]


def _slice(_: Node, inputs: Inputs) -> list[Array]:
    data, starts, ends = (_need(inputs, i) for i in range(3))
    axes, steps = _optional(inputs, 3), _optional(inputs, 4)
    places = range(starts.size) if axes is None else axes.tolist()
    strides = [1] * starts.size if steps is None else steps.tolist()
    index: list[slice] = [slice(None)] * data.ndim
    for place, start, end, step in zip(
        places, starts.tolist(), ends.tolist(), strides, strict=True
    ):
        size = data.shape[place]
        # Below the first element, going down, Python has no end but None.
        stop = None if step < 0 and end < -size else end
        index[place] = slice(start, stop, step)
    return [data[tuple(index)]]


def _split(node: Node, inputs: Inputs) -> list[Array]:
    data, sizes, axis = _need(inputs, 0), _optional(inputs, 1), int_attr(node, "axis", 0)
    count = len(node.outputs)
    if sizes is None:
        chunk = -(-data.shape[axis] // count)
        ends = [min(chunk * (i + 1), data.shape[axis]) for i in range(count - 1)]
    else:
        ends = np.cumsum(sizes)[:-1].tolist()
    return np.split(data, ends, axis)


def _squeeze(_: Node, inputs: Inputs) -> list[Array]:
    data, axes = _need(inputs, 0), _optional(inputs, 1)
    return [np.squeeze(data, None if axes is None else tuple(axes.tolist()))]


def _unsqueeze(_: Node, inputs: Inputs) -> list[Array]:
    return [np.expand_dims(_need(inputs, 0), tuple(_need(inputs, 1).reshape(-1).tolist()))]


def _reshape(node: Node, inputs: Inputs) -> list[Array]:
    data, target = _need(inputs, 0), _need(inputs, 1).tolist()
    dims = reshape_dims(data.shape, target, bool(int_attr(node, "allowzero", 0)))
    return [data.reshape(dims)]


def _flatten(node: Node, inputs: Inputs) -> list[Array]:
    data, axis = _need(inputs, 0), int_attr(node, "axis", 1)
    axis += data.ndim if axis < 0 else 0
    return [data.reshape(math.prod(data.shape[:axis]), math.prod(data.shape[axis:]))]


def _transpose(node: Node, inputs: Inputs) -> list[Array]:
    data = _need(inputs, 0)
    return [np.transpose(data, ints_attr(node, "perm", list(range(data.ndim))[::-1]))]


def _constant_of_shape(node: Node, inputs: Inputs) -> list[Array]:
    value = node.attrs.get("value")
    fill = value.reshape(-1)[0] if isinstance(value, np.ndarray) else np.float32(0)
    # One element seen at every place: no memory until something packs it.
    return [np.broadcast_to(fill, tuple(_need(inputs, 0).tolist()))]


def _range(_: Node, inputs: Inputs) -> list[Array]:
    start, limit, delta = (_need(inputs, i).reshape(()) for i in range(3))
    count = max(0, math.ceil((float(limit) - float(start)) / float(delta)))
    return [np.asarray(start + np.arange(count).astype(start.dtype) * delta, start.dtype)]


def _expand(_: Node, inputs: Inputs) -> list[Array]:
    data, target = _need(inputs, 0), tuple(_need(inputs, 1).tolist())
    return [np.broadcast_to(data, np.broadcast_shapes(data.shape, target))]


def _reduce(function: Callable[..., Any]) -> Evaluator:
    def evaluate(node: Node, inputs: Inputs) -> list[Array] | None:
        data, axes = _need(inputs, 0), _optional(inputs, 1)
        keep = bool(int_attr(node, "keepdims", 1))
        if axes is None or not axes.size:
            if int_attr(node, "noop_with_empty_axes", 0):
                return [data]
            return [np.asarray(function(data, axis=None, keepdims=keep), data.dtype)]
        return [np.asarray(function(data, axis=tuple(axes.tolist()), keepdims=keep), data.dtype)]

    return evaluate


def _quantize_linear(node: Node, inputs: Inputs) -> list[Array] | None:
    x, scale, zero = _need(inputs, 0), _need(inputs, 1), _optional(inputs, 2)
    dtype = np.dtype(np.uint8) if zero is None else zero.dtype
    known = x.dtype == np.float32 and dtype.name in ("uint8", "int8", "uint16", "int16")
    if not known or int_attr(node, "block_size", 0) or int_attr(node, "output_dtype", 0):
        return None
    axis = int_attr(node, "axis", 1)
    shape = [1] * x.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    limits = np.iinfo(dtype)
    q = np.rint(x / scale.reshape(shape if scale.size > 1 else ()))
    if zero is not None:
        q = q + zero.astype(np.float32).reshape(shape if zero.size > 1 else ())
    return [np.clip(q, limits.min, limits.max).astype(dtype)]


EVALUATORS: dict[str, Evaluator] = {
    "Identity": _plain(lambda x: x),
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "Sub": _plain(np.subtract),
    "Mul": _plain(np.multiply),
    "Div": _plain(_divide),
    "Neg": _plain(np.negative),
    "Sqrt": _plain(np.sqrt),
    "Reciprocal": _plain(lambda x: x.dtype.type(1) / x),
    "Floor": _plain(np.floor),
    "Ceil": _plain(np.ceil),
    "Not": _plain(np.logical_not),
    "And": _plain(np.logical_and),
    "Or": _plain(np.logical_or),
    "Equal": _plain(np.equal),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Where": _plain(np.where),
    "Tile": _plain(lambda x, repeats: np.tile(x, repeats.tolist())),
    "Size": _plain(lambda x: np.array(x.size, np.int64)),
    "Cast": _cast,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Expand": _expand,
    "ReduceSum": _reduce(np.sum),
    "ReduceProd": _reduce(np.prod),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "QuantizeLinear": _quantize_linear,
}
