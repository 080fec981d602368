"""F(2x2, 3x3) in integers: whole convolutions, bit for bit those of NumPy and the direct kernel."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from conv_oracle import conv_attrs, convolve, pack_s8, requantize
from harness import run_op
from lepton_rt import _core
from lepton_rt.lowering.winograd_s8 import is_exact, pack_weights, pays, product_kernel
from onnx_oracle import channels_last

Array = npt.NDArray[Any]
I16 = {"scalar": "gemm_s8_4x8c2_scalar"}

SHAPES = {  # n, c, h, w, m, pads
    "whole tiles": (2, 16, 8, 12, 32, [1, 1, 1, 1]),
    "ragged": (2, 48, 7, 9, 16, [1, 1, 1, 1]),
    "no padding": (1, 16, 6, 6, 16, [0, 0, 0, 0]),
    "uneven padding": (1, 32, 5, 11, 48, [2, 0, 1, 2]),
    "one pixel": (1, 16, 1, 1, 16, [1, 1, 1, 1]),
    "far outside": (1, 16, 2, 2, 16, [5, 6, 7, 4]),
    "many blocks": (8, 16, 17, 14, 32, [1, 1, 1, 1]),
    "deep": (1, 512, 7, 7, 16, [1, 1, 1, 1]),
    "empty": (0, 16, 8, 8, 16, [1, 1, 1, 1]),
}


def run(
    x: Array, w: Array, zeros: Array, attrs: dict[str, Any], rest: list[Array | None], **how: Any
) -> Array:
    """winograd=False: the direct convolution."""
    isa, out, threads = how["isa"], how["out"], how.get("threads", 1)
    geometry = conv_attrs(w, 1, {"channels_last": 1, **attrs})
    if how.get("winograd", True):
        kernel = I16.get(isa, "gemm_s8_6x16c2_avx2")
        packed, geometry["winograd"] = pack_weights(kernel, w, zeros), 2
    else:
        packed, kernel = pack_s8(w, zeros, 1, isa)
    inputs = [channels_last(x), packed, *rest]
    constants = [i for i in (1, 2, 3) if i < len(inputs) and inputs[i] is not None]
    (y,) = run_op(
        "lepton.QLinearConv",
        inputs,
        geometry,
        constants=constants,
        outputs=[out],
        kernel=kernel,
        isa=isa,
        threads=threads,
    )
    return y


def layer(shape: tuple[Any, ...], dtype: str, extreme: bool) -> tuple[Array, Array]:
    n, c, height, width, m, _ = shape
    rng = np.random.default_rng(c)
    lo, hi = (0, 255) if dtype == "uint8" else (-128, 127)
    x_shape, w_shape = (n, c, height, width), (m, c, 3, 3)
    if extreme:
        return rng.choice([lo, hi], x_shape).astype(dtype), rng.choice([-128, 127], w_shape).astype(
            np.int8
        )
    x = rng.integers(lo, hi + 1, x_shape).astype(dtype)
    return x, rng.integers(-128, 128, w_shape).astype(np.int8)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 0), ("uint8", 131), ("int8", -128)])
@pytest.mark.parametrize("extreme", [False, True])
def test_sums_are_exact(
    shape: tuple[Any, ...], dtype: str, zero: int, extreme: bool, isa: str
) -> None:
    x, w = layer(shape, dtype, extreme)
    zeros = np.random.default_rng(1).integers(-128, 128, len(w)).astype(np.int8)
    wide = w.astype(np.int64) - zeros.reshape(-1, 1, 1, 1)
    exact = channels_last(convolve(x.astype(np.int64) - zero, wide, pads=shape[5]))
    attrs = {"pads": shape[5], "x_zero_point": zero}
    for threads in (1, 2, 3):
        y = run(x, w, zeros, attrs, [None, None], isa=isa, out="int32", threads=threads)
        np.testing.assert_array_equal(y, exact)


@pytest.mark.parametrize("x_value", [0, 255])
@pytest.mark.parametrize("w_value", [-128, 127])
def test_the_largest_sums(x_value: int, w_value: int, isa: str) -> None:
    x = np.full((1, 1024, 4, 4), x_value, np.uint8)
    w = np.full((16, 1024, 3, 3), w_value, np.int8)
    zeros, zero = np.zeros(16, np.int8), 255 - x_value
    exact = convolve(x.astype(np.int64) - zero, w.astype(np.int64), pads=[1] * 4)
    assert is_exact(w.astype(np.int16))
    attrs = {"pads": [1] * 4, "x_zero_point": zero}
    y = run(x, w, zeros, attrs, [None, None], isa=isa, out="int32")
    np.testing.assert_array_equal(y, channels_last(exact))


def test_overflow_is_refused() -> None:
    attrs = {"channels_last": 1}
    zeros = np.zeros(1, np.int8)
    for channels, fits in ((1824, True), (1840, False)):
        w = np.full((64, channels, 3, 3), -128, np.int8)
        assert pays(attrs, w, zeros, (1, 14, 14, channels)) == fits


@pytest.mark.parametrize("name", ["whole tiles", "ragged", "many blocks"])
def test_requantised_like_the_direct_convolution(name: str, isa: str) -> None:
    x, w = layer(SHAPES[name], "uint8", False)
    rng, pads = np.random.default_rng(3), SHAPES[name][5]
    scale = rng.uniform(1e-4, 1e-2, len(w)).astype(np.float32)
    bias = rng.integers(-5000, 5000, len(w)).astype(np.int32)
    zeros = np.zeros(len(w), np.int8)
    attrs: dict[str, Any] = {"pads": pads, "x_zero_point": 7, "y_zero_point": 100, "lo": 100}
    y = run(x, w, zeros, attrs, [bias, scale], isa=isa, out="uint8")
    sums = convolve(x.astype(np.int64) - 7, w.astype(np.int64), pads=pads)
    acc = channels_last(sums) + bias
    np.testing.assert_array_equal(y, requantize(acc, scale, 100, 100, 255))
    residual = rng.integers(0, 256, y.shape).astype(np.uint8)
    once = attrs | {"r_scale": 0.4, "r_zero_point": 3}
    twice = once | {"q_scale": 0.02, "r_scale": 0.03, "out_scale": 0.04, "out_lo": 9}
    rest = [bias, scale, residual]
    for threads, attrs in itertools.product((1, 2), (once, twice)):
        how = {"isa": isa, "out": "uint8", "threads": threads}
        direct = run(x, w, zeros, attrs, rest, winograd=False, **how)
        np.testing.assert_array_equal(run(x, w, zeros, attrs, rest, **how), direct)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": [2, 1]}, "stride 1"),
        ({"channels_last": 0}, "channels-first"),
        ({"in_channels": 24}, "multiple of 16"),
        ({"out_channels": 32}, "size"),
    ],
)
def test_bad_steps(change: dict[str, Any], message: str, isa: str) -> None:
    w = np.ones((16, 16, 3, 3), np.int8)
    x = np.zeros((1, 16, 8, 8), np.uint8)
    with pytest.raises(Exception, match=message):
        run(x, w, np.zeros(16, np.int8), change, [None, None], isa=isa, out="int32")


def test_kernels_that_winograd_cannot_outrun() -> None:
    for line in _core.kernels():
        if line["family"] == "gemm_s8" and line["form"] == "u8":
            assert product_kernel(line["name"]) is None
    assert product_kernel("gemm_s8_8x32c4_avx2") == "gemm_s8_6x16c2_avx2"
