"""If, Loop and Scan with compiled bodies, against ONNX Runtime and NumPy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton_rt
from lepton_rt import _core
from lepton_rt.errors import Error, InputError, ModelError
from lepton_rt.lower import lower

ort = pytest.importorskip("onnxruntime")

Array = npt.NDArray[Any]
node = helper.make_node
tensor = helper.make_tensor_value_info
F32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
BOTH = pytest.mark.parametrize("optimise", [True, False])


def graph(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, Array] | None = None,
) -> onnx.GraphProto:
    initializers = [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()]
    return helper.make_graph(nodes, "g", inputs, outputs, initializers)


def model(*args: Any) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", 21)]
    return helper.make_model(graph(*args), opset_imports=imports, ir_version=10)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def same_as_ort(made: onnx.ModelProto, feeds: dict[str, Array], optimise: bool) -> Any:
    session = lepton_rt.Session(made, optimise=optimise)
    assert not session.explain().host_steps
    oracle = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    for _ in range(2):
        got = session.run(feeds)
        got = [got] if isinstance(got, np.ndarray) else list(got)
        for g, w in zip(got, oracle.run(None, feeds), strict=True):
            assert g.dtype == w.dtype
            assert g.shape == w.shape
            np.testing.assert_allclose(g, w, rtol=2e-5, atol=1e-5)
    return session


def classifier() -> onnx.ModelProto:
    """One of two layers, weights outside of the branches, and a choice inside of a branch."""
    inner = graph([node("Neg", ["h"], ["n"])], [], [tensor("n", F32, None)])
    same = graph([node("Identity", ["h"], ["s"])], [], [tensor("s", F32, None)])
    yes = graph(
        [
            node("MatMul", ["x", "w"], ["p"]),
            node("Add", ["p", "b"], ["q"]),
            node("Relu", ["q"], ["h"]),
            node("If", ["flip"], ["t"], then_branch=inner, else_branch=same),
        ],
        [],
        [tensor("t", F32, None)],
    )
    no = graph(
        [node("ReduceSum", ["x", "axes"], ["r"], keepdims=0)],
        [],
        [tensor("r", F32, None)],
        {"axes": np.array([1])},
    )
    return model(
        [
            node("ReduceMax", ["x"], ["m"], keepdims=0),
            node("Greater", ["m", "limit"], ["c"]),
            node("If", ["c"], ["o"], then_branch=yes, else_branch=no),
            node("Mul", ["o", "two"], ["y"]),
        ],
        [tensor("x", F32, ["n", 6]), tensor("flip", BOOL, [])],
        [tensor("y", F32, None)],
        {"w": normal(6, 5), "b": normal(5), "limit": np.float32(1), "two": np.float32(2)},
    )


@BOTH
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [0.01, 9.0])
def test_if(scale: float, flip: bool, optimise: bool) -> None:
    feeds = {"x": normal(3, 6) * np.float32(scale), "flip": np.array(flip)}
    same_as_ort(classifier(), feeds, optimise)


def test_bodies_are_optimised_with_the_weights_around_them() -> None:
    rows = lepton_rt.Session(classifier()).explain()
    assert [row.op for row in rows].count("lepton.MatMul") == 1
    assert "Add" not in [row.op for row in rows]


def counting(trips: bool = True, condition: bool = True) -> onnx.ModelProto:
    """Carries a sum and a tensor that grows, and stacks what it sees; stops above a limit."""
    body = graph(
        [
            node("Add", ["sum", "x"], ["sum2"]),
            node("Concat", ["grown", "x"], ["grown2"], axis=0),
            node("ReduceSum", ["sum2"], ["total"], keepdims=0),
            node("Less", ["total", "limit"], ["go"]),
            node("Cast", ["i"], ["fi"], to=F32),
            node("Mul", ["x", "fi"], ["seen"]),
        ],
        [
            tensor("i", I64, []),
            tensor("c", BOOL, []),
            tensor("sum", F32, [3]),
            tensor("grown", F32, ["k"]),
        ],
        [
            tensor("go", BOOL, []),
            tensor("sum2", F32, [3]),
            tensor("grown2", F32, ["l"]),
            tensor("seen", F32, [3]),
        ],
    )
    return model(
        [
            node(
                "Loop",
                ["trips" if trips else "", "start" if condition else "", "x", "none"],
                ["sum3", "all", "stack"],
                body=body,
            )
        ],
        [
            tensor("x", F32, [3]),
            tensor("limit", F32, []),
            *([tensor("trips", I64, [])] if trips else []),
            *([tensor("start", BOOL, [])] if condition else []),
        ],
        [tensor("sum3", F32, [3]), tensor("all", F32, None), tensor("stack", F32, None)],
        {"none": np.zeros(0, np.float32)},
    )


@BOTH
@pytest.mark.parametrize(
    ("trips", "start", "limit"),
    [(4, True, 100.0), (40, True, 30.0), (None, True, 30.0), (4, None, 9.0), (None, None, 20.0)],
)
def test_loop(trips: int | None, start: bool | None, limit: float, optimise: bool) -> None:
    made = counting(trips is not None, start is not None)
    feeds: dict[str, Array] = {"x": np.array([1, 2, 0.5], np.float32)}
    feeds["limit"] = np.array(limit, np.float32)
    if trips is not None:
        feeds["trips"] = np.array(trips)
    if start is not None:
        feeds["start"] = np.array(start)
    same_as_ort(made, feeds, optimise)


@pytest.mark.parametrize(("trips", "start"), [(0, True), (-3, True), (5, False)])
def test_a_loop_may_run_not_once(trips: int, start: bool) -> None:
    x = np.array([1, 2, 3], np.float32)
    feeds = {"x": x, "limit": np.float32(9), "trips": np.array(trips), "start": np.array(start)}
    total, grown, stack = lepton_rt.Session(counting()).run(feeds)
    np.testing.assert_array_equal(total, x)
    assert grown.shape == (0,)
    assert stack.shape == (0, 3)


@BOTH
def test_scan_with_axes_and_directions(optimise: bool) -> None:
    body = graph(
        [
            node("MatMul", ["h", "u"], ["hu"]),
            node("Add", ["hu", "a"], ["s"]),
            node("Tanh", ["s"], ["h2"]),
            node("Sub", ["h2", "b"], ["d"]),
            node("Identity", ["h2"], ["e"]),
        ],
        [tensor("h", F32, [2, 4]), tensor("a", F32, [2, 4]), tensor("b", F32, [2, 4])],
        [tensor("h2", F32, [2, 4]), tensor("d", F32, [2, 4]), tensor("e", F32, [2, 4])],
    )
    scan = node(
        "Scan",
        ["h0", "a_all", "b_all"],
        ["h_last", "d_all", "e_all"],
        body=body,
        num_scan_inputs=2,
        scan_input_axes=[1, 0],
        scan_input_directions=[0, 1],
        scan_output_axes=[2, -2],
        scan_output_directions=[1, 0],
    )
    made = model(
        [scan],
        [tensor("h0", F32, [2, 4]), tensor("a_all", F32, [2, "t", 4]), tensor("b_all", F32, None)],
        [tensor("h_last", F32, [2, 4]), tensor("d_all", F32, None), tensor("e_all", F32, None)],
        {"u": normal(4, 4, seed=1) * np.float32(0.3)},
    )
    made.graph.input[2].CopyFrom(tensor("b_all", F32, ["t", 2, 4]))
    feeds = {"h0": normal(2, 4), "a_all": normal(2, 7, 4, seed=2), "b_all": normal(7, 2, 4, seed=3)}
    session = same_as_ort(made, feeds, optimise)
    feeds["a_all"] = feeds["a_all"][:, :5]
    with pytest.raises(InputError, match="differ in length"):
        session.run(feeds)
    feeds = {"h0": normal(2, 4), "a_all": normal(2, 0, 4), "b_all": normal(0, 2, 4)}
    last, d, e = session.run(feeds)
    np.testing.assert_array_equal(last, feeds["h0"])
    assert (d.shape, e.shape) == ((2, 4, 0), (2, 0, 4))


def endless() -> onnx.ModelProto:
    body = graph(
        [node("Relu", ["s"], ["t"]), node("Identity", ["c"], ["d"])],
        [tensor("i", I64, []), tensor("c", BOOL, []), tensor("s", F32, [2])],
        [tensor("d", BOOL, []), tensor("t", F32, [2])],
    )
    return model(
        [node("Loop", ["", "go", "x"], ["y"], body=body)],
        [tensor("x", F32, [2]), tensor("go", BOOL, [])],
        [tensor("y", F32, [2])],
    )


def test_an_endless_loop_can_be_interrupted() -> None:
    session = lepton_rt.Session(endless())

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            session.run(np.ones(2, np.float32), np.array(True))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    np.testing.assert_array_equal(session.run(-np.ones(2, np.float32), np.array(False)), [-1, -1])


OUTGROW = """
import resource, sys
import numpy as np
import lepton_rt
session = lepton_rt.Session(sys.argv[1], threads=1)
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
try:
    session.run(np.ones(1 << 20, np.float32), np.array(60))
