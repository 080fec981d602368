"""scale_quantize: factors of channels become scales of channels where no bit changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lepton_rt
from lepton_rt.graph.ir import Graph
from lepton_rt.graph.types import infer_types
from lepton_rt.passes.scale_quantize import scale_quantize
from pass_graphs import Model, assert_same_meaning, keys, quantize

Rng = np.random.Generator
SHAPE = ["b", 3, 6]
POWERS = np.exp2([-3.0, 0.0, 2.0, 7.0, -8.0, 1.0]).astype(np.float32)


def network(factor: Any, scale: float = 0.037, order: int = 1) -> Graph:
    model = Model(x=("FLOAT", SHAPE))
    operands = ["x", factor][::order]
    return infer_types(model.graph(quantize(model, model("Mul", *operands), scale, 121)))


@pytest.mark.parametrize("order", [1, -1])
def test_powers_of_two(rng: Rng, isa: str, order: int) -> None:
    graph = network(POWERS, order=order)
    after = scale_quantize(graph)
    assert keys(after) == ["QuantizeLinear"]
    x = rng.normal(0, 3, (50, 3, 6)).astype(np.float32)
    ties = (np.arange(-450, 450, dtype=np.float32) + 0.5) * np.float32(0.037)
    x = np.concatenate([x, (ties.reshape(50, 3, 6) / POWERS).astype(np.float32)])
    assert_same_meaning(graph, after, {"x": x})
    want = lepton_rt.Session(graph, optimise=False, isa=isa).run(x)
    session = lepton_rt.Session(graph, isa=isa)
    assert [step.op for step in session.explain()] == ["QuantizeLinear"]
    np.testing.assert_array_equal(session.run(x), want)


@pytest.mark.parametrize(
    "factor, scale",
    [
        (POWERS * np.float32(1.5), 0.037),  # the product rounds
        (-POWERS, 0.037),
        (np.zeros(6, np.float32), 0.037),
        (np.exp2(np.full(6, 41.0)).astype(np.float32), 0.037),  # may overflow
        (POWERS, 2.0**45),
        (POWERS[:3, None], 0.037),  # of another dimension
        (np.float32(2), 0.037),
    ],
)
def test_what_stays(factor: Any, scale: float) -> None:
    assert "Mul" in keys(scale_quantize(network(factor, scale)))


def test_a_product_that_others_read_stays() -> None:
    model = Model(x=("FLOAT", SHAPE))
    y = model("Mul", "x", POWERS)
    graph = infer_types(model.graph(quantize(model, y, 0.037, 121), y))
    assert keys(scale_quantize(graph)) == ["Mul", "QuantizeLinear"]
