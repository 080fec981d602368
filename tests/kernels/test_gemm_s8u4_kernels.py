"""Every line of the lists gemm_s8u4, gemm_s8lut4 and split_row, operands against guard pages."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lepton_rt import _core
from lepton_rt.lowering.matmul_nbits import pack_groups

Array = npt.NDArray[Any]
Line = dict[str, Any]
Rng = np.random.Generator
ORDER = [0, 2, 1, 3, 4, 6, 5, 7]  # rows of eight, as their digits stand
LIMIT = 127 * 65536 + 127 * 256 + 127


def lines(*families: str) -> list[Any]:
    allowed = _core.usable_isas()
    return [
        pytest.param(line, id=line["name"])
        for line in _core.kernels()
        if line["family"] in families and line["isa"] in allowed
    ]


def joined(sums: Array) -> Array:
    """Sums of digits [..., digits] as the kernels join them: each step rounds once to float32."""
    v = sums[..., -1].astype(np.float32)
    for d in range(sums.shape[-1] - 2, -1, -1):
        # A product with 256 is exact and both terms fit float64.
        v = (v.astype(np.float64) * 256 + sums[..., d].astype(np.float32)).astype(np.float32)
    return v


def fused(a: Array, b: Array, c: Array) -> Array:
    """a·b + c of float32, rounded once as far as float64 holds the sum."""
    return (a.astype(np.float64) * b + c).astype(np.float32)


class Product:
    """Four panels of random weights and rows of digits, packed and as they are meant."""

    def __init__(
        self, line: Line, rng: Rng, m: int, digits: int, k: int, group: int, zero: bool
    ) -> None:
        self.m, self.digits, self.k, self.group = m, digits, k, group
        self.starts = np.arange(0, k, group)
        n, groups = 4 * line["nr"], self.starts.size
        self.table = None
        stored = rng.integers(0, 16, (k, n)).astype(np.uint8)
        stored[:, :3] = [0, 8, 15]
        self.values = stored.astype(np.int64)
        if line["family"] == "gemm_s8lut4":
            self.table = rng.integers(0, 256, 16).astype(np.uint8)
            self.table[[0, 15]] = [0, 255]
            self.values = self.table[stored].astype(np.int64)
        self.scale = rng.uniform(0.5, 2, (groups, n)).astype(np.float32)
        points = np.zeros((groups, n), np.int8)
        if zero:
            points = rng.integers(-128, 128, (groups, n)).astype(np.int8)
        packed = pack_groups(stored, self.scale, points if zero else None, 4, group, 16, 8)
        panels = packed.reshape(4, -1)
        self.stride = panels.shape[1]
        zero_bytes = -(-groups * 16 // 64) * 64 if zero else 0
        record_bytes = groups * 64 + k * 8
        ends = 3 * self.stride
        self.weights = packed[zero_bytes : zero_bytes + ends + record_bytes]
        self.zero = packed.view(np.int8)[: ends + groups * 16] if zero else None
        self.points = points
        self.lhs = rng.integers(-128, 128, (m, k, digits))
        self.lhs[0] = rng.choice([-128, 127], (k, digits))
        self.start = rng.integers(-(2**20), 2**20, (groups, m, digits)).astype(np.int32)
        self.lhs_scale = rng.uniform(0.5, 2, (groups, m)).astype(np.float32)
        self.lhs_sum = rng.integers(-(2**20), 2**20, (groups, m)).astype(np.float32)

    def want(self) -> Array:
        """dst [m, n], in the kernels' order of operations."""
        y = np.zeros((self.m, self.values.shape[1]), np.float32)
        for g, at in enumerate(self.starts):
            rows = slice(at, at + self.group)
            sums = np.einsum("ipd,pj->ijd", self.lhs[:, rows], self.values[rows])
            v = joined(sums + self.start[g][:, None, :])
            if self.zero is not None:
                v = fused(-self.points[g].astype(np.float32)[None], self.lhs_sum[g][:, None], v)
            y = fused(v, self.lhs_scale[g][:, None] * self.scale[g][None], y)
        return y

    def run(self, line: Line, panels: int, at_start: bool) -> Array:
        blocks = self.lhs.reshape(self.m, -1, 8, self.digits)[:, :, ORDER]
        got = _core.testing.gemm_s8u4(
            line["name"],
            self.m,
            self.digits,
            self.k,
            self.group,
            panels,
            self.stride,
            np.ascontiguousarray(blocks.transpose(1, 0, 3, 2).astype(np.int8)),
            self.start,
            self.lhs_scale,
            self.lhs_sum if self.zero is not None else None,
            self.zero,
            self.weights,
            self.table,
            at_start,
        )
        return np.asarray(got).reshape(line["mr"], -1)[: self.m]


