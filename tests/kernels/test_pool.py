"""Pooling, both layouts, against ONNX Runtime and exact integer NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness import run_op
from onnx_oracle import channels_first, channels_last, run_onnx

CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "3x3 s2 p1": ((2, 64, 15, 14), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
    "2x2 s2": ((1, 7, 8, 8), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "asymmetric": (
        (1, 33, 9, 11),
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 1, 2, 0]},
    ),
    "ceil": (
        (1, 17, 12, 13),
        {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    ),
    "same upper": (
        (1, 5, 10, 7),
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "same lower": (
        (1, 40, 10, 7),
        {"kernel_shape": [4, 2], "strides": [3, 2], "auto_pad": "SAME_LOWER"},
    ),
    "1-D": ((3, 9, 50), {"kernel_shape": [5], "strides": [3], "pads": [2, 1]}),
    "3-D": (
        (1, 16, 5, 6, 7),
        {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2], "pads": [1, 1, 0, 0, 1, 1]},
    ),
    "large window": ((1, 32, 13, 13), {"kernel_shape": [13, 13]}),
}
DILATED = {
    "dilated": (
        (1, 19, 12, 12),
        {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [2, 1, 2, 1], "strides": [1, 2]},
    )
}


def check(op: str, shape: tuple[int, ...], attrs: dict[str, Any], isa: str, **more: Any) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape).astype(np.float32)
    expected = run_onnx(op, [x], {**attrs, **more})
    for threads in (1, 2):
        (y,) = run_op(op, [x], {**attrs, **more}, isa=isa, threads=threads)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
        (last,) = run_op(
            f"lepton.{op}", [channels_last(x)], {**attrs, **more}, isa=isa, threads=threads
        )
        np.testing.assert_allclose(channels_first(last), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [*CASES, *DILATED])
def test_max_f32(case: str, isa: str) -> None:
    check("MaxPool", *{**CASES, **DILATED}[case], isa)


@pytest.mark.parametrize("case", [*CASES, *DILATED])
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_average_f32(case: str, count_include_pad: int, isa: str) -> None:
    check("AveragePool", *{**CASES, **DILATED}[case], isa, count_include_pad=count_include_pad)


@pytest.mark.parametrize("case", ["3x3 s2 p1", "1-D", "3-D"])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp(case: str, p: int, isa: str) -> None:
    check("LpPool", *CASES[case], isa, p=p)


@pytest.mark.parametrize("shape", [(2, 70, 7, 7), (1, 3, 5), (2, 4, 3, 2, 5), (1, 8, 1, 1)])
@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global(op: str, shape: tuple[int, ...], isa: str) -> None:
    check(op, shape, {}, isa)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("channels", [1, 16, 31, 32, 33, 64, 100])
def test_max_8_bit(dtype: str, channels: int, isa: str) -> None:
    rng = np.random.default_rng(channels)
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max + 1, (2, channels, 9, 8)).astype(dtype)
    x[0, 0] = info.min
    attrs = {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    expected = run_onnx("MaxPool", [x.astype(np.float32)], attrs)
    (y,) = run_op("MaxPool", [x], attrs, outputs=[dtype], isa=isa)
    np.testing.assert_array_equal(y, expected)
    (y,) = run_op("lepton.MaxPool", [channels_last(x)], attrs, outputs=[dtype], isa=isa)
    np.testing.assert_array_equal(channels_first(y), expected)


def requantize(total: Any, cells: Any, scales: tuple[float, float], zero: int, dtype: str) -> Any:
    """The definition in pool.h, in float32 step by step."""
    x_scale, y_scale = np.float32(scales[0]), np.float32(scales[1])
    scale = x_scale / (y_scale * np.asarray(cells, np.float32))
    q = np.rint(total.astype(np.float32) * scale).astype(np.int64) + zero
    info = np.iinfo(dtype)
    return np.clip(q, info.min, info.max).astype(dtype)


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("dtypes", [("uint8", "uint8"), ("int8", "int8"), ("uint8", "int8")])
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_qlinear_average(
    case: str, dtypes: tuple[str, str], count_include_pad: int, isa: str
) -> None:
    shape, attrs = CASES[case]
    rng = np.random.default_rng(3)
    info = np.iinfo(dtypes[0])
    x = rng.integers(info.min, info.max + 1, shape).astype(dtypes[0])
    x_zero, y_zero, scales = info.min + 100, np.iinfo(dtypes[1]).min + 140, (0.037, 0.021)
    attrs = {**attrs, "count_include_pad": count_include_pad}
    # Exact sums: averages of integers in float64, times the number of averaged cells.
    centred = x.astype(np.float32) - x_zero
    mean = run_onnx("AveragePool", [centred], attrs)
    ones = run_onnx("AveragePool", [np.ones_like(centred)], {**attrs, "count_include_pad": 1})
    taps = int(np.prod(attrs["kernel_shape"]))
    fused = {
        **attrs,
        "x_scale": [scales[0]],
        "y_scale": [scales[1]],
        "x_zero_point": x_zero,
        "y_zero_point": y_zero,
    }
    (y,) = run_op(
        "lepton.QLinearAveragePool", [channels_last(x)], fused, outputs=[dtypes[1]], isa=isa
    )
    real = np.float32(scales[0]) * mean
    out = np.iinfo(dtypes[1])
    pipeline = np.clip(np.rint(real / np.float32(scales[1])) + y_zero, out.min, out.max)
    assert np.abs(channels_first(y).astype(np.int64) - pipeline).max() <= 1
    if "ceil_mode" not in attrs and "auto_pad" not in attrs:
        cells = np.rint(ones * taps) if not count_include_pad else np.full_like(ones, taps)
        total = np.rint(mean.astype(np.float64) * cells).astype(np.int64)
        expected = requantize(total, cells, scales, y_zero, dtypes[1])
        np.testing.assert_array_equal(channels_first(y), expected)


@pytest.mark.parametrize("shape", [(2, 7, 7, 70), (1, 49, 16), (3, 200, 5), (1, 1, 1, 33)])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_qlinear_reduce_mean(shape: tuple[int, ...], dtype: str, keepdims: int, isa: str) -> None:
    rng = np.random.default_rng(5)
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max + 1, shape).astype(dtype)
    x[..., 0] = info.max
    zero, scales = info.min + 3, (0.05, 0.04)
    axes = tuple(range(1, len(shape) - 1))
    attrs = {
        "axes": list(axes),
        "keepdims": keepdims,
        "x_scale": [scales[0]],
        "y_scale": [scales[1]],
        "x_zero_point": zero,
        "y_zero_point": 128 + info.min,
    }
    total = (x.astype(np.int64) - zero).sum(axes, keepdims=bool(keepdims))
    cells = np.prod([shape[a] for a in axes])
    expected = requantize(total, cells, scales, 128 + info.min, dtype)
    (y,) = run_op("lepton.QLinearReduceMean", [x], attrs, outputs=[dtype], isa=isa, threads=2)
    np.testing.assert_array_equal(y, expected)


def test_mean_over_last_axis(isa: str) -> None:
    x = np.random.default_rng(2).integers(0, 256, (4, 6, 37)).astype(np.uint8)
    attrs = {"axes": [-1], "keepdims": 0, "x_scale": [0.1], "y_scale": [0.1]}
    (y,) = run_op("lepton.QLinearReduceMean", [x], attrs, outputs=["uint8"], isa=isa)
    expected = requantize(x.astype(np.int64).sum(-1), 37, (0.1, 0.1), 0, "uint8")
    np.testing.assert_array_equal(y, expected)


def test_empty_batch(isa: str) -> None:
    x = np.zeros((0, 8, 8, 16), np.float32)
    (y,) = run_op("lepton.MaxPool", [x], {"kernel_shape": [2, 2], "strides": [2, 2]}, isa=isa)
    assert y.shape == (0, 4, 4, 16)


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"kernel_shape": [3, 3], "strides": [0, 1]},
        {"kernel_shape": [3, 3], "strides": [1]},
        {"kernel_shape": [3, 0]},
        {"kernel_shape": [3, 3], "pads": [-1, 0, 0, 0]},
        {"kernel_shape": [3, 3], "pads": [1, 1]},
        {"kernel_shape": [2**40, 2**40]},
        {"kernel_shape": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "auto_pad": "SOMETIMES"},
        {"kernel_shape": [3]},
    ],
)
def test_bad_attributes(attrs: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"kernel|stride|pad|spatial|range"):
        run_op("MaxPool", [np.zeros((1, 1, 4, 4), np.float32)], attrs)
