"""Attributes that every epilogue takes: clamps, scales and zero points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from lepton_rt.graph.ir import Array, Node
from lepton_rt.lower import LowerContext
from lepton_rt.plan import StepAttr

__all__ = ["Requantisation", "activation_bounds", "clamp", "requantisation"]


def activation_bounds(node: Node) -> tuple[float, float]:
    """[min, max] of the node's fused activation; infinite where it does not bound."""
    activation = node.attrs.get("activation", "")
    if activation == "Relu":
        return 0.0, np.inf
    if activation == "Clip":
        low, high = cast(Any, node.attrs["activation_params"])
        return float(low), float(high)
    return -np.inf, np.inf


def clamp(node: Node) -> dict[str, StepAttr]:
    """The activation as attributes `min` and `max` of a float result."""
    low, high = activation_bounds(node)
    attrs: dict[str, StepAttr] = {}
    if low > -np.inf:
        attrs["min"] = low
    if high < np.inf:
        attrs["max"] = high
    return attrs


@dataclass
class Requantisation:
    """How the integer accumulators of a layer become its result."""

    scale: Array
    """float32, per channel or a single one."""
    attrs: dict[str, StepAttr]


def requantisation(node: Node, context: LowerContext) -> Requantisation | None:
    """Scales and zero points of a QLinear layer (operands as in the lepton domain's table).

    None when a parameter is not constant, or an 8-bit residual comes without scales.
    """
    operands = [*node.inputs, *[""] * (14 - len(node.inputs))]
    parameters = {index: context.constant(operands[index]) for index in _PARAMETERS}
    if any(operands[i] and array is None for i, array in parameters.items()):
        return None
    x_scale, w_scale = parameters[1], parameters[4]
    if x_scale is None or w_scale is None:
        return None
    scale = np.float32(x_scale.reshape(-1)[0]) * w_scale.astype(np.float32).reshape(-1)
    q, residual, out = (_grid(parameters[i], parameters[i + 1]) for i in (6, 10, 12))
    if not operands[9]:
        return Requantisation(scale, clamp(node)) if q is None else _rounded(node, scale, q)
    if q is None and residual is None and out is None:
        return Requantisation(scale, clamp(node))
    if residual is None or out is None:
        return None
    if q is None:
        return _added(node, scale, residual, out)
    return _rounded_and_added(node, scale, q, residual, out)


_PARAMETERS = (1, 2, 4, 5, 6, 7, 10, 11, 12, 13)


@dataclass
class _Grid:
    """One scale and zero point of a tensor; the latter's dtype is the tensor's."""

    scale: np.float32
    zero: Any


def _grid(scale: Array | None, zero_point: Array | None) -> _Grid | None:
    if scale is None:
        return None
    zero = np.uint8(0) if zero_point is None else zero_point.reshape(-1)[0]
    return _Grid(np.float32(scale.reshape(-1)[0]), zero)


def _rounded(node: Node, scale: Array, out: _Grid) -> Requantisation:
    low, high = _integer_bounds(node, out)
    attrs: dict[str, StepAttr] = {"y_zero_point": int(out.zero), "lo": low, "hi": high}
    return Requantisation(scale / out.scale, attrs)


def _added(node: Node, scale: Array, residual: _Grid, out: _Grid) -> Requantisation:
    """Product and residual in units of the result: only their sum is rounded."""
    result = _rounded(node, scale, out)
    r_scale = float(residual.scale / out.scale)
    result.attrs.update(r_scale=r_scale, r_zero_point=int(residual.zero))
    return result


def _rounded_and_added(
    node: Node, scale: Array, q: _Grid, residual: _Grid, out: _Grid
) -> Requantisation:
    """The product is rounded to q before the residual is added."""
    limits = np.iinfo(q.zero.dtype)
    low, high = _integer_bounds(node, out)
    attrs: dict[str, StepAttr] = {
        "y_zero_point": int(q.zero),
        "lo": int(limits.min),
        "hi": int(limits.max),
        "q_scale": float(q.scale),
        "r_scale": float(residual.scale),
        "r_zero_point": int(residual.zero),
        "out_scale": float(out.scale),
        "out_zero_point": int(out.zero),
        "out_lo": low,
        "out_hi": high,
    }
    return Requantisation(scale / q.scale, attrs)


def _integer_bounds(node: Node, grid: _Grid) -> tuple[int, int]:
    """The activation as a clamp of integers: each bound quantised as a value would be."""
    limits = np.iinfo(grid.zero.dtype)

    def quantised(bound: float) -> int:
        with np.errstate(over="ignore"):
            steps = float(np.rint(np.float32(bound) / grid.scale)) + float(grid.zero)
        return int(min(max(steps, limits.min), limits.max))

    low, high = activation_bounds(node)
    return quantised(low), quantised(high)
