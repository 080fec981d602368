"""QOperator forms and ONNX Runtime's quantised operators, spelled as Q/DQ on import."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from compiler.onnx_models import Array, make_model, normal
from lepton_rt import ModelError, UnsupportedError, export_onnx, import_onnx

F = np.float32
MS = "com.microsoft"
rng = np.random.default_rng(11)
U = rng.integers(0, 256, (2, 4, 6, 6), np.uint8)
V = rng.integers(0, 256, (2, 4, 6, 6), np.uint8)
S, T, R = (np.array(s, F) for s in (0.05, 0.02, 0.11))
Z, Y, O = (np.array(z, np.uint8) for z in (120, 7, 99))  # noqa: E741
W = rng.integers(-128, 128, (6, 4, 3, 3), np.int8)
PER_CHANNEL = np.linspace(0.001, 0.02, 6).astype(F)
M = rng.integers(0, 256, (5, 8), np.uint8)
N = rng.integers(-128, 128, (8, 6), np.int8)
BIAS = rng.integers(-3000, 3000, 6).astype(np.int32)
S8 = np.zeros(6, np.int8)

CASES: dict[str, tuple[str, str, list[Any], dict[str, Any]]] = {
    "conv": ("", "QLinearConv", [U, S, Z, W, PER_CHANNEL, S8, R, O, BIAS], {"pads": [1, 1, 1, 1]}),
    "conv_no_bias": ("", "QLinearConv", [U, S, Z, W, T, np.int8(0), R, O], {"strides": [2, 2]}),
    "matmul": ("", "QLinearMatMul", [M, S, Z, N, T, np.int8(3), R, O], {}),
    "gemm": (MS, "QGemm", [M, S, Z, N, PER_CHANNEL, S8, BIAS, R, O], {}),
    "gemm_float": (MS, "QGemm", [M, S, Z, N.T.copy(), T, np.int8(0), BIAS], {"transB": 1}),
    "add": (MS, "QLinearAdd", [U, S, Z, V, T, Y, R, O], {}),
    "mul": (MS, "QLinearMul", [U, S, Z, V, T, Y, R, O], {}),
    "sigmoid": (MS, "QLinearSigmoid", [U, S, Z, np.array(1 / 256, F), np.uint8(0)], {}),
    "leaky": (MS, "QLinearLeakyRelu", [U, S, Z, R, O], {"alpha": 0.2}),
    "softmax": (MS, "QLinearSoftmax", [U, S, Z, np.array(1 / 256, F), np.uint8(0)], {"opset": 13}),
    "average": (MS, "QLinearAveragePool", [U, S, Z, R, O], {"kernel_shape": [2, 2]}),
    "global": (MS, "QLinearGlobalAveragePool", [U, S, Z, T, O], {"channels_last": 0}),
    "concat": (MS, "QLinearConcat", [R, O, U, S, Z, V, T, Y], {"axis": 1}),
    "quantize": (MS, "QuantizeLinear", [normal(2, 3), S, Z], {}),
    "dequantize": (MS, "DequantizeLinear", [U, S, Z], {}),
    "gelu": (MS, "Gelu", [normal(2, 6)], {}),
    "bias_gelu": (MS, "BiasGelu", [normal(2, 6), normal(6)], {}),
    "fast_gelu": (MS, "FastGelu", [normal(2, 6), normal(6)], {}),
    "quick_gelu": (MS, "QuickGelu", [normal(2, 6)], {"alpha": 1.5}),
}


def exact_run(model: Any, feeds: dict[str, Array]) -> Array:
    """ONNX Runtime without its saturating products of u8 by s8 (an optimisation sees to it)."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize("name", CASES)
def test_means_the_same(name: str) -> None:
    domain, op, operands, attrs = CASES[name]
    names = [f"i{k}" for k in range(len(operands))]
    arrays = {n: np.asarray(a) for n, a in zip(names, operands)}
    data = names[2] if op == "QLinearConcat" else names[0]
    made = helper.make_node(op, names, ["y"], domain=domain, **attrs)
    constants = {n: a for n, a in arrays.items() if n != data}
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    model = make_model([made], {data: arrays[data]}, ["y"], constants, 17, opset_imports=opsets)
    model.graph.output[0].type.Clear()
    feeds = {data: arrays[data]}
    want = exact_run(model, feeds)
    graph = import_onnx(model)
    assert {node.domain for node in graph.nodes} == {""}
    assert not any(node.op.startswith("QLinear") for node in graph.nodes)
    value = graph.outputs["y"]
    assert (value.dtype, value.shape) == (want.dtype, want.shape)
    got = exact_run(export_onnx(graph), feeds)
    assert got.dtype == want.dtype
    if got.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    else:
        difference = np.abs(got.astype(int) - want.astype(int))
        assert difference.max() <= 1
        assert (difference == 0).mean() > 0.9


def test_other_operators_of_the_domain_are_named() -> None:
    made = helper.make_node("MoE", ["x"], ["y"], domain=MS)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    model = make_model([made], {"x": normal(2)}, ["y"], opset_imports=opsets)
    with pytest.raises(ModelError, match=r"'MoE' of domain 'com\.microsoft'"):
        import_onnx(model)


def test_channels_last_is_refused() -> None:
    made = helper.make_node(
        "QLinearGlobalAveragePool", ["x", "s", "z", "s", "z"], ["y"], domain=MS, channels_last=1
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    model = make_model([made], {"x": U}, ["y"], {"s": S, "z": Z}, opset_imports=opsets)
    with pytest.raises(UnsupportedError, match="channels_last"):
        import_onnx(model)


def test_a_domain_can_be_accepted() -> None:
    made = helper.make_node("Mystery", ["x"], ["y"], domain="com.example")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    model = make_model([made], {"x": normal(2)}, ["y"], opset_imports=opsets)
    with pytest.raises(ModelError, match="Mystery"):
        import_onnx(model)
    graph = import_onnx(model, domains=frozenset({"com.example"}))
    assert graph.nodes[0].key == "com.example.Mystery"
