"""Block-sparse weights of products: stored without their zero blocks where that pays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np

from lepton_rt import _core
from lepton_rt.graph.ir import Array
from lepton_rt.lower import LowerContext

__all__ = ["Sparse", "pack_sparse", "pack_sparse_f32", "try_sparse", "try_sparse_f32"]

_CACHE_LINE = 64
_DEPTH = 4
_MAX_INDEX = 1 << 16
# Share of blocks up to which the sparse product is the faster one: measured, docs/performance.md.
_PAYS_BELOW = 0.5


class _Limits(NamedTuple):
    """Where float32 products by sparse weights are the faster ones: measured as well."""

    share: float
    """Of blocks, at most."""
    winograd_share: float
    """The same where the dense layer runs by Winograd."""
    depth: int
    """Rows of the matrix, at least."""


_F32_PAYS = {
    "avx512": _Limits(0.6, 0.13, 32),
    "avx2": _Limits(0.7, 0.25, 1),
    "scalar": _Limits(0.7, 0.25, 1),
}


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
    line = _line_of(kernel)
    if line["isa"] != _line_of(context.select("gemm_s8"))["isa"]:
        return Sparse(kernel, None, "")  # the dense kernels of this machine are ahead
    values = b.astype(np.int16)
    if zero is not None:
        values = values - zero.reshape(-1).astype(np.int16)
    width = int(line["nr"])
    blocks = _blocks(values, width)
    share = float(blocks.any(axis=(2, 3)).mean())
    text = f"{share:.0%} of {width}x{_DEPTH} blocks hold weights"
    if share > 0.95 or blocks.shape[1] > _MAX_INDEX or np.abs(values + 0.5).max() > 128:
        return Sparse(kernel, None, "")
    if share > _PAYS_BELOW:
        return Sparse(kernel, None, f"dense: {text}; sparse pays up to {_PAYS_BELOW:.0%}")
    return Sparse(kernel, pack_sparse(values, width), f"sparse: {text}")


def try_sparse_f32(context: LowerContext, b: Array, winograd: bool = False) -> Sparse:
    """The same for a float32 matrix b [k, n], by rows of the kernel's panels.

    winograd: dense, the layer would run by Winograd, which makes fewer products.
    """
    kernel = _core.select_kernel("gemm_f32_sparse", context.isa)
    line = _line_of(kernel)
    width, limits = int(line["nr"]), _F32_PAYS[line["isa"]]
    if (
        context.choice.get("gemm_f32_sparse") == "dense"
        or not limits.depth <= len(b) <= _MAX_INDEX
        or _line_of(context.select("gemm_f32"))["isa"] != line["isa"]
    ):
        return Sparse(kernel, None, "")
    limit = limits.winograd_share if winograd else limits.share
    share = float(_panels(b, width).any(axis=2).mean())
    text = f"{share:.0%} of {width}x1 blocks hold weights"
    if share > 0.95:
        return Sparse(kernel, None, "")
    if share > limit:
        return Sparse(kernel, None, f"dense: {text}; sparse pays up to {limit:.0%}")
    return Sparse(kernel, pack_sparse_f32(b, width), f"sparse: {text}")


def pack_sparse(values: Array, width: int) -> Array:
    """The blob of csrc/ops/gemm_sparse.h for values [k, n] that are int8, as uint8 bytes."""
    blocks = _blocks(values, width)
    held = blocks.any(axis=(2, 3))
    panel, index = np.nonzero(held)
    starts = np.searchsorted(panel, np.arange(len(blocks) + 1)).astype(np.uint32)
    sums = blocks.sum(axis=(1, 3), dtype=np.int64).astype(np.int32)
    parts = [starts, sums, index.astype(np.uint16), blocks[held].astype(np.int8)]
    return np.concatenate([_cache_lines(part) for part in parts])


def pack_sparse_f32(b: Array, width: int) -> Array:
    """The blob of csrc/ops/gemm_sparse.h for float32 b [k, n], as uint8 bytes."""
    panels = _panels(b, width)
    held = panels.any(axis=2)
    panel, index = np.nonzero(held)
    starts = np.searchsorted(panel, np.arange(len(panels) + 1)).astype(np.uint32)
    parts: list[Array] = [starts, index.astype(np.uint16), panels[held]]
    return np.concatenate([_cache_lines(part) for part in parts])


def _panels(b: Array, width: int) -> Array:
    """[k, n] as [panels, k, width], padded with zeros."""
    k, n = b.shape
    padded = np.pad(b, ((0, 0), (0, -n % width))).reshape(k, -1, width)
    return np.ascontiguousarray(padded.transpose(1, 0, 2))


def _blocks(values: Array, width: int) -> Array:
    """[k, n] as [panels, k/4, width, 4], padded with zeros."""
    k, n = values.shape
    padded = np.pad(values, ((0, -k % _DEPTH), (0, -n % width)))
    split = padded.reshape(-(-k // _DEPTH), _DEPTH, -(-n // width), width)
    return np.ascontiguousarray(split.transpose(2, 0, 3, 1))


def _line_of(kernel: str) -> Any:
    return next(cast(Any, line) for line in _core.kernels() if line["name"] == kernel)


def _cache_lines(part: Array) -> Array:
    data = np.ascontiguousarray(part).view(np.uint8).reshape(-1)
    return np.pad(data, (0, -data.size % _CACHE_LINE))
