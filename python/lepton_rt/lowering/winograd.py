"""Winograd's F(4x4, 3x3): which float convolutions take it, and their transformed weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_rt.graph.ir import Array, Node

__all__ = ["TILE", "is_plain_3x3", "pays", "transform_weights"]

TILE = 4
"""Outputs per tile and axis; `csrc/ops/winograd_f32.h` has the transforms that run."""

_R = np.sqrt(2.0)
# Rows [1, p, p²] of the points p = 0, ±1/√2, ±√2, divided by the product of p's distances to the
# other points; the last row is the point at infinity.
_G = np.array(
    [
        [1, 0, 0],
        [-2 / 3, -_R / 3, -1 / 3],
        [-2 / 3, _R / 3, -1 / 3],
        [1 / 6, _R / 6, 1 / 3],
        [1 / 6, -_R / 6, 1 / 3],
        [0, 0, 1],
    ]
)


def transform_weights(weights: Array) -> Array:
    """G w Gᵀ of float32 [M, C, 3, 3], computed in float64: float32 [36, C, M]."""
    out_channels, in_channels = weights.shape[:2]
    taps = weights.transpose(2, 3, 1, 0).reshape(9, -1).astype(np.float64)
    products: Array = (np.kron(_G, _G) @ taps).astype(np.float32)
    return products.reshape(-1, in_channels, out_channels)


def is_plain_3x3(attrs: Mapping[str, Any], weights: Array) -> bool:
    """Whether a convolution is 3x3 with stride 1, dilation 1 and one group, over channels-last."""
    strides, dilations = attrs.get("strides", [1, 1]), attrs.get("dilations", [1, 1])
    return (
        weights.shape[2:] == (3, 3)
        and attrs.get("group", 1) == 1
        and [*strides, *dilations] == [1] * 4
        and bool(attrs.get("channels_last", 0))
    )


def pays(node: Node, weights: Array, x_shape: Sequence[Any] | None) -> bool:
    """Whether F(4x4, 3x3) is faster than the direct product for this layer.

    Only layers whose image size is known qualify: the transformed weights are four times as many,
    and reading them must be worth it (`docs/performance.md` has the measurements).
    """
    if not is_plain_3x3(node.attrs, weights) or x_shape is None or len(x_shape) != 4:
        return False
    height, width = x_shape[1:3]
    if not isinstance(height, int) or not isinstance(width, int):
        return False
    out_channels, in_channels = weights.shape[:2]
    return in_channels >= 16 and out_channels >= 16 and height * width >= 100
