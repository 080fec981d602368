"""Winograd's F(2x2, 3x3) in exact integers: its packed weights, and which layers may take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_rt import _core
from lepton_rt.graph.ir import Array

from .winograd import is_plain_3x3

__all__ = ["TILE", "pack_weights", "pays", "product_kernel"]

TILE = 2
"""Outputs per tile and axis; `csrc/ops/winograd_s8.h` has the transforms that run."""

_CHANNELS = 16
# Quads that the direct product visits, in those of dense weights: with fewer it is the faster one.
# Measured, docs/performance.md.
_PAYS_ABOVE = 0.75
# 2G, so that transformed weights are integers and sums of products four times the result.
_G2 = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]])


def product_kernel(preferred: str, visited: float = 1.0) -> str | None:
    """The gemm_s8 kernel of int16 operands to use where `preferred` is best for the direct product.

    visited: `PackedRhs.visited` of the direct product's weights. None where that multiplies four
    bytes in one instruction, or leaves so many zeros out that Winograd, which cannot, is slower.
    """
    if visited < _PAYS_ABOVE:
        return None
    lines = [line for line in _core.kernels() if line["family"] == "gemm_s8"]
    form = next((line["form"] for line in lines if line["name"] == preferred), "u8")
    if form not in ("i16", "u8 runs"):
        return None
    return next(str(line["name"]) for line in lines if line["form"] == "i16")


def is_exact(weights: Array) -> bool:
    """Whether four times any sum of int16 weights [M, C, 3, 3] times ±255 fits int32."""
    largest = np.abs(weights.astype(np.int64)).sum(axis=(1, 2, 3)).max(initial=0)
    return bool(largest * 255 < 2**29)


def pays(
    attrs: Mapping[str, Any], weights: Array, zero_points: Array, shape: tuple[Any, ...]
) -> bool:
    """Whether F(2x2, 3x3) is exact and faster than the direct product for this layer.

    weights: [M, C, 3, 3]; zero_points: one, or one for each of M; shape of X: [N, H, W, C]. Only
    layers whose image size is known qualify; an unknown batch counts as one
    (`docs/performance.md` has the measurements).
    """
    if not is_plain_3x3(attrs, weights) or len(shape) != 4:
        return False
    if not all(isinstance(n, int) for n in shape[1:3]):
        return False
    batch = shape[0] if isinstance(shape[0], int) else 1
    out_channels, in_channels = weights.shape[:2]
    tiles = batch * -(-shape[1] // TILE) * -(-shape[2] // TILE)
    return (
        in_channels % _CHANNELS == 0
        and out_channels % _CHANNELS == 0
        and min(in_channels, out_channels) >= 64
        and tiles >= 48
        and is_exact(_centred(weights, zero_points))
    )


def _centred(weights: Array, zero_points: Array) -> Array:
    wide: Array = weights.astype(np.int16) - zero_points.astype(np.int16).reshape(-1, 1, 1, 1)
    return wide


def pack_weights(kernel: str, weights: Array, zero_points: Array) -> Array:
    """2G w 2Gᵀ of 8-bit [M, C, 3, 3], for a kernel of form i16: int16 [16, M/nr, C/kr, nr, kr]."""
    line = next(line for line in _core.kernels() if line["name"] == kernel)
    nr, kr = int(line["nr"]), int(line["kr"])
    out_channels, in_channels = weights.shape[:2]
    taps = _centred(weights, zero_points).transpose(2, 3, 1, 0).reshape(9, -1)
    products = (np.kron(_G2, _G2) @ taps.astype(np.int32)).astype(np.int16)
    split = products.reshape(16, in_channels // kr, kr, out_channels // nr, nr)
    return np.ascontiguousarray(split.transpose(0, 3, 1, 4, 2))
