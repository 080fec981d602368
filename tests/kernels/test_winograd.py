"""F(4x4, 3x3) and F(2x2, 5x5): the transforms, and whole convolutions against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from conv_oracle import conv_attrs, convolve
from harness import run_op
from lepton_rt import UnsupportedError, _core
from lepton_rt.lowering.winograd import tile_of, transform_weights
from onnx_oracle import channels_last

Array = npt.NDArray[Any]
LINES = [line for line in _core.kernels() if line["family"] == "winograd_f32" and line["available"]]


def toom_cook(taps: int) -> tuple[Array, Array, Array]:
    """B [6, 6], G [6, taps], A [6, 7 - taps] from the Vandermonde matrix of the points.

    The last one is infinity.
    """
    root = np.sqrt(2.0)
    points = np.array([0, 1 / root, -1 / root, root, -root])
    vandermonde = np.vstack([np.vander(points, 6, increasing=True), np.eye(6)[5]])
    tile = 7 - taps
    g, a = vandermonde[:, :taps].copy(), vandermonde[:, :tile].copy()
    g[5], a[5] = np.eye(taps)[-1], np.eye(tile)[-1]
    b = np.linalg.inv(vandermonde).T
    # The contract's scaling: what divides a row of b moves to that of g.
    scale = np.array([np.prod(p - points[points != p]) for p in points] + [1.0])
    return (b * scale[:, None]), g / scale[:, None], a


MATRICES = {taps: toom_cook(taps) for taps in (3, 5)}
B = MATRICES[3][0]


@pytest.mark.parametrize("name", [line["name"] for line in LINES])
@pytest.mark.parametrize("channels", [1, 7, 8, 9, 16, 19, 64])
@pytest.mark.parametrize("at_start", [False, True])
def test_input_transform(name: str, channels: int, at_start: bool) -> None:
    rng = np.random.default_rng(channels)
    d = rng.standard_normal((36, channels)).astype(np.float32)
    v = _core.testing.winograd_input(kernel=name, pixels=d, at_start=at_start)
    exact = np.kron(B, B) @ d.astype(np.float64)
    bound = 12 * 2.0**-24 * (np.kron(np.abs(B), np.abs(B)) @ np.abs(d).astype(np.float64))
    assert (np.abs(v.reshape(36, channels) - exact) <= bound).all()


@pytest.mark.parametrize("line", LINES, ids=lambda line: line["name"])
@pytest.mark.parametrize("panels", [1, 3])
@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("at_start", [False, True])
def test_output_transform(line: dict[str, Any], taps: int, panels: int, at_start: bool) -> None:
    tile, a = 7 - taps, MATRICES[taps][2]
    rng = np.random.default_rng(panels)
    for width in (line["nr"], 4 * line["nr"]):
        m = rng.standard_normal((36, panels, width)).astype(np.float32)
        y = _core.testing.winograd_output(kernel=line["name"], m=m, tile=tile, at_start=at_start)
        flat = m.reshape(36, -1).astype(np.float64)
        exact = np.kron(a.T, a.T) @ flat
        bound = 12 * 2.0**-24 * (np.kron(np.abs(a.T), np.abs(a.T)) @ np.abs(flat))
        assert (np.abs(y.reshape(tile * tile, -1) - exact) <= bound).all()


SHAPES = {  # n, c, h, w, m, pads
    "whole tiles": (2, 16, 8, 12, 32, [1, 1, 1, 1]),
    "ragged": (2, 17, 7, 9, 19, [1, 1, 1, 1]),
    "no padding": (1, 8, 6, 6, 8, [0, 0, 0, 0]),
    "uneven padding": (1, 5, 5, 11, 33, [2, 0, 1, 2]),
    "one pixel": (1, 40, 1, 1, 3, [1, 1, 1, 1]),
    "far outside": (1, 3, 2, 2, 9, [5, 6, 7, 4]),
    "many blocks": (3, 4, 33, 30, 40, [1, 1, 1, 1]),
    "deep": (1, 400, 9, 9, 24, [1, 1, 1, 1]),
    "empty": (0, 16, 8, 8, 16, [1, 1, 1, 1]),
}


def error_bound(x: Array, w: Array, pads: list[int]) -> float:
    """A bound on the error: roundings times sums of magnitudes, at the largest of X.

    Twelve roundings for either transform, one for every channel, and one of the weights.
    """
    largest = float(np.abs(x).max(initial=0.0))
    b, g, a = MATRICES[w.shape[2]]
    patch = np.abs(b) @ np.full((6, 6), largest) @ np.abs(b).T
    weights = np.abs(g) @ np.abs(w.astype(np.float64)).sum(1) @ np.abs(g).T
    outputs = np.abs(a.T) @ (patch * weights) @ np.abs(a)
    return float((w.shape[1] + 26) * 2.0**-24 * outputs.max())


def winograd(
    x: Array, w: Array, rest: list[Array | None], attrs: dict[str, Any], isa: str, threads: int
) -> Array:
    kernel = _core.select_kernel("gemm_f32", isa)
    packed = _core.pack_gemm_f32(kernel, transform_weights(w))
    (y,) = run_op(
        "lepton.Conv",
        [channels_last(x), packed, *rest],
        conv_attrs(w, 1, attrs) | {"winograd": tile_of(w)},
        constants=[1, 2],
        kernel=kernel,
        isa=isa,
        threads=threads,
    )
    return y


@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_convolution(shape: tuple[Any, ...], taps: int, isa: str) -> None:
    n, c, height, width, m, pads = shape
    if taps == 5:
        pads = [pad + 1 for pad in pads]
    rng = np.random.default_rng(c)
    x = rng.standard_normal((n, c, height, width)).astype(np.float32)
    w = rng.standard_normal((m, c, taps, taps)).astype(np.float32)
    bias = rng.standard_normal(m).astype(np.float32)
    exact = channels_last(convolve(x.astype(np.float64), w.astype(np.float64), pads=pads)) + bias
    residual = rng.standard_normal(exact.shape).astype(np.float32)
    bound = error_bound(x, w, pads) + 1e-5
    clamp = {"min": [-0.5], "max": [6.0]}
    for threads in (1, 2, 3):
        y = winograd(x, w, [bias], {"pads": pads}, isa, threads)
        np.testing.assert_allclose(y, exact, rtol=0, atol=bound)
        y = winograd(x, w, [bias, residual], {"pads": pads} | clamp, isa, threads)
        np.testing.assert_allclose(y, np.clip(exact + residual, -0.5, 6), rtol=0, atol=bound)


@pytest.mark.parametrize("taps", [3, 5])
def test_error_is_near_that_of_a_direct_sum(taps: int, isa: str) -> None:
    """Root mean square error of a typical layer, relative to the spread of its result."""
    rng = np.random.default_rng(5)
    x = np.maximum(rng.standard_normal((1, 128, 16, 16)), 0).astype(np.float32)
    w = (rng.standard_normal((64, 128, taps, taps)) / 30).astype(np.float32)
    pads = [taps // 2] * 4
    exact = channels_last(convolve(x.astype(np.float64), w.astype(np.float64), pads=pads))
    error = winograd(x, w, [None], {"pads": pads}, isa, 1) - exact
    assert np.sqrt((error**2).mean()) < 2e-6 * exact.std()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": [2, 1]}, "stride 1"),
        ({"dilations": [1, 2]}, "dilation 1"),
        ({"kernel_shape": [3, 2]}, "3x3"),
        ({"group": 2}, "one group"),
        ({"out_channels": 33}, "size"),
    ],
)
def test_bad_attributes(change: dict[str, Any], message: str, isa: str) -> None:
    w = np.ones((16, 16, 3, 3), np.float32)
    with pytest.raises(Exception, match=message):
        winograd(np.zeros((1, 16, 8, 8), np.float32), w, [None], change, isa, 1)


@pytest.mark.parametrize("change", [{"winograd": 6}, {"winograd": 3}, {"channels_last": 0}])
def test_unsupported(change: dict[str, Any], isa: str) -> None:
    w = np.ones((16, 16, 3, 3), np.float32)
    kernel = _core.select_kernel("gemm_f32", isa)
    packed = _core.pack_gemm_f32(kernel, transform_weights(w))
    attrs = conv_attrs(w, 1, {}) | {"winograd": 4} | change
    with pytest.raises(UnsupportedError):
        run_op(
            "lepton.Conv",
            [np.zeros((1, 8, 8, 16), np.float32), packed],
            attrs,
            constants=[1],
            kernel=kernel,
            isa=isa,
        )
