"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear, lepton.Lookup against their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from harness import run_op

Array = np.ndarray[Any, Any]
TYPES = ["uint8", "int8", "uint16", "int16"]


def quantize(x: Array, scale: Array, zero_point: Array) -> Array:
    """saturate(rint(x / scale) + zero_point) in float32."""
    info = np.iinfo(zero_point.dtype)
    with np.errstate(all="ignore"):
        q = np.rint(x / scale) + zero_point.astype(np.float32)
        return np.clip(q, info.min, info.max).astype(zero_point.dtype)


def check_quantize(
    x: Array, scale: Array, zp: Array | None, axis: int, dtype: str, isa: str, view: Any = ...
) -> None:
    ins = [x, scale] if zp is None else [x, scale, zp]
    got = run_op("QuantizeLinear", ins, {"axis": axis}, outputs=(dtype,), isa=isa)[0]
    zeros = np.zeros_like(scale, dtype) if zp is None else zp
    np.testing.assert_array_equal(got, quantize(x, scale[view], zeros[view]))


@pytest.mark.parametrize("dtype", TYPES)
def test_quantize_per_tensor(dtype: str, isa: str, rng: np.random.Generator) -> None:
    info = np.iinfo(dtype)
    x = np.concatenate([rng.normal(0, s, 700) for s in (1e-3, 1, 100, 1e5)]).astype(np.float32)
    x = np.concatenate([x, np.array([np.inf, -np.inf, 3e38, -3e38, 0, -0.0], np.float32)])
    halves = (np.arange(-300, 300, dtype=np.float32) + 0.5) * np.float32(0.037)  # ties
    for zp in (None, info.min, info.max, int(info.max) // 3):
        point = None if zp is None else np.array(zp, dtype)
        check_quantize(x, np.array(0.037, np.float32), point, 1, dtype, isa)
        check_quantize(halves, np.array([0.037], np.float32), point, 1, dtype, isa)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_quantize_per_axis(dtype: str, axis: int, isa: str, rng: np.random.Generator) -> None:
    x = rng.normal(0, 3, (4, 19, 5, 7)).astype(np.float32)
    n = x.shape[axis]
    scale = rng.uniform(0.01, 0.1, n).astype(np.float32)
    info = np.iinfo(dtype)
    zp = rng.integers(info.min, info.max, n, dtype)
    view = tuple(slice(None) if d == axis % 4 else None for d in range(4))
    check_quantize(x, scale, zp, axis, dtype, isa, view)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("width", [2, 31, 32, 33, 64, 100])
@pytest.mark.parametrize("first", [0.037, 1e-30])
def test_quantize_channels_by_powers_of_two(
    dtype: str, width: int, first: float, isa: str, rng: np.random.Generator
) -> None:
    """Constant scales that one scale and a factor of each channel stand for, and others."""
    powers = np.exp2(rng.integers(-9, 9, width)).astype(np.float32)
    scale = np.float32(first) * powers
    x = (rng.normal(0, 60, (700, width)) * scale).astype(np.float32)
    x[::7] = (np.rint(x[::7] / scale) + np.float32(0.5)) * scale  # ties
    x[3, :2] = np.nan, np.inf
    for odd in (1, 1.5):
        scale[-1] *= np.float32(odd)
        for zeros in (None, np.full(width, 77, dtype), rng.integers(0, 127, width, dtype)):
            for threads in (1, 2):
                (got,) = run_op(
                    "QuantizeLinear", [x, scale, zeros], {"axis": -1}, constants=(1, 2),
                    outputs=(dtype,), isa=isa, threads=threads,
                )  # fmt: skip
                want = quantize(x, scale, np.zeros(width, dtype) if zeros is None else zeros)
                want[3, 0] = np.iinfo(dtype).min
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("scale", [0.037, 1.0, 3.3e-5, 1e-39, 1e-30, 1e30, 3e38, 0.1, 1 / 3])
def test_near_ties(scale: float, isa: str, rng: np.random.Generator) -> None:
    """A few ulp around every half-integer multiple of the scale, beside ordinary values."""
    s = np.float32(scale)
    with np.errstate(all="ignore"):
        ties = ((np.arange(-70000, 70000, 7, dtype=np.float64) + 0.5) * s).astype(np.float32)
        ordinary = (rng.normal(0, 300, 20000) * s).astype(np.float32)
    near = np.concatenate([ties.view(np.int32) + d for d in range(-3, 4)]).view(np.float32)
    x = np.concatenate([near, ordinary])
    x = rng.permutation(x[np.isfinite(x)])
    for dtype in ("uint8", "int16"):
        check_quantize(x, np.asarray(s), np.asarray(5, dtype), 1, dtype, isa)


def test_nan_is_the_low_end(isa: str) -> None:
    x = np.full(19, np.nan, np.float32)
    got = run_op("QuantizeLinear", [x, np.float32(1), np.int8(3)], outputs=("int8",), isa=isa)[0]
    np.testing.assert_array_equal(got, np.full(19, -128, np.int8))


def test_quantize_is_one_definition(rng: np.random.Generator) -> None:
    """Every float32 pattern gives the same integer on every ISA."""
    x = rng.integers(0, 2**32, 60000, np.uint64).astype(np.uint32).view(np.float32)
    scale = np.abs(rng.normal(0, 1, 60000)).astype(np.float32)
    text = {"program": "Quantize r0 r1 #7 #-128 #127"}
    results = [
        run_op("lepton.Elementwise", [x, scale], text, outputs=("int8",), isa=isa)[0]
        for isa in ("scalar", None)
    ]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("dtype", [*TYPES, "int32"])
@pytest.mark.parametrize("axis", [None, 0, 2])
def test_dequantize(dtype: str, axis: int | None, isa: str, rng: np.random.Generator) -> None:
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, (3, 5, 21), dtype, endpoint=True)
    shape = () if axis is None else (x.shape[axis],)
    scale = rng.uniform(0.01, 0.1, shape).astype(np.float32)
    point = 0 if dtype == "int32" else rng.integers(info.min, info.max, shape, dtype)
    zp = np.zeros(shape, dtype) + np.asarray(point, dtype)
    view = tuple(slice(None) if d == axis else None for d in range(3)) if axis is not None else ...
    expected = (x.astype(np.int64) - zp[view]).astype(np.float32) * scale[view]
    attrs = {"axis": 1 if axis is None else axis}
    got = run_op("DequantizeLinear", [x, scale, zp], attrs, isa=isa)[0]
    np.testing.assert_array_equal(got, expected)
    got = run_op("DequantizeLinear", [x, scale], attrs, isa=isa)[0]
    np.testing.assert_array_equal(got, x.astype(np.float32) * scale[view])


