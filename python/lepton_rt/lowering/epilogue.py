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

    None when a parameter is not constant.
    """
    operands = [*node.inputs, *[""] * (14 - len(node.inputs))]
    parameters = {index: context.constant(operands[index]) for index in _PARAMETERS}
    if any(operands[i] and array is None for i, array in parameters.items()):
        return None
    x_scale, w_scale, y_scale = parameters[1], parameters[4], parameters[6]
    if x_scale is None or w_scale is None:
        return None
    scale = np.float32(x_scale.reshape(-1)[0]) * w_scale.astype(np.float32).reshape(-1)
    if y_scale is None:
        return Requantisation(scale, clamp(node))
    scale = scale / np.float32(y_scale.reshape(-1)[0])
    q_scale, q_zero = _linear(y_scale, parameters[7])
    attrs: dict[str, StepAttr] = {"y_zero_point": int(q_zero)}
    if not operands[9]:
        attrs["lo"], attrs["hi"] = _integer_bounds(node, q_scale, q_zero)
        return Requantisation(scale, attrs)
    r_scale, r_zero = _linear(cast(Array, parameters[10]), parameters[11])
    out_scale, out_zero = _linear(cast(Array, parameters[12]), parameters[13])
    limits = np.iinfo(q_zero.dtype)
    low, high = _integer_bounds(node, out_scale, out_zero)
    attrs.update(lo=int(limits.min), hi=int(limits.max), q_scale=float(q_scale))
    attrs.update(r_scale=float(r_scale), r_zero_point=int(r_zero))
    attrs.update(out_scale=float(out_scale), out_zero_point=int(out_zero))
    attrs.update(out_lo=low, out_hi=high)
    return Requantisation(scale, attrs)


_PARAMETERS = (1, 2, 4, 5, 6, 7, 10, 11, 12, 13)


def _linear(scale: Array, zero_point: Array | None) -> tuple[Any, Any]:
    zero = np.uint8(0) if zero_point is None else zero_point.reshape(-1)[0]
    return np.float32(scale.reshape(-1)[0]), zero


def _integer_bounds(node: Node, scale: Any, zero: Any) -> tuple[int, int]:
    """The activation as a clamp of integers: each bound quantised as a value would be."""
    limits = np.iinfo(zero.dtype)

    def quantised(bound: float) -> int:
        with np.errstate(over="ignore"):
            steps = float(np.rint(np.float32(bound) / scale)) + float(zero)
        return int(min(max(steps, limits.min), limits.max))

    low, high = activation_bounds(node)
    return quantised(low), quantised(high)
