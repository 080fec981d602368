"""Equal computations become one; what must stay apart stays."""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.types import infer_types
from lepton_rt.passes.share_nodes import share_nodes
from pass_graphs import Model, assert_same_meaning, dequantize, keys, quantize

Rng = np.random.Generator


def test_chains_of_equal_nodes_are_shared(rng: Rng) -> None:
    model = Model(x=("FLOAT", (2, 3)))
    ends = [model("Exp", model("Neg", "x")) for _ in range(3)]
    y = model("Sum", *ends)
    graph = infer_types(model.graph(y))
    after = share_nodes(graph)
    assert keys(after) == ["Neg", "Exp", "Sum"]
    assert_same_meaning(graph, after, {"x": rng.standard_normal((2, 3)).astype(np.float32)})


def test_attributes_operands_and_outputs_count(rng: Rng) -> None:
    model = Model(x=("FLOAT", (2, 4)))
    a, b = model("Softmax", "x", axis=0), model("Softmax", "x", axis=1)
    c, d = model("LeakyRelu", "x", alpha=0.0), model("LeakyRelu", "x", alpha=-0.0)
    one, two = model("Split", "x", axis=1, outputs=2, num_outputs=2)
    (three,) = [model("Split", "x", axis=1, outputs=1, num_outputs=1)]
    results = [a, b, c, d, model("Add", one, two), three]
    graph = infer_types(model.graph(*results))
    after = share_nodes(graph)
    assert sorted(keys(after)) == sorted(keys(graph))


def test_outputs_keep_their_names(rng: Rng) -> None:
    model = Model(x=("FLOAT", (2,)))
    a, b = model("Neg", "x"), model("Neg", "x")
    graph = infer_types(model.graph(a, b))
    after = share_nodes(graph)
    assert_same_meaning(graph, after, {"x": rng.standard_normal(2).astype(np.float32)})


def test_quantised_operands_and_random_numbers_stay_apart() -> None:
    model = Model(x=("FLOAT", (2,)))
    q = quantize(model, "x", 0.1, 3)
    twice = [dequantize(model, q, 0.1, np.array(3, np.uint8)) for _ in range(2)]
    noise = [model("RandomNormalLike", "x") for _ in range(2)]
    y = model("Add", model("Add", *twice), model("Add", *noise))
    after = share_nodes(infer_types(model.graph(y)))
    assert keys(after).count("DequantizeLinear") == 2
    assert keys(after).count("RandomNormalLike") == 2
