"""Constant right-hand sides of products; of 8-bit ones the kernel is chosen from their values."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import numpy as np

from lepton_rt import _core
from lepton_rt.graph.ir import Array
from lepton_rt.lower import LowerContext

from .sparse import try_sparse

__all__ = ["FULL_RANGE", "PackedRhs", "pack_all", "pack_float_rhs", "pack_rhs"]

FULL_RANGE = 255
"""The largest activation as uint8 where nothing in the graph proves less."""

_FORMS_BY_RANGE = ("u8", "u8 pairs", "u8 runs", "i16")
"""Where one instruction set has several, each holds what those before it hold."""

Operand = tuple[Array, "Array | None"]
"""b [..., k, n] and its zero points (1, n or batch * n entries, None: 0)."""


@dataclass
class PackedRhs:
    """A packed operand, the kernel it is packed for, and what was proved about it."""

    kernel: str
    data: Array
    note: str
    visited: float = 1.0
    """Quads that are multiplied, in those of a dense matrix: zeros are left out, others split."""


def pack_float_rhs(context: LowerContext, b: Array, note: str = "") -> PackedRhs:
    """Packs dense float32 b [..., k, n], as bfloat16 where the session wants that."""
    if context.precision == "bf16":
        kernel = context.select("gemm_bf16")
        note = "; ".join(filter(None, [note, "weights as bfloat16"]))
        return PackedRhs(kernel, _core.pack_gemm_bf16(kernel, b), note)
    kernel = context.select("gemm_f32")
    return PackedRhs(kernel, _core.pack_gemm_f32(kernel, b), note)


def pack_rhs(
    context: LowerContext, b: Array, zero_points: Array | None, bound: int = FULL_RANGE
) -> PackedRhs:
    """Packs uint8 or int8 b [..., k, n] for activations of at most `bound` as uint8.

    A single matrix with many blocks of zeros is packed without them.
    """
    sparse = None
    if int(np.prod(b.shape[:-2])) == 1 and context.choice.get("gemm_s8_sparse") != "dense":
        sparse = try_sparse(context, b.reshape(b.shape[-2:]), zero_points)
    if sparse is not None and sparse.packed is not None:
        return PackedRhs(sparse.kernel, sparse.packed, sparse.note)
    (packed,) = pack_all(context, [[(b, zero_points)]], bound)
    if sparse is not None and sparse.note:
        packed.note = "; ".join(filter(None, [sparse.note, packed.note]))
    return packed


def pack_all(
    context: LowerContext,
    operands: Sequence[Sequence[Operand]],
    bound: int = FULL_RANGE,
    few_rows: bool = False,
) -> list[PackedRhs]:
    """Packs operands that share one kernel, each of them one or several matrices in a row.

    few_rows: the other operand mostly has one to three.
    """
    parts = [(np.ascontiguousarray(b), zeros) for operand in operands for b, zeros in operand]
    if "gemm_s8" in context.choice:
        with suppress(ValueError):  # it cannot hold these values
            return [_pack(context.choice["gemm_s8"], operand, bound) for operand in operands]
    kernel = _common_kernel(context.isa, parts, bound, few_rows)
    return [_pack(kernel, operand, bound) for operand in operands]


def _common_kernel(isa: str, parts: Sequence[Operand], bound: int, few_rows: bool) -> str:
    """The kernel for all of them: what one of them cannot have, none gets."""
    chosen = [_core.choose_gemm_s8(isa, b, zeros, bound, few_rows) for b, zeros in parts]
    return max(chosen, key=lambda name: _FORMS_BY_RANGE.index(_forms()[name]))


def _pack(kernel: str, operand: Sequence[Operand], bound: int) -> PackedRhs:
    parts = [(np.ascontiguousarray(b), zeros) for b, zeros in operand]
    packed = [_core.pack_gemm_s8(kernel, b, zeros, bound) for b, zeros in parts]
    if _forms()[kernel] != "u8 runs":
        return PackedRhs(kernel, np.concatenate(packed), _note_of(kernel, bound))
    columns = _columns()[kernel]
    strides = [
        data.size // (-(-b.shape[-1] // columns) * int(np.prod(b.shape[:-2])))
        for data, (b, _) in zip(packed, parts, strict=True)
    ]
    if len(set(strides)) > 1:  # panels of one operand are equally far apart
        stride = max(strides)
        packed = [_core.pack_gemm_s8(kernel, b, zeros, bound, stride) for b, zeros in parts]
    counts = dict.fromkeys(("dense", "runs4", "runs2", "runs1"), 0)
    for data, (b, _) in zip(packed, parts, strict=True):
        k, n, matrices = b.shape[-2], b.shape[-1], int(np.prod(b.shape[:-2]))
        for key, count in _core.gemm_run_statistics(kernel, k, n, matrices, data).items():
            counts[key] += count
    visited = counts["runs4"] + counts["runs2"] + counts["runs1"]
    ratio = visited / max(counts["dense"], 1)
    return PackedRhs(kernel, np.concatenate(packed), _runs_note(counts, bound), ratio)


def _runs_note(counts: dict[str, int], bound: int) -> str:
    """Shares of the quads (four rows, eight columns) by how many are summed in 16 bits."""
    visited = max(counts["runs4"] + counts["runs2"] + counts["runs1"], 1)
    share = {r: 100 * counts[f"runs{r}"] / visited for r in (4, 2, 1)}
    extra = 100 * (visited / max(counts["dense"], 1) - 1)
    return (
        f"16-bit sums of 4, 2, 1 quads: {share[4]:.0f}, {share[2]:.0f}, {share[1]:.0f} %; "
        f"{extra:+.0f} % quads; activations <= {bound}"
    )


def _note_of(kernel: str, bound: int) -> str:
    pairs = f"16-bit sums of pairs; activations <= {bound}"
    return {"i16": "weights as int16", "u8 pairs": pairs}.get(_forms()[kernel], "")


@cache
def _forms() -> dict[str, str]:
    """Form of every gemm_s8 kernel, in order of preference."""
    return {line["name"]: line["form"] for line in _core.kernels() if line["family"] == "gemm_s8"}


@cache
def _columns() -> dict[str, int]:
    return {line["name"]: line["nr"] for line in _core.kernels() if line["family"] == "gemm_s8"}
