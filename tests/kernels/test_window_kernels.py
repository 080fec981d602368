"""Depthwise and pooling microkernels, every line of their lists, operands against guard pages."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lepton_rt import _core

Array = npt.NDArray[Any]
LINES = [line for line in _core.kernels() if line["available"]]
CHANNELS = [1, 7, 8, 15, 16, 17, 24, 33, 65]
TAPS = [1, 2, 9, 25]


def names(family: str) -> list[str]:
    return [line["name"] for line in LINES if line["family"] == family]


def make_taps(
    rng: np.random.Generator, dtype: str, taps: int, pixels: int, channels: int
) -> tuple[list[tuple[Array, int]], Array]:
    """Taps with steps of their own (0: padding), and their values [taps, pixels, channels]."""
    made, values = [], np.empty((taps, pixels, channels), dtype)
    for t in range(taps):
        step = 0 if t % 4 == 1 else channels + t % 3
        size = (pixels - 1) * step + channels
        if dtype == "float32":
            data = rng.standard_normal(size).astype(dtype)
        else:
            info = np.iinfo(dtype)
            data = rng.choice([info.min, info.max, 0, 3, 100], size).astype(dtype)
        made.append((data, step))
        for i in range(pixels):
            values[t, i] = data[i * step : i * step + channels]
    return made, values


def with_gaps(rows: Array, step: int, fill: Any) -> Array:
    """Rows laid `step` apart, gaps filled."""
    flat = np.full((rows.shape[0] - 1) * step + rows.shape[1], fill, rows.dtype)
    for i, row in enumerate(rows):
        flat[i * step : i * step + rows.shape[1]] = row
    return flat


@pytest.mark.parametrize("kernel", names("depthwise_f32"))
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("at_start", [False, True])
def test_depthwise_f32(kernel: str, channels: int, at_start: bool) -> None:
    rng = np.random.default_rng(channels)
    for taps, pixels in [(t, p) for t in TAPS for p in (1, 4, 7)]:
        made, x = make_taps(rng, "float32", taps, pixels, channels)
        w = rng.standard_normal((taps, channels)).astype(np.float32)
        bias = rng.standard_normal(channels).astype(np.float32)
        residual = rng.standard_normal((pixels, channels)).astype(np.float32)
        step = channels + 2
        y = _core.testing.depthwise_f32(
            kernel=kernel,
            channels=channels,
            pixels=pixels,
            taps=made,
            weights=w.ravel(),
            bias=bias,
            residual=with_gaps(residual, step, np.nan),
            min=-1.5,
            max=2.5,
            dst=np.full((pixels - 1) * step + channels, 77, np.float32),
            dst_step=step,
            at_start=at_start,
        )
        exact = np.einsum("tic,tc->ic", x.astype(np.float64), w) + bias + residual
        expected = with_gaps(np.clip(exact, -1.5, 2.5), step, 77)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def in_lane_order(v: Array) -> Array:
    """[channels] as the depthwise_s8 kernels read it, zeros beyond."""
    lanes = np.array(_core.testing.depthwise_lanes)
    padded = np.zeros(-(-v.size // lanes.size) * lanes.size, v.dtype)
    padded[: v.size] = v
    return padded.reshape(-1, lanes.size)[:, lanes].ravel()


@pytest.mark.parametrize("kernel", names("depthwise_s8"))
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("at_start", [False, True])
def test_depthwise_s8(kernel: str, dtype: str, channels: int, at_start: bool) -> None:
    rng = np.random.default_rng(channels)
    padded = -(-channels // 32) * 32
    for taps, pixels in [(t, p) for t in TAPS for p in (1, 2, 5)]:
        made, x = make_taps(rng, dtype, taps, pixels, channels)
        w = rng.choice([-255, 255, -128, 127, 1], (taps, channels)).astype(np.int16)
        bias = rng.integers(-(2**31), 2**31, channels).astype(np.int32)
        scale = rng.choice([1e-9, 1e-4, np.nan, 1e38], channels).astype(np.float32)
        common = {
            "kernel": kernel,
            "channels": channels,
            "pixels": pixels,
            "taps": made,
            "weights": _core.pack_depthwise_s8(w).view(np.int16),
            "bias": in_lane_order(bias),
            "scale": in_lane_order(scale),
            "at_start": at_start,
        }
        exact = np.einsum("tic,tc->ic", x.astype(np.int64), w.astype(np.int64)) + bias
        sums = exact.astype(np.int32)
        step = padded + 16
        acc = _core.testing.depthwise_s8(
            **common,
            requantize=None,
            dst=np.zeros((pixels - 1) * step + padded, np.int32),
            dst_step=step,
        )
        for i in range(pixels):
            np.testing.assert_array_equal(acc[i * step :][:channels], sums[i])
        zero, lo, hi = (-3, -128, 100) if dtype == "int8" else (120, 7, 255)
        with np.errstate(all="ignore"):
            real = np.rint(sums.astype(np.float32) * scale)
            q = np.clip(np.where(np.isnan(real), lo - zero, real), lo - zero, hi - zero)
        expected = (q.astype(np.int64) + zero).astype(dtype)
        step = channels + 5
        y = _core.testing.depthwise_s8(
            **common,
            requantize=(zero, lo, hi),
            dst=np.full((pixels - 1) * step + channels, 77, dtype),
            dst_step=step,
        )
        np.testing.assert_array_equal(y, with_gaps(expected, step, 77))


def quad_taps(
    layout: str, rows: int, pixels: int, channels: int
) -> tuple[list[tuple[int, int]], int]:
    """Starts and steps of taps, and the elements they read; the last one ends with the last."""
    stride = {"side by side": 1, "apart": 2, "padding": 1, "edge": 1}[layout]
    row = ((pixels - 1) * stride + 3) * channels
    taps = [(r * row + t * channels, stride * channels) for r in range(rows) for t in range(3)]
    if layout == "padding":  # a kernel row above the image
        taps[:3] = [(taps[0][0], 0)] * 3
    if layout == "edge":  # a column beside it
        taps[::3] = [(0, 0)] * rows
    return taps, rows * row


@pytest.mark.parametrize("kernel", names("depthwise_s8_quads"))
@pytest.mark.parametrize("layout", ["side by side", "apart", "padding", "edge"])
@pytest.mark.parametrize("bounds", [(0, 0, 255), (7, 0, 255), (120, 7, 250), (-3, -128, 100)])
@pytest.mark.parametrize("at_start", [False, True])
def test_depthwise_s8_quads(
    kernel: str, layout: str, bounds: tuple[int, int, int], at_start: bool
) -> None:
    rng = np.random.default_rng(5)
    zero, lo, hi = bounds
    dtype = np.int8 if lo < 0 else np.uint8
    for channels, rows, pixels in itertools.product(
        [1, 17, 31, 32, 33, 63, 64, 65, 96, 144], [1, 3, 5], [1, 2, 3, 4, 5, 8, 11]
    ):
        taps, size = quad_taps(layout, rows, pixels, channels)
        x = rng.choice([0, 255, 3, 100], size).astype(np.uint8)
        w = rng.choice([-128, 127, 1, -7], (3 * rows, channels)).astype(np.int16)
        bias = rng.integers(-(2**31), 2**31, channels).astype(np.int32)
        scale = rng.choice([0.5, 1e-9, -1e-4, 3e-8], channels).astype(np.float32)
        places = [[start + i * step for i in range(pixels)] for start, step in taps]
        read = x[np.add.outer(np.array(places), np.arange(channels))].astype(np.int64)
        sums = (np.einsum("tic,tc->ic", read, w.astype(np.int64)) + bias).astype(np.int32)
        real = np.rint(sums.astype(np.float32) * scale)
        want = np.clip(real.astype(np.int64) + zero, lo, hi).astype(dtype)
        step = channels + 5
        y = _core.testing.depthwise_s8_quads(
            kernel=kernel,
            channels=channels,
            pixels=pixels,
            x=x,
            taps=taps,
            weights=w,
            bias=bias,
            scale=scale,
            requantize=bounds,
            dst=np.full((pixels - 1) * step + channels, 77, dtype),
            dst_step=step,
            at_start=at_start,
        )
        np.testing.assert_array_equal(y, with_gaps(want, step, 77))


POOLS = [(line["name"], line["kind"]) for line in LINES if line["family"] == "pool"]
DTYPES = {"f32": ("float32", "float32"), "u8": ("uint8", "uint8"), "s8": ("int8", "int8")}


def pooled(kind: str, x: Array, divisor: float, bias: int) -> Array:
    reduction, dtype = kind.split("_")
    if reduction == "max":
        lowest = -np.inf if dtype == "f32" else np.iinfo(x.dtype).min
        return x.max(0, initial=lowest)
    if reduction == "sum":
        return (x.astype(np.int64).sum(0) + bias).astype(np.int32)
    return (x.astype(np.float64).sum(0) / divisor).astype(np.float32)


@pytest.mark.parametrize(("kernel", "kind"), POOLS)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("at_start", [False, True])
def test_pool(kernel: str, kind: str, channels: int, at_start: bool) -> None:
    rng = np.random.default_rng(channels)
    dtype = DTYPES[kind.split("_")[1]][0]
    for taps, pixels in [(0, 2), (1, 1), (9, 3), (300, 2)]:
        made, x = make_taps(rng, dtype, taps, pixels, channels)
        step = channels + 3
        out_dtype = np.int32 if kind.startswith("sum") else dtype
        y = _core.testing.pool(
            kernel=kernel,
            channels=channels,
            pixels=pixels,
            taps=made,
            divisor=float(max(taps, 1)),
            bias=-12345,
            dst=np.full((pixels - 1) * step + channels, 77, out_dtype),
            dst_step=step,
            at_start=at_start,
        )
        expected = with_gaps(pooled(kind, x, max(taps, 1), -12345), step, 77)
        if kind == "average_f32":
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(y, expected)
