"""Quantised layers: DequantizeLinear → layer → QuantizeLinear as integer operators, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lepton_rt.graph.ir import Graph
from lepton_rt.passes.absorb_qdq import absorb_qdq
from lepton_rt.passes.choose_layout import choose_layout
from lepton_rt.passes.fold_dequantize import fold_dequantize
from lepton_rt.passes.fuse_residual import fuse_residual
from lepton_rt.passes.move_dequantize import move_dequantize
from lepton_rt.passes.move_quantize import move_quantize
from lepton_rt.passes.normalise import normalise
from pass_graphs import Model, assert_same_meaning, dequantize, fake, keys, quantize

Rng = np.random.Generator
X_SCALE, X_ZERO = 0.03, 118


def absorbed(graph: Graph) -> Graph:
    graph = move_quantize(move_dequantize(choose_layout(normalise(graph))))
    return fuse_residual(absorb_qdq(graph))


def image(rng: Rng, *shape: int) -> dict[str, Any]:
    return {"x": rng.standard_normal(shape or (2, 6, 8, 5)).astype(np.float32)}


def conv(
    model: Model,
    x: str,
    rng: Rng,
    *,
    per_channel: bool = True,
    bias: str = "int32",
    x_scale: float = X_SCALE,
    group: int = 1,
) -> str:
    """A quantised 3x3 convolution of 6 channels over a dequantised tensor."""
    weights = rng.integers(-63, 64, (6, 6 // group, 3, 3)).astype(np.int8)
    count = 6 if per_channel else ()
    scales = np.asarray(rng.uniform(0.005, 0.02, count), np.float32)
    operands = [x, dequantize(model, weights, scales, np.zeros(count, np.int8), axis=0)]
    if bias == "int32":
        steps = rng.integers(-2000, 2000, 6).astype(np.int32)
        bias_scale = np.broadcast_to(np.float32(x_scale) * scales, 6).astype(np.float32)
        operands.append(dequantize(model, steps, bias_scale, np.zeros(6, np.int32), axis=0))
    elif bias == "float":
        operands.append(model.constant(rng.standard_normal(6).astype(np.float32)))
    return str(model("Conv", *operands, pads=[1, 1, 1, 1], group=group))


def entry(model: Model) -> str:
    return fake(model, "x", X_SCALE, X_ZERO)


def ends(graph: Graph) -> list[str]:
    """Keys without the conversions at the network's ends and the transpose of its output."""
    return [k for k in keys(graph) if k not in {"QuantizeLinear", "DequantizeLinear", "Transpose"}]


@pytest.mark.parametrize("group", [1, 2, 6])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activation", ["", "Relu", "Clip"])
@pytest.mark.parametrize("out", [np.uint8, np.int8])
def test_convolution(group: int, per_channel: bool, activation: str, out: Any, rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 6, 8, 5]))
    y = conv(model, entry(model), rng, per_channel=per_channel, group=group)
    if activation == "Relu":
        y = model("Relu", y)
    if activation == "Clip":
        y = model("Clip", y, np.float32(-0.31), np.float32(0.77))
    graph = model.graph(quantize(model, y, 0.02, 7 if out == np.int8 else 131, out))
    after = absorbed(graph)
    assert ends(after) == ["lepton.QLinearConv"]
    assert_same_meaning(graph, after, image(rng))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("zeros", [[128] * 6, [100, 128, 128, 128, 128, 128]])
def test_depthwise_convolution_of_channels_with_scales(
    zeros: list[int], per_channel: bool, rng: Rng
) -> None:
    """NNCF quantises what a depthwise convolution reads by channel."""
    model = Model(x=("FLOAT", ["n", 6, 8, 5]))
    scales = rng.uniform(0.01, 0.04, 6).astype(np.float32)
    points = np.array(zeros, np.uint8)
    first = conv(model, entry(model), rng)
    integers = model("QuantizeLinear", first, scales, points, axis=1)
    x = model("DequantizeLinear", integers, scales, points, axis=1)
    y = conv(model, x, rng, per_channel=per_channel, bias="", group=6)
    graph = model.graph(quantize(model, y, 0.02, 131, np.uint8))
    after = absorbed(graph)
    assert keys(after).count("lepton.QLinearConv") == (2 if len(set(zeros)) == 1 else 1)
    assert_same_meaning(graph, after, image(rng))


