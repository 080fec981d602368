"""Operators registered from Python."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper

import lepton_rt
from lepton_rt import custom

DOMAIN = "org.example"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom, "_REGISTERED", {})


def model(op: str = "Swirl", outputs: int = 1, shape: Any = ("n", 4), **attrs: Any) -> Any:
    """Relu, the custom operator, and the absolute value of its last output."""
    made = [f"m{i}" for i in range(outputs)]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node(op, ["r", "", "x"], made, domain=DOMAIN, **attrs),
        helper.make_node("Abs", [made[-1]], ["y"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, shape)], [info("y", TensorProto.FLOAT, None)]
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


def swirl(a: Any, omitted: Any, b: Any, factor: float = 1.0, label: str = "") -> Any:
    assert omitted is None
    return (factor * np.cumsum(a, 0) - b[::-1]).astype(np.float32)


@pytest.mark.parametrize("inferred", [True, False])
@pytest.mark.parametrize("name", ["Swirl", "Relu", "Dropout", "Gemm", "Add"])
def test_runs(inferred: bool, name: str) -> None:
    infer = (lambda a, _, b, **attrs: (a.dtype, a.shape)) if inferred else None
    lepton_rt.register_op(DOMAIN, name, swirl, infer=infer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session = lepton_rt.Session(model(name, factor=2.5, label="x"))
    for rows in (1, 5):
        x = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
        want = np.abs(swirl(np.maximum(x, 0), None, x, 2.5))
        np.testing.assert_allclose(session(x), want, rtol=1e-6)


def test_several_outputs_and_reading_back(tmp_path: Path) -> None:
    def split(a: Any, _: Any, b: Any) -> Any:
        return a.argmax(1), (b * 2).astype(np.float32)

    lepton_rt.register_op(DOMAIN, "Split", split)
    graph = lepton_rt.import_onnx(model("Split", outputs=2))
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    for name in ("m.lepton", "m.onnx"):
        lepton_rt.Session(graph).save(tmp_path / name)
        np.testing.assert_allclose(lepton_rt.Session(tmp_path / name)(x), np.abs(2 * x))
    custom._REGISTERED.clear()
    for name in ("m.lepton", "m.onnx"):
        with pytest.raises(lepton_rt.ModelError, match="register_op"):
            lepton_rt.Session(tmp_path / name)


def test_an_operator_may_have_a_state() -> None:
    calls: list[int] = []

    def count(a: Any) -> Any:
        calls.append(1)
        return a + np.float32(len(calls))

    lepton_rt.register_op(DOMAIN, "Count", count, infer=lambda a: (a.dtype, a.shape))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Count", ["x"], ["a"], domain=DOMAIN),
            helper.make_node("Count", ["x"], ["b"], domain=DOMAIN),
            helper.make_node("Add", ["a", "b"], ["y"]),
        ],
        "g", [info("x", TensorProto.FLOAT, [1])], [info("y", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    sets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    session = lepton_rt.Session(helper.make_model(graph, opset_imports=sets, ir_version=8))
    assert session(np.zeros(1, np.float32)) == 3


def test_what_goes_wrong_is_said() -> None:
    with pytest.raises(lepton_rt.ModelError, match=r"'Swirl' of domain 'org.example'.*register_op"):
        lepton_rt.Session(model())
    for domain in ("", "ai.onnx", "lepton"):
        with pytest.raises(ValueError, match="cannot be registered"):
            lepton_rt.register_op(domain, "Relu", swirl)
    with pytest.raises(ValueError, match="function"):
        lepton_rt.register_op(DOMAIN, "Swirl", None)  # type: ignore[arg-type]

    def fails(*args: Any, **attrs: Any) -> Any:
        raise RuntimeError("no luck")

    lepton_rt.register_op(DOMAIN, "Swirl", fails)
    with pytest.raises(lepton_rt.ModelError, match=r"no luck.*with infer"):
        lepton_rt.Session(model())
    lepton_rt.register_op(DOMAIN, "Swirl", swirl)
    with pytest.raises(lepton_rt.ModelError, match="rank of an input"):
        lepton_rt.Session(model(shape=None))
    lepton_rt.register_op(DOMAIN, "Swirl", fails, infer=lambda a, _, b: (a.dtype, None))
    session = lepton_rt.Session(model())
    with pytest.raises(lepton_rt.Error, match="no luck"):
        session(np.zeros((1, 4), np.float32))
    lepton_rt.register_op(DOMAIN, "Swirl", lambda *a: (), infer=lambda a, _, b: (a.dtype, None))
    with pytest.raises(lepton_rt.Error, match="0 of 1 outputs"):
        lepton_rt.Session(model())(np.zeros((1, 4), np.float32))
