"""State between runs: caches that grow in place, states that are replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper

from lepton_rt import InputError, Session
from lepton_rt.state import State
from pass_graphs import Model, meaning

Array = npt.NDArray[Any]
Rng = np.random.Generator
NAMES = {"past": "present"}


def growing(axis: int = 2) -> Any:
    """present = Concat(past, x); y = sums of present, and the length of past."""
    shape: list[Any] = ["b", 3, 4]
    past, new = list(shape), list(shape)
    past.insert(axis, "past")
    new.insert(axis, "n")
    model = Model(past=("FLOAT", past), x=("FLOAT", new))
    model.nodes.append(helper.make_node("Concat", ["past", "x"], ["present"], axis=axis))
    y = model("ReduceSum", "present", np.array([axis]), keepdims=0)
    length = model("Shape", "past", start=axis, end=axis + 1)
    return model, y, length


def proto(model: Model, *outputs: str) -> Any:
    made = model.proto(*outputs)
    for info in made.graph.output:
        if info.name == "present":
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    return made


def block(rng: Rng, rows: int, axis: int = 2, batch: int = 2) -> Array:
    shape = [batch, 3, 4]
    shape.insert(axis, rows)
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_cache_grows_by_what_is_run(axis: int, rng: Rng) -> None:
    model, y, length = growing(axis)
    session = Session(proto(model, y, "present", length), threads=1)
    assert session.state == NAMES
    state = session.new_state()
    parts: list[Array] = []
    for rows in (5, 1, 0, 1, 300, 1, 700, 2):  # beyond the room there is, twice
        before = sum(part.shape[axis] for part in parts)
        parts.append(block(rng, rows, axis))
        out = session.run({"x": parts[-1]}, state=state)
        whole = np.concatenate(parts, axis)
        np.testing.assert_allclose(out[y], whole.sum(axis), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(out[length], [before])
        np.testing.assert_array_equal(state.value("past"), whole)
        assert state.length == whole.shape[axis]
    assert list(out.keys()) == [y, length]


def test_one_more_row_moves_no_other(rng: Rng) -> None:
    """The rows stay where they are: a changed buffer shows in the next result."""
    model, y, length = growing()
    session = Session(proto(model, y, "present", length), threads=1)
    state = session.new_state()
    session.run({"x": block(rng, 3)}, state=state)
    cache = state._caches["past"]
    buffer = cache.rows
    session.run({"x": block(rng, 1)}, state=state)
    assert np.shares_memory(cache.rows, buffer)
    buffer[0] = 7
    out = session.run({"x": block(rng, 1)}, state=state)
    whole = state.value("past")
    assert (whole[:, :, 0] == 7).all()
    np.testing.assert_allclose(out[y], whole.sum(2), rtol=1e-5, atol=1e-5)


def test_states_are_independent_and_can_be_reset(rng: Rng) -> None:
    model, y, length = growing()
    session = Session(proto(model, y, "present", length), threads=1)
    one, other = session.new_state(), session.new_state()
    x, z = block(rng, 2), block(rng, 3, batch=1)
    session.run({"x": x}, state=one)
    session.run({"x": z}, state=other)
    np.testing.assert_array_equal(one.value("past"), x)
    np.testing.assert_array_equal(other.value("past"), z)
    one.reset()
    assert one.length == 0
    session.run({"x": z}, state=one)
    np.testing.assert_array_equal(one.value("past"), z)


@pytest.mark.parametrize("optimise", [True, False])
def test_caches_by_hand_are_as_the_model_has_them(optimise: bool, rng: Rng) -> None:
    model, y, length = growing()
    session = Session(proto(model, y, "present", length), threads=1, optimise=optimise)
    past, x = block(rng, 4), block(rng, 2)
    out = session.run({"past": past, "x": x})
    want = meaning(model.graph(y, "present", length), {"past": past, "x": x})
    for name in (y, "present", length):
        np.testing.assert_allclose(out[name], want[name], rtol=1e-6)
    given = np.empty((2, 3, 6, 4), np.float32)
    session.run({"past": past, "x": x}, out={"present": given})
    np.testing.assert_array_equal(given, want["present"])
    again = session.run({"past": out["present"], "x": x})
    assert again["present"].shape == (2, 3, 8, 4)


def recurrent() -> tuple[Model, str]:
    """h' = tanh(x + h)."""
    model = Model(x=("FLOAT", ("b", 4)), h=("FLOAT", ("b", 4)))
    return model, model("Tanh", model("Add", "x", "h"))


