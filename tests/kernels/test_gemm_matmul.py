"""lepton.MatMul, MatMul and Gemm against NumPy in float64, through the executor."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness import run_op
from lepton_rt import _core
from lepton_rt.errors import InputError, ModelError, UnsupportedError

Array = npt.NDArray[Any]


def assert_close(got: Array, want: Array, terms: Array) -> None:
    """|got - want| within the bound of a float32 sum whose absolute terms sum to `terms`."""
    eps = np.finfo(np.float32).eps
    assert got.shape == want.shape
    bound = (terms + np.abs(want) + 1e-30) * eps * 64
    worst = float(np.max(np.abs(got - want) / bound, initial=0.0))
    assert worst <= 1.0, f"error {worst:.2f} times the bound"


def product(a: Array, b: Array) -> tuple[Array, Array]:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.matmul(a, b), np.matmul(np.abs(a), np.abs(b))


def pack(isa: str, b: Array) -> tuple[str, Array, dict[str, Any]]:
    kernel = _core.select_kernel("gemm_f32", isa)
    attrs: dict[str, Any] = {"packed": 1, "k": b.shape[-2], "n": b.shape[-1]}
    if b.ndim > 2:
        attrs["batch"] = list(b.shape[:-2])
    return kernel, _core.pack_gemm_f32(kernel, b), attrs


SHAPES = [
    ((3, 4), (4, 5)),
    ((7,), (7, 5)),
    ((6, 7), (7,)),
    ((7,), (7,)),
    ((2, 3, 4), (4, 17)),
    ((2, 3, 4), (2, 4, 17)),
    ((2, 1, 3, 4), (5, 4, 6)),
    ((1, 3, 4), (5, 4, 6)),
    ((5, 1, 4), (1, 4, 6)),
    ((3, 4), (2, 3, 4, 7)),
    ((4,), (2, 4, 7)),
    ((2, 5, 4), (4,)),
    ((2, 5, 4), (2, 4, 1)),
    ((0, 4), (4, 5)),
    ((3, 0), (0, 5)),
    ((3, 4), (4, 0)),
    ((0, 3, 4), (4, 5)),
    ((2, 3, 4), (0, 1, 4, 5)),
    ((25, 33), (33, 35)),
    ((1, 64), (64, 130)),
]


@pytest.mark.parametrize(
    "a_shape, b_shape, b_is",
    [
        (a, b, b_is)
        for a, b in SHAPES
        for b_is in ("run_time", "constant", "packed")
        if b_is != "packed" or len(b) > 1  # lower does not pack vectors
    ],
)
def test_matmul_shapes(
    isa: str, rng: np.random.Generator, a_shape: Any, b_shape: Any, b_is: str
) -> None:
    a = rng.standard_normal(a_shape).astype(np.float32)
    b = rng.standard_normal(b_shape).astype(np.float32)
    want, terms = product(a, b)
    if b_is == "packed":
        kernel, blob, attrs = pack(isa, b)
        (got,) = run_op("lepton.MatMul", [a, blob], attrs, constants=[1], kernel=kernel, isa=isa)
    else:
        constants = [1] if b_is == "constant" else []
        (got,) = run_op("MatMul", [a, b], constants=constants, isa=isa)
    assert_close(got, want, terms)


@pytest.mark.parametrize("m", [1, 5, 6, 7, 12, 25])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 15, 16, 17, 33])
def test_bias_residual_and_clamp(isa: str, rng: np.random.Generator, m: int, n: int) -> None:
    k = 19
    a = rng.standard_normal((m, k)).astype(np.float32)
    b = rng.standard_normal((k, n)).astype(np.float32)
    bias = rng.standard_normal(n).astype(np.float32)
    residual = rng.standard_normal((m, n)).astype(np.float32)
    kernel, blob, attrs = pack(isa, b)
    attrs |= {"min": -1.5, "max": 2.0}
    inputs = [a, blob, bias, residual]
    (got,) = run_op("lepton.MatMul", inputs, attrs, constants=[1, 2], kernel=kernel, isa=isa)
    want, terms = product(a, b)
    assert_close(got, np.clip(want + bias + residual, -1.5, 2.0), terms + np.abs(residual) + 4)
    assert np.any(got == np.float32(-1.5)) or got.size < 50


@pytest.mark.parametrize(
    "shape",
    [(), (1,), (11,), (1, 11), (6, 1), (6, 11), (1, 6, 11), (3, 6, 11), (3, 1, 1), (3, 6, 1)],
)
@pytest.mark.parametrize("b_batch", [(), (3,)])
@pytest.mark.parametrize("beta", [1.0, -0.5])
def test_residual_broadcasts(
    isa: str,
    rng: np.random.Generator,
    shape: tuple[int, ...],
    b_batch: tuple[int, ...],
    beta: float,
) -> None:
    a = rng.standard_normal((3, 6, 5)).astype(np.float32)
    b = rng.standard_normal((*b_batch, 5, 11)).astype(np.float32)
    residual = np.asarray(rng.standard_normal(shape), np.float32)
    (got,) = run_op("lepton.MatMul", [a, b, None, residual], {"beta": beta}, isa=isa, threads=2)
    want, terms = product(a, b)
    assert_close(got, want + beta * residual.astype(np.float64), terms + 4)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c_shape", [None, (), (9,), (7, 1), (7, 9), (1, 9)])
@pytest.mark.parametrize("constants", [[], [1], [1, 2]])
def test_gemm(
    isa: str, rng: np.random.Generator, trans_a: int, trans_b: int, c_shape: Any, constants: Any
) -> None:
    a = rng.standard_normal((5, 7) if trans_a else (7, 5)).astype(np.float32)
    b = rng.standard_normal((9, 5) if trans_b else (5, 9)).astype(np.float32)
    c = None if c_shape is None else np.asarray(rng.standard_normal(c_shape), np.float32)
    attrs = {"alpha": 0.5, "beta": 2.0, "transA": trans_a, "transB": trans_b}
    (got,) = run_op("Gemm", [a, b, c], attrs, constants=constants, isa=isa)
    want, terms = product(a.T if trans_a else a, b.T if trans_b else b)
    want = 0.5 * want + (0 if c is None else 2.0 * c.astype(np.float64))
    assert_close(got, want, terms + 8)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 1, 64), (1, 1, 130, 48)])
def test_transposed_stacks(isa: str, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    *batch, m, k = shape
    a = rng.standard_normal((*batch, k, m)).astype(np.float32)
    b = rng.standard_normal((*batch, 9, k)).astype(np.float32)
    attrs = {"transA": 1, "transB": 1}
    (got,) = run_op("lepton.MatMul", [a, b], attrs, isa=isa, threads=2)
    assert_close(got, *product(np.swapaxes(a, -1, -2), np.swapaxes(b, -1, -2)))


@pytest.mark.parametrize("m, k, n", [(1, 300, 700), (3, 64, 513), (301, 96, 40), (97, 1000, 97)])
def test_thread_count_changes_nothing(
    isa: str, rng: np.random.Generator, m: int, k: int, n: int
) -> None:
    a = rng.standard_normal((m, k)).astype(np.float32)
    b = rng.standard_normal((k, n)).astype(np.float32)
    (one,) = run_op("MatMul", [a, b], isa=isa, threads=1)
    (two,) = run_op("MatMul", [a, b], isa=isa, threads=2)
    (three,) = run_op("MatMul", [a, b], isa=isa, threads=3)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, three)
    assert_close(one, *product(a, b))


def test_nan_passes_the_clamp(isa: str) -> None:
    a = np.array([[np.nan, 1.0], [1.0, 1.0]], np.float32)
    b = np.ones((2, 9), np.float32)
    (got,) = run_op("lepton.MatMul", [a, b], {"min": 0.0, "max": 6.0}, isa=isa)
    assert np.isnan(got[0]).all()
    assert (got[1] == 2).all()


@pytest.mark.parametrize(
    "a_shape, b_shape", [((3, 4), (5, 6)), ((2, 3, 4), (3, 4, 5)), ((), (4, 5)), ((3, 4), ())]
)
def test_shapes_that_do_not_fit(isa: str, a_shape: Any, b_shape: Any) -> None:
    a, b = np.zeros(a_shape, np.float32), np.zeros(b_shape, np.float32)
    with pytest.raises(InputError):
        run_op("MatMul", [a, b], isa=isa)


def test_wrong_bias_and_residual(isa: str) -> None:
    a, b = np.zeros((3, 4), np.float32), np.zeros((4, 5), np.float32)
    with pytest.raises(InputError):
        run_op("lepton.MatMul", [a, b, np.zeros(4, np.float32)], isa=isa)
    with pytest.raises(InputError):
        run_op("lepton.MatMul", [a, b, None, np.zeros((2, 5), np.float32)], isa=isa)
    with pytest.raises(InputError):
        run_op("lepton.MatMul", [a, b, None, np.zeros((1, 3, 5), np.float32)], isa=isa)


@pytest.mark.parametrize(
    "attrs",
    [
        {"k": 4, "n": 40},
        {"k": 5, "n": 5},
        {"k": -1, "n": 5},
        {"k": 2**62, "n": 2**62},
        {"k": 0, "n": 2**62},
        {"k": 4, "n": 5, "batch": [2]},
        {"k": 4, "n": 5, "batch": [2**40, 2**40]},
        {"k": 4, "n": 5, "batch": [1] * 9},
        {"k": 4},
        {},
    ],
)
def test_hostile_packed_attributes(isa: str, attrs: dict[str, Any]) -> None:
    kernel, blob, _ = pack(isa, np.zeros((4, 5), np.float32))
    inputs = [np.zeros((3, 4), np.float32), blob]
    with pytest.raises(ModelError):
        run_op(
            "lepton.MatMul", inputs, {"packed": 1, **attrs}, constants=[1], kernel=kernel, isa=isa
        )


def test_unknown_kernel_and_other_dtypes(isa: str) -> None:
    a, b = np.zeros((3, 4), np.float32), np.zeros((4, 5), np.float32)
    with pytest.raises(ModelError):
        run_op("lepton.MatMul", [a, b], kernel="gemm_f32_none", isa=isa)
    with pytest.raises(UnsupportedError):
        run_op("MatMul", [a.astype(np.float64), b], isa=isa)


@pytest.mark.parametrize("m", [24, 25, 150, 300])
@pytest.mark.parametrize(("k", "n"), [(256, 64), (257, 45), (1030, 700)])
def test_deep_products(isa: str, rng: np.random.Generator, m: int, k: int, n: int) -> None:
    """k in pieces: the same bits however rows and columns are cut, with every operand."""
    a = rng.standard_normal((m, k)).astype(np.float32)
    b = rng.standard_normal((k, n)).astype(np.float32)
    bias = rng.standard_normal(n).astype(np.float32)
    residual = rng.standard_normal((m, n)).astype(np.float32)
    kernel, blob, attrs = pack(isa, b)
    attrs["min"] = [-20.0]

    def run(rows: slice, threads: int) -> Array:
        operands = [a[rows], blob, bias, residual[rows]]
        return run_op(
            "lepton.MatMul", operands, attrs, constants=[1], kernel=kernel, isa=isa, threads=threads
        )[0]

    y = run(slice(None), 1)
    want, terms = product(a, b)
    assert_close(y, np.maximum(want + bias + residual, -20), terms + np.abs(bias + residual))
    np.testing.assert_array_equal(run(slice(None), 2), y)
    np.testing.assert_array_equal(run(slice(None), 3), y)
    np.testing.assert_array_equal(run(slice(2, 9), 1), y[2:9])