def test_convolution_without_quantised_output(rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 6, 8, 5]))
    graph = model.graph(conv(model, entry(model), rng))
    after = absorbed(graph)
    assert ends(after) == ["lepton.QLinearConv"]
    assert_same_meaning(graph, after, image(rng))


def test_float_bias_that_is_no_multiple_of_the_step(rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 6, 8, 5]))
    y = conv(model, entry(model), rng, bias="float")
    graph = model.graph(model("Relu", y))
    after = absorbed(graph)
    assert "lepton.QLinearConv" in keys(after)
    assert "Add" in keys(after)
    assert_same_meaning(graph, after, image(rng))


def test_asymmetric_weights(rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 6, 8, 5]))
    weights = rng.integers(0, 256, (4, 6, 3, 3)).astype(np.uint8)
    scales = rng.uniform(0.005, 0.02, 4).astype(np.float32)
    zeros = rng.integers(100, 150, 4).astype(np.uint8)
    y = model("Conv", entry(model), dequantize(model, weights, scales, zeros, axis=0))
    graph = model.graph(quantize(model, y, 0.05, 128))
    after = absorbed(graph)
    assert ends(after) == ["lepton.QLinearConv"]
    assert_same_meaning(graph, after, image(rng))


@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Gemm transposed"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_matrix_products(op: str, per_channel: bool, rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 12]))
    turned = op == "Gemm transposed"
    weights = rng.integers(-63, 64, (5, 12) if turned else (12, 5)).astype(np.int8)
    count = 5 if per_channel else ()
    scales = np.asarray(rng.uniform(0.005, 0.02, count), np.float32)
    w = dequantize(model, weights, scales, np.zeros(count, np.int8), axis=0 if turned else 1)
    operands = [entry(model), w]
    if op != "MatMul":
        steps = rng.integers(-2000, 2000, 5).astype(np.int32)
        bias_scale = np.broadcast_to(np.float32(X_SCALE) * scales, 5).astype(np.float32)
        operands.append(dequantize(model, steps, bias_scale, np.zeros(5, np.int32), axis=0))
    attrs = {"transB": 1} if turned else {}
    y = model(op.split(" ")[0], *operands, **attrs)
    graph = model.graph(quantize(model, model("Relu", y), 0.02, 3))
    after = absorbed(graph)
    assert ends(after) == ["lepton.QLinearMatMul"]
    assert_same_meaning(graph, after, image(rng, 7, 12))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_weights_behind_a_transpose(per_channel: bool, bias: bool, rng: Rng) -> None:
    """PyTorch's linear layers keep their weights as [n, k]."""
    model = Model(x=("FLOAT", ["b", "n", 7]))
    count = 5 if per_channel else ()
    weights = rng.integers(-127, 128, (5, 7)).astype(np.int8)
    scales = np.asarray(rng.uniform(0.005, 0.02, count), np.float32)
    w = dequantize(model, weights, scales, np.zeros(count, np.int8), axis=0)
    y = model("MatMul", entry(model), model("Transpose", w, perm=[1, 0]))
    if bias:
        y = model("Add", y, rng.standard_normal(5).astype(np.float32))
    graph = model.graph(y)
    after = absorbed(graph)
    assert ends(after) == ["lepton.QLinearMatMul", *(["Add"] if bias else [])]
    assert_same_meaning(graph, after, {"x": rng.standard_normal((2, 3, 7)).astype(np.float32)})


def test_product_of_two_activations(rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 5, 5]))
    y = model("MatMul", entry(model), fake(model, model("Neg", "x"), 0.04, 100))
    graph = model.graph(quantize(model, y, 0.05, 128))
    after = absorbed(graph)
    assert "lepton.QLinearMatMul" in keys(after)
    assert "MatMul" not in keys(after)
    assert_same_meaning(graph, after, image(rng, 2, 5, 5))


@pytest.mark.parametrize("trap", ["transA", "alpha", "two readers", "per-axis activation"])
def test_what_must_not_be_absorbed(trap: str, rng: Rng) -> None:
    model = Model(x=("FLOAT", [6, 6]))
    weights = rng.integers(-127, 128, (6, 6)).astype(np.int8)
    w = dequantize(model, weights, 0.01, np.array(0, np.int8))
    x = entry(model)
    if trap == "per-axis activation":
        scales = rng.uniform(0.02, 0.05, 6).astype(np.float32)
        zeros = np.full(6, 128, np.uint8)
        x = dequantize(model, model("QuantizeLinear", "x", scales, zeros, axis=1), scales, zeros)
    attrs = {"transA": {"transA": 1}, "alpha": {"alpha": 0.5}}.get(trap, {})
    y = model("Gemm", x, w, **attrs)
    outputs = [quantize(model, y, 0.05, 128)]
    if trap == "two readers":
        outputs.append(model("Neg", y))
    graph = model.graph(*outputs)
    after = absorbed(graph)
    if trap == "two readers":
        assert "QuantizeLinear" in keys(after)
    else:
        assert "lepton.QLinearMatMul" not in keys(after)
    assert_same_meaning(graph, fold_dequantize(after), image(rng, 6, 6))


