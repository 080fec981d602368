"""lepton.Conv and lepton.QLinearConv against tap-by-tap NumPy, integers exactly."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from conv_oracle import conv_attrs, convolve, pack_f32, pack_s8, requantize
from harness import run_op
from onnx_oracle import channels_last


class Case(NamedTuple):
    x: tuple[int, ...]
    m: int
    kernel: tuple[int, ...]
    attrs: dict[str, Any]
    group: int = 1

    @property
    def w(self) -> tuple[int, ...]:
        return (self.m, self.x[1] // self.group, *self.kernel)


CASES = {
    "1x1": Case((2, 20, 7, 5), 33, (1, 1), {}),
    "1x1 s2": Case((1, 16, 9, 8), 24, (1, 1), {"strides": [2, 2]}),
    "3x3 p1": Case((2, 16, 10, 9), 20, (3, 3), {"pads": [1] * 4}),
    "3x3 s2": Case((1, 8, 15, 16), 17, (3, 3), {"pads": [1] * 4, "strides": [2, 2]}),
    "7x7 s2 rgb": Case((1, 3, 30, 31), 16, (7, 7), {"pads": [3] * 4, "strides": [2, 2]}),
    "dilated": Case((1, 5, 14, 13), 9, (3, 2), {"dilations": [2, 3], "pads": [2, 3, 1, 2]}),
    "grouped": Case((2, 12, 8, 7), 18, (3, 3), {"pads": [1] * 4}, 3),
    "grouped dilated": Case((1, 8, 11, 9), 8, (3, 3), {"dilations": [1, 2], "pads": [2] * 4}, 4),
    "multiplier": Case((1, 6, 6, 6), 12, (3, 3), {"pads": [1] * 4}, 6),
    "1-D": Case((3, 7, 40), 10, (5,), {"strides": [3], "pads": [4, 1]}),
    "3-D": Case((1, 4, 5, 6, 7), 11, (3, 2, 3), {"pads": [1, 0, 1, 1, 1, 0]}),
    "window beyond edges": Case((1, 4, 2, 2), 5, (5, 5), {"pads": [4] * 4}),
    "one pixel": Case((4, 32, 1, 1), 40, (1, 1), {}),
    "odd depth": Case((1, 1, 9, 9), 3, (3, 3), {}),
    # Beyond 64 KB an image is gathered as it is, below from a copy with its padding.
    "3x3 p1 large": Case((1, 64, 33, 32), 20, (3, 3), {"pads": [1] * 4}),
    "7x7 s2 rgb large": Case((1, 3, 150, 149), 16, (7, 7), {"pads": [3] * 4, "strides": [2, 2]}),
    "beyond edges of a long line": Case((1, 4, 3, 5600), 5, (5, 5), {"pads": [4] * 4}),
}
DEPTHWISE = {
    f"3x3 c{c} s{s}": Case((2, c, 9, 11), c, (3, 3), {"pads": [1] * 4, "strides": [s, s]}, c)
    for c, s in [(1, 1), (8, 1), (15, 2), (16, 1), (17, 1), (24, 2), (33, 1), (64, 2), (2100, 1)]
} | {
    "5x5": Case((1, 40, 12, 12), 40, (5, 5), {"pads": [2] * 4}, 40),
    "dilated": Case((1, 19, 12, 10), 19, (3, 3), {"pads": [2, 3, 2, 1], "dilations": [2, 3]}, 19),
    "even taps": Case((1, 18, 8, 8), 18, (2, 2), {"strides": [2, 1]}, 18),
    "1-D": Case((2, 20, 30), 20, (7,), {"pads": [3, 3], "strides": [2]}, 20),
    "3-D": Case((1, 21, 4, 5, 6), 21, (2, 3, 3), {"pads": [1, 1, 1, 0, 1, 1]}, 21),
    "all padding": Case((1, 16, 2, 2), 16, (3, 3), {"pads": [4] * 4}, 16),
}
PARAMETERS = [pytest.param(c, False, id=n) for n, c in CASES.items()] + [
    pytest.param(c, True, id=f"depthwise {n}") for n, c in DEPTHWISE.items()
]


@pytest.mark.parametrize(("case", "depthwise"), PARAMETERS)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_f32(case: Case, depthwise: bool, layout: str, isa: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(case.x).astype(np.float32)
    w = rng.standard_normal(case.w).astype(np.float32)
    bias = rng.standard_normal(case.m).astype(np.float32)
    exact = channels_last(
        convolve(x.astype(np.float64), w.astype(np.float64), group=case.group, **case.attrs)
    )
    # Each of the k roundings of a sum is at most half an ulp of the sum of magnitudes.
    magnitude = channels_last(
        convolve(np.abs(x).astype(np.float64), np.abs(w), group=case.group, **case.attrs)
    )
    tolerance = (w[0].size + 3) * 2.0**-24 * (magnitude + np.abs(bias)) + 1e-30
    packed, kernel = pack_f32(w, case.group, isa, depthwise=depthwise)
    attrs = conv_attrs(w, case.group, case.attrs) | {"channels_last": int(layout == "NHWC")}
    operand = channels_last(x) if layout == "NHWC" else x
    residual = rng.standard_normal(exact.shape).astype(np.float32)
    for threads in (1, 2):
        (y,) = run_op(
            "lepton.Conv",
            [operand, packed, bias],
            attrs,
            constants=[1, 2],
            kernel=kernel,
            isa=isa,
            threads=threads,
        )
        assert (np.abs(y - (exact + bias)) <= tolerance).all()
        (y,) = run_op(
            "lepton.Conv",
            [operand, packed, None, residual],
            attrs | {"min": [-0.5], "max": [6.0]},
            constants=[1],
            kernel=kernel,
            isa=isa,
            threads=threads,
        )
        slack = tolerance + np.abs(residual) * 2.0**-23
        assert (np.abs(y - np.clip(exact + residual, -0.5, 6.0)) <= slack).all()


class Quantized(NamedTuple):
    x: np.ndarray
    x_zero_point: int
    w: np.ndarray
    w_zero_point: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    acc: np.ndarray
    """int64 [N, out..., M], bias included."""


def quantized(case: Case, x_dtype: str, w_dtype: str, extreme: bool) -> Quantized:
    rng = np.random.default_rng(len(case.x) + case.m)
    x_info, w_info = np.iinfo(x_dtype), np.iinfo(w_dtype)
    x = rng.integers(x_info.min, x_info.max + 1, case.x).astype(x_dtype)
    w = rng.integers(w_info.min, w_info.max + 1, case.w).astype(w_dtype)
    x_zero_point = int(rng.integers(x_info.min, x_info.max + 1))
    zeros = rng.integers(w_info.min, w_info.max + 1, case.m).astype(w_dtype)
    if extreme:
        x = np.where(rng.random(case.x) < 0.9, x_info.max, x_info.min).astype(x_dtype)
        w = np.where(rng.random(case.w) < 0.9, w_info.min, w_info.max).astype(w_dtype)
        x_zero_point = x_info.min
        zeros[:] = w_info.max
    if w_dtype == "int8" and not extreme:
        zeros[:] = 0
    bias = rng.integers(-5000, 5000, case.m).astype(np.int32)
    k = int(np.prod(case.w[1:]))
    scale = (rng.uniform(0.5, 1.5, case.m) / (100.0 * np.sqrt(k))).astype(np.float32)
    centred = w.astype(np.int64) - zeros.astype(np.int64).reshape(-1, *[1] * (w.ndim - 1))
    acc = convolve(x.astype(np.int64) - x_zero_point, centred, group=case.group, **case.attrs)
    return Quantized(x, x_zero_point, w, zeros, bias, scale, channels_last(acc) + bias)


def run_quantized(
    case: Case,
    q: Quantized,
    depthwise: bool,
    isa: str,
    output: str,
    attrs: dict[str, Any],
    residual: np.ndarray | None = None,
    *,
    layout: str = "NHWC",
) -> np.ndarray:
    packed, kernel = pack_s8(q.w, q.w_zero_point, case.group, isa, depthwise=depthwise)
    all_attrs = conv_attrs(q.w, case.group, case.attrs) | attrs
    all_attrs |= {"x_zero_point": q.x_zero_point, "channels_last": int(layout == "NHWC")}
    operand = channels_last(q.x) if layout == "NHWC" else q.x
    scale = None if output == "int32" else q.scale
    results = [
        run_op(
            "lepton.QLinearConv",
            [operand, packed, q.bias, scale, residual],
            all_attrs,
            constants=[1, 2, 3],
            outputs=[output],
            kernel=kernel,
            isa=isa,
            threads=threads,
        )[0]
        for threads in (1, 2)
    ]
    np.testing.assert_array_equal(*results)
    return results[0]


@pytest.mark.parametrize(("case", "depthwise"), PARAMETERS)
@pytest.mark.parametrize(
    ("x_dtype", "w_dtype", "extreme"),
    [("uint8", "int8", False), ("int8", "int8", True), ("uint8", "uint8", True)],
)
def test_quantized(
    case: Case, depthwise: bool, x_dtype: str, w_dtype: str, extreme: bool, isa: str
) -> None:
    q = quantized(case, x_dtype, w_dtype, extreme)
    y = run_quantized(case, q, depthwise, isa, "int32", {})
    np.testing.assert_array_equal(y, q.acc.astype(np.int32))
    y = run_quantized(case, q, depthwise, isa, "float32", {"min": [0.0]})
    expected = np.maximum(q.acc.astype(np.int32).astype(np.float32) * q.scale, 0)
    np.testing.assert_array_equal(y, expected)
    for output, zero, lo, hi in [("uint8", 128, 100, 255), ("int8", -5, -128, 90)]:
        attrs = {"y_zero_point": zero, "lo": lo, "hi": hi}
        y = run_quantized(case, q, depthwise, isa, output, attrs)
        np.testing.assert_array_equal(y, requantize(q.acc, q.scale, zero, lo, hi))


@pytest.mark.parametrize(("case", "depthwise"), PARAMETERS)
@pytest.mark.parametrize(("r_dtype", "output"), [("uint8", "uint8"), ("int8", "uint8")])
def test_quantized_residual(
    case: Case, depthwise: bool, r_dtype: str, output: str, isa: str
) -> None:
    q = quantized(case, "uint8", "int8", False)
    rng = np.random.default_rng(9)
    info = np.iinfo(r_dtype)
    residual = rng.integers(info.min, info.max + 1, q.acc.shape).astype(r_dtype)
    attrs = {
        "y_zero_point": 120,
        "lo": 0,
        "hi": 255,
        "q_scale": [0.03],
        "r_scale": [0.05],
        "r_zero_point": 17,
        "out_scale": [0.06],
        "out_zero_point": 3,
        "out_lo": 3,
        "out_hi": 255,
    }
    y = run_quantized(case, q, depthwise, isa, output, attrs, residual)
    first = (requantize(q.acc, q.scale, 120, 0, 255) - 120).astype(np.float32) * np.float32(0.03)
    second = (residual.astype(np.int64) - 17).astype(np.float32) * np.float32(0.05)
    real = (first + second) / np.float32(0.06)
    np.testing.assert_array_equal(y, np.clip(np.rint(real).astype(np.int64) + 3, 3, 255))


@pytest.mark.parametrize(("case", "depthwise"), PARAMETERS)
@pytest.mark.parametrize(("r_dtype", "output"), [("uint8", "int8"), ("int8", "uint8")])
def test_quantized_residual_rounded_once(
    case: Case, depthwise: bool, r_dtype: str, output: str, isa: str
) -> None:
    q = quantized(case, "uint8", "int8", False)
    info, low = np.iinfo(r_dtype), int(np.iinfo(output).min)
    residual = np.random.default_rng(9).integers(info.min, info.max + 1, q.acc.shape)
    attrs = {"y_zero_point": low + 90, "lo": low + 5, "hi": low + 250}
    attrs |= {"r_scale": [0.4], "r_zero_point": 17}
    y = run_quantized(case, q, depthwise, isa, output, attrs, residual.astype(r_dtype))
    real = q.acc.astype(np.float64) * q.scale + (residual - 17) * np.float64(0.4) + low + 90
    # Ties may go either way: the exact contract is tested on the epilogues.
    assert np.abs(y - np.clip(real, low + 5, low + 250)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("name", ["7x7 s2 rgb", "3x3 s2", "grouped", "1-D", "3-D", "1x1"])
def test_quantized_from_channels_first(name: str, isa: str) -> None:
    case = CASES[name]
    q = quantized(case, "uint8", "int8", False)
    attrs = {"y_zero_point": 128}
    y = run_quantized(case, q, False, isa, "uint8", attrs, layout="NCHW")
    np.testing.assert_array_equal(y, requantize(q.acc, q.scale, 128, 0, 255))


@pytest.mark.parametrize("x_dtype", ["uint8", "int8"])
def test_zero_point_at_run(x_dtype: str, isa: str) -> None:
    case = CASES["3x3 p1"]
    q = quantized(case, x_dtype, "int8", False)
    packed, kernel = pack_s8(q.w, q.w_zero_point, 1, isa)
    zero = np.array(q.x_zero_point, x_dtype)
    (y,) = run_op(
        "lepton.QLinearConv",
        [channels_last(q.x), packed, q.bias, None, None, zero],
        conv_attrs(q.w, 1, case.attrs),
        constants=[1, 2],
        outputs=["int32"],
        kernel=kernel,
        isa=isa,
    )
    np.testing.assert_array_equal(y, q.acc.astype(np.int32))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_auto_pad(auto_pad: str, isa: str) -> None:
    from onnx_oracle import run_onnx

    rng = np.random.default_rng(4)
    x = rng.standard_normal((1, 6, 11, 8)).astype(np.float32)
    w = rng.standard_normal((10, 6, 4, 3)).astype(np.float32)
    attrs = {"auto_pad": auto_pad, "strides": [3, 2]}
    packed, kernel = pack_f32(w, 1, isa)
    (y,) = run_op(
        "lepton.Conv",
        [channels_last(x), packed],
        conv_attrs(w, 1, attrs),
        constants=[1],
        kernel=kernel,
        isa=isa,
    )
    expected = channels_last(run_onnx("Conv", [x, w], attrs))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depthwise", [False, True])
def test_empty_batch(depthwise: bool, isa: str) -> None:
    case = Case((0, 16, 8, 8), 16, (3, 3), {"pads": [1] * 4}, 16 if depthwise else 1)
    q = quantized(case, "uint8", "int8", False)
    y = run_quantized(case, q, depthwise, isa, "uint8", {})
    assert y.shape == (0, 8, 8, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": 0}, "group"),
        ({"group": 3}, "group"),
        ({"in_channels": -4}, "channels"),
        ({"in_channels": 2**40}, "channels"),
        ({"out_channels": 33}, "size"),
        ({"kernel_shape": [2, 3]}, "size"),
        ({"kernel_shape": [2**20, 2**20]}, "kernel_shape"),
        ({"strides": [0, 1]}, "strides"),
        ({"pads": [1]}, "pads"),
        ({"min": [2.0], "max": [1.0]}, "min"),
    ],
)
def test_bad_attributes(change: dict[str, Any], message: str, isa: str) -> None:
    w = np.zeros((16, 4, 3, 3), np.float32)
    packed, kernel = pack_f32(w, 1, isa)
    x = np.zeros((1, 8, 8, 4), np.float32)
    with pytest.raises(Exception, match=message):
        run_op(
            "lepton.Conv",
            [x, packed],
            conv_attrs(w, 1, {}) | change,
            constants=[1],
            kernel=kernel,
            isa=isa,
        )


def test_bad_operands(isa: str) -> None:
    w = np.zeros((16, 4, 3, 3), np.float32)
    packed, kernel = pack_f32(w, 1, isa)
    attrs = conv_attrs(w, 1, {})
    x = np.zeros((1, 8, 8, 4), np.float32)

    def run(operands: list[Any], constants: list[int], kernel: str = kernel) -> None:
        run_op("lepton.Conv", operands, attrs, constants=constants, kernel=kernel, isa=isa)

    with pytest.raises(Exception, match="constant"):
        run([x, packed], [])
    with pytest.raises(Exception, match="kernel"):
        run([x, packed], [1], "gemm_f32_unheard_of")
    with pytest.raises(Exception, match="bias"):
        run([x, packed, np.zeros(15, np.float32)], [1, 2])
    with pytest.raises(Exception, match="residual"):
        run([x, packed, None, np.zeros((1, 6, 6, 15), np.float32)], [1])
    with pytest.raises(Exception, match="channels"):
        run([np.zeros((1, 8, 8, 5), np.float32), packed], [1])
    with pytest.raises(Exception, match="shape"):
        run([np.zeros((1, 8, 4), np.float32), packed], [1])
