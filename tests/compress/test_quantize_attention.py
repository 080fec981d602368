"""Attention of quantised models: rounded to 8 bits as it runs, unless it is excluded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lepton_rt
from lepton_rt.graph.ir import Graph
from pass_graphs import Model

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
HEADS, DEPTH, ROWS = 3, 16, 20
WIDTH = HEADS * DEPTH
OP = "lepton.DynamicQuantizeAttention"


def layer(rng: Rng) -> Graph:
    """Attention of a batch of rows with itself, masked, between products; spelt out."""
    model = Model(x=("FLOAT", ["b", ROWS, WIDTH]), mask=("FLOAT", ["b", 1, 1, ROWS]))
    split = np.array([0, 0, HEADS, DEPTH], np.int64)

    def product(name: str) -> str:
        return model("MatMul", name, rng.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 7)

    q, k, v = (
        model("Transpose", model("Reshape", product("x"), split), perm=[0, 2, 1, 3])
        for _ in range(3)
    )
    scores = model("MatMul", q, model("Transpose", k, perm=[0, 1, 3, 2]))
    scores = model("Add", model("Mul", scores, np.float32(DEPTH**-0.5)), "mask")
    y = model("MatMul", model("Softmax", scores, axis=-1), v)
    y = model(
        "Reshape", model("Transpose", y, perm=[0, 2, 1, 3]), np.array([0, 0, WIDTH], np.int64)
    )
    return model.graph(product(y))


def feeds(rng: Rng, batch: int = 2) -> dict[str, Array]:
    mask = np.where(rng.random((batch, 1, 1, ROWS)) < 0.3, np.finfo(np.float32).min, 0)
    x = rng.normal(size=(batch, ROWS, WIDTH))
    return {"x": x.astype(np.float32), "mask": mask.astype(np.float32)}


def quantized(graph: Graph, rng: Rng, mode: str, **options: Any) -> Any:
    batches = [feeds(rng) for _ in range(4)] if mode == "static" else None
    return lepton_rt.quantize(graph, batches, mode=mode, progress=False, **options)


def operators(session: lepton_rt.Session) -> list[str]:
    return [part for step in session.explain() for part in step.op.split("+")]


def error(got: Array, want: Array) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_rounded(rng: Rng, mode: str) -> None:
    """It is in one step that reads rows of all heads, and costs little beside the products."""
    graph = layer(rng)
    session = lepton_rt.Session(quantized(graph, rng, mode).graph)
    assert operators(session).count(OP) == 1
    assert not {"Softmax", "Transpose", "Reshape", "lepton.Attention"} & set(operators(session))
    plain = lepton_rt.Session(quantized(graph, rng, mode, exclude=["Softmax"]).graph)
    assert operators(plain).count("lepton.Attention") == 1
    assert OP not in operators(plain)
    given = feeds(rng)
    want = lepton_rt.Session(graph).run(given)
    rounded, products = error(session.run(given), want), error(plain.run(given), want)
    assert 0 < products < 0.05
    assert rounded < products + 0.02


@pytest.mark.parametrize("suffix", [".lepton", ".onnx"])
def test_saved(rng: Rng, tmp_path: Path, suffix: str) -> None:
    """A `.lepton` keeps the operator; an `.onnx` at an older opset has float attention instead."""
    made = quantized(layer(rng), rng, "static")
    made.save(tmp_path / f"model{suffix}")
    session = lepton_rt.Session(tmp_path / f"model{suffix}")
    assert (OP in operators(session)) == (suffix == ".lepton")
    given = feeds(rng)
    want = lepton_rt.Session(made.graph).run(given)
    assert error(session.run(given), want) < (1e-6 if suffix == ".lepton" else 0.02)


def test_weights_only(rng: Rng) -> None:
    session = lepton_rt.Session(quantized(layer(rng), rng, "weight_only").graph)
    assert OP not in operators(session)