except MemoryError:
    print("stopped")
"""


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="needs a memory limit")
def test_a_loop_that_outgrows_the_memory_is_stopped(tmp_path: Path) -> None:
    body = graph(
        [node("Concat", ["s", "s"], ["t"], axis=0), node("Identity", ["c"], ["d"])],
        [tensor("i", I64, []), tensor("c", BOOL, []), tensor("s", F32, ["k"])],
        [tensor("d", BOOL, []), tensor("t", F32, ["l"])],
    )
    made = model(
        [node("Loop", ["trips", "", "x"], ["y"], body=body)],
        [tensor("x", F32, [1 << 20]), tensor("trips", I64, [])],
        [tensor("y", F32, ["n"])],
    )
    session = lepton_rt.Session(made)
    x = normal(1 << 20)
    np.testing.assert_array_equal(session.run(x, np.array(2)), np.tile(x, 4))
    onnx.save(made, tmp_path / "m.onnx")
    command = [sys.executable, "-c", OUTGROW, str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "stopped", done.stderr


@pytest.mark.parametrize("breaking", ["outputs", "dtype", "condition"])
def test_bodies_that_do_not_fit_are_refused(breaking: str) -> None:
    made = endless()
    body = made.graph.node[0].attribute[0].g
    if breaking == "outputs":
        del body.output[1]
    elif breaking == "dtype":
        body.node[0].CopyFrom(node("Cast", ["s"], ["t"], to=I64))
        body.output[1].CopyFrom(tensor("t", I64, [2]))
    else:
        body.node[1].CopyFrom(node("Cast", ["c"], ["d"], to=I64))
        body.output[0].CopyFrom(tensor("d", I64, []))
    with pytest.raises(Error):
        lepton_rt.Session(made).run(np.ones(2, np.float32), np.array(False))


def test_a_truncated_body_is_a_broken_plan() -> None:
    plan = lower(lepton_rt.import_onnx(endless()), _core.max_isa(), None).plan
    meta, blobs = plan.encode()
    _core.Executor(meta, blobs, threads=1)
    for at in range(8, len(meta), 3):
        with pytest.raises((ModelError, Error)):
            _core.Executor(meta[:at], blobs, threads=1)


def test_threads_share_a_loop() -> None:
    session = lepton_rt.Session(counting(), threads=1)
    wrong: list[int] = []

    def work(number: int) -> None:
        for trips in (1, 3, 2) * 10:
            x = np.full(3, number, np.float32)
            feeds = {"x": x, "limit": np.float32(1e9), "trips": np.array(trips)}
            total, grown, stack = session.run({**feeds, "start": np.array(True)})
            fits = grown.shape == (3 * trips,) and stack.shape == (trips, 3)
            if not fits or total[0] != number * (trips + 1):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_host_steps_work_inside_of_bodies() -> None:
    body = graph(
        [node("Det", ["m"], ["d"]), node("Add", ["s", "d"], ["t"]), node("Identity", ["c"], ["e"])],
        [tensor("i", I64, []), tensor("c", BOOL, []), tensor("s", F32, [])],
        [tensor("e", BOOL, []), tensor("t", F32, [])],
    )
    made = model(
        [node("Loop", ["three", "", "zero"], ["y"], body=body)],
        [tensor("m", F32, [2, 2])],
        [tensor("y", F32, [])],
        {"three": np.array(3), "zero": np.float32(0)},
    )
    with pytest.warns(RuntimeWarning, match="Det"):
        session = lepton_rt.Session(made)
    assert [row.op for row in session.explain()][:1] == ["Loop"]
    assert len(session.explain().host_steps) == 1
    m = np.array([[2, 1], [1, 3]], np.float32)
    np.testing.assert_allclose(session.run(m), 15, rtol=1e-6)
