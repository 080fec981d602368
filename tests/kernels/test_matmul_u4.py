"""lepton.MatMulNBits with digits: activations as integers, against float64."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from harness import run_op
from lepton_rt import _core
from lepton_rt.errors import InputError, ModelError, UnsupportedError
from lepton_rt.lowering.matmul_nbits import group_parts, pack_groups, pack_nbits

Array = npt.NDArray[Any]
Rng = np.random.Generator
KEY = "lepton.MatMulNBits"


def run(
    isa: str,
    a: Array,
    packed: Array,
    sizes: dict[str, Any],
    bias: Array | None = None,
    residual: Array | None = None,
    threads: int = 1,
    **attrs: Any,
) -> Array:
    family = "gemm_s8lut4" if "table" in sizes else "gemm_s8u4"
    kernel = _core.select_kernel(family, isa)
    inputs = [a, packed, bias, residual]
    given = {**sizes, **attrs}
    return run_op(KEY, inputs, given, constants=[1, 2], kernel=kernel, isa=isa, threads=threads)[0]


def draw(
    rng: Rng, k: int, n: int, size: int, digits: int, zero_points: bool
) -> tuple[Array, dict[str, Any], Array]:
    """Packed weights, attributes, and what the weights mean."""
    groups = -(-k // size)
    q = rng.integers(-8, 8, (k, n)).astype(ml_dtypes.int4)
    zero = rng.integers(-8, 8, (groups, n)).astype(ml_dtypes.int4) if zero_points else None
    scale = rng.uniform(0.01, 0.1, (groups, n)).astype(np.float32)
    rows = np.arange(k) // size
    points = 0 if zero is None else zero.astype(np.float32)[rows]
    packed, has = pack_nbits(q, scale, zero, size, 16, 8)
    sizes = {"k": k, "n": n, "bits": 4, "block_size": size, "digits": digits}
    sizes["zero_points"] = int(has)
    return packed, sizes, (q.astype(np.float32) - points) * scale[rows]


def bound(a: Array, real: Array, digits: int) -> float:
    """Each activation is off by half a step of its group's largest; float32 sums the groups."""
    k = a.shape[-1]
    step = 2.0**-22 if digits == 3 else 1 / 254
    worst = np.abs(a).max(initial=1) * np.abs(real).max()
    return float(worst * (k * step / 2 if digits == 1 else k**0.5 * 4 * step))


@pytest.mark.parametrize("a_shape", [(64,), (1, 64), (5, 64), (2, 9, 300), (70, 100), (0, 64)])
@pytest.mark.parametrize("n", [1, 16, 45, 130])
@pytest.mark.parametrize("size", [12, 32, 128, 1000])
@pytest.mark.parametrize("digits", [1, 3])
@pytest.mark.parametrize("zero_points", [False, True])
def test_product(
    isa: str, rng: Rng, a_shape: tuple[int, ...], n: int, size: int, digits: int, zero_points: bool
) -> None:
    k = a_shape[-1]
    packed, sizes, real = draw(rng, k, n, size, digits, zero_points)
    a = rng.normal(size=a_shape).astype(np.float32)
    bias = rng.normal(size=n).astype(np.float32)
    residual = rng.normal(size=(*a_shape[:-1], n)).astype(np.float32)
    exact = np.matmul(a.astype(np.float64), real.astype(np.float64))
    limit = bound(a, real, digits)
    for threads in (1, 2):
        got = run(isa, a, packed, sizes, threads=threads)
        np.testing.assert_allclose(got, exact, rtol=0, atol=limit)
        got = run(isa, a, packed, sizes, bias, residual, threads, min=0.0, max=3.0)
        want = np.clip(exact + bias + residual, 0, 3)
        np.testing.assert_allclose(got, want, rtol=0, atol=limit + 1e-5)


@pytest.mark.parametrize("digits", [1, 3])
@pytest.mark.parametrize("table", [False, True])
def test_bits_depend_on_nothing_but_the_row(rng: Rng, digits: int, table: bool) -> None:
    """Every instruction set, number of rows and number of threads gives the same floats."""
    packed, sizes, _ = draw(rng, 300, 150, 64, digits, zero_points=not table)
    if table:
        sizes["table"] = rng.integers(-128, 128, 16).astype(np.float32)
    a = (rng.normal(size=(21, 300)) * 10.0 ** rng.integers(-3, 3, (21, 1))).astype(np.float32)
    want = run("scalar", a, packed, sizes)
    for isa in _core.usable_isas():
        np.testing.assert_array_equal(run(isa, a, packed, sizes, threads=2), want)
        for m in (1, 2, 3, 7, 8, 9):
            np.testing.assert_array_equal(run(isa, a[:m], packed, sizes), want[:m])


