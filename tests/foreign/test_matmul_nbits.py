"""com.microsoft::MatMulNBits and blocked DequantizeLinear run on packed weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton_rt
from lepton_rt.graph.lepton_io import save_lepton
from lepton_rt.graph.onnx_io import import_onnx
from pass_graphs import Model

Rng = np.random.Generator
K, N = 96, 40


def model(rng: Rng, bits: int, size: int, zero_points: bool, bias: bool) -> onnx.ModelProto:
    groups = -(-K // size)
    constants = {
        "b": rng.integers(0, 256, (N, groups, size * bits // 8)).astype(np.uint8),
        "s": rng.uniform(0.01, 0.1, N * groups).astype(np.float32),
    }
    inputs = ["x", "b", "s", "", "", ""]
    if zero_points:
        constants["z"] = rng.integers(0, 256, N * -(-groups * bits // 8)).astype(np.uint8)
        inputs[3] = "z"
    if bias:
        constants["c"] = rng.normal(size=N).astype(np.float32)
        inputs[5] = "c"
    while not inputs[-1]:
        inputs.pop()
    node = helper.make_node(
        "MatMulNBits", inputs, ["y"], domain="com.microsoft", K=K, N=N, bits=bits, block_size=size
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", N])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", [16, 32, 128])
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_matmul_nbits(
    rng: Rng, bits: int, size: int, zero_points: bool, bias: bool, tmp_path: Any
) -> None:
    proto = model(rng, bits, size, zero_points, bias)
    session = lepton_rt.Session(proto)
    assert [step.op for step in session.explain()] == ["lepton.MatMulNBits"]
    save_lepton(import_onnx(proto), tmp_path / "m.lepton")
    stored = lepton_rt.Session(tmp_path / "m.lepton")
    oracle = ort.InferenceSession(proto.SerializeToString())
    for rows in (1, 3, 20):
        x = rng.normal(size=(rows, K)).astype(np.float32)
        (want,) = oracle.run(None, {"x": x})
        got = session.run({"x": x})
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max())
        np.testing.assert_array_equal(stored.run({"x": x}), got)


def test_a_block_along_the_columns_becomes_floats(rng: Rng) -> None:
    graph = Model(x=("FLOAT", [3, 32]))
    values = rng.integers(-8, 8, (32, 64)).astype(np.int8)
    scale = rng.uniform(0.1, 1, (32, 2)).astype(np.float32)
    weight = graph("DequantizeLinear", values, scale, axis=1, block_size=32)
    session = lepton_rt.Session(graph.graph(graph("MatMul", "x", weight)))
    x = rng.normal(size=(3, 32)).astype(np.float32)
    want = x @ (values * np.repeat(scale, 32, axis=1))
    np.testing.assert_allclose(session.run({"x": x}), want, rtol=1e-4, atol=1e-4)
    assert [step.op for step in session.explain()] == ["lepton.MatMul"]


@pytest.mark.parametrize("bits", [4, 8])
def test_own_weight_only_models_stay_packed(rng: Rng, bits: int) -> None:
    graph = Model(x=("FLOAT", ["n", 70]))
    weight = rng.normal(size=(70, 30)).astype(np.float32)
    y = graph("Relu", graph("Add", graph("MatMul", "x", weight), np.ones(30, np.float32)))
    made = lepton_rt.quantize(graph.proto(y), mode="weight_only", bits=bits, group_size=32)
    session = lepton_rt.Session(made.graph)
    assert [step.op for step in session.explain()] == ["lepton.MatMulNBits"]
