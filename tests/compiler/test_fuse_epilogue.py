"""fuse_epilogue: bias, residual and activation join the layer before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lepton_rt
from lepton_rt.graph.ir import Graph
from lepton_rt.graph.types import infer_types
from lepton_rt.passes.absorb_qdq import absorb_qdq
from lepton_rt.passes.choose_layout import choose_layout
from lepton_rt.passes.fuse_epilogue import fuse_epilogue
from pass_graphs import Model, assert_same_meaning, keys, meaning

Rng = np.random.Generator


def normal(rng: Rng, *shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def layer(model: Model, op: str, x: str, rng: Rng) -> str:
    if op == "Conv":
        return str(model("Conv", x, normal(rng, 4, 4, 3, 3), pads=[1, 1, 1, 1]))
    return str(model("MatMul", x, normal(rng, 4, 4)))


def start(op: str) -> Model:
    return Model(x=("FLOAT", ["n", 4, 6, 5] if op == "Conv" else ["n", 3, 4]))


def feeds(op: str, rng: Rng) -> dict[str, Any]:
    return {"x": normal(rng, 2, 4, 6, 5) if op == "Conv" else normal(rng, 2, 3, 4)}


def fused(graph: Graph) -> Graph:
    return fuse_epilogue(choose_layout(graph))


def layers(graph: Graph) -> list[str]:
    return [k for k in keys(graph) if k != "Transpose"]


@pytest.mark.parametrize("op", ["Conv", "MatMul"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["", "Relu", "Clip", "Clip below"])
def test_everything_fuses(op: str, bias: bool, residual: bool, activation: str, rng: Rng) -> None:
    model = start(op)
    x = layer(model, op, "x", rng)
    y = layer(model, op, x, rng)
    if bias:
        y = model("Add", normal(rng, 4, 1, 1) if op == "Conv" else normal(rng, 4), y)
    if residual:
        y = model("Add", y, x)
    if activation == "Relu":
        y = model("Relu", y)
    elif activation == "Clip":
        y = model("Clip", y, np.float32(-0.5), np.float32(1))
    elif activation == "Clip below":
        y = model("Clip", y, np.float32(-0.5))
    graph = model.graph(y)
    after = fused(graph)
    assert len(layers(after)) == 2
    assert_same_meaning(graph, after, feeds(op, rng))


@pytest.mark.parametrize("rounded", [False, True])
def test_residual_of_a_product_of_integers(rounded: bool, rng: Rng) -> None:
    """A product that is not rounded takes a float residual; a rounded one leaves the Add."""
    model = Model(x=("FLOAT", ["n", 3, 4]), r=("FLOAT", ["n", 3, 4]))
    grid = np.float32(0.05), np.array(120, np.uint8)
    x = model("DequantizeLinear", model("QuantizeLinear", "x", *grid), *grid)
    weight = rng.integers(-127, 128, (4, 4), dtype=np.int8)
    weight_grid = np.array([0.01, 0.02, 0.03, 0.04], np.float32), np.zeros(4, np.int8)
    y = model("MatMul", x, model("DequantizeLinear", weight, *weight_grid, axis=1))
    if rounded:
        y = model("DequantizeLinear", model("QuantizeLinear", y, *grid), *grid)
    graph = model.graph(model("Add", "r", y))
    after = fuse_epilogue(absorb_qdq(infer_types(graph)))
    (product,) = (node for node in after.nodes if node.op == "QLinearMatMul")
    assert ("Add" in keys(after)) is rounded
    assert ("r" in product.inputs) is not rounded
    given = {"x": normal(rng, 2, 3, 4), "r": normal(rng, 2, 3, 4)}
    assert_same_meaning(graph, after, given)
    got = lepton_rt.Session(graph, threads=1).run(given)
    (want,) = meaning(graph, given).values()
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("op", ["Conv", "MatMul"])
@pytest.mark.parametrize("trap", ["read twice", "output", "broadcast", "after activation"])
def test_what_must_not_fuse(op: str, trap: str, rng: Rng) -> None:
    model = start(op)
    x = layer(model, op, "x", rng)
    y = layer(model, op, x, rng)
    outputs = []
    if trap == "read twice":
        y = model("Mul", model("Relu", y), y)
    elif trap == "output":
        outputs, y = [y], model("Relu", y)
    elif trap == "broadcast":
        y = model("Add", y, model("ReduceMean", x, np.array([1], np.int64)))
    else:
        y = model("Add", model("Relu", y), x)
    graph = model.graph(y, *outputs)
    after = fused(graph)
    assert len(layers(after)) > 2
    assert_same_meaning(graph, after, feeds(op, rng))


def test_add_of_a_larger_constant(rng: Rng) -> None:
    """The sum has the constant's shape, not the layer's."""
    model = Model(x=("FLOAT", [1, 4]))
    graph = model.graph(model("Add", layer(model, "MatMul", "x", rng), normal(rng, 2, 1, 4)))
    assert_same_meaning(graph, fused(graph), {"x": normal(rng, 1, 4)})
    model = Model(x=("FLOAT", [1, 4]))
    graph = model.graph(model("Add", layer(model, "MatMul", "x", rng), normal(rng, 3, 4)))
    assert_same_meaning(graph, fused(graph), {"x": normal(rng, 1, 4)})


def test_crossed_bounds_stay_apart(rng: Rng) -> None:
    model = start("MatMul")
    y = model("Clip", layer(model, "MatMul", "x", rng), np.float32(1), np.float32(-1))
    graph = model.graph(y)
    assert "Clip" in keys(fused(graph))


def test_product_by_a_vector_has_no_columns(rng: Rng) -> None:
    model = Model(x=("FLOAT", [3, 4]))
    y = model("Relu", model("Add", model("MatMul", "x", normal(rng, 4)), normal(rng, 3)))
    graph = model.graph(y)
    assert_same_meaning(graph, fused(graph), {"x": normal(rng, 3, 4)})
