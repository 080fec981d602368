"""Joined steps give the bits of the separate ones, however many rows and threads there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import lepton_rt
from harness import run_op
from lepton_rt.errors import InputError, ModelError, UnsupportedError
from lepton_rt.graph.ir import Graph
from pass_graphs import Model, dequantize, fake

Array = npt.NDArray[Any]
Rng = np.random.Generator
WIDTH = 40


def layer(model: Model, x: str, rng: Rng, columns: int) -> str:
    """A product by constant int8 weights, with a bias."""
    weights = rng.integers(-127, 128, (WIDTH, columns)).astype(np.int8)
    scales = rng.uniform(0.005, 0.02, columns).astype(np.float32)
    y = model("MatMul", x, dequantize(model, weights, scales, np.zeros(columns, np.int8), axis=1))
    return str(model("Add", y, rng.normal(size=columns).astype(np.float32)))


def block(rng: Rng, shape: list[Any]) -> Graph:
    """Three layers of one operand; one of them with a residual, normalised, and a table."""
    model = Model(x=("FLOAT", shape))
    x = fake(model, "x", 0.03, 118)
    first = model("Relu", layer(model, x, rng, 24))
    second = fake(model, layer(model, x, rng, WIDTH), 0.05, 100)
    total = model("Add", fake(model, layer(model, x, rng, WIDTH), 0.05, 120), x)
    weights = [rng.normal(size=WIDTH).astype(np.float32) for _ in range(2)]
    norm = model("LayerNormalization", total, *weights)
    third = fake(model, norm, 0.03, 128)
    powers = np.exp2(rng.integers(-3, 4, WIDTH)).astype(np.float32)
    fourth = fake(model, model("Mul", norm, powers), 0.03, 128)
    gate = fake(model, model("Tanh", second), 0.01, 128)
    return model.graph(first, third, gate, fourth)


def separate(graph: Graph, isa: str) -> lepton_rt.Session:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lepton_rt.lowering.row_blocks.join_rows", lambda plan, _: plan)
        session = lepton_rt.Session(graph, isa=isa)
    assert not [step.op for step in session.explain() if "+" in step.op]
    return session


@pytest.mark.parametrize("shape", [["n", WIDTH], ["b", "s", WIDTH], ["a", 2, 3, WIDTH]])
@pytest.mark.parametrize("rows", [0, 1, 5, 16, 31, 33, 64, 193, 400])
def test_same_bits(isa: str, rng: Rng, shape: list[Any], rows: int) -> None:
    graph = block(rng, shape)
    sizes = {2: (rows,), 3: (1, rows), 4: (rows, 2, 3)}[len(shape)]
    given = {"x": rng.normal(size=(*sizes, WIDTH)).astype(np.float32)}
    want = separate(graph, isa).run(given)
    for threads in (1, 2, 3):
        session = lepton_rt.Session(graph, isa=isa, threads=threads)
        assert sum(step.op.count("lepton.QLinearMatMul") for step in session.explain()) == 3
        assert next(step.op.count("+") for step in session.explain() if "MatMul" in step.op) >= 5
        got = session.run(given)
        for mine, other in zip(got, want, strict=True):
            np.testing.assert_array_equal(mine, other)


def join(**changes: Any) -> list[Array]:
    """A table and an addition, joined by hand."""
    attrs: dict[str, Any] = {
        "rows": [1, 0],
        "values": [1, 1],
        "results": [1],
        "0.in": [0, 1],
        "0.out": [2],
        "1.in": [2],
        "1.out": [3],
        "1.program": "Add r0 #1",
        "1.compute": "f32",
    }
    attrs.update(changes)
    op = attrs.pop("op", "lepton.Lookup+lepton.Elementwise")
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    inputs = [x, np.arange(256, dtype=np.float32)]
    return run_op(op, inputs, {k: v for k, v in attrs.items() if v is not None}, constants=[1])


def test_by_hand() -> None:
    np.testing.assert_array_equal(join()[0], np.arange(1, 7).reshape(2, 3))


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": [1]},
        {"rows": [0, 0]},
        {"values": [1]},
        {"values": None},
        {"values": [1, 2]},
        {"results": [2]},
        {"results": [-1]},
        {"results": []},
        {"0.in": [0, 4]},
        {"0.in": [3, 1]},
        {"0.in": [0, -2]},
        {"0.in": None},
        {"0.in": [0] * 100},
        {"0.out": [3]},
        {"0.out": [0]},
        {"1.out": [2]},
        {"1.in": [1]},
        {"op": "lepton.Lookup+Transpose"},
        {"op": "lepton.Lookup+NoSuchOperator"},
        {"op": "+"},
        {"op": "lepton.Lookup+lepton.Elementwise+lepton.Elementwise"},
    ],
)
def test_refuses_what_does_not_fit(changes: dict[str, Any]) -> None:
    with pytest.raises((ModelError, InputError, UnsupportedError)):
        join(**changes)
