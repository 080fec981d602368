"""Binding and running: values known at bind, data-dependent shapes, memory sharing, limits."""

from __future__ import annotations

import numpy as np
import pytest

import lepton_rt
from lepton_rt import _core
from lepton_rt.graph.ir import Value
from lepton_rt.plan import Plan, Step

F32 = np.dtype(np.float32)
I64 = np.dtype(np.int64)


def executor(
    steps: list[Step],
    outputs: list[str],
    dtypes: dict[str, np.dtype],
    constants: dict[str, np.ndarray] | None = None,
    inputs: dict[str, Value] | None = None,
    threads: int = 1,
    host: object = None,
) -> _core.Executor:
    plan = Plan(
        _core.max_isa(), inputs or {"x": Value(F32, None)}, outputs, steps, constants or {}, dtypes
    )
    return _core.Executor(*plan.encode(), threads=threads, host=host)


def elementwise(program: str, inputs: list[str], output: str, compute: str = "f32") -> Step:
    return Step("lepton.Elementwise", inputs, [output], {"program": program, "compute": compute})


def test_input_or_constant_as_output() -> None:
    c = np.arange(3, dtype=np.float32)
    run = executor([], ["x", "c", "x"], {}, {"c": c}).run
    x = np.ones((2, 2), np.float32)
    first, second, third = run([x])
    np.testing.assert_array_equal(first, x)
    np.testing.assert_array_equal(second, c)
    np.testing.assert_array_equal(third, x)
    assert first is not x
    assert not np.shares_memory(first, third)


