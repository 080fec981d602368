"""com.microsoft::MatMulNBits and blocked DequantizeLinear run on packed weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton_rt
from lepton_rt.dtypes import dtype_from_name
from lepton_rt.graph.lepton_io import save_lepton
from lepton_rt.graph.onnx_io import import_onnx, save_onnx
from pass_graphs import Model

Array = npt.NDArray[Any]
Rng = np.random.Generator
K, N = 96, 40


def model(
    rng: Rng, bits: int, size: int, zero_points: bool, bias: bool, **attrs: int
) -> onnx.ModelProto:
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
    attrs = {"K": K, "N": N, "bits": bits, "block_size": size, **attrs}
    node = helper.make_node("MatMulNBits", inputs, ["y"], domain="com.microsoft", **attrs)
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


@pytest.mark.parametrize("size", [16, 32, 128])
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_accuracy_level_4(
    rng: Rng, isa: str, size: int, zero_points: bool, bias: bool, tmp_path: Path
) -> None:
    """Activations of 8 bits where the model allows them, and nowhere else."""
    proto = model(rng, 4, size, zero_points, bias, accuracy_level=4)
    session = lepton_rt.Session(proto, isa=isa)
    (step,) = session.explain()
    assert step.op == "lepton.MatMulNBits"
    assert "8-bit activations" in step.note
    graph = import_onnx(proto)
    save_lepton(graph, tmp_path / "m.lepton")
    save_onnx(graph, tmp_path / "m.onnx")
    stored = lepton_rt.Session(tmp_path / "m.lepton", isa=isa)
    exact = lepton_rt.Session(tmp_path / "m.onnx", isa=isa)  # has no word for it
    oracle = ort.InferenceSession(proto.SerializeToString())
    for rows in (1, 3, 20):
        x = rng.normal(size=(rows, K)).astype(np.float32)
        got, want = session.run({"x": x}), exact.run({"x": x})
        np.testing.assert_array_equal(stored.run({"x": x}), got)
        ours = np.square(got - want).mean() ** 0.5
        theirs = np.square(oracle.run(None, {"x": x})[0] - want).mean() ** 0.5
        assert 0 < ours <= max(1.1 * theirs, 0.006 * np.abs(want).max())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_other_accuracy_levels_are_float32(rng: Rng, bits: int, level: int) -> None:
    proto = model(rng, bits, 32, False, False, accuracy_level=level)
    plain = model(np.random.default_rng(1), bits, 32, False, False)
    for initializer in plain.graph.initializer:
        found = next(i for i in proto.graph.initializer if i.name == initializer.name)
        initializer.CopyFrom(found)
    x = rng.normal(size=(3, K)).astype(np.float32)
    got = lepton_rt.Session(proto).run({"x": x})
    np.testing.assert_array_equal(got, lepton_rt.Session(plain).run({"x": x}))


@pytest.mark.parametrize("size", [0, 1100, 1104, 2048])
def test_large_groups(rng: Rng, isa: str, size: int) -> None:
    """A scale for whole columns (size 0), groups that are cut and such that cannot be."""
    k, n = 2500, 20
    shape = (-(-k // size), n) if size else (n,)
    values = rng.integers(-8, 8, (k, n)).astype(dtype_from_name("int4"))
    zero = rng.integers(-8, 8, shape).astype(dtype_from_name("int4"))
    scale = rng.uniform(0.01, 0.1, shape).astype(np.float32)
    graph = Model(x=("FLOAT", ["m", k]))
    attrs = {"axis": 0, "block_size": size} if size else {"axis": 1}
    y = graph("MatMul", "x", graph("DequantizeLinear", values, scale, zero, **attrs))
    session = lepton_rt.Session(graph.graph(y), isa=isa)
    (step,) = session.explain()
    assert ("s8u4" in step.kernel) == (size != 1100)
    rows = np.arange(k) // size if size else np.zeros(k, int)
    points = zero.astype(np.float32).reshape(-1, n)[rows]
    real = (values.astype(np.float32) - points) * scale.reshape(-1, n)[rows]
    x = rng.normal(size=(3, k)).astype(np.float32)
    want = x.astype(np.float64) @ real
    np.testing.assert_allclose(session.run({"x": x}), want, rtol=0, atol=3e-4)


FORMS = ["MatMul", "MatMul of transposed", "Gemm", "Gemm with transB"]
LIMITS = {"int4": (-8, 7), "uint4": (0, 15), "int8": (-128, 127), "uint8": (0, 255)}


def spread(parameter: Array, axis: int, shape: tuple[int, int], size: int) -> Array:
    """A scale or zero point for every element."""
    if size:
        grown = np.repeat(parameter, size, axis)
        return grown[: shape[0], : shape[1]]
    return parameter if parameter.ndim == 0 else np.expand_dims(parameter, 1 - axis)


def product(
    rng: Rng, form: str, dtype: str, axis: int, size: int, per_tensor: bool = False
) -> tuple[lepton_rt.Session, Array]:
    """A layer with dequantised weights [70, 45] or their transpose, and what they mean."""
    turned = form in FORMS[1::2]
    shape = (45, 70) if turned else (70, 45)
    groups = [-(-n // size) if i == axis and size else n for i, n in enumerate(shape)]
    parameters = tuple(groups) if size else (() if per_tensor else (shape[axis],))
    stored = dtype_from_name(dtype)
    low, high = LIMITS[dtype]
    values, zero = (rng.integers(low, high + 1, of).astype(stored) for of in (shape, parameters))
    scale = np.asarray(rng.uniform(0.01, 0.1, parameters), np.float32)
    graph = Model(x=("FLOAT", ["m", 70]))
    attrs = {"block_size": size} if size else {}
    weight = graph("DequantizeLinear", values, scale, np.asarray(zero), axis=axis, **attrs)
    if form == "MatMul of transposed":
        weight = graph("Transpose", weight, perm=[1, 0])
    if form.startswith("MatMul"):
        y = graph("MatMul", "x", weight)
    else:
        y = graph("Gemm", "x", weight, np.ones(45, np.float32), transB=int(turned))
    real = values.astype(np.float32) - spread(zero.astype(np.float32), axis, shape, size)
    real = real * spread(scale, axis, shape, size)
    return lepton_rt.Session(graph.graph(y)), real.T if turned else real


def assert_packed_and_right(
    rng: Rng, session: lepton_rt.Session, real: Array, offset: float, packed: bool = True
) -> None:
    steps = [step.op for step in session.explain()]
    assert (steps == ["lepton.MatMulNBits"]) == packed
    for rows in (1, 3, 20):
        x = rng.normal(size=(rows, real.shape[0])).astype(np.float32)
        want = x.astype(np.float64) @ real + offset
        np.testing.assert_allclose(session.run({"x": x}), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", list(LIMITS))
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [3, 16, 32])
def test_blocked_weights(rng: Rng, form: str, dtype: str, axis: int, size: int) -> None:
    session, real = product(rng, form, dtype, axis, size)
    along_rows = axis == int(form in FORMS[1::2])
    assert_packed_and_right(rng, session, real, float(form.startswith("Gemm")), along_rows)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", list(LIMITS))
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("per_tensor", [False, True])
def test_weights_without_blocks(
    rng: Rng, form: str, dtype: str, axis: int, per_tensor: bool
) -> None:
    session, real = product(rng, form, dtype, axis, 0, per_tensor)
    by_column = per_tensor or axis != int(form in FORMS[1::2])
    assert_packed_and_right(rng, session, real, float(form.startswith("Gemm")), by_column)


@pytest.mark.parametrize("bits", [4, 8])
def test_own_weight_only_models_stay_packed(rng: Rng, bits: int) -> None:
    graph = Model(x=("FLOAT", ["n", 70]))
    weight = rng.normal(size=(70, 30)).astype(np.float32)
    y = graph("Relu", graph("Add", graph("MatMul", "x", weight), np.ones(30, np.float32)))
    made = lepton_rt.quantize(graph.proto(y), mode="weight_only", bits=bits, group_size=32)
    session = lepton_rt.Session(made.graph)
    assert [step.op for step in session.explain()] == ["lepton.MatMulNBits"]