@pytest.mark.parametrize("activation", ["", "Relu", "Clip"])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("rounded", [False, True])
def test_residual_block(activation: str, side: int, rounded: bool, rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 6, 8, 5]))
    a = fake(model, conv(model, entry(model), rng), 0.04, 120)
    b = conv(model, a, rng, x_scale=0.04)
    if rounded:
        b = fake(model, b, 0.05, 3, np.int8)
    y = model("Add", *([a, b] if side else [b, a]))
    if activation == "Relu":
        y = model("Relu", y)
    if activation == "Clip":
        y = model("Clip", y, np.float32(0), np.float32(2))
    graph = model.graph(quantize(model, y, 0.06, 10))
    after = absorbed(graph)
    assert ends(after) == ["lepton.QLinearConv"] * 2
    (sum_,) = (node for node in after.nodes if len(node.inputs) == 14)
    assert bool(sum_.inputs[6]) == rounded
    assert_same_meaning(graph, after, image(rng))


def test_residual_of_two_layers_goes_into_the_later(rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 6, 8, 5]))
    x = entry(model)
    a = fake(model, conv(model, x, rng), 0.04, 120)
    b = fake(model, conv(model, x, rng), 0.05, 128)
    graph = model.graph(quantize(model, model("Add", a, b), 0.06, 128))
    after = absorbed(graph)
    assert ends(after) == ["lepton.QLinearConv"] * 2
    assert_same_meaning(graph, after, image(rng))


@pytest.mark.parametrize("trap", ["read twice", "float sum", "float residual"])
def test_float_layers_that_cannot_add(trap: str, rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 6, 8, 5]))
    x = entry(model)
    y = conv(model, x, rng)
    total = model("Add", y, model("Neg", x) if trap == "float residual" else x)
    outputs = [total if trap == "float sum" else quantize(model, total, 0.06, 128)]
    if trap == "read twice":
        outputs.append(model("Neg", y))
    graph = model.graph(*outputs)
    after = absorbed(graph)
    assert "Add" in keys(after)
    assert_same_meaning(graph, after, image(rng))


def test_residual_that_broadcasts_stays_an_add(rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 6, 8, 5]))
    a = fake(model, conv(model, entry(model), rng), 0.04, 120)
    axes = np.array([2, 3], np.int64)
    b = fake(model, model("ReduceMean", a, axes, keepdims=1), 0.03, 128)
    graph = model.graph(quantize(model, model("Add", a, b), 0.06, 128))
    after = absorbed(graph)
    assert "Add" in keys(after)
    assert_same_meaning(graph, after, image(rng))


