"""8-bit products of windows of an image: the kernels, and convolutions cut in chunks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from conv_oracle import conv_attrs, convolve, pack_s8, requantize
from harness import run_op
from lepton_rt import _core
from onnx_oracle import channels_last

Array = npt.NDArray[Any]
Line = dict[str, Any]


def lines() -> list[Any]:
    return [
        pytest.param(line, id=line["name"])
        for line in _core.kernels()
        if line["family"] == "gemm_s8_windows" and line["isa"] in _core.usable_isas()
    ]


def extremes(rng: np.random.Generator, shape: Any, low: int, high: int) -> Array:
    x = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 0.4, rng.choice([low, high], shape), x)


@pytest.mark.parametrize("line", lines())
@pytest.mark.parametrize("at_start", [False, True])
def test_tile(line: Line, rng: np.random.Generator, at_start: bool) -> None:
    twin = line["name"].replace("_windows", "")
    nv = next(x["nv"] for x in _core.kernels() if x["name"] == twin)
    shapes = itertools.product(range(1, line["mr"] + 1), range(nv, line["nr"] + 1, nv))
    for m, n in shapes:
        runs, run = int(rng.integers(1, 5)), 4 * int(rng.integers(1, 12))
        pitch, offset = run + int(rng.integers(0, 20)), int(rng.integers(0, 30))
        starts = rng.integers(0, 200, m)
        size = int(starts.max()) + offset + (runs - 1) * pitch + run
        image = extremes(rng, size, 0, 255).astype(np.uint8)
        rhs = extremes(rng, (runs * run, n), -128, 127).astype(np.int8)
        panel = rhs.reshape(-1, 4, n).transpose(0, 2, 1).reshape(-1)
        places = offset + np.add.outer(np.arange(runs) * pitch, np.arange(run)).reshape(-1)
        want = image[np.add.outer(starts, places)].astype(np.int64) @ rhs.astype(np.int64)
        first = rng.integers(-1000, 1000, (m, n)).astype(np.int32)
        for start in (None, first):
            got = _core.testing.gemm_s8_windows(
                line["name"], runs, run, pitch, offset, image, starts, panel, start, at_start
            )
            want_here = want + (0 if start is None else start)
            np.testing.assert_array_equal(got.reshape(m, n), want_here)


GEOMETRY = {  # n, c, h, w, kernel, strides, pads
    "rows of several images": (5, 8, 11, 9, (3, 3), [1, 1], [1, 1, 1, 1]),
    "strides": (3, 4, 29, 31, (3, 3), [2, 2], [1, 1, 1, 1]),
    "ragged": (2, 12, 17, 14, (4, 2), [3, 1], [2, 0, 1, 1]),
    "one row": (3, 16, 1, 70, (1, 5), [1, 2], [0, 2, 0, 2]),
    "deep": (1, 520, 7, 7, (3, 3), [1, 1], [1, 1, 1, 1]),
    "padding alone": (2, 4, 2, 2, (3, 3), [1, 1], [4, 4, 4, 4]),
}


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("threads", [1, 2])
def test_convolution_in_chunks(name: str, dtype: str, threads: int, isa: str) -> None:
    n, c, h, w, kernel, strides, pads = GEOMETRY[name]
    rng = np.random.default_rng(2)
    info = np.iinfo(dtype)
    x = extremes(rng, (n, c, h, w), info.min, info.max).astype(dtype)
    weights = extremes(rng, (70, c, *kernel), -128, 127).astype(np.int8)
    zero = int(info.min) + 7
    bias = rng.integers(-5000, 5000, 70).astype(np.int32)
    packed, chosen = pack_s8(weights, np.zeros(70, np.int8), 1, isa)
    attrs: dict[str, Any] = {"strides": strides, "pads": pads}
    (got,) = run_op(
        "lepton.QLinearConv",
        [channels_last(x), packed, bias],
        conv_attrs(weights, 1, attrs) | {"x_zero_point": zero},
        constants=[1, 2],
        outputs=["int32"],
        kernel=chosen,
        isa=isa,
        threads=threads,
    )
    want = convolve(x.astype(np.int64) - zero, weights.astype(np.int64), **attrs)
    np.testing.assert_array_equal(got, channels_last(want) + bias)


PLANAR = {  # n, c, h, w, kernel, strides, pads
    "seven by seven": (2, 3, 29, 33, (7, 7), [2, 2], [3, 3, 3, 3]),
    "three by three": (3, 3, 20, 15, (3, 3), [2, 2], [1, 1, 0, 0]),
    "whole quads": (1, 2, 17, 23, (2, 8), [1, 3], [0, 2, 1, 5]),
    "one column": (2, 1, 19, 9, (3, 1), [1, 1], [1, 0, 1, 0]),
    "chunks of images": (5, 4, 12, 13, (5, 3), [1, 2], [2, 1, 2, 1]),
}


def planar(w: Array) -> Array:
    """[M, C, rows, columns] to [rows * C * columns up to a multiple of four, M]."""
    wide = np.pad(w, [(0, 0), (0, 0), (0, 0), (0, -w.shape[3] % 4)])
    return np.ascontiguousarray(wide.transpose(2, 1, 3, 0)).reshape(-1, w.shape[0])


@pytest.mark.parametrize("name", PLANAR)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("out", ["uint8", "int32"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("line", lines())
def test_planes_read_as_they_lie(name: str, dtype: str, out: str, threads: int, line: Line) -> None:
    n, c, h, w, kernel, strides, pads = PLANAR[name]
    rng = np.random.default_rng(3)
    info = np.iinfo(dtype)
    x = extremes(rng, (n, c, h, w), info.min, info.max).astype(dtype)
    weights = extremes(rng, (70, c, *kernel), -128, 127).astype(np.int8)
    zero = int(info.min) + 7
    bias = rng.integers(-5000, 5000, 70).astype(np.int32)
    scale = rng.choice([1e-3, 3e-3], 70).astype(np.float32)
    twin = line["name"].replace("_windows", "")
    packed = _core.pack_gemm_s8(twin, planar(weights))
    attrs: dict[str, Any] = {"strides": strides, "pads": pads}
    extra = {"x_zero_point": zero, "y_zero_point": 9, "channels_last": 0, "planar": 1}
    (got,) = run_op(
        "lepton.QLinearConv",
        [x, packed, bias, *([] if out == "int32" else [scale])],
        conv_attrs(weights, 1, attrs) | extra,
        constants=[1, 2, 3][: 3 if out == "uint8" else 2],
        outputs=[out],
        kernel=twin,
        isa=line["isa"],
        threads=threads,
    )
    sums = channels_last(convolve(x.astype(np.int64) - zero, weights.astype(np.int64), **attrs))
    want = sums + bias
    np.testing.assert_array_equal(
        got, want if out == "int32" else requantize(want, scale, 9, 0, 255)
    )


@pytest.mark.parametrize(
    "attrs",
    [
        {"channels_last": 1},
        {"dilations": [1, 2]},
        {"strides": [4, 1]},
        {"group": 3},
    ],
    ids=str,
)
def test_planes_that_no_window_reads_are_refused(attrs: dict[str, Any]) -> None:
    x, weights = np.zeros((1, 3, 9, 9), np.uint8), np.zeros((6, 3, 3, 3), np.int8)
    packed = _core.pack_gemm_s8("gemm_s8_4x8c4_scalar", planar(weights))
    base = {"channels_last": 0, "planar": 1, "x_zero_point": 0, "y_zero_point": 0}
    with pytest.raises(Exception, match=r"planar|planes"):
        run_op(
            "lepton.QLinearConv",
            [x, packed, np.zeros(6, np.int32), np.ones(6, np.float32)],
            conv_attrs(weights, 1, {}) | base | attrs,
            constants=[1, 2, 3],
            outputs=["uint8"],
            kernel="gemm_s8_4x8c4_scalar",
            isa="scalar",
        )
