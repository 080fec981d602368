"""lepton.QLinearAttention gives the bits of the separate steps; also behind reshapes and tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import lepton_rt
from lepton_rt.graph.ir import Graph
from pass_graphs import Model, fake, quantize

Array = npt.NDArray[Any]
Rng = np.random.Generator
HEADS, DEPTH = 3, 8
WIDTH = HEADS * DEPTH


def fake_as(model: Model, x: str, scale: float, signed: bool, zero: int = 0) -> str:
    return fake(model, x, scale, zero if signed else zero + 128, np.int8 if signed else np.uint8)


def attention(
    signed: bool,
    mask: Array | str | None,
    *,
    rounded: bool,
    scaled: bool,
    factor: float | None = None,
) -> Graph:
    """Quantised attention over q, k, v [batch, rows, heads · depth], as ONNX Runtime leaves it.

    mask: the name of an input with one value for each key of a batch, or a constant [rows, keys].
    """
    rows, keys = mask.shape if isinstance(mask, np.ndarray) else ("s", "t")
    inputs = {n: ("FLOAT", ["b", rows if n == "q" else keys, WIDTH]) for n in ("q", "k", "v")}
    if isinstance(mask, str):
        inputs[mask] = ("FLOAT", ["b", 1, 1, "t"])
    model = Model(**inputs)
    shape = np.array([0, 0, HEADS, DEPTH], np.int64)
    q, k, v = (fake_as(model, name, 0.03, signed, 5) for name in "qkv")
    q, k, v = (model("Transpose", model("Reshape", x, shape), perm=[0, 2, 1, 3]) for x in (q, k, v))
    if scaled:
        q = fake_as(model, model("Mul", q, np.float32(0.6)), 0.02, signed)
    scores = model("MatMul", q, model("Transpose", k, perm=[0, 1, 3, 2]))
    if factor is not None:
        scores = model("Mul", scores, np.float32(factor))
    if rounded:
        scores = fake_as(model, scores, 0.04, signed, -3)
    if mask is not None:
        scores = model("Add", scores, mask)
        if rounded:
            scores = fake_as(model, scores, 0.05, signed, 9)
    p = fake(model, model("Softmax", scores, axis=-1), 1 / 255, 0)
    y = model("Transpose", model("MatMul", p, v), perm=[0, 2, 1, 3])
    y = model("Reshape", y, np.array([0, 0, WIDTH], np.int64))
    return model.graph(quantize(model, y, 0.01, 3, np.int8 if signed else np.uint8))


def feeds(rng: Rng, batch: int, rows: int, keys: int) -> dict[str, Array]:
    sizes = {"q": rows, "k": keys, "v": keys}
    return {
        name: rng.normal(size=(batch, size, WIDTH)).astype(np.float32)
        for name, size in sizes.items()
    }


def separate(graph: Graph, isa: str) -> lepton_rt.Session:
    """Every step on its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("qlinear_attention.fuse_qlinear_attention", "attention_heads.absorb_heads"):
            patch.setattr(f"lepton_rt.lowering.{name}", lambda plan, _: plan)
        session = lepton_rt.Session(graph, isa=isa)
    assert {"Softmax", "lepton.QLinearMatMul"} <= {step.op for step in session.explain()}
    return session


def assert_same_bits(graph: Graph, given: dict[str, Array], isa: str) -> None:
    want = separate(graph, isa).run(given)
    assert len(np.unique(want)) > 20
    # Products of floats round otherwise, and now and then an integer after them does.
    plain = lepton_rt.Session(graph, isa=isa, optimise=False).run(given)
    assert np.mean(np.abs(plain.astype(int) - want.astype(int)) > 1) < 1e-3
    for threads in (1, 2):
        session = lepton_rt.Session(graph, isa=isa, threads=threads)
        ops = [step.op for step in session.explain()]
        assert ops.count("lepton.QLinearAttention") == 1
        assert not {"Transpose", "Reshape", "Softmax", "lepton.QLinearMatMul"} & set(ops)
        np.testing.assert_array_equal(session.run(given), want)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("rounded", "scaled"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    ("batch", "rows", "keys"), [(1, 1, 1), (2, 5, 9), (1, 130, 33), (1, 7, 900), (3, 200, 200)]
)
def test_without_a_mask(
    isa: str, rng: Rng, signed: bool, rounded: bool, scaled: bool, batch: int, rows: int, keys: int
) -> None:
    graph = attention(signed, None, rounded=rounded, scaled=scaled)
    given = feeds(rng, batch, rows, keys)
    if keys == 1:
        assert lepton_rt.Session(graph, isa=isa).run(given).shape == (batch, rows, WIDTH)
        return
    assert_same_bits(graph, given, isa)


@pytest.mark.parametrize("factor", [0.125, 0.3, 2.0])
@pytest.mark.parametrize("rounded", [False, True])
def test_scaled_scores(isa: str, rng: Rng, factor: float, rounded: bool) -> None:
    """A power of two joins the scale of the product, another factor stays an instruction."""
    graph = attention(True, None, rounded=rounded, scaled=False, factor=factor)
    assert_same_bits(graph, feeds(rng, 2, 40, 70), isa)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_with_a_mask(isa: str, rng: Rng, rounded: bool, batch: int) -> None:
    """Of the keys of each batch, computed; and constant, of each row."""
    given = feeds(rng, batch, 150, 150)
    graph = attention(False, "mask", rounded=rounded, scaled=True)
    keys = np.where(rng.random((batch, 1, 1, 150)) < 0.7, 0, -3).astype(np.float32)
    assert_same_bits(graph, {**given, "mask": keys}, isa)
    causal = np.triu(np.full((150, 150), -4, np.float32), 1)
    assert_same_bits(attention(False, causal, rounded=rounded, scaled=True), given, isa)
