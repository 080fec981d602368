"""8-bit rows requantised in registers: the bits of the product and of the formula after it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lepton_rt import _core

Array = npt.NDArray[Any]
Line = dict[str, Any]

GAP = 77  # what lies between rows of a destination and must still be there afterwards
ROWS = [*range(1, 15), 18, 20, 24, 25, 29]  # full tiles, and every way to make up the rest
SCALES = {"small": [0.25, -0.1, 0.00173], "any": [0.5, 0.1, 7e8, np.nan, np.inf]}
BOUNDS = {"plain": (0, 0, 255), "biased": (120, 0, 255), "clamped": (120, 3, 250)}
FUSED = [
    pytest.param(line, id=line["name"])
    for line in _core.kernels()
    if line["family"] == "gemm_s8_fused" and line["isa"] in _core.usable_isas()
]


def gemm_of(line: Line) -> Line:
    """The gemm_s8 kernel whose panels it reads."""
    (gemm,) = [
        other
        for other in _core.kernels()
        if other["family"] == "gemm_s8"
        and all(other[key] == line[key] for key in ("isa", "form", "nr"))
    ]
    return gemm


def sizes(line: Line, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Rows and columns: every count of rows with every count of registers of columns."""
    nv, nr = gemm_of(line)["nv"], line["nr"]
    columns = [c for w in range(nv, nr + 1, nv) for c in (w, int(rng.integers(w - nv + 1, w + 1)))]
    return list(itertools.product(ROWS, columns))


def operands(line: Line, rng: np.random.Generator, m: int, n: int, k: int) -> Any:
    """lhs, rhs, the packed panel and its width."""
    gemm = gemm_of(line)
    width = -(-n // gemm["nv"]) * gemm["nv"]
    lhs = rng.choice([0, 255, 13, 200], (m, k)).astype(np.uint8)
    rhs = rng.choice([-128, 127, -3, 0, 64], (k, n)).astype(np.int8)
    panel = _core.pack_gemm_s8(gemm["name"], rhs)[4 * width :].view(np.int8)
    return lhs, rhs, panel if line["form"] == "u8 runs" else panel[: k * width], width


@pytest.mark.parametrize("line", FUSED)
@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("at_start", [False, True])
def test_gemm_s8_fused_is_gemm_and_epilogue(
    line: Line, rng: np.random.Generator, scales: str, bounds: str, dtype: str, at_start: bool
) -> None:
    low = int(np.iinfo(dtype).min)
    zero_point, lo, hi = (low + bound for bound in BOUNDS[bounds])
    for m, n in sizes(line, rng):
        k = int(rng.choice((0, 4, 8, 28, 64)))
        lhs, rhs, panel, width = operands(line, rng, m, n, k)
        bias = rng.integers(-9999, 9999, n, dtype=np.int32) if rng.integers(2) else None
        scale = rng.choice(SCALES[scales], n).astype(np.float32)
        stride = n + int(rng.integers(3))
        got = _core.testing.gemm_s8_fused(
            *(line["name"], m, n, width, k, lhs.reshape(-1), panel, bias, scale),
            *((zero_point, lo, hi), np.full((m - 1) * stride + n, GAP, np.uint8)),
            *(stride, at_start),
        )
        sums = lhs.astype(np.int32) @ rhs.astype(np.int32) + (0 if bias is None else bias)
        with np.errstate(invalid="ignore"):
            v = sums.astype(np.float32) * scale
        want = np.clip(np.rint(np.nan_to_num(v, nan=-np.inf)) + zero_point, lo, hi)
        rows = np.full((m, stride), GAP, np.uint8)
        rows[:, :n] = want.astype(np.int64).astype(np.uint8)
        np.testing.assert_array_equal(got, rows.reshape(-1)[: got.size])


@pytest.mark.parametrize("line", [line for line in FUSED if line.values[0]["adds"]])
@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("r_dtype", ["uint8", "int8"])
@pytest.mark.parametrize("at_start", [False, True])
def test_with_a_residual(
    line: Line, rng: np.random.Generator, scales: str, bounds: str, r_dtype: str, at_start: bool
) -> None:
    """The bits of the epilogue that adds it."""
    info = np.iinfo(r_dtype)
    r_scale, r_zero = np.float32(rng.choice([0.31, 3e6])), int(info.min) + 40
    zero_point, lo, hi = BOUNDS[bounds]
    for m, n in sizes(line, rng):
        k, stride = int(rng.choice((4, 28, 64))), n + int(rng.integers(3))
        lhs, rhs, panel, width = operands(line, rng, m, n, k)
        scale = rng.choice(SCALES[scales], n).astype(np.float32)
        size = (m - 1) * stride + n
        residual = rng.integers(info.min, info.max + 1, size).astype(r_dtype)
        room = np.full(size, GAP, np.uint8)
        got = _core.testing.gemm_s8_fused(
            *(line["name"], m, n, width, k, lhs.reshape(-1), panel, None, scale),
            *((zero_point, lo, hi), room, stride, at_start, residual, r_scale, r_zero),
        )
        sums = (lhs.astype(np.int32) @ rhs.astype(np.int32)).reshape(-1)
        constants = {"zero_point": zero_point, "lo": lo, "hi": hi}
        constants |= {"r_scale": r_scale, "r_zero_point": r_zero}
        want = _core.testing.epilogue_s8(
            *("epilogue_s8_requantize_sum_scalar", m, n, sums, n, None, scale, residual, stride),
            *(constants, 0.0, 0.0, room, stride, at_start),
        )
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("line", [line for line in FUSED if line.values[0]["windows"]])
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("at_start", [False, True])
def test_rows_that_are_windows(
    line: Line, rng: np.random.Generator, bounds: str, at_start: bool
) -> None:
    """The bits of the same rows, copied out of the image."""
    for m, n in sizes(line, rng):
        runs, run = int(rng.integers(1, 5)), 4 * int(rng.integers(1, 8))
        pitch, starts = run + int(rng.integers(0, 20)), rng.integers(0, 200, m)
        size = int(starts.max()) + (runs - 1) * pitch + run
        image = rng.integers(0, 256, size).astype(np.uint8)
        places = np.add.outer(np.arange(runs) * pitch, np.arange(run)).reshape(-1)
        _, _, panel, width = operands(line, rng, m, n, runs * run)
        scale = rng.choice(SCALES["small"], n).astype(np.float32)
        room = np.full(m * n, GAP, np.uint8)
        rows = image[np.add.outer(starts, places)].reshape(-1)
        got, want = (
            _core.testing.gemm_s8_fused(
                *(line["name"], m, n, width, runs * run, lhs, panel, None, scale),
                *(BOUNDS[bounds], room, n, at_start),
                windows=windows,
            )
            for lhs, windows in ((image, (starts.tolist(), runs, run, pitch)), (rows, None))
        )
        np.testing.assert_array_equal(got, want)