def test_three_digits_err_as_little_as_float32(isa: str, rng: Rng) -> None:
    """On random rows: root mean square error against a float32 product of NumPy's."""
    packed, sizes, real = draw(rng, 2048, 64, 32, 3, zero_points=False)
    a = rng.standard_normal((16, 2048)).astype(np.float32)
    exact = a.astype(np.float64) @ real.astype(np.float64)
    ours = np.square(run(isa, a, packed, sizes) - exact).mean() ** 0.5
    # One chain of additions, as a float kernel has it for a column.
    chain = np.add.accumulate(a[:, :, None] * real[None], axis=1)[:, -1]
    assert ours <= np.square(chain - exact).mean() ** 0.5


def test_table(isa: str, rng: Rng) -> None:
    table = rng.integers(-128, 128, 16).astype(np.float32)
    indices = rng.integers(0, 16, (200, 50)).astype(np.uint8)
    scale = np.full((2, 50), 0.25, np.float32)
    packed = pack_groups(indices, scale, None, 4, 128, 16, 8)
    sizes = {"k": 200, "n": 50, "bits": 4, "block_size": 128, "digits": 3, "table": table}
    a = rng.standard_normal((9, 200)).astype(np.float32)
    exact = a.astype(np.float64) @ (table[indices] * 0.25)
    np.testing.assert_allclose(run(isa, a, packed, sizes), exact, rtol=0, atol=2e-4)


def test_one_hot_rows_read_the_matrix(isa: str, rng: Rng) -> None:
    packed, sizes, real = draw(rng, 40, 37, 16, 3, zero_points=True)
    got = run(isa, np.eye(40, dtype=np.float32), packed, sizes)
    np.testing.assert_array_equal(got, real)


@pytest.mark.parametrize("digits", [1, 3])
@pytest.mark.parametrize("zero_points", [False, True])
def test_infinity_and_nan_pass_through(isa: str, rng: Rng, digits: int, zero_points: bool) -> None:
    packed, sizes, real = draw(rng, 44, 70, 12, digits, zero_points)
    a = rng.standard_normal((10, 44)).astype(np.float32)
    finite = run(isa, a, packed, sizes)
    for row, p, special in ((0, 43, np.inf), (3, 0, -np.inf), (9, 17, np.nan)):
        odd = a.copy()
        odd[row, p] = special
        with np.errstate(invalid="ignore"):
            want = odd[row] @ real
        got = run(isa, odd, packed, sizes)
        np.testing.assert_array_equal(got[row], want)
        np.testing.assert_array_equal(np.delete(got, row, 0), np.delete(finite, row, 0))


def test_rejects_what_does_not_fit(isa: str, rng: Rng) -> None:
    packed, sizes, _ = draw(rng, 64, 20, 32, 3, zero_points=False)
    a = rng.normal(size=(2, 64)).astype(np.float32)
    with pytest.raises(InputError):
        run(isa, a[:, :5], packed, sizes)
    with pytest.raises(InputError):
        run(isa, a, packed, sizes, bias=np.ones(3, np.float32))
    with pytest.raises(InputError):
        run(isa, a, packed, sizes, residual=np.ones((1, 20), np.float32))
    for wrong in ({"k": 65}, {"k": 0}, {"n": 2**40}, {"n": 200}, {"block_size": 0}):
        with pytest.raises(ModelError):
            run(isa, a, packed, {**sizes, **wrong})
    table = np.arange(16, dtype=np.float32)
    for unknown in (
        {"digits": 2},
        {"bits": 8},
        {"k": 4096, "block_size": 4096},
        {"table": table + 0.5},
        {"table": table + 120},
        {"table": table * np.nan},
    ):
        with pytest.raises(UnsupportedError):
            run(isa, a, packed, {**sizes, **unknown})
    with pytest.raises(ModelError):
        run(isa, a, packed, {**sizes, "table": table[:5]})


@pytest.mark.parametrize(
    ("size", "k", "parts"),
    [
        (32, 4096, 1),
        (12, 100, 1),
        (1024, 9000, 1),
        (2048, 9000, 2),
        (1500, 1500, 2),
        (1500, 9000, 0),
    ],
)
def test_large_groups_are_cut(size: int, k: int, parts: int) -> None:
    assert group_parts(size, k) == parts
