"""Shape, Range, OneHot, TopK, NonZero … against NumPy and the onnx reference evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness import run_op
from lepton_rt.errors import Error
from onnx_reference import reference

Array = npt.NDArray[Any]
NUMBERS = ["float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64"]


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def one(key: str, inputs: list[Any], attrs: Any = None, dtype: str = "int64", **kw: Any) -> Array:
    arrays = [None if x is None else np.asarray(x) for x in inputs]
    return run_op(key, arrays, attrs, outputs=(dtype,), **kw)[0]


@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 4), (1,) * 8])
def test_shape_and_size(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    np.testing.assert_array_equal(one("Shape", [x]), ints(*shape))
    size = one("Size", [x])
    assert size == x.size
    assert size.shape == ()
    for start, end in [(1, 3), (-2, -1), (2, 1), (-100, 100), (-(1 << 63), (1 << 63) - 1)]:
        got = one("Shape", [x], {"start": start, "end": end})
        want = shape[max(0, start if start >= 0 else start + len(shape)) : end]
        np.testing.assert_array_equal(got, ints(*want))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", 1.5),
        ("float64", 3.0),
        ("float16", 0.15625),
        ("int64", (1 << 53) + 1),
        ("int32", -7),
        ("int8", -128),
        ("uint8", 255),
        ("bool", 1),
        ("float32", None),
    ],
)
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 2)])
def test_constant_of_shape(shape: tuple[int, ...], dtype: str, value: float | None) -> None:
    attrs = None if value is None else {"value": [value]}
    got = one("ConstantOfShape", [ints(*shape)], attrs, dtype)
    np.testing.assert_array_equal(got, np.full(shape, 0 if value is None else value, dtype))


def test_constant_of_shape_rejects() -> None:
    for shape in [ints(-1), ints(1 << 41), ints(1 << 30, 1 << 30), ints(*[1] * 9)]:
        with pytest.raises(Error):
            one("ConstantOfShape", [shape], None, "float32")
    with pytest.raises(Error):  # not exact in the plan's float32
        one("ConstantOfShape", [ints(2)], {"value": [0.1]}, "float64")
    with pytest.raises(Error):
        one("ConstantOfShape", [ints(2)], {"value": [1, 2]}, "int64")


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "float32", "float64"])
@pytest.mark.parametrize("args", [(0, 10, 1), (5, -6, -3), (3, 3, 1), (3, 2, 1), (-4, 9, 5)])
@pytest.mark.parametrize("constant", [True, False])
def test_range(args: tuple[int, int, int], dtype: str, constant: bool) -> None:
    inputs = [np.array(v, dtype) for v in args]
    got = one("Range", inputs, None, dtype, constants=(0, 1, 2) if constant else ())
    np.testing.assert_array_equal(got, np.arange(*args, dtype=dtype))


def test_range_fraction_and_limits() -> None:
    got = one("Range", [np.float32(0.5), np.float32(3), np.float32(0.3)], None, "float32")
    np.testing.assert_allclose(got, np.arange(0.5, 3, 0.3), rtol=1e-6)
    low, high = np.int64(-(1 << 63)), np.int64((1 << 63) - 1)
    got = one("Range", [low, high, high])
    np.testing.assert_array_equal(got, [low, -1, high - 1])
    for args in [(low, high, np.int64(1)), (high, low, np.int64(0))]:
        with pytest.raises(Error):
            one("Range", list(args))
    for limit, delta in [(np.inf, 1.0), (np.nan, 1.0), (1.0, 0.0), (1.0, 1e-30)]:
        with pytest.raises(Error):
            one("Range", [np.float32(0), np.float32(limit), np.float32(delta)], None, "float32")


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "bool", "float64"])
@pytest.mark.parametrize("k", [0, 2, -1, 5, -4, 1 << 62, -(1 << 63)])
def test_eye_like(k: int, dtype: str) -> None:
    x = np.zeros((4, 5), np.float32)
    got = one("EyeLike", [x], {"k": k}, dtype)
    np.testing.assert_array_equal(got, np.eye(4, 5, max(-9, min(9, k)), dtype=dtype))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("index_dtype", ["int64", "int32", "uint8", "float32"])
def test_one_hot(axis: int, index_dtype: str) -> None:
    indices = np.array([[0, 3, 9], [2, 200, 1]]).astype(index_dtype)
    if index_dtype[0] != "u":
        indices[0, 1] = -1
        indices[1, 1] = -6
    values = np.array([2, 5], np.float32)
    got = one("OneHot", [indices, np.int64(5), values], {"axis": axis}, "float32")
    at = axis if axis >= 0 else axis + 3
    depth = np.arange(5).reshape([5 if i == at else 1 for i in range(3)])
    clean = indices.astype(np.int64)
    clean = np.where((clean < 0) & (clean >= -5), clean + 5, clean)
    want = np.where(np.expand_dims(clean, at) == depth, values[1], values[0])
    np.testing.assert_array_equal(got, want)


def test_one_hot_edges() -> None:
    values = np.array([2, 5], np.float32)
    assert one("OneHot", [ints(0, 1), np.int64(0), values], None, "float32").shape == (2, 0)
    nan = np.array([np.nan, np.inf, -1e30], np.float32)
    assert (one("OneHot", [nan, np.int64(3), values], None, "float32") == 2).all()
    for depth in [-1, 1 << 50]:
        with pytest.raises(Error):
            one("OneHot", [ints(0, 1), np.int64(depth), values], None, "float32")
    with pytest.raises(Error):
        one("OneHot", [ints(0), np.int64(2), values], {"axis": 2}, "float32")
    with pytest.raises(Error):
        one("OneHot", [ints(0), np.int64(2), values[:1]], None, "float32")


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [None, 0, 1, -2, 7, -7, 1 << 62, -(1 << 63)])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_trilu(upper: int, k: int | None, dtype: str) -> None:
    x = np.random.default_rng(0).integers(1, 9, (2, 3, 4, 5)).astype(dtype)
    got = one("Trilu", [x] if k is None else [x, np.int64(k)], {"upper": upper}, dtype)
    clipped = max(-9, min(9, k or 0))
    np.testing.assert_array_equal(got, np.triu(x, clipped) if upper else np.tril(x, clipped))


def test_trilu_rejects() -> None:
    with pytest.raises(Error):
        one("Trilu", [np.zeros(3, np.float32)], None, "float32")


@pytest.mark.parametrize("time_axis", [0, 1])
def test_reverse_sequence(time_axis: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 5, 3)).astype(np.float32)
    batch = x.shape[1 - time_axis]
    lengths = rng.integers(1, x.shape[time_axis] + 1, batch)
    attrs = {"time_axis": time_axis, "batch_axis": 1 - time_axis}
    (want,) = reference("ReverseSequence", [x, lengths], attrs)
    np.testing.assert_array_equal(one("ReverseSequence", [x, lengths], attrs, "float32"), want)
    for bad in [lengths * 0 + 99, lengths * 0 - 1, lengths[:-1]]:
        with pytest.raises(Error):
            one("ReverseSequence", [x, bad], attrs, "float32")


def want_top_k(x: Array, k: int, axis: int, largest: int) -> tuple[Array, Array]:
    keys = x.astype(object) * (-1 if largest else 1)
    order = np.argsort(keys, axis, kind="stable")
    index = np.take(order, range(k), axis)
    return np.take_along_axis(x, index, axis), index


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_top_k(axis: int, largest: int, dtype: str, rng: np.random.Generator) -> None:
    x = rng.integers(0, 5, (6, 7, 8)).astype(dtype)  # many ties
    for k in (1, 3, x.shape[axis]):
        values, indices = run_op(
            "TopK", [x, ints(k)], {"axis": axis, "largest": largest}, outputs=(dtype, "int64")
        )
        want_values, want_indices = want_top_k(x, k, axis, largest)
        np.testing.assert_array_equal(values, want_values)
        np.testing.assert_array_equal(indices, want_indices)


def test_top_k_edges() -> None:
    x = np.array([1, np.nan, np.inf, -np.inf, np.nan, 0], np.float32)
    _, indices = run_op("TopK", [x, ints(4)], outputs=("float32", "int64"), threads=2)
    np.testing.assert_array_equal(indices, [1, 4, 2, 0])
    _, indices = run_op("TopK", [x, ints(6)], {"largest": 0}, outputs=("float32", "int64"))
    np.testing.assert_array_equal(indices, [3, 5, 0, 2, 1, 4])
    assert one("TopK", [x, ints(0)], None, "float32").shape == (0,)
    for k in (-1, 7, 1 << 62):
        with pytest.raises(Error):
            one("TopK", [x, ints(k)], None, "float32")
    with pytest.raises(Error):
        one("TopK", [x, ints(1)], {"axis": 1}, "float32")


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bool", "uint8", "int64"])
@pytest.mark.parametrize("shape", [(5,), (3, 4, 5), (0, 3), (1,) * 8])
def test_nonzero(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> None:
    x = (rng.integers(-1, 2, shape) * rng.integers(0, 2, shape)).astype(dtype)
    if np.dtype(dtype).kind == "f":
        x = np.where(x == 0, np.array(-0.0, dtype), x)
    np.testing.assert_array_equal(one("NonZero", [x]), np.stack(np.nonzero(x)))


def test_nonzero_scalar() -> None:
    np.testing.assert_array_equal(one("NonZero", [np.float32(2)]), [[0]])
    assert one("NonZero", [np.float32(0)]).shape == (1, 0)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64"])
def test_compress(axis: int | None, dtype: str, rng: np.random.Generator) -> None:
    x = rng.integers(0, 99, (4, 5, 6)).astype(dtype)
    attrs = {} if axis is None else {"axis": axis}
    for length in (0, 2, 4):
        condition = rng.integers(0, 2, length).astype(bool)
        got = one("Compress", [x, condition], attrs, dtype)
        np.testing.assert_array_equal(got, np.compress(condition, x, axis))


def test_compress_rejects() -> None:
    x = np.zeros((2, 3), np.float32)
    for condition, attrs in [
        (np.ones(3, bool), {"axis": 0}),
        (np.ones(7, bool), {}),
        (np.ones((1, 1), bool), {}),
        (np.ones(1, bool), {"axis": 2}),
    ]:
        with pytest.raises(Error):
            one("Compress", [x, condition], attrs, "float32")
