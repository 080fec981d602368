"""Scales and zero points: the affine map real = scale · (q - zero_point) of each tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_rt.errors import ModelError

# Scales are kept away from zero and infinity, so that the product of two stays a normal float32.
_MIN_SCALE = 2.0**-60
_MAX_SCALE = 2.0**60
_MAX_BIAS = 2**30  # leaves an int32 accumulator as much room again


@dataclass(frozen=True)
class QuantizedWeight:
    """values int8; scale float32, one per entry along axis, or a single one when axis is None."""

    values: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    axis: int | None


def affine_parameters(low: float, high: float, qmin: int, qmax: int) -> tuple[np.float32, int]:
    """(scale, zero_point) that map [low, high], widened to hold zero, onto qmin … qmax.

    Zero maps to zero_point exactly. A range of zero width gets scale 1 and zero point 0.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return np.float32(1.0), 0
    scale = np.float32(min(max((high - low) / (qmax - qmin), _MIN_SCALE), _MAX_SCALE))
    zero_point = qmin + int(np.rint(-low / float(scale)))
    return scale, min(max(zero_point, qmin), qmax)


def quantize_array(
    array: npt.NDArray[np.floating[Any]], scale: np.float32, zero_point: int, dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """clamp(rint(array / scale) + zero_point), as ONNX QuantizeLinear does it in float32."""
    info = np.iinfo(dtype)
    level = np.rint(np.asarray(array, np.float32) / np.float32(scale)) + np.float32(zero_point)
    clipped: npt.NDArray[Any] = np.clip(level, info.min, info.max).astype(dtype)
    return clipped


def quantize_weight(
    name: str,
    weight: npt.NDArray[np.float32],
    axis: int | None,
    floor: float | npt.NDArray[Any] = 0.0,
    bits: int = 8,
) -> QuantizedWeight:
    """Symmetric int8, -127 … 127 (7 bits: -63 … 63), per entry along axis or tensor (axis None).

    floor: smallest scale allowed, a scalar or one per channel. Raises ModelError on NaN or
    infinity.
    """
    largest = 2 ** (bits - 1) - 1
    if not np.isfinite(weight).all():
        raise ModelError(f"weight {name!r} holds NaN or infinity")
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    peak = np.abs(weight).max(axis=others, initial=0.0).astype(np.float64)
    scale = np.where(peak > 0, peak / largest, 1.0)
    scale = np.clip(np.maximum(scale, floor), _MIN_SCALE, _MAX_SCALE).astype(np.float32)
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    level = np.rint(weight / scale.reshape(shape))
    return QuantizedWeight(np.clip(level, -largest, largest).astype(np.int8), scale, axis)


def bias_scale_floor(bias: npt.NDArray[np.float32], x_scale: np.float32) -> npt.NDArray[np.float64]:
    """The weight scale each channel needs so that its bias fits an int32 with room to spare."""
    return np.abs(bias).astype(np.float64) / (float(x_scale) * _MAX_BIAS)


def quantize_bias(
    bias: npt.NDArray[np.float32], scale: npt.NDArray[np.float32]
) -> npt.NDArray[np.int32]:
    """rint(bias / scale), scale being x_scale · w_scale in float32."""
    level = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    return np.clip(level, -_MAX_BIAS, _MAX_BIAS).astype(np.int32)


def signal_to_noise_db(
    signal: npt.NDArray[np.floating[Any]], other: npt.NDArray[np.floating[Any]]
) -> float:
    """10·log10(power of signal / power of the difference); inf when equal."""
    reference = np.asarray(signal, np.float64)
    noise = float(np.sum(np.square(reference - np.asarray(other, np.float64))))
    power = float(np.sum(np.square(reference)))
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if power > 0 else -math.inf
