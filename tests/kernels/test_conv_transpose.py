"""lepton.ConvTranspose and LRN against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness import run_op
from lepton_rt import _core
from onnx_oracle import channels_first, channels_last, run_onnx

CASES: dict[str, tuple[tuple[int, ...], int, tuple[int, ...], dict[str, Any]]] = {
    "2x2 s2": ((2, 6, 5, 4), 9, (2, 2), {"strides": [2, 2]}),
    "4x4 s2 p1": ((1, 16, 7, 6), 20, (4, 4), {"strides": [2, 2], "pads": [1] * 4}),
    "3x3 output_padding": (
        (1, 5, 6, 6),
        8,
        (3, 3),
        {"strides": [2, 3], "pads": [1, 0, 1, 1], "output_padding": [1, 2]},
    ),
    "dilated": ((1, 4, 6, 5), 6, (3, 2), {"dilations": [2, 3], "pads": [1, 2, 0, 1]}),
    "grouped": ((2, 6, 5, 5), 12, (3, 3), {"group": 3, "strides": [2, 1]}),
    "1-D": ((2, 5, 11), 7, (5,), {"strides": [3], "pads": [2, 1]}),
    "3-D": ((1, 3, 3, 4, 5), 4, (2, 3, 3), {"strides": [1, 2, 2], "pads": [0, 1, 1, 0, 1, 1]}),
    "output_shape": ((1, 4, 5, 6), 6, (3, 3), {"strides": [2, 2], "output_shape": [9, 12]}),
    "same upper": ((1, 4, 5, 6), 6, (3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "same lower": ((1, 4, 5, 6), 6, (4, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "valid": ((1, 4, 5, 6), 6, (3, 3), {"strides": [2, 2], "auto_pad": "VALID"}),
}


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_conv_transpose(case: str, layout: str, isa: str) -> None:
    shape, m, kernel_shape, attrs = CASES[case]
    group, rank = attrs.get("group", 1), len(kernel_shape)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    w = rng.standard_normal((shape[1], m // group, *kernel_shape)).astype(np.float32)
    bias = rng.standard_normal(m).astype(np.float32)
    expected = run_onnx("ConvTranspose", [x, w, bias], {**attrs, "kernel_shape": [*kernel_shape]})
    kernel = _core.select_kernel("gemm_f32", isa)
    taps = w.reshape(group, shape[1] // group, m // group, -1).transpose(0, 1, 3, 2)
    packed = _core.pack_gemm_f32(kernel, np.ascontiguousarray(taps).reshape(*taps.shape[:2], -1))
    step = {
        "kernel_shape": [*kernel_shape],
        "in_channels": shape[1],
        "out_channels": m,
        "channels_last": int(layout == "NHWC"),
        **attrs,
    }
    assert x.ndim == rank + 2
    for threads in (1, 2):
        (y,) = run_op(
            "lepton.ConvTranspose",
            [channels_last(x) if layout == "NHWC" else x, packed, bias],
            step | {"min": [-1.0]},
            constants=[1, 2],
            kernel=kernel,
            isa=isa,
            threads=threads,
        )
        np.testing.assert_allclose(
            channels_first(y), np.maximum(expected, -1), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("change", [{"output_padding": [1]}, {"output_shape": [-1, 3]}])
def test_bad_attributes(change: dict[str, Any]) -> None:
    kernel = _core.select_kernel("gemm_f32", "scalar")
    packed = _core.pack_gemm_f32(kernel, np.zeros((4, 6 * 9), np.float32))
    attrs = {"kernel_shape": [3, 3], "in_channels": 4, "out_channels": 6} | change
    with pytest.raises(Exception, match="output_"):
        run_op(
            "lepton.ConvTranspose",
            [np.zeros((1, 3, 3, 4), np.float32), packed],
            attrs,
            constants=[1],
            kernel=kernel,
            isa="scalar",
        )


@pytest.mark.parametrize("shape", [(2, 11, 5, 6), (1, 3, 20, 20), (1, 40, 3)])
@pytest.mark.parametrize(
    "attrs", [{"size": 5}, {"size": 3, "beta": 0.6, "alpha": 0.5, "bias": 2.0}]
)
def test_lrn(shape: tuple[int, ...], attrs: dict[str, Any], isa: str) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32) * 4
    size = attrs["size"]
    square = np.pad(
        x.astype(np.float64) ** 2, [(0, 0), ((size - 1) // 2, size // 2)] + [(0, 0)] * (x.ndim - 2)
    )
    total = sum(square[:, i : i + shape[1]] for i in range(size))
    base = attrs.get("bias", 1.0) + attrs.get("alpha", 1e-4) / size * total
    expected = x / base ** attrs.get("beta", 0.75)
    step = {k: v if k == "size" else [v] for k, v in attrs.items()}
    (y,) = run_op("LRN", [x], step, isa=isa, threads=2)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    (y,) = run_op("lepton.LRN", [channels_last(x)], step, isa=isa)
    np.testing.assert_allclose(channels_first(y), expected, rtol=1e-5, atol=1e-6)