@pytest.mark.parametrize("line", lines("gemm_s8u4", "gemm_s8lut4"))
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("digits", [1, 3])
def test_tile(line: Line, rng: Rng, zero: bool, digits: int) -> None:
    """Bit for bit, save where float64 rounds a fused sum twice."""
    for k, group in [(8, 8), (24, 8), (32, 32), (72, 32), (168, 128), (1024, 1024)]:
        for m in range(1, line["mr"] + 1):
            product = Product(line, rng, m, digits, k, group, zero)
            want = product.want()
            for panels, at_start in ((4, False), (4, True), (3, False), (1, False)):
                got = product.run(line, panels, at_start)[:, : panels * line["nr"]]
                np.testing.assert_allclose(got, want[:, : got.shape[1]], rtol=2**-23)


@pytest.mark.parametrize("family", ["gemm_s8u4", "gemm_s8lut4"])
@pytest.mark.parametrize("digits", [1, 3])
def test_every_kernel_gives_the_same_bits(family: str, rng: Rng, digits: int) -> None:
    """And a row of one tile the same as in a tile of its own."""
    kernels = [parameter.values[0] for parameter in lines(family)]
    for m in (1, 2, 3, 5, 8):
        product = Product(kernels[0], rng, m, digits, 168, 64, zero=m % 2 == 0)
        results = [product.run(line, 4, False) for line in kernels]
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])
        last = m - 1
        product.m, product.lhs = 1, product.lhs[last:]
        product.start = np.ascontiguousarray(product.start[:, last:])
        product.lhs_scale = np.ascontiguousarray(product.lhs_scale[:, last:])
        product.lhs_sum = np.ascontiguousarray(product.lhs_sum[:, last:])
        for line in kernels:
            np.testing.assert_array_equal(product.run(line, 4, False)[0], results[0][last])


def row(rng: Rng, k: int) -> Array:
    """Floats of many sizes, with zeros, denormals and the largest."""
    x = rng.standard_normal(k) * 10.0 ** rng.integers(-12, 12, k)
    kinds = rng.integers(0, 12, k)
    x[kinds == 0] = 0
    x[kinds == 1] = 1e-41
    x[kinds == 2] = np.finfo(np.float32).max
    return x.astype(np.float32)


@pytest.mark.parametrize("line", lines("split_row"))
@pytest.mark.parametrize("digits", [1, 3])
def test_split_row(line: Line, rng: Rng, digits: int) -> None:
    for k, group in [(1, 1), (5, 8), (8, 8), (64, 32), (75, 32), (70, 12), (300, 128)]:
        for x in (row(rng, k), rng.standard_normal(k).astype(np.float32), np.zeros(k, np.float32)):
            padded = -(-group // 8) * 8
            for at_start in (False, True):
                got = _core.testing.split_row(line["name"], digits, group, padded, 3, x, at_start)
                check_split(x, group, padded, digits, *got)
                assert got[4]


def check_split(
    x: Array,
    group: int,
    padded: int,
    digits: int,
    packed: Array,
    start: Array,
    scale: Array,
    total: Array,
    finite: bool,
) -> None:
    rows = packed[:, :, np.argsort(ORDER)].transpose(0, 2, 1).reshape(-1, digits).astype(np.int64)
    for g, at in enumerate(range(0, x.size, group)):
        part = x[at : at + group].astype(np.float64)
        part[~np.isfinite(part)] = 0
        digit = rows[g * padded : g * padded + padded]
        assert not digit[part.size :].any()
        sums = digit.sum(axis=0)
        np.testing.assert_array_equal(start[g], -3 * sums)
        assert total[g] == joined(sums)
        v = (digit[: part.size] * 256 ** np.arange(digits)).sum(axis=1)
        largest = np.abs(part).max()
        if digits == 1:
            factor = np.float32(127) / np.float32(largest) if largest >= 2.0**-100 else 0
            assert scale[g] == np.float32(largest) / np.float32(127)
            want = np.rint((part.astype(np.float32) * np.float32(factor)).astype(np.float64))
        else:
            factor = 1 / np.float64(scale[g])
            assert np.frexp(factor)[0] == 0.5  # a power of two
            assert largest * factor <= LIMIT
            assert factor == 2.0**126 or largest * factor * 2 > LIMIT
            want = np.rint(part * factor)
        np.testing.assert_array_equal(v, want)


@pytest.mark.parametrize("line", lines("split_row"))
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_counts_as_zero(line: Line, rng: Rng, special: float) -> None:
    for at in (0, 9, 42):
        x = rng.standard_normal(43).astype(np.float32)
        x[at] = special
        got = _core.testing.split_row(line["name"], 3, 16, 16, 3, x, False)
        assert not got[4]
        check_split(x, 16, 16, 3, *got)


@pytest.mark.parametrize("digits", [1, 3])
def test_every_split_gives_the_same_bits(rng: Rng, digits: int) -> None:
    names = [parameter.values[0]["name"] for parameter in lines("split_row")]
    for k in (40, 333):
        x = row(rng, k)
        first, *others = (
            _core.testing.split_row(name, digits, 32, 32, 8, x, False) for name in names
        )
        for other in others:
            for a, b in zip(first, other):
                np.testing.assert_array_equal(a, b)
