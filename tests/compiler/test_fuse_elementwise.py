"""fuse_elementwise: programs and tables that mean the same as the nodes they replace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lepton_rt.graph.ir import Graph
from lepton_rt.passes.evaluate import evaluate
from lepton_rt.passes.fuse_elementwise import fuse_elementwise
from pass_graphs import Model, assert_same_meaning, dequantize, fake, keys, meaning, quantize

Rng = np.random.Generator
Body = Callable[[Model], Any]


def normal(rng: Rng, *shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def f32(value: float) -> Any:
    return np.float32(value)


def hard_swish(m: Model) -> Any:
    inner = m("Clip", m("Add", "x", f32(3)), f32(0), f32(6))
    return m("Div", m("Mul", "x", inner), f32(6))


def gelu(m: Model) -> Any:
    inner = m("Add", m("Erf", m("Div", "x", f32(2**0.5))), f32(1))
    return m("Mul", m("Mul", "x", inner), f32(0.5))


ONE: dict[str, Body] = {
    "silu": lambda m: m("Mul", "x", m("Sigmoid", "x")),
    "hard swish": hard_swish,
    "gelu": gelu,
    "variadic": lambda m: m("Max", "x", m("Neg", "x"), m("Sum", "x", "x", "x")),
    "min and mean": lambda m: m("Min", "x", m("Mean", "x", m("Abs", "x"))),
    "compare": lambda m: m("Where", m("Greater", "x", f32(0.1)), m("Exp", "x"), m("Neg", "x")),
    "truth values": lambda m: m("Or", m("Not", m("Less", "x", f32(0))), m("Greater", "x", f32(-1))),
    "loads and stores": lambda m: m("Cast", m("Mul", "x", f32(100)), to=6),
    "casts of truth values": lambda m: m("Mul", "x", m("Cast", m("Greater", "x", f32(0)), to=1)),
    "attributes": lambda m: m(
        "LeakyRelu", m("Elu", m("HardSigmoid", "x", alpha=0.3, beta=0.4), alpha=2.0), alpha=0.2
    ),
    "fake quantisation": lambda m: m("Mul", fake(m, m("Neg", "x"), 0.02, 127), f32(2)),
    "per channel constants": lambda m: m(
        "Add", m("Mul", "x", np.ones((3, 1, 1), np.float32)), np.ones((1, 3, 1, 1), np.float32)
    ),
    "one-element constants of high rank": lambda m: m(
        "Exp", m("Mul", "x", np.ones((1, 1), np.float32))
    ),
    "trailing vector": lambda m: m("Relu", m("Sub", "x", np.arange(5, dtype=np.float32))),
}


def one_group(graph: Graph) -> None:
    assert [k for k in keys(graph) if k not in {"lepton.Elementwise", "lepton.Lookup"}] == []
    assert len(graph.nodes) == 1


@pytest.mark.parametrize("name", ONE)
def test_one_program(name: str, rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 3, 4, 5]))
    graph = model.graph(ONE[name](model))
    after = fuse_elementwise(graph)
    one_group(after)
    assert_same_meaning(graph, after, {"x": normal(rng, 2, 3, 4, 5)})


def test_int64_program(rng: Rng) -> None:
    model = Model(x=("INT64", ["n", 4]))
    y = model("Mul", model("Add", "x", np.int64(2**40)), model("Mod", "x", np.int64(7)))
    graph = model.graph(model("Equal", y, "x"), y)
    after = fuse_elementwise(graph)
    assert len(after.nodes) < len(graph.nodes)
    assert_same_meaning(graph, after, {"x": rng.integers(-50, 50, (3, 4))})


@pytest.mark.parametrize("dtype", ["INT32", "FLOAT16", "UINT8"])
def test_types_that_round_between_operators_stay_apart(dtype: str, rng: Rng) -> None:
    model = Model(x=(dtype, [2, 4]))
    graph = model.graph(model("Mul", model("Add", "x", "x"), "x"))
    assert keys(fuse_elementwise(graph)) == ["Add", "Mul"]


def test_larger_results_are_not_computed_from_fused_smaller_ones(rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 3, 4]), s=("FLOAT", [2, 1, 1]))
    gate = model("Sigmoid", model("Neg", "s"))
    graph = model.graph(model("Relu", model("Mul", "x", gate)))
    after = fuse_elementwise(graph)
    assert keys(after) == ["lepton.Elementwise", "lepton.Elementwise"]
    assert_same_meaning(graph, after, {"x": normal(rng, 2, 3, 4), "s": normal(rng, 2, 1, 1)})


def test_shared_and_visible_tensors_are_kept(rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 3]))
    shared = model("Exp", "x")
    a, b = model("Neg", shared), model("Relu", model("Sub", shared, f32(1)))
    graph = model.graph(a, b, shared)
    after = fuse_elementwise(graph)
    assert keys(after).count("Exp") == 1
    assert_same_meaning(graph, after, {"x": normal(rng, 2, 3)})


def test_unknown_shapes_fuse_only_without_broadcasting(rng: Rng) -> None:
    model = Model(x=("FLOAT", [None, 3]), y=("FLOAT", [None, 3]))
    z = model("Add", model("Exp", "x"), model("Neg", "y"))
    graph = model.graph(model("Relu", z))
    after = fuse_elementwise(graph)
    assert len(after.nodes) == 3
    feeds = {"x": normal(rng, 1, 3), "y": normal(rng, 4, 3)}
    assert_same_meaning(graph, after, feeds)


def test_long_chains_are_cut(rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 3]))
    y = "x"
    for _ in range(100):
        y = model("Add", y, normal(rng, 3))
    graph = model.graph(y)
    after = fuse_elementwise(graph)
    assert 3 <= len(after.nodes) <= 20
    assert_same_meaning(graph, after, {"x": normal(rng, 2, 3)})


def test_a_dequantize_shared_with_others_keeps_its_source(rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 3]))
    shared = fake(model, model("Neg", "x"), 0.02, 127)
    a = model("MatMul", model("Relu", shared), normal(rng, 3, 3))
    graph = model.graph(a, model("MatMul", shared, normal(rng, 3, 3)))
    after = fuse_elementwise(graph)
    assert_same_meaning(graph, after, {"x": normal(rng, 2, 3)})


def quantised_sum(model: Model, activation: str) -> str:
    a = fake(model, "x", 0.03, 120)
    b = fake(model, model("Neg", "x"), 0.02, 3, np.int8)
    y = model("Add", a, b)
    if activation:
        y = model(activation, y)
    return quantize(model, y, 0.04, 128)


@pytest.mark.parametrize("activation", ["", "Relu", "Sigmoid"])
def test_quantised_add_is_one_program(activation: str, rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 3, 4]))
    graph = model.graph(quantised_sum(model, activation))
    after = fuse_elementwise(graph)
    last = after.nodes[-1]
    assert last.key == "lepton.Elementwise"
    assert_same_meaning(graph, after, {"x": normal(rng, 2, 3, 4)})


def test_quantisation_along_an_axis(rng: Rng) -> None:
    model = Model(x=("INT8", [2, 3, 4]))
    scales = rng.uniform(0.01, 0.05, 3).astype(np.float32)
    y = model("Relu", dequantize(model, "x", scales, np.array([1, -5, 9], np.int8)))
    y = model("QuantizeLinear", y, scales[::-1].copy(), np.array([7, 0, 3], np.uint8), axis=1)
    graph = model.graph(y)
    after = fuse_elementwise(graph)
    assert keys(after) == ["lepton.Elementwise"]
    assert_same_meaning(graph, after, {"x": rng.integers(-128, 128, (2, 3, 4)).astype(np.int8)})


FUNCTIONS = [
    "Relu",
    "Sigmoid",
    "Tanh",
    "HardSwish",
    "Erf",
    "Gelu",
    "Exp",
    "Softplus",
    "Mish",
    "Elu",
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("to", [np.uint8, np.int8, np.float32])
def test_functions_of_bytes_are_tables(function: str, dtype: Any, to: Any) -> None:
    model = Model(x=("UINT8" if dtype == np.uint8 else "INT8", [256]))
    y = model(function, dequantize(model, "x", 0.04, np.array(100, dtype)))
    if to != np.float32:
        y = quantize(model, y, 0.03, 20, to)
    graph = model.graph(y)
    after = fuse_elementwise(graph)
    assert keys(after) == ["lepton.Lookup"]
    x = {"x": np.arange(256, dtype=np.uint8).view(dtype)}
    assert_same_meaning(graph, after, x, tolerance=2e-6)


def test_requantisation_is_a_table() -> None:
    model = Model(x=("UINT8", [256]))
    y = quantize(model, dequantize(model, "x", 0.04, np.uint8(100)), 0.05, 90)
    graph = model.graph(y)
    after = fuse_elementwise(graph)
    assert keys(after) == ["lepton.Lookup"]
    assert_same_meaning(graph, after, {"x": np.arange(256, dtype=np.uint8)})


def test_unknown_instructions_have_no_table() -> None:
    assert evaluate(["Unheard r0"], [np.zeros(3, np.float32)]) is None


def test_nothing_to_do(rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 3]))
    graph = model.graph(model("MatMul", model("Relu", "x"), normal(rng, 3, 3)))
    after = fuse_elementwise(graph)
    assert keys(after) == ["Relu", "MatMul"]
    assert meaning(after, {"x": normal(rng, 2, 3)})