def test_replaced_state_starts_at_zero(rng: Rng) -> None:
    model, after = recurrent()
    y = model("Mul", after, np.float32(2))
    session = Session(model.proto(y, after), threads=1, state={"h": after})
    state, h = session.new_state(), np.zeros((3, 4), np.float32)
    for _ in range(3):
        x = rng.standard_normal((3, 4)).astype(np.float32)
        got = session.run(x, state=state)
        h = np.tanh(x + h)
        np.testing.assert_allclose(got, 2 * h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.value("h"), h, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("flat", [True, False])
def test_attention_that_appends_by_itself(heads: tuple[int, int], flat: bool, rng: Rng) -> None:
    """ONNX Attention with past and present: in steps as in one go."""
    q_heads, kv_heads = heads
    if flat:
        shapes: list[Any] = [["b", "n", q_heads * 8]] + [["b", "n", kv_heads * 8]] * 2
    else:
        shapes = [["b", q_heads, "n", 8]] + [["b", kv_heads, "n", 8]] * 2
    names = ["q", "k", "v", "past.key", "past.value"]
    shapes += [["b", kv_heads, "past", 8]] * 2
    outputs = ["y", "present.key", "present.value"]
    attrs = {"q_num_heads": q_heads, "kv_num_heads": kv_heads} if flat else {}
    node = helper.make_node(
        "Attention", [*names[:3], "", *names[3:]], outputs, is_causal=1, **attrs
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    session = Session(model, threads=1)
    assert session.state == {"past.key": "present.key", "past.value": "present.value"}
    state, steps = session.new_state(), (5, 1, 1, 3)
    total = sum(steps)
    axis = 1 if flat else 2
    whole = [
        rng.standard_normal([total if d == "n" else 2 if d == "b" else d for d in s]).astype(
            np.float32
        )
        for s in shapes[:3]
    ]
    empty = np.zeros((2, kv_heads, 0, 8), np.float32)
    at_once = session.run([*whole, empty, empty])["y"]
    parts, at = [], 0
    for rows in steps:
        piece = [np.take(x, range(at, at + rows), axis) for x in whole]
        parts.append(session.run(piece, state=state))
        at += rows
    np.testing.assert_allclose(np.concatenate(parts, axis), at_once, rtol=1e-5, atol=1e-5)
    plain = Session(model, threads=1, state={})
    assert plain.state == {}
    np.testing.assert_allclose(plain.run([*whole, empty, empty])["y"], at_once, rtol=0, atol=1e-5)


def test_bad_states() -> None:
    model, after = recurrent()
    y = model("Mul", after, np.float32(2))
    made = model.proto(y, after)
    for pairs in ({"nothing": after}, {"h": "nothing"}, {"h": after, "x": after}):
        with pytest.raises(InputError):
            Session(made, state=pairs)
    session = Session(made, state={"h": after})
    state = session.new_state()
    assert isinstance(state, State)
    with pytest.raises(InputError):
        state.value("h")
    x = np.zeros((1, 4), np.float32)
    with pytest.raises(InputError):
        session.run({"x": x, "h": x}, state=state)
    with pytest.raises(InputError):
        session.run(x, state=state, out=x)


def test_state_of_a_plan(tmp_path: Path, rng: Rng) -> None:
    model, y, _ = growing()
    session = Session(proto(model, y, "present"), threads=1)
    session.save_plan(tmp_path / "state.plan")
    opened = Session(tmp_path / "state.plan", threads=1)
    assert opened.state == NAMES
    states = (session.new_state(), opened.new_state())
    for rows in (5, 1, 300):
        x = block(rng, rows)
        first, second = (s.run({"x": x}, state=t) for s, t in zip((session, opened), states))
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(*(t.value("past") for t in states))
    past = block(rng, 3)
    for first, second in zip(*(s.run({"past": past, "x": x}) for s in (session, opened))):
        np.testing.assert_array_equal(first, second)
