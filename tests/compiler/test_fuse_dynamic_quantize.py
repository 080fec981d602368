"""fuse_dynamic_quantize: dynamically quantised products become one operator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lepton_rt
from lepton_rt.passes.fuse_dynamic_quantize import fuse_dynamic_quantize
from lepton_rt.passes.fuse_epilogue import fuse_epilogue
from oracle import ort_run
from pass_graphs import Model, assert_same_meaning, keys

Rng = np.random.Generator
KEY = "lepton.DynamicQuantizeMatMul"


def product(model: Model, rng: Rng, scales: int = 1, zeros: int = 1) -> str:
    q, scale, zero = model("DynamicQuantizeLinear", "x", outputs=3)
    b = rng.integers(-127, 128, (6, 5)).astype(np.int8)
    b_zero = rng.integers(-5, 5, zeros).astype(np.int8)
    b_scale = rng.uniform(0.1, 1, scales).astype(np.float32)
    sums = model("MatMulInteger", q, b, zero, b_zero[0] if zeros == 1 else b_zero)
    real = model("Cast", sums, to=TensorProto.FLOAT)
    return str(model("Mul", real, model("Mul", scale, b_scale)))


@pytest.mark.parametrize("scales", [1, 5])
@pytest.mark.parametrize("zeros", [1, 5])
def test_fuses_with_its_epilogue(rng: Rng, scales: int, zeros: int) -> None:
    model = Model(x=("FLOAT", ["n", 6]), r=("FLOAT", ["n", 5]))
    y = model("Add", product(model, rng, scales, zeros), rng.normal(size=5).astype(np.float32))
    y = model("Relu", model("Add", y, "r"))
    before = model.graph(y)
    after = fuse_epilogue(fuse_dynamic_quantize(before))
    assert keys(after) == [KEY]
    x, r = (rng.normal(size=(3, n)).astype(np.float32) for n in (6, 5))
    assert_same_meaning(before, after, {"x": x, "r": r})


def test_shared_activations_fuse_into_each_layer(rng: Rng) -> None:
    model = Model(x=("FLOAT", [4, 6]))
    y = model("Add", product(model, rng), product(model, rng))
    assert keys(fuse_dynamic_quantize(model.graph(y))) == [KEY, KEY, "Add"]


def test_a_computed_operand_stays(rng: Rng) -> None:
    model = Model(x=("FLOAT", [4, 6]), b=("INT8", [6, 5]))
    q, scale, zero = model("DynamicQuantizeLinear", "x", outputs=3)
    sums = model("MatMulInteger", q, "b", zero)
    y = model("Mul", model("Cast", sums, to=TensorProto.FLOAT), model("Mul", scale, np.float32(2)))
    assert KEY not in keys(fuse_dynamic_quantize(model.graph(y)))


def test_another_zero_point_stays(rng: Rng) -> None:
    model = Model(x=("FLOAT", [4, 6]))
    q, scale, _ = model("DynamicQuantizeLinear", "x", outputs=3)
    sums = model("MatMulInteger", q, np.ones((6, 5), np.int8), np.uint8(3))
    y = model("Mul", model("Cast", sums, to=TensorProto.FLOAT), model("Mul", scale, np.float32(2)))
    assert KEY not in keys(fuse_dynamic_quantize(model.graph(y)))


def microsoft(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 5])],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("split", [False, True])
def test_operators_of_onnx_runtime(rng: Rng, split: bool) -> None:
    """DynamicQuantizeMatMul, and DynamicQuantizeLinear with MatMulIntegerToFloat."""
    constants = {
        "b": rng.integers(-127, 128, (6, 5)).astype(np.int8),
        "b_scale": rng.uniform(0.1, 1, 5).astype(np.float32),
        "b_zero": rng.integers(-5, 5, 5).astype(np.int8),
        "bias": rng.normal(size=5).astype(np.float32),
    }
    if split:
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            helper.make_node(
                "MatMulIntegerToFloat",
                ["q", "b", "s", "b_scale", "z", "b_zero", "bias"],
                ["y"],
                domain="com.microsoft",
            ),
        ]
    else:
        inputs = ["x", "b", "b_scale", "b_zero", "bias"]
        nodes = [helper.make_node("DynamicQuantizeMatMul", inputs, ["y"], domain="com.microsoft")]
    model = microsoft(nodes, constants)
    feeds = {"x": rng.normal(size=(3, 6)).astype(np.float32)}
    session = lepton_rt.Session(model)
    assert [step.op for step in session.explain()] == [KEY]
    np.testing.assert_allclose(session.run(feeds), ort_run(model, feeds)["y"], rtol=1e-6, atol=1e-6)