@pytest.mark.parametrize("op", ["AveragePool", "GlobalAveragePool", "ReduceMean"])
def test_averages(op: str, rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 6, 8, 5]))
    x = entry(model)
    if op == "AveragePool":
        y = model(op, x, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    elif op == "ReduceMean":
        y = model(op, x, np.array([-1, 2], np.int64), keepdims=0)
    else:
        y = model(op, x)
    graph = model.graph(quantize(model, y, 0.02, 110))
    after = absorbed(graph)
    expected = "QLinearAveragePool" if op == "AveragePool" else "QLinearReduceMean"
    assert f"lepton.{expected}" in keys(after)
    assert_same_meaning(graph, after, image(rng))


AXES = np.array([1], np.int64)
MOVES = {
    "MaxPool": lambda m, x: m("MaxPool", x, kernel_shape=[2, 2]),
    "Flatten": lambda m, x: m("Flatten", x),
    "Reshape": lambda m, x: m("Reshape", x, np.array([0, -1], np.int64)),
    "Transpose": lambda m, x: m("Transpose", x, perm=[0, 2, 1, 3]),
    "Slice": lambda m, x: m("Slice", x, AXES, np.array([4], np.int64), AXES),
    "Gather": lambda m, x: m("Gather", x, np.array([3, 1], np.int64), axis=1),
    "Pad": lambda m, x: m("Pad", x, np.array([0, 0, 1, 1, 0, 0, 0, 2], np.int64)),
    "Pad reflect": lambda m, x: m(
        "Pad", x, np.array([0, 0, 1, 1, 0, 0, 0, 2], np.int64), mode="reflect"
    ),
    "Resize": lambda m, x: m(
        "Resize",
        x,
        np.zeros(0, np.float32),
        np.array([1, 1, 2, 2], np.float32),
        mode="nearest",
    ),
    "SpaceToDepth": lambda m, x: m("SpaceToDepth", m("Concat", x, x, x, x, axis=3), blocksize=2),
    "Unsqueeze": lambda m, x: m("Unsqueeze", x, AXES),
    "Split": lambda m, x: m("Split", x, axis=1, num_outputs=2, outputs=2)[1],
}


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("name", MOVES)
def test_movement_runs_on_integers(name: str, same: bool, rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 6, 8, 5]))
    y = MOVES[name](model, entry(model))
    graph = model.graph(quantize(model, y, X_SCALE if same else 0.04, X_ZERO if same else 9))
    after = absorbed(graph)
    dtypes = [after.value(n.outputs[0]).dtype for n in after.nodes]  # type: ignore[union-attr]
    if same:
        assert all(dtype == np.uint8 for dtype in dtypes)
        assert keys(after).count("QuantizeLinear") == 1
    assert_same_meaning(graph, after, image(rng))


def test_pad_with_another_value_stays_float(rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 6, 8, 5]))
    pads = np.array([0, 0, 1, 1, 0, 0, 0, 2], np.int64)
    y = model("Pad", entry(model), pads, np.float32(0.123))
    graph = model.graph(quantize(model, y, 0.04, 9))
    assert_same_meaning(graph, absorbed(graph), image(rng))


def test_linear_resize_stays_float(rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 6, 8, 5]))
    scales = np.array([1, 1, 2, 2], np.float32)
    y = model("Resize", entry(model), np.zeros(0, np.float32), scales, mode="linear")
    graph = model.graph(quantize(model, y, X_SCALE, X_ZERO))
    after = absorbed(graph)
    assert keys(after) == keys(graph)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("quantised_output", [True, False])
def test_concat(same: bool, quantised_output: bool, rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 6, 8, 5]))
    a = entry(model)
    b = fake(model, model("Neg", "x"), X_SCALE if same else 0.05, X_ZERO if same else 20)
    y = model("Concat", a, b, a, axis=1)
    if quantised_output:
        y = quantize(model, y, X_SCALE, X_ZERO)
    graph = model.graph(y)
    after = absorbed(graph)
    concat = next(node for node in after.nodes if node.op == "Concat")
    integer = after.value(concat.outputs[0]).dtype == np.uint8  # type: ignore[union-attr]
    assert integer == (same or quantised_output)
    assert_same_meaning(graph, after, image(rng))


def test_quantize_moves_up_to_its_pool(rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 6, 8, 5]))
    y = model("Flatten", model("GlobalAveragePool", entry(model)))
    graph = model.graph(quantize(model, y, 0.02, 110))
    after = absorbed(graph)
    assert "lepton.QLinearReduceMean" in keys(after)
    assert "DequantizeLinear" not in keys(after)
    assert_same_meaning(graph, after, image(rng))


@pytest.mark.parametrize("form", ["tensor", "axis", "blocks"])
def test_leftover_constants_are_folded(form: str, rng: Rng) -> None:
    model = Model(x=("FLOAT", [4, 8]))
    weights = rng.integers(-127, 128, (8, 6)).astype(np.int8)
    attrs: dict[str, Any] = {"axis": 1 if form == "axis" else 0}
    shape: tuple[int, ...] = {"tensor": (), "axis": (6,)}.get(form, (2, 6))
    if form == "blocks":
        attrs["block_size"] = 4
    scale = np.asarray(rng.uniform(0.01, 0.02, shape), np.float32)
    zero = np.asarray(rng.integers(-5, 5, shape), np.int8)
    y = model("MatMul", "x", dequantize(model, weights, scale, zero, **attrs))
    graph = model.graph(y)
    after = fold_dequantize(graph)
    assert keys(after) == ["MatMul"]
    assert_same_meaning(graph, after, {"x": rng.standard_normal((4, 8)).astype(np.float32)})
