"""Winograd's F(4x4, 3x3) and F(2x2, 5x5): which float convolutions take it, and their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_rt.graph.ir import Array, Node

__all__ = ["is_plain_3x3", "pays", "tile_of", "transform_weights"]

_PATCH = 6
"""Inputs per tile and axis; `csrc/ops/winograd_f32.h` has the transforms that run."""

_R = np.sqrt(2.0)
_POINTS = np.array([0, 1 / _R, -1 / _R, _R, -_R])


def _g(taps: int) -> Array:
    """G [6, taps]: rows [1, p, p² …] divided by the product of p's distances to the other points.

    The last row is the point at infinity.
    """
    distances = [np.prod(p - _POINTS[np.arange(5) != i]) for i, p in enumerate(_POINTS)]
    finite = np.vander(_POINTS, taps, increasing=True) / np.array(distances)[:, None]
    return np.vstack([finite, np.eye(taps)[-1]])


def tile_of(weights: Array) -> int:
    """Outputs per tile and axis for weights [M, C, k, k]: 4 for k = 3, 2 for k = 5."""
    return int(_PATCH - weights.shape[2] + 1)


def transform_weights(weights: Array) -> Array:
    """G w Gᵀ of float32 [M, C, k, k], k 3 or 5, computed in float64: float32 [36, C, M]."""
    out_channels, in_channels, k = weights.shape[:3]
    taps = weights.transpose(2, 3, 1, 0).reshape(k * k, -1).astype(np.float64)
    products: Array = (np.kron(_g(k), _g(k)) @ taps).astype(np.float32)
    return products.reshape(-1, in_channels, out_channels)


def is_plain_3x3(attrs: Mapping[str, Any], weights: Array) -> bool:
    """Whether a convolution is 3x3 with stride 1, dilation 1 and one group, over channels-last."""
    return weights.shape[2:] == (3, 3) and _is_plain(attrs)


def _is_plain(attrs: Mapping[str, Any]) -> bool:
    strides, dilations = attrs.get("strides", [1, 1]), attrs.get("dilations", [1, 1])
    return (
        attrs.get("group", 1) == 1
        and [*strides, *dilations] == [1] * 4
        and bool(attrs.get("channels_last", 0))
    )


def pays(node: Node, weights: Array, x_shape: Sequence[Any] | None) -> bool:
    """Whether F(4x4, 3x3) or F(2x2, 5x5) is faster than the direct product for this layer.

    Only layers whose image size is known qualify: the transformed weights are 36 for 9 or 25, and
    reading them must be worth it (`docs/performance.md` has the measurements).
    """
    if weights.shape[2:] not in ((3, 3), (5, 5)) or not _is_plain(node.attrs):
        return False
    if x_shape is None or len(x_shape) != 4:
        return False
    height, width = x_shape[1:3]
    if not isinstance(height, int) or not isinstance(width, int):
        return False
    out_channels, in_channels = weights.shape[:2]
    fewest_pixels = 100 if weights.shape[2] == 3 else 25
    return in_channels >= 16 and out_channels >= 16 and height * width >= fewest_pixels
