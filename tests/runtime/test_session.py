"""Session as its users meet it: inputs, outputs, errors, threads, interrupts."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton_rt


def small_model(batch: int | str = "batch") -> onnx.ModelProto:
    """y = relu(x · w + b), z = sum of x over features."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Add", ["xw", "b"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["z"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(rng.normal(size=(5, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(rng.normal(size=3).astype(np.float32), "b"),
        numpy_helper.from_array(np.array([1]), "axes"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 5])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, [batch]),
        ],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def expected(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    model = small_model()
    w, b = (numpy_helper.to_array(model.graph.initializer[i]) for i in (0, 1))
    return np.maximum(x @ w + b, 0), x.sum(1)


@pytest.fixture
def session() -> lepton_rt.Session:
    return lepton_rt.Session(small_model())


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(4, 5)).astype(np.float32)


def test_outputs_unpack_in_order_and_by_name(session: lepton_rt.Session, x: np.ndarray) -> None:
    y, z = session.run(x)
    np.testing.assert_allclose(y, expected(x)[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(z, expected(x)[1], rtol=1e-5, atol=1e-6)
    results = session.run({"x": x})
    np.testing.assert_array_equal(results["y"], y)
    np.testing.assert_array_equal(results[1], z)
    assert list(results.keys()) == ["y", "z"]


def test_describes_itself(session: lepton_rt.Session) -> None:
    assert [str(spec) for spec in session.inputs] == ["x: float32 [batch, 5]"]
    assert [spec.name for spec in session.outputs] == ["y", "z"]
    assert "lepton.MatMul" in str(session.explain())


def test_new_batch_sizes_and_empty_batch(session: lepton_rt.Session) -> None:
    for n in (1, 7, 0, 3, 64):
        x = np.full((n, 5), 0.5, np.float32)
        y, z = session.run(x)
        assert (y.shape, z.shape) == ((n, 3), (n,))
        np.testing.assert_allclose(y, expected(x)[0], rtol=1e-5, atol=1e-6)


def test_results_belong_to_the_caller(session: lepton_rt.Session, x: np.ndarray) -> None:
    y, _ = session.run(x)
    kept = y.copy()
    y2, _ = session.run(x + 1)
    np.testing.assert_array_equal(y, kept)
    y2[:] = 0
    np.testing.assert_array_equal(session.run(x)[0], kept)


def test_strided_input(session: lepton_rt.Session, rng: np.random.Generator) -> None:
    wide = rng.normal(size=(4, 10)).astype(np.float32)
    np.testing.assert_allclose(
        session.run(wide[:, ::2])[0], expected(wide[:, ::2])[0], rtol=1e-5, atol=1e-6
    )


def test_lists_take_the_inputs_dtype(session: lepton_rt.Session) -> None:
    y, _ = session.run([[1, 2, 3, 4, 5]])
    np.testing.assert_allclose(y, expected(np.array([[1, 2, 3, 4, 5]], np.float32))[0], rtol=1e-5)


def test_out(session: lepton_rt.Session, x: np.ndarray) -> None:
    y = np.empty((4, 3), np.float32)
    results = session.run(x, out={"y": y})
    assert results["y"] is y
    np.testing.assert_allclose(y, expected(x)[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(lepton_rt.InputError, match=r"float32 array of shape \[4, 3\]"):
        session.run(x, out=[np.empty((3, 4), np.float32), None])
    with pytest.raises(lepton_rt.InputError):
        session.run(x, out=[y[:, ::-1], None])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((4, 5)), r'input "x" expects float32, got an array of float64'),
        (np.zeros((4, 6), np.float32), r'"x" expects shape \[batch, 5\], got \[4, 6\]'),
        (np.zeros(5, np.float32), r"got \[5\]"),
        ({"q": np.zeros((4, 5), np.float32)}, "missing: x; unknown: q"),
        ("text", "expects numbers"),
        ([[1, 2], [3]], "regular array"),
        (None, "expects numbers"),
    ],
)
def test_bad_inputs(session: lepton_rt.Session, value: object, message: str) -> None:
    with pytest.raises(lepton_rt.InputError, match=message):
        session.run(value)


def test_wrong_number_of_inputs(session: lepton_rt.Session, x: np.ndarray) -> None:
    with pytest.raises(lepton_rt.InputError, match="takes 1 inputs"):
        session.run(x, x)


@pytest.mark.parametrize("model", ["nowhere.onnx", 17, b"", b"not a model"])
def test_bad_models(model: object) -> None:
    with pytest.raises(lepton_rt.ModelError):
        lepton_rt.Session(model)  # type: ignore[arg-type]


def test_bad_options() -> None:
    with pytest.raises(lepton_rt.InputError, match="threads"):
        lepton_rt.Session(small_model(), threads=0)
    with pytest.raises(lepton_rt.InputError, match="isa"):
        lepton_rt.Session(small_model(), isa="avx1024")


def test_torch_in_torch_out(session: lepton_rt.Session, x: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    y, z = session.run(torch.from_numpy(x))
    assert isinstance(y, torch.Tensor)
    assert isinstance(z, torch.Tensor)
    np.testing.assert_allclose(y.numpy(), expected(x)[0], rtol=1e-5, atol=1e-6)
    grad = torch.from_numpy(x).requires_grad_()
    np.testing.assert_array_equal(session.run(grad)[0].numpy(), y.numpy())


def test_save_and_load(session: lepton_rt.Session, x: np.ndarray, tmp_path) -> None:
    for suffix in ("lepton", "onnx"):
        path = tmp_path / f"model.{suffix}"
        session.save(path)
        for model in (path, str(path), path.read_bytes()):
            np.testing.assert_array_equal(lepton_rt.Session(model).run(x)[0], session.run(x)[0])
    with pytest.raises(lepton_rt.InputError, match=r"saved as \.lepton or \.onnx"):
        session.save(tmp_path / "model.bin")


def test_many_threads_call_one_session(session: lepton_rt.Session) -> None:
    rng = np.random.default_rng(5)
    inputs = [rng.normal(size=(1 + i % 5, 5)).astype(np.float32) for i in range(20)]
    wrong: list[int] = []

    def work(offset: int) -> None:
        for i in range(125):
            x = inputs[(i + offset) % len(inputs)]
            y, _ = session.run(x)
            if not np.allclose(y, expected_cache[id(x)][0], rtol=1e-5, atol=1e-6):
                wrong.append(i)

    expected_cache = {id(x): expected(x) for x in inputs}
    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_works_after_fork(session: lepton_rt.Session, x: np.ndarray) -> None:
    """The pool is rebuilt in a forked child, where the parent's workers do not exist."""
    big = lepton_rt.Session(small_model(), threads=2)
    many = np.ones((50_000, 5), np.float32)
    want = big.run(many)[0]
    pid = os.fork()
    if pid == 0:
        ok = np.array_equal(big.run(many)[0], want)
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0


INTERRUPTED = """
import numpy as np, onnx, os, signal, threading, time, lepton_rt
from onnx import TensorProto, helper, numpy_helper
w = numpy_helper.from_array(np.full((512, 512), 1 / 512, np.float32), "w")  # no zeros to skip
nodes = [helper.make_node("MatMul", [f"t{i}", "w"], [f"t{i + 1}"]) for i in range(4000)]
info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [512, 512]) for n in ("t0", "t4000")]
graph = helper.make_graph(nodes, "long", info[:1], info[1:], [w])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
session = lepton_rt.Session(model, threads=1)
# Whatever started the tests in the background may have had interrupts ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
start = time.monotonic()
try:
    session.run(np.ones((512, 512), np.float32))
except KeyboardInterrupt:
    assert time.monotonic() - start < 5
    print("interrupted")
"""


def test_ctrl_c_stops_a_long_run() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "interrupted", done.stderr
