"""Reductions, ArgMax, ArgMin and CumSum against NumPy in higher precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness import run_op

Array = np.ndarray[Any, Any]
OPS: dict[str, Callable[..., Any]] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceL1": lambda x, **k: np.sum(np.abs(x), **k),
    "ReduceL2": lambda x, **k: np.sqrt(np.sum(x * x, **k)),
    "ReduceSumSquare": lambda x, **k: np.sum(x * x, **k),
    "ReduceLogSum": lambda x, **k: np.log(np.sum(x, **k)),
    "ReduceLogSumExp": lambda x, **k: np.log(np.sum(np.exp(x), **k)),
}
CASES = [
    ((7,), (0,)),
    ((3, 1000), (1,)),
    ((3, 1000), (0,)),
    ((4, 300, 20), (1,)),
    ((4, 3, 20), (0, 2)),
    ((2, 8, 7, 9), (2, 3)),
    ((2, 7, 9, 300), (1, 2)),
    ((2, 3, 4, 5, 6), (0, 2, 4)),
    ((2, 3, 4, 5, 6), (1, 3)),
    ((2, 3, 4, 5, 6), (0, 1, 2, 3, 4)),
    ((2, 3, 2, 3, 2, 3, 2, 3), (-1, 2, 4)),
    ((1, 5, 1), (0, 2)),
    ((5, 1), (1,)),
    ((), ()),
]


def data(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> Array:
    if np.dtype(dtype).kind == "f":
        return rng.uniform(0.8, 1.3, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(max(info.min, -50), 50, shape).astype(dtype)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape, axes", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float(
    op: str, shape: tuple[int, ...], axes: tuple[int, ...], dtype: str, isa: str,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    x = data(shape, dtype, rng)
    for keepdims in (0, 1):
        expected = OPS[op](x.astype(np.float64), axis=axes, keepdims=bool(keepdims))
        attrs = {"keepdims": keepdims}
        index = np.array(axes, np.int64)
        got = run_op(op, [x, index], attrs, constants=(1,), outputs=(dtype,), isa=isa)[0]
        np.testing.assert_allclose(got, expected, rtol=2e-6)
        assert got.shape == np.shape(expected)
    if axes:
        got = run_op(op, [x], {"axes": list(axes)}, outputs=(dtype,), isa=isa)[0]
        np.testing.assert_allclose(got, expected, rtol=2e-6)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1",
                                "ReduceSumSquare"])  # fmt: skip
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64"])
@pytest.mark.parametrize("shape, axes", CASES, ids=str)
def test_integers(
    op: str, dtype: str, shape: tuple[int, ...], axes: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = data(shape, dtype, rng)
    if op == "ReduceProd":
        x = x % 3 + 1
    function = OPS[op] if op in ("ReduceMax", "ReduceMin") else lambda v, **k: OPS[op](v, **k)
    expected = function(x, axis=axes, keepdims=True).astype(dtype)
    got = run_op(op, [x, np.array(axes, np.int64)], outputs=(dtype,))[0]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"])
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32"])
def test_integers_through_floats(op: str, dtype: str, rng: np.random.Generator) -> None:
    """The exact result, truncated."""
    x = rng.integers(1, 50, (3, 70, 5)).astype(dtype)
    expected = np.trunc(OPS[op](x.astype(np.float64), axis=1, keepdims=True)).astype(dtype)
    got = run_op(op, [x], {"axes": [1]}, outputs=(dtype,))[0]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_bytes(op: str, dtype: str, rng: np.random.Generator) -> None:
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, (3, 70, 5), dtype, endpoint=True)
    got = run_op(op, [x], {"axes": [1]}, outputs=(dtype,))[0]
    np.testing.assert_array_equal(got, OPS[op](x, axis=1, keepdims=True))


def test_default_axes_and_noop(isa: str, rng: np.random.Generator) -> None:
    x = data((3, 4), "float32", rng)
    got = run_op("ReduceSum", [x], {"keepdims": 0}, isa=isa)[0]
    np.testing.assert_allclose(got, x.sum(), rtol=1e-6)
    none = np.zeros(0, np.int64)
    got = run_op("ReduceSum", [x, none], {"noop_with_empty_axes": 1}, isa=isa)[0]
    np.testing.assert_array_equal(got, x)
    got = run_op("ReduceSum", [x, none], {"keepdims": 0}, constants=(1,), isa=isa)[0]
    np.testing.assert_allclose(got, x.sum(), rtol=1e-6)


def test_accuracy_of_long_sums(isa: str, rng: np.random.Generator) -> None:
    x = rng.uniform(0, 1, 1 << 20).astype(np.float32)
    exact = x.astype(np.float64).sum()
    got = run_op("ReduceSum", [x], {"keepdims": 0}, isa=isa)[0]
    np.testing.assert_allclose(got, exact, rtol=3e-7)
    tall = x.reshape(-1, 16)
    got = run_op("ReduceSum", [tall], {"axes": [0], "keepdims": 0}, isa=isa)[0]
    np.testing.assert_allclose(got, tall.astype(np.float64).sum(0), rtol=5e-7)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), (1, 2)], ids=str)
def test_threads(op: str, axes: tuple[int, ...], isa: str, rng: np.random.Generator) -> None:
    x = data((70, 90, 33), "float32", rng)
    one, two = (run_op(op, [x], {"axes": list(axes)}, isa=isa, threads=t)[0] for t in (1, 3))
    np.testing.assert_array_equal(one, two)


def test_special_values(isa: str) -> None:
    nan, inf = np.nan, np.inf
    rows = np.array([[1, nan, 3], [inf, 1, 2], [-inf, -inf, -inf], [nan, 1, 2], [2, 1, nan]])
    wide = np.tile(rows, (1, 9)).astype(np.float32)
    for op in ("ReduceMax", "ReduceMin", "ReduceSum"):
        expected = OPS[op](wide, axis=1)
        got = run_op(op, [wide], {"axes": [1], "keepdims": 0}, isa=isa)[0]
        np.testing.assert_array_equal(got, expected)
        got = run_op(op, [np.ascontiguousarray(wide.T)], {"axes": [0], "keepdims": 0}, isa=isa)[0]
        np.testing.assert_array_equal(got, expected)
    large = np.array([[1000, 1001, 999], [-inf, -inf, -inf], [-1000, -1001, -1002]], np.float32)
    got = run_op("ReduceLogSumExp", [large], {"axes": [1], "keepdims": 0}, isa=isa)[0]
    np.testing.assert_allclose(got, [1001.407606, -inf, -999.592394], rtol=1e-6)


def test_empty(isa: str) -> None:
    x = np.zeros((3, 0), np.float32)
    for op, expected in (("ReduceSum", 0), ("ReduceProd", 1), ("ReduceMax", -np.inf),
                         ("ReduceMin", np.inf), ("ReduceL2", 0),
                         ("ReduceLogSum", -np.inf)):  # fmt: skip
        got = run_op(op, [x], {"axes": [1]}, isa=isa)[0]
        np.testing.assert_array_equal(got, np.full((3, 1), expected, np.float32))
        assert run_op(op, [x], {"axes": [0], "keepdims": 0}, isa=isa)[0].shape == (0,)


@pytest.mark.parametrize("axes", [[5], [-4], [0, 0]])
def test_bad_axes(axes: list[int]) -> None:
    with pytest.raises(Exception, match=r"ax[ie]s"):
        run_op("ReduceSum", [np.zeros((2, 3, 4), np.float32)], {"axes": axes})


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "int8"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("last", [0, 1])
def test_arg(op: str, dtype: str, axis: int, last: int, rng: np.random.Generator) -> None:
    x = rng.integers(0, 9, (4, 13, 300)).astype(dtype)
    function = np.argmax if op == "ArgMax" else np.argmin
    if last:
        expected = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis)
    else:
        expected = function(x, axis=axis)
    attrs = {"axis": axis, "keepdims": 0, "select_last_index": last}
    got = run_op(op, [x], attrs, outputs=("int64",), threads=2)[0]
    np.testing.assert_array_equal(got, expected)


def test_arg_nan() -> None:
    x = np.array([[1, np.nan, 3, np.nan], [4, 4, 1, 0]], np.float32)
    for op, function in (("ArgMax", np.argmax), ("ArgMin", np.argmin)):
        got = run_op(op, [x], {"axis": 1, "keepdims": 0}, outputs=("int64",))[0]
        np.testing.assert_array_equal(got, function(x, axis=1))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("exclusive, reverse", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_cumsum(
    dtype: str, axis: int, exclusive: int, reverse: int, rng: np.random.Generator
) -> None:
    x = rng.integers(-9, 9, (4, 13, 300)).astype(dtype)
    y = np.flip(x, axis) if reverse else x
    y = np.cumsum(y, axis=axis, dtype=dtype) - (y if exclusive else 0)
    expected = np.flip(y, axis) if reverse else y
    got = run_op("CumSum", [x, np.array(axis, np.int64)],
                 {"exclusive": exclusive, "reverse": reverse}, outputs=(dtype,))[0]  # fmt: skip
    np.testing.assert_array_equal(got, expected)
