"""Joined convolutions give the bits of the separate ones, however the image is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import lepton_rt
from harness import run_op
from lepton_rt import _core
from lepton_rt.errors import InputError, ModelError, UnsupportedError
from lepton_rt.graph.ir import Graph
from pass_graphs import Model, dequantize, fake

Array = npt.NDArray[Any]
Rng = np.random.Generator
SCALE = 0.05  # of all 8-bit tensors
THIN, WIDE = 8, 320  # a row of 64 pixels and WIDE floats is 80 KB: five rows fill a band


def convolve(
    model: Model, x: str, weights: Array, rng: Rng, integer: bool, clip: bool, **attrs: Any
) -> str:
    """A convolution with a bias; quantised where `integer`, clipped where `clip`."""
    count = len(weights)
    if integer:
        values = np.clip(np.rint(weights * 60), -127, 127).astype(np.int8)
        scales = rng.uniform(0.01, 0.02, count).astype(np.float32)
        w = dequantize(model, values, scales, np.zeros(count, np.int8), axis=0)
        offsets = rng.integers(-500, 500, count).astype(np.int32)
        zeros = np.zeros(count, np.int32)
        bias = dequantize(model, offsets, np.float32(SCALE) * scales, zeros, axis=0)
        y = model("Conv", x, w, bias, **attrs)
    else:
        y = model("Conv", x, weights, rng.normal(size=count).astype(np.float32), **attrs)
    if clip:
        y = model("Clip", y, np.float32(0), np.float32(6))
    return fake(model, y, SCALE, 100) if integer else str(y)


def block(
    rng: Rng, *, integer: bool, before: bool, after: bool, residual: bool, **attrs: Any
) -> Graph:
    """[1x1 →] depthwise [→ 1x1], and perhaps x added: an inverted residual block."""
    wide = WIDE // 4 if integer and not before else WIDE
    thin = THIN if before else wide
    model = Model(x=("FLOAT", ["n", thin, "h", "w"]))
    x = fake(model, "x", SCALE, 110) if integer else "x"
    kernel = attrs["kernel_shape"]
    y = x
    if before:
        weights = rng.normal(size=(wide, thin, 1, 1)).astype(np.float32)
        y = convolve(model, y, weights, rng, integer, True)
    taps = rng.normal(size=(wide, 1, *kernel)).astype(np.float32)
    y = convolve(model, y, taps, rng, integer, True, group=wide, **attrs)
    if after:
        weights = rng.normal(size=(thin, wide, 1, 1)).astype(np.float32) / 8
        y = convolve(model, y, weights, rng, integer, False)
    if residual:
        y = model("Add", y, x)
        y = fake(model, y, SCALE, 120) if integer else y
    return model.graph(y)


def separate(graph: Graph, isa: str) -> lepton_rt.Session:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lepton_rt.lowering.conv_bands.join_convolutions", lambda plan: plan)
        session = lepton_rt.Session(graph, isa=isa)
    assert not [step.op for step in session.explain() if "Conv+" in step.op]
    return session


WINDOWS = [
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "pads": [0, 1, 1, 0], "strides": [2, 2]},
    {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "strides": [2, 1]},
    {"kernel_shape": [3, 2], "pads": [4, 0, 4, 1], "dilations": [2, 1]},
    {"kernel_shape": [1, 1], "strides": [3, 3]},
]


@pytest.mark.parametrize("window", WINDOWS, ids=lambda w: "x".join(map(str, w["kernel_shape"])))
@pytest.mark.parametrize("integer", [False, True], ids=["f32", "s8"])
@pytest.mark.parametrize("ends", ["both", "before", "after"])
def test_same_bits(isa: str, rng: Rng, window: dict[str, Any], integer: bool, ends: str) -> None:
    residual = ends == "both" and window is WINDOWS[0]
    before, after = ends != "after", ends != "before"
    graph = block(rng, integer=integer, before=before, after=after, residual=residual, **window)
    reference = separate(graph, isa)
    channels = graph.inputs["x"].shape[1]  # type: ignore[index]
    sizes = [(1, 5, 6), (3, 7, 9), (0, 8, 8), (1, 37, 64)]
    given = [rng.normal(size=(n, channels, h, w)).astype(np.float32) for n, h, w in sizes]
    want = [reference.run(x) for x in given]
    for threads in (1, 2, 3):
        session = lepton_rt.Session(graph, isa=isa, threads=threads)
        joined = [step.op for step in session.explain() if "Conv+" in step.op]
        assert [op.count("+") for op in joined] == [before + after]
        for x, y in zip(given, want, strict=True):
            np.testing.assert_array_equal(session.run(x), y)


@pytest.mark.parametrize("change", ["read twice", "an output", "a residual inside"])
def test_keeps_apart_what_others_read(rng: Rng, change: str) -> None:
    model = Model(x=("FLOAT", [1, 16, 9, 9]))
    weights = rng.normal(size=(16, 16, 1, 1)).astype(np.float32)
    wide = convolve(model, "x", weights, rng, False, False)
    if change == "a residual inside":
        wide = model("Add", wide, "x")
    taps = rng.normal(size=(16, 1, 3, 3)).astype(np.float32)
    y = convolve(model, wide, taps, rng, False, False, group=16, pads=[1] * 4)
    outputs = [y, wide] if change == "an output" else [y]
    if change == "read twice":
        outputs = [model("Mul", y, model("MaxPool", wide, kernel_shape=[3, 3], pads=[1] * 4))]
    session = lepton_rt.Session(model.graph(*outputs))
    assert not [step.op for step in session.explain() if "Conv+" in step.op]


def test_residual_of_another_shape(rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", THIN, "h", "w"]), r=("FLOAT", ["n", THIN, "a", "b"]))
    wide = rng.normal(size=(16, THIN, 1, 1)).astype(np.float32)
    taps = rng.normal(size=(16, 1, 3, 3)).astype(np.float32)
    thin = rng.normal(size=(THIN, 16, 1, 1)).astype(np.float32)
    y = model("Conv", model("Conv", "x", wide), taps, group=16, pads=[1] * 4)
    session = lepton_rt.Session(model.graph(model("Add", model("Conv", y, thin), "r")))
    x = np.ones((1, THIN, 6, 6), np.float32)
    with pytest.raises(InputError):
        session.run(x, np.ones((1, THIN, 5, 6), np.float32))


def join(**changes: Any) -> Array:
    """A 1x1 convolution of two channels and a depthwise one, joined by hand."""
    one = {"kernel_shape": [1, 1], "in_channels": 2, "out_channels": 2, "group": 1}
    two = {"kernel_shape": [3, 1], "in_channels": 2, "out_channels": 2, "group": 2}
    attrs: dict[str, Any] = {
        "rows": [1, 0, 0],
        "values": [1, 1],
        "results": [1],
        "pad_rows": [1, 1],
        "0.in": [0, 1],
        "0.out": [3],
        "1.in": [3, 2],
        "1.out": [4],
        **{f"0.{name}": value for name, value in one.items()},
        **{f"1.{name}": value for name, value in two.items()},
    }
    attrs.update(changes)
    op = attrs.pop("op", "lepton.Conv+lepton.Conv")
    kernel = attrs.pop("kernel", "gemm_f32_4x8_scalar+depthwise_f32_scalar")
    constants = attrs.pop("constants", (1, 2))
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    packed = _core.pack_gemm_f32("gemm_f32_4x8_scalar", np.eye(2, dtype=np.float32)[None])
    inputs = [x, packed, np.ones((3, 2), np.float32)]
    given = {name: value for name, value in attrs.items() if value is not None}
    return run_op(op, inputs, given, constants=constants, kernel=kernel)[0]


def test_by_hand() -> None:
    x = np.pad(np.arange(12, dtype=np.float32).reshape(3, 2, 2), ((1, 1), (0, 0), (0, 0)))
    np.testing.assert_array_equal(join()[0], x[:-2] + x[1:-1] + x[2:])


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": [0, 0, 0]},
        {"rows": [1, 1, 0]},
        {"constants": (2,)},
        {"results": [0]},
        {"pad_rows": None},
        {"pad_rows": [1]},
        {"pad_rows": [-1, 1]},
        {"pad_rows": [1 << 60, 1]},
        {"1.pads": [1, 0, 1, 0]},
        {"1.auto_pad": "SAME_UPPER"},
        {"1.channels_last": 0},
        {"0.strides": [2, 1]},
        {"0.kernel_shape": [3, 1]},
        {"1.group": 1},
        {"0.in": [-1, 1]},
        {"0.in": [1, 0]},
        {"1.in": [0, 2]},
        {"1.in": [3, 2, -1, 0]},
        {"0.in": [0, 1, -1, 0]},
        {"op": "lepton.Conv+Relu"},
        {"op": "lepton.Conv+lepton.QLinearConv"},
        {"kernel": "gemm_f32_4x8_scalar"},
    ],
)
def test_refuses_what_does_not_fit(changes: dict[str, Any]) -> None:
    with pytest.raises((ModelError, InputError, UnsupportedError)):
        join(**changes)
