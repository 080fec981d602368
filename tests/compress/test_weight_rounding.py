"""Weights rounded to the inputs of their layer, and the moments of inputs that this needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import lepton_rt
from lepton_rt.compress.input_moments import WIDEST_BLOCK, InputMoments, conv_rows
from lepton_rt.compress.weight_rounding import round_to_inputs
from lepton_rt.graph.ir import Constant, Graph, Node
from small_networks import Builder, run_onnx

Rng = np.random.Generator

WINDOWS: list[dict[str, Any]] = [
    {"kernel": (1, 1)},
    {"kernel": (3, 3), "pads": [1, 1, 1, 1]},
    {"kernel": (3, 2), "pads": [0, 2, 1, 0], "strides": [2, 3]},
    {"kernel": (2, 3), "dilations": [3, 2]},
    {"kernel": (3, 3), "group": 2, "strides": [2, 2]},
    {"kernel": (3, 3), "group": 6, "pads": [1, 1, 1, 1]},
    {"kernel": (4, 3), "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"kernel": (4, 3), "auto_pad": "SAME_LOWER", "strides": [3, 1]},
    {"kernel": (3, 3), "auto_pad": "VALID"},
    {"kernel": (5,), "pads": [2, 1]},
    {"kernel": (2, 3, 2), "strides": [1, 2, 1]},
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_rows_of_a_convolution(rng: Rng, window: dict[str, Any]) -> None:
    """The rows times the weights are the convolution."""
    attrs = dict(window)
    kernel, groups = attrs.pop("kernel"), attrs.get("group", 1)
    x = rng.normal(size=(1, 6, 11, 9, 8)[: 2 + len(kernel)]).astype(np.float32)
    w = rng.normal(size=(12, 6 // groups, *kernel)).astype(np.float32)
    b = Builder(0)
    b.node("Conv", ["x", b.constant("w", w)], "y", **attrs)
    y = run_onnx(b.model({"x": x.shape}, {"y": [None] * x.ndim}), {"x": x})[0]
    rows = conv_rows(x[0], Node("Conv", ["x", "w"], ["y"], attrs), w.shape)
    made = np.matmul(rows, w.reshape(groups, 12 // groups, -1).transpose(0, 2, 1))
    assert np.allclose(made.transpose(0, 2, 1).reshape(y.shape), y, atol=1e-4)


@pytest.mark.parametrize("k", [5, WIDEST_BLOCK + 2, 2 * WIDEST_BLOCK])
def test_moments_of_several_batches(rng: Rng, k: int) -> None:
    """Those of all rows together, even where the mean dwarfs the spread."""
    graph = Graph(constants={"w": Constant.of(np.zeros((k, 3), np.float32))})
    moments = InputMoments(graph, [Node("MatMul", ["x", "w"], ["y"])])
    assert moments.tensors == ["x"]
    parts = [(rng.normal(size=(n, 4, k)) + 100).astype(np.float32) for n in (3, 0, 7)]
    for part in parts:
        moments.add({"x": part})
    rows = np.concatenate(parts).reshape(40, k).astype(np.float64)
    found = moments.found["w"]
    width = found.products.shape[1]
    assert width <= WIDEST_BLOCK
    assert found.rows == 40
    assert np.allclose(found.mean().reshape(-1), rows.mean(0), atol=1e-5)
    for i, block in enumerate(np.split(rows, k // width, axis=1)):
        want = np.cov(block, rowvar=False, ddof=0).reshape(width, width)
        assert np.abs(found.covariance()[i] - want).max() < 0.02  # 1e-6 of the power is 0.01
        assert np.linalg.eigvalsh(found.covariance()[i]).min() > 0


def test_independent_inputs_leave_the_nearest(rng: Rng) -> None:
    w = rng.normal(size=(2, 70, 5))
    scale = np.full((2, 1, 5), 0.02)
    power = np.stack([np.diag(rng.uniform(0.1, 9, 70)) for _ in range(2)])
    assert np.array_equal(round_to_inputs(w, scale, 63, power), np.clip(np.rint(w / 0.02), -63, 63))
    assert np.array_equal(
        round_to_inputs(w, scale, 63, np.zeros_like(power)), np.clip(np.rint(w / 0.02), -63, 63)
    )


@pytest.mark.parametrize("k", [1, 2, 63, 64, 65, 200])
def test_errors_of_correlated_inputs_cancel(rng: Rng, k: int) -> None:
    """The products come closer than with the nearest integers; zeros stay zeros."""
    x = rng.normal(size=(400, k)) + 3 * rng.normal(size=(400, 1))
    moments = (x.T @ x / 400)[None]
    w = rng.normal(size=(1, k, 30)) * (rng.random((1, k, 30)) < 0.8)
    scale = np.abs(w).max(axis=1, keepdims=True) / 7 + 1e-9
    levels = round_to_inputs(w, scale, 7, moments)
    assert np.array_equal(levels, np.rint(levels))
    assert np.abs(levels).max() <= 7
    assert not levels[w == 0].any()
    nearest = np.linalg.norm(x @ (w[0] - np.rint(w[0] / scale[0]) * scale[0]))
    cancelled = np.linalg.norm(x @ (w[0] - levels[0] * scale[0]))
    assert cancelled <= (nearest if k < 3 else 0.6 * nearest) + 1e-9


def shifted_products() -> onnx.ModelProto:
    """MatMul with and without a bias, Gemm both ways, a shared weight and a grouped convolution."""
    b = Builder(5)
    shared = b.normal("shared", 32, 32)
    b.node("MatMul", ["x", shared], "m1")
    b.node("Add", ["m1", b.normal("b1", 32)], "s1")
    b.node("Relu", ["s1"], "r1")
    b.node("MatMul", ["r1", shared], "m2")
    b.node("Relu", ["m2"], "r2")
    b.node("Gemm", ["r2", b.normal("w3", 48, 32), b.normal("b3", 48)], "g3", transB=1)
    b.node("Relu", ["g3"], "r3")
    b.node("Gemm", ["r3", b.normal("w4", 48, 36), b.normal("b4", 36)], "g4")
    b.node("Reshape", ["g4", b.constant("shape", np.array([-1, 12, 3]))], "image")
    b.node("Conv", ["image", b.normal("w5", 4, 6, 2), b.normal("b5", 4)], "y", group=2)
    return b.model({"x": ["n", 32]}, {"y": ["n", 4, 2]})


@pytest.mark.parametrize("per_channel", [True, False])
def test_networks_come_closer_to_float(rng: Rng, per_channel: bool) -> None:
    model = shifted_products()
    x = (rng.normal(size=(600, 32)) @ rng.normal(size=(32, 32)) + 2).astype(np.float32)
    want = run_onnx(model, {"x": x[300:]})[0]
    errors = {}
    for rounding in ("gptq", "nearest"):
        made = lepton_rt.quantize(
            model,
            [x[:300]],
            bits=7,
            rounding=rounding,
            per_channel=per_channel,
            progress=False,
        )
        errors[rounding] = np.linalg.norm(lepton_rt.Session(made).run(x[300:]) - want)
    assert errors["gptq"] < errors["nearest"]


def test_the_mean_moves_into_the_bias() -> None:
    """Of a layer whose inputs are always the same nothing but the rounding of the bias is left."""
    b = Builder(7)
    b.node("Gemm", ["x", b.normal("w", 40, 6), b.normal("b", 6)], "y")
    model = b.model({"x": ["n", 40]}, {"y": ["n", 6]})
    x = np.tile(np.linspace(0, 255, 40, dtype=np.float32).round() / 255, (3, 1))
    want = run_onnx(model, {"x": x})[0]
    made = lepton_rt.quantize(model, [x], exclude=(), progress=False)
    bias_step = np.abs(want).max() * 1e-4
    assert np.abs(lepton_rt.Session(made).run(x) - want).max() < bias_step


def test_pruned_weights_stay_pruned(rng: Rng) -> None:
    b = Builder(11)
    weight = rng.normal(size=(64, 48)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.6] = 0
    b.node("MatMul", ["x", b.constant("w", weight)], "y")
    x = rng.normal(size=(100, 64)).astype(np.float32) + 1
    made = lepton_rt.quantize(b.model({"x": ["n", 64]}, {"y": ["n", 48]}), [x], progress=False)
    stored = made.graph.array("w_quantized")
    assert stored is not None
    assert not stored[weight == 0].any()


@pytest.mark.parametrize("per_row", [True, False])
def test_dynamic_products_come_closer_with_batches(rng: Rng, per_row: bool) -> None:
    model = shifted_products()
    x = (rng.normal(size=(600, 32)) @ rng.normal(size=(32, 32)) + 2).astype(np.float32)
    want = run_onnx(model, {"x": x[300:]})[0]

    def error(batches: Any, **options: Any) -> float:
        made = lepton_rt.quantize(
            model, batches, mode="dynamic", bits=7, per_row=per_row, progress=False, **options
        )
        return float(np.linalg.norm(lepton_rt.Session(made).run(x[300:]) - want))

    without = error(None)
    assert error([x[:300]]) < without
    assert error([x[:300]], rounding="nearest") == without


def test_batches_that_are_not_finite_are_errors() -> None:
    x = np.full((3, 32), np.nan, np.float32)
    with pytest.raises(lepton_rt.InputError, match="'x' holds NaN"):
        lepton_rt.quantize(shifted_products(), [x], mode="dynamic", progress=False)
