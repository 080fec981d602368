"""Block-sparse weights of 8-bit products: stored without their zero blocks where that pays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from lepton_rt import _core
from lepton_rt.graph.ir import Array
from lepton_rt.lower import LowerContext

__all__ = ["Sparse", "pack_sparse", "try_sparse"]

_CACHE_LINE = 64
_DEPTH = 4
_MAX_QUADS = 1 << 16
# Share of blocks up to which the sparse product is the faster one: measured, docs/performance.md.
_PAYS_BELOW = 0.5


@dataclass
class Sparse:
    """A packed operand, or why there is none."""

    kernel: str
    packed: Array | None
    note: str
    """For `explain()`; empty for weights that are not sparse at all."""


def try_sparse(context: LowerContext, b: Array, zero: Array | None, bound: int) -> Sparse:
    """The matrix b [k, n] (int8 or uint8) less its zero points, if few of its blocks hold anything.

    zero: None, one, or one per column. bound: the largest activation as uint8.
    """
    values = b.astype(np.int16)
    if zero is not None:
        values = values - zero.reshape(-1).astype(np.int16)
    kernel = context.select("gemm_s8_sparse")
    line = next(cast(Any, line) for line in _core.kernels() if line["name"] == kernel)
    width = int(line["nr"])
    blocks = _blocks(values, width)
    share = float(blocks.any(axis=(2, 3)).mean())
    text = f"{share:.0%} of {width}x{_DEPTH} blocks hold weights"
    if share > 0.95 or blocks.shape[1] > _MAX_QUADS or np.abs(values + 0.5).max() > 128:
        return Sparse(kernel, None, "")
    if share > _PAYS_BELOW:
        return Sparse(kernel, None, f"dense: {text}; sparse pays up to {_PAYS_BELOW:.0%}")
    return Sparse(
        kernel,
        pack_sparse(values, width, bound if line["kind"] == "bounded" else 0),
        f"sparse: {text}",
    )


def pack_sparse(values: Array, width: int, bound: int) -> Array:
    """The blob of csrc/ops/gemm_sparse.h for values [k, n] that are int8, as uint8 bytes.

    bound: for kernels that are bounded the largest activation; blocks in which it could make the
    sum of a pair of weights overflow int16 are stored as two halves. Else 0.
    """
    blocks = _blocks(values, width)
    held = blocks.any(axis=(2, 3))
    panel, index = np.nonzero(held)
    quads = blocks[held]
    if bound:
        wide = ~_fit_int16(quads, bound)
        repeats = 1 + wide.astype(np.intp)
        half = np.repeat(quads >> 1, repeats, axis=0)
        first = np.cumsum(repeats) - repeats
        half[first] = np.where(wide[:, None, None], quads - (quads >> 1), quads)
        panel, index, quads = np.repeat(panel, repeats), np.repeat(index, repeats), half
    starts = np.searchsorted(panel, np.arange(len(blocks) + 1)).astype(np.uint32)
    sums = blocks.sum(axis=(1, 3), dtype=np.int64).astype(np.int32)
    parts = [starts, sums, index.astype(np.uint16), quads.astype(np.int8)]
    return np.concatenate([_cache_lines(part) for part in parts])


def _blocks(values: Array, width: int) -> Array:
    """[k, n] as [panels, k/4, width, 4], padded with zeros."""
    k, n = values.shape
    padded = np.pad(values, ((0, -k % _DEPTH), (0, -n % width)))
    split = padded.reshape(-(-k // _DEPTH), _DEPTH, -(-n // width), width)
    return np.ascontiguousarray(split.transpose(2, 0, 3, 1))


def _fit_int16(quads: Array, bound: int) -> Array:
    """Per quad [width, 4]: whether bound·(positive part of a pair) and its negative are int16."""
    pairs = quads.reshape(len(quads), quads.shape[1] * _DEPTH // 2, 2)
    above = np.maximum(pairs, 0).sum(axis=2).max(axis=1, initial=0)
    below = np.minimum(pairs, 0).sum(axis=2).min(axis=1, initial=0)
    fits: Array = (bound * above.astype(np.int32) <= 32767) & (
        bound * below.astype(np.int32) >= -32768
    )
    return fits


def _cache_lines(part: Array) -> Array:
    data = np.ascontiguousarray(part).view(np.uint8).reshape(-1)
    return np.pad(data, (0, -data.size % _CACHE_LINE))