def test_shape_values_are_known_at_bind() -> None:
    """x → Reshape(x, [Shape(x)[0], −1]) with arithmetic on the way, for several shapes."""
    steps = [
        Step("Shape", ["x"], ["shape"]),
        Step("Gather", ["shape", "zero"], ["n"], {"axis": 0}),
        elementwise("Mul r0 r1", ["n", "one"], "n1", "i64"),
        Step("Concat", ["n1", "rest"], ["target"], {"axis": 0}),
        Step("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "rest": np.array([-1], np.int64),
    }
    dtypes = {"shape": I64, "n": I64, "n1": I64, "target": I64, "y": F32}
    made = executor(steps, ["y"], dtypes, constants)
    for shape in [(2, 3, 4), (1, 6), (5, 1, 1, 2)]:
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        np.testing.assert_array_equal(made.run([x])[0], x.reshape(shape[0], -1))


def test_value_computed_from_data_splits_the_plan() -> None:
    """Reshape to a shape that is a graph input, then more steps; bound again when it changes."""
    steps = [
        elementwise("Add r0 #1", ["x"], "a"),
        Step("Reshape", ["a", "target"], ["b"]),
        elementwise("Mul r0 #2", ["b"], "y"),
    ]
    dtypes = {"a": F32, "b": F32, "y": F32}
    inputs = {"x": Value(F32, None), "target": Value(I64, (None,))}
    made = executor(steps, ["y", "a"], dtypes, inputs=inputs)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for target in ([4, 3], [2, 6], [2, 6], [12], [4, 3]):
        y, a = made.run([x, np.array(target, np.int64)])
        np.testing.assert_array_equal(y, (x.reshape(target) + 1) * 2)
        np.testing.assert_array_equal(a, x + 1)
    with pytest.raises(lepton_rt.InputError, match="Reshape"):
        made.run([x, np.array([5, 5], np.int64)])


def test_data_dependent_shape() -> None:
    """NonZero's output shape depends on data; steps after it follow."""
    steps = [
        Step("NonZero", ["x"], ["where"]),
        elementwise("Add r0 #1", ["where"], "y", "i64"),
        Step("Shape", ["where"], ["s"]),
    ]
    made = executor(steps, ["y", "s"], {"where": I64, "y": I64, "s": I64})
    rng = np.random.default_rng(1)
    for density in (0.5, 0.0, 1.0, 0.5, 0.5):
        x = (rng.random((4, 5)) < density).astype(np.float32)
        y, s = made.run([x])
        np.testing.assert_array_equal(y, np.array(np.nonzero(x)) + 1)
        assert list(s) == [2, int(x.sum())]


class Doubler:
    """Stands for the host runner: doubles its input, or raises."""

    def operands(self, index: int) -> tuple[int, int]:
        return 1, 1

    def run(self, index: int, inputs: list[np.ndarray]) -> list[np.ndarray]:
        if inputs[0].size == 0:
            raise ZeroDivisionError("nothing to double")
        with pytest.raises(ValueError, match="read-only"):
            inputs[0][...] = 0
        return [np.concatenate([inputs[0], inputs[0]])]


def test_host_step_allocates_and_passes_exceptions_through() -> None:
    steps = [
        elementwise("Add r0 #1", ["x"], "a"),
        Step("lepton.Host", ["a"], ["b"], {"id": 0}),
        elementwise("Neg r0", ["b"], "y"),
    ]
    made = executor(steps, ["y", "b"], {"a": F32, "b": F32, "y": F32}, host=Doubler())
    for n in (3, 5, 3):
        x = np.arange(n, dtype=np.float32)
        y, b = made.run([x])
        np.testing.assert_array_equal(b, np.concatenate([x + 1, x + 1]))
        np.testing.assert_array_equal(y, -b)
    with pytest.raises(ZeroDivisionError, match="nothing to double"):
        made.run([np.empty(0, np.float32)])


def test_branches_survive_in_place_steps() -> None:
    """A value read twice must not be overwritten by its first reader."""
    steps = [
        elementwise("Add r0 #1", ["x"], "a"),
        elementwise("Mul r0 #2", ["a"], "b"),
        elementwise("Mul r0 #3", ["b"], "c"),
        elementwise("Add r0 r1", ["a", "c"], "d"),
        Step("Reshape", ["a", "flat"], ["e"]),
        elementwise("Neg r0", ["d"], "f"),
    ]
    dtypes = dict.fromkeys("abcdef", F32)
    made = executor(steps, ["f", "e", "d"], dtypes, {"flat": np.array([-1], np.int64)})
    x = np.random.default_rng(2).normal(size=(8, 9)).astype(np.float32)
    f, e, d = made.run([x])
    a = x + 1
    want = a + a * 2 * 3
    np.testing.assert_allclose(d, want, rtol=1e-6)
    np.testing.assert_array_equal(f, -d)
    np.testing.assert_array_equal(e, a.reshape(-1))


def test_a_long_chain_shares_memory() -> None:
    steps = [elementwise("Add r0 #1", [f"t{i}"], f"t{i + 1}") for i in range(50)]
    dtypes = {f"t{i + 1}": F32 for i in range(50)}
    made = executor(steps, ["t50"], dtypes, inputs={"t0": Value(F32, None)})
    bytes_one = 1000 * 1000 * 4
    assert made.bind([[1000, 1000]])[0] < 2.1 * bytes_one
    x = np.zeros((10, 10), np.float32)
    np.testing.assert_array_equal(made.run([x])[0], np.full((10, 10), 50, np.float32))


def test_more_memory_than_the_machine_has_is_an_error() -> None:
    """Both for an output, which is the caller's, and for a tensor inside."""
    steps = [
        Step("Expand", ["x", "shape"], ["y"]),
        Step("Transpose", ["y"], ["z"], {"perm": [1, 0]}),
        Step("Slice", ["z", "start", "stop"], ["few"]),
    ]
    dtypes = dict.fromkeys(["y", "z", "few"], F32)
    constants = {
        "shape": np.array([1 << 19, 1 << 19], np.int64),
        "start": np.array([0, 0], np.int64),
        "stop": np.array([1, 1], np.int64),
    }
    x = np.ones(1, np.float32)
    with pytest.raises(MemoryError):
        executor(steps, ["few"], dtypes, constants).bind([[1]])
    with pytest.raises(MemoryError):
        executor(steps[:1], ["y"], dtypes, constants).run([x])


@pytest.mark.parametrize("cut", [0, 1, 7, 20, 60, 100])
def test_truncated_plan_is_an_error(cut: int) -> None:
    plan = Plan(
        _core.max_isa(),
        {"x": Value(F32, (2, None))},
        ["y"],
        [elementwise("Add r0 #1", ["x"], "y")],
        {},
        {"y": F32},
    )
    meta, blobs = plan.encode()
    with pytest.raises(lepton_rt.ModelError, match="broken plan"):
        _core.Executor(meta[: min(cut, len(meta) - 1)], blobs)


def test_corrupt_plans_never_crash() -> None:
    plan = Plan(
        _core.max_isa(),
        {"x": Value(F32, (2, None))},
        ["z"],
        [
            elementwise("Add r0 r1", ["x", "c"], "y"),
            Step("Transpose", ["y"], ["z"], {"perm": [1, 0]}),
        ],
        {"c": np.ones((1, 3), np.float32)},
        {"y": F32, "z": F32},
    )
    meta, blobs = plan.encode()
    rng = np.random.default_rng(0)
    x = np.ones((2, 3), np.float32)
    failures = 0
    for _ in range(3000):
        broken = bytearray(meta)
        for _ in range(rng.integers(1, 4)):
            broken[rng.integers(len(broken))] = rng.integers(256)
        try:
            _core.Executor(bytes(broken), blobs).run([x])
        except (lepton_rt.Error, MemoryError, UnicodeDecodeError):
            failures += 1
    assert failures > 1000
