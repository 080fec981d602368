"""fuse_clamp: tables that clamp become activations of integer layers."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_rt.graph.ir import Graph
from lepton_rt.passes.absorb_qdq import absorb_qdq
from lepton_rt.passes.choose_layout import choose_layout
from lepton_rt.passes.fuse_clamp import fuse_clamp
from lepton_rt.passes.fuse_elementwise import fuse_elementwise
from lepton_rt.passes.fuse_residual import fuse_residual
from lepton_rt.passes.move_dequantize import move_dequantize
from pass_graphs import Model, assert_same_meaning, dequantize, fake, keys, quantize

Rng = np.random.Generator


def network(rng: Rng, activation: str, same: bool, residual: bool) -> Graph:
    """Conv, its quantisation, then an activation and its own."""
    model = Model(x=("FLOAT", ["n", 4, 5, 5]))
    weights = rng.integers(-63, 64, (4, 4, 3, 3)).astype(np.int8)
    w = dequantize(model, weights, np.full(4, 0.0041), np.zeros(4, np.int8), axis=0)
    x = fake(model, "x", 0.03, 118)
    y = fake(model, model("Conv", x, w, pads=[1, 1, 1, 1]), 0.0193, 124)
    if residual:
        y = fake(model, model("Add", y, x), 0.0217, 131)
    y = (
        model("Clip", y, np.float32(-0.3), np.float32(0.6))
        if activation == "Clip"
        else model(activation, y)
    )
    scale, zero = (0.0217, 131) if residual else (0.0193, 124)
    return model.graph(quantize(model, y, scale if same else 0.05, zero))


def compiled(graph: Graph) -> tuple[Graph, Graph]:
    before = fuse_elementwise(fuse_residual(absorb_qdq(move_dequantize(choose_layout(graph)))))
    return before, fuse_clamp(before)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_clamps_join_the_layer(activation: str, residual: bool, rng: Rng) -> None:
    graph = network(rng, activation, same=True, residual=residual)
    before, after = compiled(graph)
    assert "lepton.Lookup" in keys(before)
    assert "lepton.Lookup" not in keys(after)
    feeds = {"x": rng.standard_normal((2, 4, 5, 5)).astype(np.float32)}
    assert_same_meaning(before, after, feeds)
    assert_same_meaning(graph, after, feeds)


@pytest.mark.parametrize(("activation", "same"), [("Relu", False), ("Sigmoid", True)])
def test_other_tables_stay(activation: str, same: bool, rng: Rng) -> None:
    before, after = compiled(network(rng, activation, same, residual=False))
    assert keys(after) == keys(before)
    assert "lepton.Lookup" in keys(after)