def test_bad_scale_shape() -> None:
    x = np.zeros((2, 3), np.float32)
    for scale in (np.ones(2, np.float32), np.ones((2, 3), np.float32)):
        with pytest.raises(Exception, match=r"scale|block"):
            run_op("QuantizeLinear", [x, scale], {"axis": 1}, outputs=("uint8",))
    with pytest.raises(Exception, match="scale"):
        run_op("QuantizeLinear", [x, np.ones(2, np.float32)], {"axis": 9}, outputs=("uint8",))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("low, high, n", [(-3, 5, 1000), (2, 9, 17), (-9, -1, 1), (0, 0, 5),
                                          (-1, 1, 200000)])  # fmt: skip
def test_dynamic(
    low: float, high: float, n: int, threads: int, isa: str, rng: np.random.Generator
) -> None:
    x = rng.uniform(low, high, n).astype(np.float32)
    y, scale, zp = run_op(
        "DynamicQuantizeLinear", [x], outputs=("uint8", "float32", "uint8"), isa=isa,
        threads=threads,
    )  # fmt: skip
    lo, hi = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    expected_scale = np.float32(1) if lo == hi else (hi - lo) / np.float32(255)
    expected_zp = np.uint8(np.rint(np.clip(-lo / expected_scale, 0, 255)))
    assert (scale, zp) == (expected_scale, expected_zp)
    np.testing.assert_array_equal(y, quantize(x, expected_scale, np.asarray(expected_zp)))


def test_dynamic_against_the_reference(rng: np.random.Generator) -> None:
    node = onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
    x = rng.normal(0, 2, (3, 40)).astype(np.float32)
    got = run_op("DynamicQuantizeLinear", [x], outputs=("uint8", "float32", "uint8"))
    for a, b in zip(got, ReferenceEvaluator(node).run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("x_type", ["uint8", "int8"])
@pytest.mark.parametrize("y_type", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("threads", [1, 2])
def test_lookup(x_type: str, y_type: str, threads: int, isa: str, rng: np.random.Generator) -> None:
    table = rng.normal(0, 60, 256).astype(y_type)
    x = rng.integers(0, 256, 150001).astype(np.uint8).view(x_type)
    got = run_op("lepton.Lookup", [x, table], constants=(1,), outputs=(y_type,), isa=isa,
                 threads=threads)[0]  # fmt: skip
    np.testing.assert_array_equal(got, table[x.view(np.uint8)])


def test_lookup_needs_256_entries() -> None:
    with pytest.raises(Exception, match="256"):
        run_op("lepton.Lookup", [np.zeros(3, np.uint8), np.zeros(255, np.uint8)],
               outputs=("uint8",))  # fmt: skip


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear"])
def test_zero_point_omitted_by_an_empty_name(op: str, isa: str) -> None:
    """The third operand is there but empty, as exporters may write it."""
    scale = np.array(0.5, np.float32)
    x = np.arange(24).reshape(2, 3, 4)
    if op == "QuantizeLinear":
        (got,) = run_op(op, [x.astype(np.float32), scale, None], outputs=("uint8",), isa=isa)
        np.testing.assert_array_equal(got, (x * 2).astype(np.uint8))
    else:
        (got,) = run_op(op, [x.astype(np.uint8), scale, None], isa=isa)
        np.testing.assert_array_equal(got, (x / 2).astype(np.float32))
