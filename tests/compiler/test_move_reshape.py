"""move_reshape: products take their rows in the dimensions that come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lepton_rt
from lepton_rt.graph.ir import Graph
from lepton_rt.graph.types import infer_types
from lepton_rt.passes import PASSES
from lepton_rt.passes.fuse_epilogue import fuse_epilogue
from lepton_rt.passes.move_reshape import move_reshape
from lepton_rt.passes.normalise import normalise
from pass_graphs import Model, assert_same_meaning, keys, meaning

Rng = np.random.Generator


def normal(rng: Rng, *shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def moved(graph: Graph) -> Graph:
    return move_reshape(normalise(infer_types(graph)))


def projection(model: Model, x: str, rng: Rng, rows: list[int], k: int = 6, n: int = 8) -> str:
    """Gemm over flattened rows, as PyTorch exports a Conv1D of GPT-2."""
    flat = model("Reshape", x, np.array([-1, k]))
    y = model("Gemm", flat, normal(rng, k, n), normal(rng, n))
    return str(model("Reshape", y, np.array([*rows, n])))


@pytest.mark.parametrize("shape", [["b", 3, 6], ["b", 3, 2, 3], [2, 3, 6], ["b", "s", 6]])
def test_rows_keep_their_dimensions(shape: list[Any], rng: Rng) -> None:
    model = Model(x=("FLOAT", shape), r=("FLOAT", ["b", 3, 8]))
    graph = model.graph(model("Add", projection(model, "x", rng, [-1, 3]), "r"))
    after = fuse_epilogue(moved(graph))
    given = {"x": normal(rng, *([2, 3, 6] if len(shape) == 3 else [2, 3, 2, 3]))}
    given["r"] = normal(rng, 2, 3, 8)
    assert_same_meaning(graph, after, given)
    leading = shape[0] == "b" and shape[1] == 3
    assert ("Add" in keys(after)) is not leading  # the residual has the product's shape
    assert ("Reshape" in keys(after)) is (shape != ["b", 3, 6] and shape != [2, 3, 6])
    got = lepton_rt.Session(graph, threads=1).run(given)
    (want,) = meaning(graph, given).values()
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("trap", ["two readers", "other columns", "output", "rows known"])
def test_what_stays(trap: str, rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 3, 6]))
    flat = model("Reshape", "x", np.array([-1, 6]))
    y = model("Gemm", flat, normal(rng, 6, 8), normal(rng, 8))
    target = {"other columns": [-1, 3, 4], "rows known": [2, 3, 8]}.get(trap, [-1, 3, 8])
    z = model("Reshape", y, np.array(target))
    outputs = [z, y] if trap == "output" else [z]
    if trap == "two readers":
        outputs.append(model("Relu", y))
    graph = model.graph(*outputs)
    after = moved(graph)
    assert keys(after).count("Reshape") == 2
    assert_same_meaning(graph, after, {"x": normal(rng, 2, 3, 6)})


def test_it_runs_before_epilogues() -> None:
    assert PASSES.index(move_reshape) < PASSES.index(fuse_epilogue)
