"""Every line of the lists gemm_f32lut4 and gemm_f32s8, operands against guard pages."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lepton_rt import _core
from lepton_rt.lowering.matmul_nbits import pack_groups

Array = npt.NDArray[Any]
Line = dict[str, Any]
SHAPES = [(1, 1), (1, 8), (2, 1), (3, 4), (5, 2)]  # groups, rows of a group in units of kr
GAP = 5  # floats between rows of lhs


def lines(*families: str) -> list[Any]:
    allowed = _core.usable_isas()
    return [
        pytest.param(line, id=line["name"])
        for line in _core.kernels()
        if line["family"] in families and line["isa"] in allowed
    ]


class Panel:
    """One panel of random weights, packed and as it is meant."""

    def __init__(
        self, line: Line, rng: np.random.Generator, groups: int, size: int, last: int, zero: bool
    ) -> None:
        self.k = (groups - 1) * size + last
        self.nr, self.group = line["nr"], size
        bits = 4 if line["family"] == "gemm_f32lut4" else 8
        self.table = None
        shape = (self.k, self.nr)
        if bits == 4:
            table = rng.standard_normal(16).astype(np.float32).view(np.uint32) & 0xFFFF0000
            self.table = table.view(np.float32)
            stored = rng.integers(0, 16, shape).astype(np.uint8)
            self.values = self.table[stored]
        else:
            extremes = rng.choice(np.array([-128, 127]), shape)
            signed = np.where(
                rng.random(shape) < 0.3, extremes, rng.integers(-128, 128, shape)
            ).astype(np.int8)
            stored = signed.view(np.uint8)
            self.values = signed.astype(np.float32)
        self.scale = rng.uniform(0.5, 2, (groups, self.nr)).astype(np.float32)
        self.zero = None
        if zero:
            self.zero = rng.integers(-128, 128, (groups, self.nr)).astype(np.int8)
        packed = pack_groups(stored, self.scale, None, bits, size, self.nr, line["kr"])
        self.records = packed[: groups * self.nr * 4 + self.k * self.nr * bits // 8]

    def weights(self) -> Array:
        rows = np.arange(self.k) // self.group
        zero = 0 if self.zero is None else self.zero.astype(np.float64)[rows]
        real: Array = (self.values - zero) * self.scale.astype(np.float64)[rows]
        return real

    def run(self, line: Line, m: int, lhs: Array, at_start: bool) -> Array:
        stride = self.k + GAP
        flat = np.full((m - 1) * stride + self.k, np.nan, np.float32)
        for i in range(m):
            flat[i * stride : i * stride + self.k] = lhs[i]
        starts = np.arange(0, self.k, self.group)
        sums = np.add.reduceat(lhs[:m], starts, axis=1) if self.zero is not None else None
        got = _core.testing.gemm_nbits(
            line["name"],
            m,
            self.k,
            self.group,
            flat,
            stride,
            sums,
            starts.size,
            self.zero,
            self.records,
            self.table,
            at_start,
        )
        return np.asarray(got).reshape(-1, self.nr)[:m]


@pytest.mark.parametrize("line", lines("gemm_f32lut4", "gemm_f32s8"))
@pytest.mark.parametrize("at_start", [False, True])
@pytest.mark.parametrize("zero", [False, True])
def test_tile(line: Line, rng: np.random.Generator, at_start: bool, zero: bool) -> None:
    kr, mr = line["kr"], line["mr"]
    for groups, size in SHAPES:
        for last in {size * kr, kr}:
            panel = Panel(line, rng, groups, size * kr, last, zero)
            lhs = rng.standard_normal((mr, panel.k)).astype(np.float32)
            want = lhs.astype(np.float64) @ panel.weights()
            # A float32 sum of k products errs by about k·eps of the sum of their sizes; the zero
            # points come off a sum of their own.
            scale = np.abs(panel.scale).max() * (np.abs(panel.values).max() + 128 * zero)
            bound = (panel.k + 4) * 2**-23 * scale * np.abs(lhs).sum(axis=1, keepdims=True)
            for m in range(1, mr + 1):
                got = panel.run(line, m, lhs, at_start)
                assert (np.abs(got - want[:m]) <= bound[:m]).all()


@pytest.mark.parametrize("line", lines("gemm_f32lut4", "gemm_f32s8"))
def test_one_row_of_weights_comes_out_exact(line: Line, rng: np.random.Generator) -> None:
    """lhs of a single 1: every value of the table, times its scale, exactly."""
    size = 2 * max(line["kr"], 4)
    panel = Panel(line, rng, 2, size, size, zero=False)
    want = (panel.values * panel.scale[np.arange(panel.k) // size]).astype(np.float32)
    for p in range(panel.k):
        lhs = np.zeros((1, panel.k), np.float32)
        lhs[0, p] = 1
        np.testing.assert_array_equal(panel.run(line, 1, lhs, False)[0], want[p])


@pytest.mark.parametrize("line", lines("gemm_f32lut4", "gemm_f32s8"))
def test_infinity_and_nan_pass_through(line: Line, rng: np.random.Generator) -> None:
    panel = Panel(line, rng, 1, 8, 8, zero=False)
    for special in (np.inf, np.nan):
        lhs = np.ones((1, panel.k), np.float32)
        lhs[0, 3] = special
        with np.errstate(invalid="ignore"):
            want = np.sum(lhs[0][:, None] * panel.weights(), axis=0)
        np.testing.assert_array_equal(panel.run(line, 1, lhs, False)[0], want.astype(np.float32))
