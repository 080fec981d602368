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


def try_sparse(context: LowerContext, b: Array, zero: Array | None) -> Sparse:
    """The matrix b [k, n] (int8 or uint8) less its zero points, if few of its blocks hold anything.

    zero: None, one, or one per column.
    """
    kernel = context.select("gemm_s8_sparse")
    line = next(cast(Any, line) for line in _core.kernels() if line["name"] == kernel)
    if line["isa"] != _isa_of(context.select("gemm_s8")):
        return Sparse(kernel, None, "")  # the dense kernels of this machine are ahead
    values = b.astype(np.int16)
    if zero is not None:
        values = values - zero.reshape(-1).astype(np.int16)
    width = int(line["nr"])
    blocks = _blocks(values, width)
    share = float(blocks.any(axis=(2, 3)).mean())
    text = f"{share:.0%} of {width}x{_DEPTH} blocks hold weights"
    if share > 0.95 or blocks.shape[1] > _MAX_QUADS or np.abs(values + 0.5).max() > 128:
        return Sparse(kernel, None, "")
    if share > _PAYS_BELOW:
        return Sparse(kernel, None, f"dense: {text}; sparse pays up to {_PAYS_BELOW:.0%}")
    return Sparse(kernel, pack_sparse(values, width), f"sparse: {text}")


def pack_sparse(values: Array, width: int) -> Array:
    """The blob of csrc/ops/gemm_sparse.h for values [k, n] that are int8, as uint8 bytes."""
    blocks = _blocks(values, width)
    held = blocks.any(axis=(2, 3))
    panel, index = np.nonzero(held)
    starts = np.searchsorted(panel, np.arange(len(blocks) + 1)).astype(np.uint32)
    sums = blocks.sum(axis=(1, 3), dtype=np.int64).astype(np.int32)
    parts = [starts, sums, index.astype(np.uint16), blocks[held].astype(np.int8)]
    return np.concatenate([_cache_lines(part) for part in parts])


def _blocks(values: Array, width: int) -> Array:
    """[k, n] as [panels, k/4, width, 4], padded with zeros."""
    k, n = values.shape
    padded = np.pad(values, ((0, -k % _DEPTH), (0, -n % width)))
    split = padded.reshape(-(-k // _DEPTH), _DEPTH, -(-n // width), width)
    return np.ascontiguousarray(split.transpose(2, 0, 3, 1))


def _isa_of(kernel: str) -> str:
    return next(str(line["isa"]) for line in _core.kernels() if line["name"] == kernel)


def _cache_lines(part: Array) -> Array:
    data = np.ascontiguousarray(part).view(np.uint8).reshape(-1)
    return np.pad(data, (0, -data.size % _CACHE_LINE))
