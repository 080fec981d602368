"""8-bit tiles requantised in registers: the bits of the product and of the formula after it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from lepton_rt import _core

GAP = 77  # what lies between rows of a destination and must still be there afterwards
FUSED = [
    pytest.param(line, id=line["name"])
    for line in _core.kernels()
    if line["family"] == "gemm_s8_fused" and line["isa"] in _core.usable_isas()
]


def gemm_of(line: dict[str, Any]) -> dict[str, Any]:
    """The gemm_s8 kernel whose panels it reads."""
    (gemm,) = [
        other
        for other in _core.kernels()
        if other["family"] == "gemm_s8"
        and all(other[key] == line[key] for key in ("isa", "form", "nr"))
    ]
    return gemm


@pytest.mark.parametrize("line", FUSED)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("at_start", [False, True])
def test_gemm_s8_fused_is_gemm_and_epilogue(
    line: dict[str, Any], rng: np.random.Generator, dtype: str, at_start: bool
) -> None:
    gemm, low = gemm_of(line), int(np.iinfo(dtype).min)
    zero_point, lo, hi = low + 120, low + 3, low + 250
    depths = (0, 4, 8, 28, 64)
    for m, n in itertools.product(range(1, line["narrow_mr"] + 1), range(1, line["nr"] + 1)):
        width = -(-n // gemm["nv"]) * gemm["nv"]
        if m > line["mr"] and 2 * width > line["nr"]:
            continue
        k = int(rng.choice(depths))
        lhs = rng.choice([0, 255, 13, 200], (m, k)).astype(np.uint8)
        rhs = rng.choice([-128, 127, -3, 0, 64], (k, n)).astype(np.int8)
        panel = _core.pack_gemm_s8(gemm["name"], rhs)[4 * width :].view(np.int8)
        if line["form"] != "u8 runs":
            panel = panel[: k * width]
        bias = rng.integers(-9999, 9999, n, dtype=np.int32) if rng.integers(2) else None
        scale = rng.choice([0.5, 0.25, 0.1, 0.00173, np.nan, np.inf], n).astype(np.float32)
        stride = n + int(rng.integers(3))
        got = _core.testing.gemm_s8_fused(
            line["name"],
            m,
            n,
            width,
            k,
            lhs.reshape(-1),
            panel,
            bias,
            scale,
            (zero_point, lo, hi),
            np.full((m - 1) * stride + n, GAP, np.uint8),
            stride,
            at_start,
        )
        sums = lhs.astype(np.int32) @ rhs.astype(np.int32) + (0 if bias is None else bias)
        with np.errstate(invalid="ignore"):
            v = sums.astype(np.float32) * scale
        want = np.clip(np.rint(np.nan_to_num(v, nan=-np.inf)) + zero_point, lo, hi)
        rows = np.full((m, stride), GAP, np.uint8)
        rows[:, :n] = want.astype(np.int64).astype(np.uint8)
        np.testing.assert_array_equal(got, rows.reshape(-1)[: got.size])


@pytest.mark.parametrize("line", [line for line in FUSED if line.values[0]["adds"]])
@pytest.mark.parametrize("r_dtype", ["uint8", "int8"])
@pytest.mark.parametrize("at_start", [False, True])
def test_with_a_residual(
    line: dict[str, Any], rng: np.random.Generator, r_dtype: str, at_start: bool
) -> None:
    """The bits of the epilogue that adds it."""
    gemm, info = gemm_of(line), np.iinfo(r_dtype)
    r_scale, r_zero = np.float32(0.31), int(info.min) + 40
    for m, n in itertools.product(range(1, line["narrow_mr"] + 1), range(1, line["nr"] + 1)):
        width = -(-n // gemm["nv"]) * gemm["nv"]
        if m > line["mr"] and 2 * width > line["nr"]:
            continue
        k, stride = int(rng.choice((4, 28, 64))), n + int(rng.integers(3))
        lhs = rng.choice([0, 255, 13, 200], (m, k)).astype(np.uint8)
        rhs = rng.choice([-128, 127, -3, 0, 64], (k, n)).astype(np.int8)
        panel = _core.pack_gemm_s8(gemm["name"], rhs)[4 * width :].view(np.int8)[: k * width]
        scale = rng.choice([0.5, 0.25, 0.1, 0.00173, np.nan, np.inf], n).astype(np.float32)
        size = (m - 1) * stride + n
        residual = rng.integers(info.min, info.max + 1, size).astype(r_dtype)
        room = np.full(size, GAP, np.uint8)
        got = _core.testing.gemm_s8_fused(
            *(line["name"], m, n, width, k, lhs.reshape(-1), panel, None, scale, (120, 3, 250)),
            *(room, stride, at_start, residual, r_scale, r_zero),
        )
        sums = (lhs.astype(np.int32) @ rhs.astype(np.int32)).reshape(-1)
        constants = {"zero_point": 120, "lo": 3, "hi": 250}
        constants |= {"r_scale": r_scale, "r_zero_point": r_zero}
        want = _core.testing.epilogue_s8(
            *("epilogue_s8_requantize_sum_scalar", m, n, sums, n, None, scale, residual, stride),
            *(constants, 0.0, 0.0, room, stride, at_start),
        )
        np.testing.assert_array_equal(got, want)
