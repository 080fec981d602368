"""Gelu spelt out becomes one operator with the same results; what only looks like it stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lepton_rt
from lepton_rt.graph.types import infer_types
from lepton_rt.passes.recognise_gelu import recognise_gelu
from pass_graphs import Model

F32 = np.float32
SQRT2, HALF, ONE = F32(np.sqrt(2)), F32(0.5), F32(1)


def erf_of(model: Model, form: str) -> str:
    scaled = model("Mul", "x", F32(1) / SQRT2) if form == "mul" else model("Div", "x", SQRT2)
    return str(model("Add", model("Erf", scaled), ONE))


def tanh_of(model: Model, coefficient: float = 0.044715) -> str:
    cube = model("Mul", model("Pow", "x", F32(3)), F32(coefficient))
    inner = model("Mul", model("Add", "x", cube), F32(np.sqrt(2 / np.pi)))
    return str(model("Add", model("Tanh", inner), ONE))


def half_of(model: Model, one_plus: str, order: str) -> str:
    """x / 2 times that, in the orders in which exporters write it."""
    if order == "half x":
        return str(model("Mul", model("Mul", "x", HALF), one_plus))
    if order == "half last":
        return str(model("Mul", model("Mul", one_plus, "x"), HALF))
    return str(model("Mul", "x", model("Mul", HALF, one_plus)))


def check(model: Model, y: str, found: bool) -> None:
    graph = model.graph(y)
    after = recognise_gelu(infer_types(graph))
    assert [node.op for node in after.nodes].count("Gelu") == int(found)
    assert not found or len(after.nodes) == 1
    x = np.linspace(-9, 9, 1001, dtype=F32)
    want = lepton_rt.Session(graph, optimise=False).run(x)
    np.testing.assert_allclose(lepton_rt.Session(after).run(x), want, rtol=1e-5, atol=2e-6)


def model() -> Model:
    return Model(x=("FLOAT", ["n"]))


@pytest.mark.parametrize("form", ["mul", "div"])
@pytest.mark.parametrize("order", ["half x", "half last", "half first"])
def test_erf(form: str, order: str) -> None:
    made = model()
    check(made, half_of(made, erf_of(made, form), order), True)


@pytest.mark.parametrize("order", ["half x", "half last", "half first"])
def test_tanh(order: str) -> None:
    made = model()
    check(made, half_of(made, tanh_of(made), order), True)


def other_factor(made: Model) -> str:
    return str(made("Mul", made("Mul", "x", F32(0.6)), erf_of(made, "div")))


def other_coefficient(made: Model) -> str:
    return half_of(made, tanh_of(made, 0.05), "half x")


def other_tensor(made: Model) -> str:
    return str(made("Mul", made("Mul", made("Neg", "x"), HALF), erf_of(made, "div")))


def squared(made: Model) -> str:
    return str(made("Mul", made("Mul", erf_of(made, "div"), "x"), "x"))


@pytest.mark.parametrize("build", [other_factor, other_coefficient, other_tensor, squared])
def test_others_stay(build: Any) -> None:
    made = model()
    check(made, build(made), False)


def test_shared(rng: np.random.Generator) -> None:
    """A part that is read elsewhere, too, stays for that reader or keeps all as it is."""
    made = model()
    one_plus = erf_of(made, "div")
    y = half_of(made, one_plus, "half x")
    graph = made.graph(y, one_plus)
    x = rng.normal(size=64).astype(F32)
    for got, want in zip(
        lepton_rt.Session(graph).run(x), lepton_rt.Session(graph, optimise=False).run(x)
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)
