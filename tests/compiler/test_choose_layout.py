"""choose_layout: channels-last inside, no transposes left, the same results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lepton_rt.graph.ir import Graph
from lepton_rt.passes.choose_layout import choose_layout
from pass_graphs import Model, assert_same_meaning, keys

Rng = np.random.Generator
SHAPE = [2, 6, 8, 4]


def normal(rng: Rng, *shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def conv(model: Model, x: str, rng: Rng, cin: int = 6, cout: int = 6, **attrs: Any) -> str:
    weights = normal(rng, cout, cin // attrs.get("group", 1), 3, 3)
    return str(model("Conv", x, weights, normal(rng, cout), pads=[1, 1, 1, 1], **attrs))


def transposes(graph: Graph) -> int:
    return keys(graph).count("Transpose")


def between(
    body: Callable[[Model, str, Rng], str], rng: Rng, channels: int = 6
) -> tuple[Graph, dict[str, Any]]:
    """Conv → body → Conv on a 3-channel image."""
    model = Model(x=("FLOAT", ["n", 3, 8, 4]))
    y = body(model, conv(model, "x", rng, 3), rng)
    graph = model.graph(conv(model, y, rng, channels))
    return graph, {"x": normal(rng, 2, 3, 8, 4)}


def axes(*values: int) -> Any:
    return np.array(values, np.int64)


BODIES: dict[str, Callable[[Model, str, Rng], str]] = {
    "relu": lambda m, x, r: m("Relu", x),
    "clip": lambda m, x, r: m("Clip", x, np.float32(-1), np.float32(1)),
    "per channel": lambda m, x, r: m("Add", x, normal(r, 6, 1, 1)),
    "per row": lambda m, x, r: m("Mul", normal(r, 8, 1), x),
    "trailing vector": lambda m, x, r: m("Mul", x, normal(r, 4)),
    "scalar": lambda m, x, r: m("Mul", x, np.float32(2)),
    "prelu": lambda m, x, r: m("PRelu", x, normal(r, 6, 1, 1)),
    "branches": lambda m, x, r: m("Add", m("Sigmoid", x), m("Mul", x, x)),
    "cast": lambda m, x, r: m("Cast", m("Cast", x, to=11), to=1),
    "where": lambda m, x, r: m("Where", m("Greater", x, np.float32(0)), x, normal(r, 6, 8, 4)),
    "squeeze and excite": lambda m, x, r: m(
        "Mul", x, m("Sigmoid", conv(m, m("ReduceMean", x, axes(2, 3), keepdims=1), r))
    ),
    "global max": lambda m, x, r: m("Sub", x, m("ReduceMax", x, axes(-1, -2), keepdims=1)),
    "channel mean": lambda m, x, r: m("Sub", x, m("ReduceMean", x, axes(1), keepdims=1)),
    "argmax": lambda m, x, r: m("Add", x, m("Cast", m("ArgMax", x, axis=1, keepdims=1), to=1)),
    "split and concat": lambda m, x, r: m(
        "Concat", *reversed(m("Split", x, axes(2, 4), outputs=2, axis=1)), axis=1
    ),
    "concat of a constant": lambda m, x, r: m(
        "Slice", m("Concat", x, normal(r, 2, 2, 8, 4), axis=1), axes(1), axes(7), axes(1)
    ),
    "softmax": lambda m, x, r: m("Softmax", x, axis=1),
    "softmax of the last axis": lambda m, x, r: m("LogSoftmax", x),
    "pad": lambda m, x, r: m("Pad", x, axes(0, 0, 1, 2, 0, 0, 3, 0), np.float32(0.5)),
    "pad of axes": lambda m, x, r: m("Pad", x, axes(1, 2), np.float32(0), axes(-1)),
    "slice": lambda m, x, r: m("Slice", x, axes(0, 0, 1), axes(9, 9, 7)),
    "slice of axes": lambda m, x, r: m("Slice", x, axes(7, 1), axes(0, 4), axes(2, 3), axes(-2, 1)),
    "gather": lambda m, x, r: m("Gather", x, axes(5, 0, 1, 1, 3, 2), axis=1),
    "max pool": lambda m, x, r: m("MaxPool", x, kernel_shape=[2, 3], strides=[2, 1]),
    "average pool": lambda m, x, r: m("AveragePool", x, kernel_shape=[2, 2], pads=[1, 0, 0, 1]),
    "lp pool": lambda m, x, r: m("LpPool", x, kernel_shape=[2, 2]),
    "lrn": lambda m, x, r: m("LRN", x, size=3),
    "transposed": lambda m, x, r: m(
        "ConvTranspose", x, normal(r, 6, 6, 2, 2), strides=[2, 2], output_padding=[1, 0]
    ),
    "resize": lambda m, x, r: m(
        "Resize", x, np.zeros(0, np.float32), np.array([1, 1, 2, 3], np.float32), mode="nearest"
    ),
    "resize to sizes": lambda m, x, r: m(
        "Resize",
        x,
        np.zeros(0, np.float32),
        np.zeros(0, np.float32),
        m("Concat", m("Slice", m("Shape", x), axes(0), axes(2)), axes(5, 9), axis=0),
        mode="linear",
    ),
    "there and back": lambda m, x, r: m(
        "Transpose",
        m("Softmax", m("Transpose", x, perm=[0, 2, 3, 1]), axis=-1),
        perm=[0, 3, 1, 2],
    ),
    "depthwise": lambda m, x, r: conv(m, x, r, group=6),
}


@pytest.mark.parametrize("name", BODIES)
def test_no_transpose_between_convolutions(name: str, rng: Rng) -> None:
    graph, feeds = between(BODIES[name], rng)
    after = choose_layout(graph)
    assert_same_meaning(graph, after, feeds)
    assert transposes(after) == 1  # the graph's output
    assert after.nodes[-1].op == "Transpose"


@pytest.mark.parametrize("name", BODIES)
def test_without_sinking(name: str, rng: Rng) -> None:
    graph, feeds = between(BODIES[name], rng)
    assert_same_meaning(graph, choose_layout(graph, sink=False), feeds)


BARRIERS: dict[str, tuple[int, Callable[[Model, str, Rng], str]]] = {
    "depth to space": (8, lambda m, x, r: m("DepthToSpace", conv(m, x, r, 6, 32), blocksize=2)),
    "reshape": (12, lambda m, x, r: m("Reshape", x, axes(0, 12, 4, 4))),
    "instance norm": (
        6,
        lambda m, x, r: m("InstanceNormalization", x, normal(r, 6), normal(r, 6)),
    ),
    "transpose of space": (6, lambda m, x, r: m("Transpose", x, perm=[0, 1, 3, 2])),
    "matmul": (6, lambda m, x, r: m("MatMul", x, normal(r, 4, 5))),
}


@pytest.mark.parametrize("name", BARRIERS)
def test_operators_that_need_channels_first(name: str, rng: Rng) -> None:
    channels, body = BARRIERS[name]
    graph, feeds = between(body, rng, channels)
    assert_same_meaning(graph, choose_layout(graph), feeds)


def test_residual_network_of_a_deep_input(rng: Rng) -> None:
    model = Model(x=("FLOAT", SHAPE))
    y = model("Relu", model("Add", conv(model, "x", rng), "x"))
    graph = model.graph(conv(model, y, rng))
    after = choose_layout(graph)
    assert transposes(after) == 2  # in and out
    assert_same_meaning(graph, after, {"x": normal(rng, *SHAPE)})


def test_inner_tensors_that_are_outputs(rng: Rng) -> None:
    model = Model(x=("FLOAT", SHAPE))
    a = conv(model, "x", rng)
    b = model("Relu", a)
    graph = model.graph(conv(model, b, rng), a, b)
    assert_same_meaning(graph, choose_layout(graph), {"x": normal(rng, *SHAPE)})


def flatten_head(model: Model, x: str, how: str) -> str:
    if how == "flatten":
        return str(model("Flatten", x))
    if how == "reshape":
        return str(model("Reshape", x, axes(0, -1)))
    if how == "reshape to size":
        return str(model("Reshape", x, axes(-1, 6 * 8 * 4)))
    batch = model("Slice", model("Shape", x), axes(0), axes(1))
    return str(model("Reshape", x, model("Concat", batch, axes(6 * 8 * 4), axis=0)))


@pytest.mark.parametrize("how", ["flatten", "reshape", "reshape to size"])
@pytest.mark.parametrize("head", ["matmul", "gemm", "quantized gemm"])
def test_flatten_turns_the_weights(how: str, head: str, rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 3, 8, 4]))
    y = flatten_head(model, model("Relu", conv(model, "x", rng, 3)), how)
    y = model("Relu", y)
    if head == "matmul":
        y = model("MatMul", y, normal(rng, 192, 5))
    elif head == "gemm":
        y = model("Gemm", y, normal(rng, 5, 192), normal(rng, 5), transB=1)
    else:
        weights = rng.integers(-127, 128, (5, 192)).astype(np.int8)
        scales = rng.uniform(0.01, 0.02, 5).astype(np.float32)
        w = model("DequantizeLinear", weights, scales, np.zeros(5, np.int8), axis=0)
        y = model("Gemm", y, w, normal(rng, 5), transB=1)
    graph = model.graph(y)
    after = choose_layout(graph)
    assert transposes(after) == 0
    assert_same_meaning(graph, after, {"x": normal(rng, 3, 3, 8, 4)})


def test_flatten_for_several_readers_is_transposed(rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 3, 8, 4]))
    y = flatten_head(model, conv(model, "x", rng, 3), "flatten")
    z = model("Add", model("MatMul", y, normal(rng, 192, 5)), model("ReduceMax", y, axes(1)))
    graph = model.graph(z)
    assert_same_meaning(graph, choose_layout(graph), {"x": normal(rng, 2, 3, 8, 4)})


def test_pixels_of_one_need_no_transpose(rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 3, 8, 4]))
    y = model("ReduceMean", conv(model, "x", rng, 3), axes(2, 3), keepdims=1)
    y = model("Squeeze", y, axes(2, 3))
    graph = model.graph(model("LayerNormalization", y, normal(rng, 6)))
    after = choose_layout(graph)
    assert transposes(after) == 0
    assert_same_meaning(graph, after, {"x": normal(rng, 2, 3, 8, 4)})


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank: int, rng: Rng) -> None:
    size = [7] * rank
    model = Model(x=("FLOAT", [2, 5, *size]))
    y = model("Conv", "x", normal(rng, 4, 5, *[3] * rank))
    y = model("MaxPool", model("Relu", y), kernel_shape=[2] * rank)
    graph = model.graph(model("Conv", y, normal(rng, 3, 4, *[2] * rank)))
    after = choose_layout(graph)
    assert transposes(after) == 2
    assert_same_meaning(graph, after, {"x": normal(rng, 2, 5, *size)})


def test_channels_last_model_with_its_own_transposes(rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 8, 4, 6]))
    y = conv(model, model("Transpose", "x", perm=[0, 3, 1, 2]), rng)
    y = model("Add", model("Transpose", y, perm=[0, 2, 3, 1]), normal(rng, 6))
    y = conv(model, model("Transpose", y, perm=[0, 3, 1, 2]), rng)
    graph = model.graph(model("Transpose", y, perm=[0, 2, 3, 1]))
    after = choose_layout(graph)
    assert transposes(after) == 0
    assert_same_meaning(graph, after, {"x": normal(rng, 2, 8, 4, 6)})


def test_attention_transposes_are_left_alone(rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 5, 4, 3]))
    q = model("Transpose", "x", perm=[0, 2, 1, 3])
    k = model("Transpose", "x", perm=[0, 2, 3, 1])
    graph = model.graph(model("Softmax", model("MatMul", q, k)))
    after = choose_layout(graph)
    assert keys(after) == keys(graph)
    assert_same_meaning(graph, after, {"x": normal(rng, 2, 5, 4, 3)})


def test_a_deep_input_read_channels_first_too(rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 6, 5]))
    y = model("Conv", "x", normal(rng, 6, 6, 1))
    y = model("MatMul", y, model("Transpose", "x", perm=[0, 2, 1]))
    graph = model.graph(model("Add", y, np.float32(1)))
    assert_same_meaning(graph, choose_layout(graph), {"x": normal(rng, 2, 6, 5)})
