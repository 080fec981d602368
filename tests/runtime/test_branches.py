"""Branches: what may run side by side, when it does, and that results do not depend on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper

import lepton_rt
from lepton_rt import _core
from small_networks import Builder

Array = npt.NDArray[Any]
Step = tuple[list[int], list[int]]
RUNS = 34  # beyond those in which both ways are tried


def find(*steps: Step) -> list[tuple[int, list[int]]]:
    return _core.testing.branches(list(steps))


def test_chains_that_begin_with_one_tensor_and_meet() -> None:
    stem, join = ([0], [1]), ([2, 4, 5], [6])
    chains = [([1], [2]), ([1], [3]), ([3], [4]), ([1], [5])]
    assert find(stem, *chains, join) == [(1, [0, 1, 1, 2])]
    mixed = [chains[i] for i in (1, 0, 3, 2)]
    assert find(stem, *mixed, join, ([6], [7])) == [(1, [0, 1, 2, 0])]


def test_two_forks_after_one_another() -> None:
    def fork(x: int, at: int) -> list[Step]:
        return [([x], [at]), ([x], [at + 1]), ([at, at + 1], [at + 2])]

    assert find(*fork(0, 1), *fork(3, 4)) == [(0, [0, 1]), (3, [0, 1])]


def test_a_sequence_and_steps_of_other_inputs_are_no_branches() -> None:
    assert find(*(([i], [i + 1]) for i in range(9))) == []
    assert find(([0], [1]), ([8], [9]), ([1, 9], [2])) == []
    assert find(([0], [1]), ([0, 1], [2])) == []  # what skips a layer has no steps


def test_memory_that_is_written_twice_orders_steps() -> None:
    """A step that overwrites what others read, or writes where another did, comes after them."""
    assert find(([0], [1]), ([0], [0]), ([0, 1], [2])) == []
    assert find(([0], [1]), ([0], [1]), ([1], [2])) == []
    assert find(([0], [1]), ([1], [1]), ([0], [2]), ([1, 2], [3])) == [(0, [0, 0, 1])]


def test_random_steps_never_touch_what_another_chain_writes(rng: np.random.Generator) -> None:
    found = 0
    for _ in range(300):
        steps: list[Step] = []
        for i in range(30):
            reads = [int(x) for x in rng.integers(max(0, i - 4), i + 1, rng.integers(1, 3))]
            steps.append((reads, [reads[0] if rng.random() < 0.15 else i + 1]))
        end = 0
        for first, chain in find(*steps):
            assert first >= end
            end = first + len(chain)
            assert set(chain) == set(range(len(set(chain))))
            assert len(set(chain)) > 1
            for i, mine in enumerate(chain):
                for j, other in enumerate(chain):
                    if mine != other:
                        reads, writes = steps[first + j]
                        assert not {*reads, *writes} & set(steps[first + i][1])
            found += 1
    assert found > 100


def test_the_faster_way_is_kept_and_tried_again() -> None:
    paces = _core.testing.branch_paces
    assert paces(9_000, 10_000, 30)[20:] == [False, True] * 3 + [True] * 4
    assert paces(11_000, 10_000, 30)[20:] == [False, True] * 3 + [False] * 4
    assert not any(paces(1, 2, 20))
    assert paces(11_000, 10_000, 2006)[2000:] == [False, True] * 3


def test_chains_are_divided_by_their_times() -> None:
    assert _core.testing.shares([5, 40, 20, 15], 2) == [1, 0, 1, 1]
    assert sorted(_core.testing.shares([1, 1, 1], 4)) == [0, 1, 2]


def inception() -> onnx.ModelProto:
    """x [n, 8, 12, 12]: four branches of convolutions and a pool, concatenated, twice."""
    b = Builder(0)
    x = "x"
    for level in range(2):
        channels = 8 if level == 0 else 24
        for name in "abc":
            b.conv(x, f"{name}{level}", channels, 6, 1)
            b.node("Relu", [f"{name}{level}"], f"r{name}{level}")
        b.conv(f"rb{level}", f"bb{level}", 6, 6, 3)
        b.conv(f"rc{level}", f"cc{level}", 6, 6, 5)
        b.node("MaxPool", [x], f"p{level}", kernel_shape=[3, 3], pads=[1] * 4)
        b.conv(f"p{level}", f"pp{level}", channels, 6, 1)
        x = f"y{level}"
        b.node("Concat", [f"ra{level}", f"bb{level}", f"cc{level}", f"pp{level}"], x, axis=1)
    return b.model({"x": ["n", 8, 12, 12]}, {x: ["n", 24, 12, 12]})


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_an_inception_network(threads: int, rng: np.random.Generator) -> None:
    session = lepton_rt.Session(inception(), threads=threads)
    alone = lepton_rt.Session(inception(), threads=1)
    for batch in (1, 3):
        for _ in range(RUNS):
            x = rng.standard_normal((batch, 8, 12, 12)).astype(np.float32)
            np.testing.assert_array_equal(session.run(x), alone.run(x))


def random_graph(rng: np.random.Generator) -> onnx.ModelProto:
    """x [16, 24]: steps that read what a few steps before them made, some in place."""
    names, nodes, constants = ["x"], [], {}
    for i in range(24):
        read = [str(n) for n in rng.choice(names[-5:], 2)]
        op = str(rng.choice(["Add", "Mul", "MatMul", "Softmax", "Tanh", "Relu", "Neg", "Sub"]))
        if op == "MatMul":
            constants[f"w{i}"] = (rng.standard_normal((24, 24)) / 6).astype(np.float32)
            read[1] = f"w{i}"
        one = op in ("Softmax", "Tanh", "Relu", "Neg")
        nodes.append(helper.make_node(op, read[:1] if one else read, [f"t{i}"]))
        names.append(f"t{i}")
    last = helper.make_node("Sum", names[-6:], ["y"])
    graph = helper.make_graph(
        [*nodes, last],
        "random",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("seed", range(25))
def test_random_graphs(seed: int) -> None:
    """Nothing is overwritten while another chain still reads it."""
    rng = np.random.default_rng(seed)
    model = random_graph(rng).SerializeToString()
    session = lepton_rt.Session(model, threads=3, optimise=False)
    alone = lepton_rt.Session(model, threads=1, optimise=False)
    for _ in range(RUNS):
        x = rng.standard_normal((16, 24)).astype(np.float32)
        np.testing.assert_array_equal(session.run(x), alone.run(x))


def test_an_error_in_a_branch(rng: np.random.Generator) -> None:
    """It is reported, whichever way the branches run, and the next run is right."""
    nodes = [
        helper.make_node("Tanh", ["x"], ["a"]),
        helper.make_node("Gather", ["x", "i"], ["b"], axis=0),
        helper.make_node("Neg", ["x"], ["c"]),
        helper.make_node("Sum", ["a", "b", "c"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "gather",
        [value("x", TensorProto.FLOAT, [4, 64]), value("i", TensorProto.INT64, [4])],
        [value("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = lepton_rt.Session(model.SerializeToString(), threads=2, optimise=False)
    x = rng.standard_normal((4, 64)).astype(np.float32)
    want = np.tanh(x) + x[::-1] - x
    for _ in range(RUNS):
        got = session.run({"x": x, "i": np.array([3, 2, 1, 0])})
        np.testing.assert_allclose(got, want, atol=1e-6)
        with pytest.raises(lepton_rt.InputError):
            session.run({"x": x, "i": np.array([0, 4, 0, 0])})
