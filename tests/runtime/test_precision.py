"""Session(precision="bf16"): who takes weights kept as bfloat16, and what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import pytest

import lepton_rt
from lepton_rt import _core
from small_networks import Builder

Array = npt.NDArray[Any]


def mixed() -> onnx.ModelProto:
    """Layers that take it and layers that do not: x [n, 8, 16, 16] → y [n, 7], z [n, 7, 7]."""
    b = Builder(3)
    b.conv("x", "pointwise", 8, 40, k=1)
    b.conv("pointwise", "depthwise", 40, 40, group=40)
    b.conv("depthwise", "winograd", 40, 24)
    b.node("Relu", ["winograd"], "active")
    b.conv("active", "strided", 24, 24, strides=[2, 2])
    b.node("GlobalAveragePool", ["strided"], "pooled")
    b.node("Flatten", ["pooled"], "flat")
    b.node("Gemm", ["flat", b.normal("w1", 30, 24), b.normal("b1", 30)], "hidden", transB=1)
    b.node("MatMul", ["hidden", b.normal("w2", 30, 7)], "y")
    b.node("Reshape", ["y", b.constant("column", np.array([-1, 7, 1]))], "left")
    b.node("Reshape", ["y", b.constant("row", np.array([-1, 1, 7]))], "right")
    b.node("MatMul", ["left", "right"], "z")
    return b.model({"x": ["n", 8, 16, 16]}, {"y": ["n", 7], "z": ["n", 7, 7]})


def rounded_weights(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if tensor.name in names:
            array = onnx.numpy_helper.to_array(tensor)
            near = array.astype(ml_dtypes.bfloat16).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(near, tensor.name))
    return made


def rounds_inputs(isa: str) -> bool:
    """Whether the kernel of this instruction set may round its inputs, too."""
    name = _core.select_kernel("gemm_bf16", isa)
    return any(line["name"] == name and line["pairs_mr"] > 0 for line in _core.kernels())


def image(n: int = 3) -> Array:
    return np.random.default_rng(0).standard_normal((n, 8, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("optimise", [True, False])
def test_bits_of_float32_by_rounded_weights(isa: str, optimise: bool) -> None:
    """Products and convolutions with constant weights take it, the rest stays as it was."""
    model, options = mixed(), {"isa": isa, "optimise": optimise}
    session = lepton_rt.Session(model, precision="bf16", **options)
    taken = [step for step in session.explain() if "gemm_bf16" in step.kernel]
    assert len(taken) == 4
    assert all("bfloat16" in step.note for step in taken)
    kernels = {step.kernel for step in session.explain() if "Conv" in step.op}
    assert any("depthwise_f32" in kernel for kernel in kernels)
    assert any("gemm_f32" in kernel for kernel in kernels)

    names = {"pointwise_w", "strided_w", "w1", "w2"}
    same = lepton_rt.Session(rounded_weights(model, names), threads=1, **options)
    for got, want in zip(session.run(image()), same.run(image()), strict=True):
        if rounds_inputs(isa):
            assert np.linalg.norm(got - want) <= 2**-7 * np.linalg.norm(want)
        else:
            np.testing.assert_array_equal(got, want)
    exact = lepton_rt.Session(model, **options).run(image())["y"]
    error = np.linalg.norm(session.run(image())["y"] - exact) / np.linalg.norm(exact)
    assert 0 < error < 2**-6


def test_float32_is_the_default() -> None:
    kernels = [step.kernel for step in lepton_rt.Session(mixed()).explain()]
    assert not any("bf16" in kernel for kernel in kernels)
    assert kernels == [s.kernel for s in lepton_rt.Session(mixed(), precision="f32").explain()]


def test_half_the_bytes(tmp_path: Path) -> None:
    b = Builder()
    b.node("MatMul", ["x", b.normal("w", 512, 512)], "y")
    model = b.model({"x": ["n", 512]}, {"y": ["n", 512]})
    sizes = {}
    for precision in ("f32", "bf16"):
        session = lepton_rt.Session(model, precision=precision)
        path = tmp_path / f"{precision}.plan"
        session.save_plan(path)
        sizes[precision] = path.stat().st_size
        x = np.random.default_rng(1).standard_normal((2, 512)).astype(np.float32)
        opened = lepton_rt.Session(path)
        np.testing.assert_array_equal(opened.run(x), session.run(x))
        assert str(opened.explain()) == str(session.explain())
    assert abs(sizes["f32"] - sizes["bf16"] - 2 * 512 * 512) < 4096


def test_bodies_of_control_flow_take_it() -> None:
    from onnx import TensorProto, helper

    b = Builder()
    weights = b.normal("w", 16, 16)
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", weights], ["inside"])],
        "body",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )
    b.node("ReduceSum", ["x"], "sum", keepdims=0)
    b.node("Greater", ["sum", b.constant("zero", np.float32(0))], "positive")
    b.node("If", ["positive"], "y", then_branch=body, else_branch=body)
    session = lepton_rt.Session(
        b.model({"x": ["n", 16]}, {"y": ["n", 16]}), precision="bf16", threads=1
    )
    assert sum("gemm_bf16" in step.kernel for step in session.explain()) == 2
    x = np.ones((2, 16), np.float32)
    near = onnx.numpy_helper.to_array(b.weights[0]).astype(ml_dtypes.bfloat16)
    np.testing.assert_allclose(session.run(x), x @ near.astype(np.float32), rtol=0, atol=1e-4)


def test_what_it_cannot_be() -> None:
    with pytest.raises(lepton_rt.InputError, match="one of f32, bf16"):
        lepton_rt.Session(mixed(), precision="fp16")
    with pytest.raises(lepton_rt.InputError, match="not together"):
        lepton_rt.Session(mixed(), precision="bf16", tune=True)


def test_a_plan_takes_no_precision(tmp_path: Path) -> None:
    path = tmp_path / "net.plan"
    lepton_rt.Session(mixed()).save_plan(path)
    with pytest.raises(lepton_rt.InputError, match=r"\.plan is compiled already"):
        lepton_rt.Session(path, precision="bf16")


def test_pruned_weights_stay_sparse() -> None:
    b = Builder()
    weights = np.zeros((64, 64), np.float32)
    weights[::8] = 1
    b.node("MatMul", ["x", b.constant("w", weights)], "y")
    session = lepton_rt.Session(b.model({"x": ["n", 64]}, {"y": ["n", 64]}), precision="bf16")
    (step,) = session.explain()
    sparse = _core.select_kernel("gemm_f32_sparse", _core.max_isa())
    assert step.kernel == sparse
