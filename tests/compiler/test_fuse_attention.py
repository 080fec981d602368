"""Attention spelt out in every way that exporters know becomes one step with the same result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lepton_rt
from lepton_rt.graph.ir import Graph
from lepton_rt.graph.types import infer_types
from lepton_rt.graph.verify import verify
from lepton_rt.passes import PASSES
from lepton_rt.passes.choose_layout import choose_layout
from pass_graphs import Array, Model, assert_same_meaning, keys, meaning

Rng = np.random.Generator
B, H, S, D = 2, 3, 7, 8
LOW = float(np.finfo(np.float32).min)


def heads(model: Model, x: str, count: int = H) -> str:
    """[b, s, h * d] as [b, h, s, d]."""
    split = model("Reshape", x, np.array([0, 0, count, D]))
    return str(model("Transpose", split, perm=[0, 2, 1, 3]))


def merged(model: Model, y: str) -> str:
    turned = model("Transpose", y, perm=[0, 2, 1, 3])
    return str(model("Reshape", turned, np.array([0, 0, H * D])))


def hidden(kv_heads: int = H) -> Model:
    return Model(
        q=("FLOAT", ("b", "s", H * D)),
        k=("FLOAT", ("b", "s", kv_heads * D)),
        v=("FLOAT", ("b", "s", kv_heads * D)),
        mask=("FLOAT", ("b", 1, "s", "s")),
        keep=("BOOL", ("b", 1, "s", "s")),
    )


def feeds(rng: Rng, kv_heads: int = H) -> dict[str, Array]:
    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    keep = rng.random((B, 1, S, S)) < 0.7
    keep[..., 0] = True
    return {
        "q": normal(B, S, H * D),
        "k": normal(B, S, kv_heads * D),
        "v": normal(B, S, kv_heads * D),
        "mask": np.where(keep, 0, LOW).astype(np.float32),
        "keep": keep,
    }


def compiled(graph: Graph) -> Graph:
    """All passes up to the choice of layouts, every step verified."""
    graph = infer_types(graph)
    for run in PASSES[: PASSES.index(choose_layout)]:
        graph = run(graph)
        verify(graph)
    return graph


def check(model: Model, y: str, given: dict[str, Array], left: list[str]) -> Graph:
    """One attention, no other operators than `left`, and the meaning of the original."""
    graph = model.graph(y)
    given = {name: given[name] for name in graph.inputs}
    after = compiled(graph)
    assert sorted(keys(after)) == sorted(["lepton.Attention", *left])
    got = lepton_rt.Session(model.proto(y), threads=1).run(given)
    want = meaning(graph, given)[y]
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * float(np.abs(want).max()))
    again = infer_types(after)
    assert {n: v.dtype for n, v in again.outputs.items()} == {
        n: v.dtype for n, v in after.outputs.items()
    }
    return after


AROUND = ["Reshape"] * 4  # the heads of q, k, v and the result: no bytes move


@pytest.mark.parametrize("scale", ["mul", "div", "q", "both", "none"])
@pytest.mark.parametrize("masked", ["no", "add", "add_left", "bool", "fill"])
def test_products_and_softmax(scale: str, masked: str, rng: Rng) -> None:
    model = hidden()
    left = list(AROUND)
    q = "q"
    if scale == "q":
        q = model("Mul", q, np.float32(0.3))
    q, k, v = heads(model, q), heads(model, "k"), heads(model, "v")
    k = model("Transpose", k, perm=[0, 1, 3, 2])
    if scale == "both":
        q, k = model("Mul", q, np.float32(0.5)), model("Mul", np.float32(0.5), k)
    scores = model("MatMul", q, k)
    if scale == "mul":
        scores = model("Mul", scores, np.float32(0.3))
    if scale == "div":
        scores = model("Div", scores, np.float32(3.0))
    if masked == "add":
        scores = model("Add", scores, "mask")
    if masked == "add_left":
        scores = model("Add", "mask", scores)
    if masked == "bool":
        bias = model("Where", "keep", np.float32(0), np.float32(-np.inf))
        scores = model("Add", scores, bias)
    if masked == "fill":
        scores = model("Where", "keep", scores, np.float32(LOW))
        left.append("Where")
    y = merged(model, model("MatMul", model("Softmax", scores, axis=-1), v))
    after = check(model, y, feeds(rng), left)
    node = next(n for n in after.nodes if n.op == "Attention")
    assert [node.attrs[f"{x}_layout"] for x in "qkvy"] == ["BSHD"] * 4


def test_keys_transposed_in_one_go(rng: Rng) -> None:
    model = hidden()
    q, v = heads(model, "q"), heads(model, "v")
    k = model("Reshape", "k", np.array([0, 0, H, D]))
    k = model("Transpose", k, perm=[0, 2, 3, 1])
    y = model("MatMul", model("Softmax", model("MatMul", q, k), axis=3), v)
    check(model, merged(model, y), feeds(rng), AROUND)


def test_guard_against_rows_without_keys(rng: Rng) -> None:
    """The guarded row gives zeros, not NaN."""
    model = hidden()
    q, k, v = heads(model, "q"), heads(model, "k"), heads(model, "v")
    scores = model("MatMul", q, model("Transpose", k, perm=[0, 1, 3, 2]))
    bias = model("Where", "keep", np.float32(0), np.float32(-np.inf))
    p = model("Softmax", model("Add", scores, bias), axis=-1)
    p = model("Where", model("IsNaN", p), np.float32(0), p)
    given = feeds(rng)
    given["keep"][0, 0, 3] = False
    y = merged(model, model("MatMul", p, v))
    check(model, y, given, AROUND)
    (got,) = meaning(model.graph(y), given).values()
    assert (got[0, 3] == 0).all()


def test_two_masks_are_added_once_for_all_layers(rng: Rng) -> None:
    model = Model(
        q=("FLOAT", ("b", "s", H * D)),
        mask=("FLOAT", ("b", 1, "s", "s")),
        position=("FLOAT", (1, H, "s", "s")),
    )
    x = "q"
    for _ in range(2):
        q, k, v = (heads(model, x) for _ in range(3))
        scores = model("MatMul", q, model("Transpose", k, perm=[0, 1, 3, 2]))
        scores = model("Add", model("Add", scores, "position"), "mask")
        x = merged(model, model("MatMul", model("Softmax", scores), v))
    graph = compiled(model.graph(x))
    assert keys(graph).count("Add") == 1
    assert keys(graph).count("lepton.Attention") == 2
    given = {k: v for k, v in feeds(rng).items() if k in ("q", "mask")}
    given["position"] = rng.standard_normal((1, H, S, S)).astype(np.float32)
    got = lepton_rt.Session(model.proto(x), threads=1).run(given)
    np.testing.assert_allclose(got, meaning(model.graph(x), given)[x], atol=1e-5)


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("hidden_keys", [0, 1])
def test_masks_that_hide_nothing(added: bool, hidden_keys: int, rng: Rng) -> None:
    """A constant expanded to the batch size, as exporters write the mask of a whole batch."""
    model = Model(q=("FLOAT", ("b", S, H * D)))
    q, k, v = (heads(model, "q") for _ in range(3))
    keep = np.ones((1, 1, S, S), bool)
    keep[..., : hidden_keys * 2, 1] = False
    sizes = [model("Shape", "q", start=0, end=1), *(np.array([n]) for n in (1, S, S))]
    mask = model("Expand", keep, model("Concat", *sizes, axis=0))
    scores = model("MatMul", q, model("Transpose", k, perm=[0, 1, 3, 2]))
    low = np.float32(LOW if added else -np.inf)
    scores = model("Add", scores, model("Where", mask, np.float32(0), low))
    y = merged(model, model("MatMul", model("Softmax", scores), v))
    graph, given = model.graph(y), {"q": feeds(rng)["q"]}
    after = compiled(graph)
    node = next(n for n in after.nodes if n.op == "Attention")
    assert len(node.inputs) == (4 if hidden_keys else 3)
    assert ("Expand" in keys(after)) <= bool(hidden_keys)
    got = lepton_rt.Session(model.proto(y), threads=1).run(given)
    np.testing.assert_allclose(got, meaning(graph, given)[y], atol=1e-5)


def test_a_short_mask_hides_the_keys_beyond_it(rng: Rng) -> None:
    shape = ("b", H, S, D)
    model = Model(q=("FLOAT", shape))
    y = model("Attention", "q", "q", "q", np.ones((S, S - 2), bool))
    graph = model.graph(y)
    given = {"q": rng.standard_normal((B, H, S, D)).astype(np.float32)}
    node = next(n for n in compiled(graph).nodes if n.op == "Attention")
    assert len(node.inputs) == 4
    got = lepton_rt.Session(model.proto(y), threads=1).run(given)
    q, kept = given["q"].astype(np.float64), given["q"][:, :, : S - 2].astype(np.float64)
    p = np.exp(q @ kept.swapaxes(2, 3) / np.sqrt(D))
    np.testing.assert_allclose(got, p @ kept / p.sum(-1, keepdims=True), atol=1e-5)


def test_softcap(rng: Rng) -> None:
    model = hidden()
    q, k, v = heads(model, "q"), heads(model, "k"), heads(model, "v")
    scores = model("MatMul", q, model("Transpose", k, perm=[0, 1, 3, 2]))
    scores = model("Mul", scores, np.float32(0.5))
    scores = model("Tanh", model("Div", scores, np.float32(2.0)))
    scores = model("Add", model("Mul", scores, np.float32(2.0)), "mask")
    y = merged(model, model("MatMul", model("Softmax", scores), v))
    after = check(model, y, feeds(rng), AROUND)
    node = next(n for n in after.nodes if n.op == "Attention")
    assert node.attrs["softcap"] == 2.0
    assert node.attrs["scale"] == pytest.approx(0.5)


@pytest.mark.parametrize("kv_heads", [1, 3])
def test_repeated_heads_are_read_once(kv_heads: int, rng: Rng) -> None:
    model = hidden(kv_heads)
    times = H // kv_heads
    q, k, v = heads(model, "q"), heads(model, "k", kv_heads), heads(model, "v", kv_heads)

    def repeat(x: str) -> str:
        x = model("Unsqueeze", x, np.array([2]))
        size = [model("Shape", "q", start=i, end=i + 1) for i in (0, 1)]
        ints = [np.array([n]) for n in (kv_heads, times, D)]
        shape = model("Concat", size[0], ints[0], ints[1], size[1], ints[2], axis=0)
        x = model("Expand", x, shape)
        flat = model("Concat", size[0], np.array([H]), size[1], ints[2], axis=0)
        return str(model("Reshape", x, flat))

    k, v = repeat(k), repeat(v)
    scores = model("MatMul", q, model("Transpose", k, perm=[0, 1, 3, 2]))
    y = merged(model, model("MatMul", model("Softmax", scores), v))
    check(model, y, feeds(rng, kv_heads), AROUND)


def test_operands_of_rank_three(rng: Rng) -> None:
    model = Model(q=("FLOAT", (6, "s", D)), k=("FLOAT", (6, "s", D)), v=("FLOAT", (6, "s", D)))
    scores = model("MatMul", "q", model("Transpose", "k", perm=[0, 2, 1]))
    y = model("MatMul", model("Softmax", scores, axis=-1), "v")
    given = {n: rng.standard_normal((6, S, D)).astype(np.float32) for n in "qkv"}
    check(model, y, given, ["Unsqueeze"] * 3 + ["Squeeze"])


def spoiled(model: Model, how: str) -> tuple[str, ...]:
    """Attention with one thing in it that forbids the fusion."""
    q, k, v = heads(model, "q"), heads(model, "k"), heads(model, "v")
    scores = model("MatMul", q, model("Transpose", k, perm=[0, 1, 3, 2]))
    if how == "scaled mask":
        scores = model("Mul", model("Add", scores, "mask"), np.float32(0.5))
    p = model("Softmax", scores, axis=2 if how == "axis" else -1)
    if how == "guard with another value":
        p = model("Where", model("IsNaN", p), np.float32(1), p)
    y = model("MatMul", v, model("Transpose", p, perm=[0, 1, 3, 2])) if how == "order" else None
    y = y or model("MatMul", p, v)
    if how == "scores read":
        return y, scores
    return (y, p) if how == "probabilities read" else (y,)


@pytest.mark.parametrize(
    "how",
    ["scaled mask", "axis", "guard with another value", "scores read", "probabilities read"],
)
def test_what_is_not_attention_stays(how: str, rng: Rng) -> None:
    model = hidden()
    outputs = spoiled(model, how)
    graph = model.graph(*outputs)
    after = compiled(graph)
    assert "lepton.Attention" not in keys(after)
    given = {n: x for n, x in feeds(rng).items() if n in graph.inputs}
    assert_same_meaning(graph, after, given)
    session = lepton_rt.Session(model.proto(*outputs), threads=1)
    got: Any = session.run(given)
    np.testing.assert_allclose(
        got if len(outputs) == 1 else got[0], meaning(graph, given)[outputs[0]], atol=1e-5
    )
