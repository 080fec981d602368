"""The ONNX bodies of the lepton operators, against NumPy and plain ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from compiler.onnx_models import Array, normal
from lepton_rt import ModelError, UnsupportedError, export_onnx
from lepton_rt.graph.ir import LEPTON_DOMAIN, Constant, Graph, Node, Value

F = np.float32


def run(
    op: str,
    operands: list[Array | None],
    dtype: Any = F,
    constants: tuple[int, ...] = (),
    **attrs: Any,
) -> Array:
    """Exports a graph of one lepton operator and runs it in the reference evaluator."""
    names = ["" if a is None else f"x{i}" for i, a in enumerate(operands)]
    graph = Graph(
        outputs={"y": Value(np.dtype(dtype))},
        nodes=[Node(op, names, ["y"], attrs, LEPTON_DOMAIN)],
    )
    feeds = {}
    for i, (name, array) in enumerate(zip(names, operands)):
        if array is None:
            continue
        if i in constants:
            graph.constants[name] = Constant.of(array)
        else:
            graph.inputs[name] = Value(array.dtype, (None,) * array.ndim)
            feeds[name] = array
    model = export_onnx(graph, 23)
    assert {imported.domain for imported in model.opset_import} == {""}
    (y,) = ReferenceEvaluator(model).run(None, feeds)
    return np.asarray(y)


def onnx_run(op: str, operands: list[Array], dtype: int = 1, **attrs: Any) -> Array:
    names = [f"x{i}" for i in range(len(operands))]
    codes = [helper.np_dtype_to_tensor_dtype(a.dtype) for a in operands]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attrs)],
        "g",
        [helper.make_tensor_value_info(n, c, None) for n, c in zip(names, codes)],
        [helper.make_tensor_value_info("y", dtype, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    return np.asarray(ReferenceEvaluator(model).run(None, dict(zip(names, operands)))[0])


def last(x: Array) -> Array:
    return np.moveaxis(x, 1, -1)


def quantized(x: Array, scale: float, zero: int, dtype: Any = np.uint8) -> Array:
    limits = np.iinfo(dtype)
    q = np.rint(x / F(scale)) + zero
    return np.clip(q, limits.min, limits.max).astype(dtype)


@pytest.mark.parametrize("channels_last", [0, 1])
@pytest.mark.parametrize("activation", ["", "Relu", "Clip"])
def test_conv(channels_last: int, activation: str) -> None:
    x, w, b, r = normal(2, 4, 5, 6), normal(6, 2, 3, 3), normal(6), normal(2, 3, 3, 6)
    window = {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 2]}
    want = last(onnx_run("Conv", [x, w, b], **window)) + r
    if activation:
        want = np.clip(
            want, 0 if activation == "Relu" else -0.5, np.inf if activation == "Relu" else 1
        )
    got = run(
        "Conv",
        [last(x) if channels_last else x, w, b, r],
        channels_last=channels_last,
        activation=activation,
        activation_params=[-0.5, 1.0],
        **window,
    )
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_conv_transpose() -> None:
    x, w = normal(2, 4, 5), normal(4, 3, 3)
    want = last(onnx_run("ConvTranspose", [x, w], strides=[2], pads=[1, 1]))
    got = run("ConvTranspose", [last(x), w], channels_last=1, strides=[2], pads=[1, 1])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_matmul() -> None:
    a, b, bias, r = normal(2, 3, 4), normal(4, 5), normal(5), normal(2, 3, 5)
    got = run("MatMul", [a, b, bias, r], activation="Relu")
    np.testing.assert_allclose(got, np.maximum(a @ b + bias + r, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_pools(op: str) -> None:
    x = normal(2, 3, 6, 7)
    want = last(onnx_run(op, [x], kernel_shape=[2, 3], strides=[2, 1]))
    got = run(op, [last(x)], channels_last=1, kernel_shape=[2, 3], strides=[2, 1])
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_lrn() -> None:
    x = normal(1, 5, 2, 2)
    got = run("LRN", [last(x)], channels_last=1, size=3)
    np.testing.assert_allclose(got, last(onnx_run("LRN", [x], size=3)), rtol=1e-5)


class Quantized:
    """Operands of a quantised convolution and its exact integer accumulator."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.x = rng.integers(0, 256, (2, 3, 6, 6), np.uint8)
        self.w = rng.integers(-128, 128, (4, 3, 3, 3), np.int8)
        self.b = rng.integers(-999, 999, 4).astype(np.int32)
        self.x_scale, self.x_zero = np.array(0.03, F), np.array(120, np.uint8)
        self.w_scale, self.w_zero = np.array([0.01, 0.02, 0.005, 0.03], F), np.zeros(4, np.int8)
        self.y_scale, self.y_zero = np.array(0.5, F), np.array(100, np.uint8)
        self.r = rng.integers(0, 256, (2, 4, 4, 4), np.uint8)
        self.r_scale, self.r_zero = np.array(0.2, F), np.array(3, np.uint8)
        self.o_scale, self.o_zero = np.array(0.7, F), np.array(90, np.uint8)
        wide = onnx_run("Conv", [self.x.astype(np.float64) - 120, self.w.astype(np.float64)], 11)
        self.acc = last(wide).astype(np.int64) + self.b
        multiplier = (self.x_scale * self.w_scale) / self.y_scale
        self.q = np.clip(np.rint(self.acc.astype(F) * multiplier) + 100, 0, 255).astype(np.uint8)

    def operands(self, y: bool, r: bool) -> list[Array | None]:
        own = [self.x, self.x_scale, self.x_zero, self.w, self.w_scale, self.w_zero]
        scales: list[Array | None] = [self.y_scale, self.y_zero] if y else [None, None]
        rest: list[Array | None] = [self.b]
        if r:
            rest += [self.r, self.r_scale, self.r_zero, self.o_scale, self.o_zero]
        return [*own, *scales, *rest]


def test_qlinear_conv_to_integers() -> None:
    case = Quantized()
    np.testing.assert_array_equal(run("QLinearConv", case.operands(True, False), np.uint8), case.q)
    got = run("QLinearConv", case.operands(True, False), np.uint8, activation="Relu")
    np.testing.assert_array_equal(got, np.maximum(case.q, 100))
    got = run(
        "QLinearConv",
        case.operands(True, False),
        np.uint8,
        activation="Clip",
        activation_params=[0.0, 6.0],
    )
    np.testing.assert_array_equal(got, np.clip(case.q, 100, 112))


def test_qlinear_conv_to_floats() -> None:
    case = Quantized()
    want = case.acc.astype(F) * (case.x_scale * case.w_scale)
    got = run("QLinearConv", case.operands(False, False), F, activation="Relu")
    np.testing.assert_allclose(got, np.maximum(want, 0), rtol=1e-6)


def test_qlinear_conv_with_residual() -> None:
    case = Quantized()
    total = (case.q.astype(F) - 100) * case.y_scale + (case.r.astype(F) - 3) * case.r_scale
    want = quantized(np.maximum(total, 0), 0.7, 90)
    got = run("QLinearConv", case.operands(True, True), np.uint8, activation="Relu")
    np.testing.assert_array_equal(got, want)
    product = case.acc.astype(F) * (case.x_scale * case.w_scale)
    total = product + (case.r.astype(F) - 3) * case.r_scale
    got = run("QLinearConv", case.operands(False, True), np.uint8, activation="Relu")
    np.testing.assert_array_equal(got, quantized(np.maximum(total, 0), 0.7, 90))


@pytest.mark.parametrize("bias", [False, True])
def test_qlinear_matmul(bias: bool) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 256, (3, 8), np.uint8), rng.integers(-128, 128, (8, 5), np.int8)
    c = rng.integers(-500, 500, 5).astype(np.int32)
    acc = (a.astype(np.int32) - 128) @ b.astype(np.int32) + (c if bias else 0)
    b_scale = np.array([0.01, 0.02, 0.03, 0.04, 0.05], F)
    operands = [a, np.array(0.05, F), np.array(128, np.uint8), b, b_scale, np.zeros(5, np.int8)]
    scales = [np.array(0.9, F), np.array(-5, np.int8)]
    multiplier = (F(0.05) * b_scale) / F(0.9)
    want = np.clip(np.rint(acc.astype(F) * multiplier) - 5, -128, 127).astype(np.int8)
    got = run("QLinearMatMul", [*operands, *scales, c if bias else None], np.int8)
    np.testing.assert_array_equal(got, want)
    got = run("QLinearMatMul", [*operands, None, None, c if bias else None], F)
    np.testing.assert_allclose(got, acc.astype(F) * (F(0.05) * b_scale), rtol=1e-6)


def test_quantized_average_and_mean() -> None:
    x = np.random.default_rng(1).integers(0, 256, (2, 6, 6, 3), np.uint8)
    scales = [np.array(0.1, F), np.array(7, np.uint8), np.array(0.2, F), np.array(9, np.uint8)]
    real = (x.astype(F) - 7) * F(0.1)
    pooled = real.reshape(2, 3, 2, 3, 2, 3).mean((2, 4), dtype=F)
    got = run(
        "QLinearAveragePool",
        [x, *scales],
        np.uint8,
        channels_last=1,
        kernel_shape=[2, 2],
        strides=[2, 2],
    )
    assert np.abs(got.astype(int) - quantized(pooled, 0.2, 9).astype(int)).max() <= 1
    got = run("QLinearReduceMean", [x, *scales], np.uint8, axes=[1, 2], keepdims=0)
    want = quantized(real.mean((1, 2), dtype=F), 0.2, 9)
    assert got.shape == (2, 3)
    assert np.abs(got.astype(int) - want.astype(int)).max() <= 1


PROGRAMS: dict[str, tuple[list[str], Any]] = {
    "chain": (
        ["Add r0 r1", "Mul r2 #0.5", "Relu r3"],
        lambda a, b: np.maximum((a + b) * F(0.5), 0),
    ),
    "swish": (["Silu r0", "Swish r2 #2", "Sub r3 r1"], None),
    "clip": (
        ["Clip r0 #-0.25 #inf", "Min r2 r1"],
        lambda a, b: np.minimum(np.maximum(a, -0.25), b),
    ),
    "where": (
        ["Greater r0 r1", "Where r2 r0 r1", "IsNaN r0", "Or r2 r4", "Not r5", "Add r3 r6"],
        lambda a, b: np.maximum(a, b) + ~(a > b),
    ),
    "mod": (
        ["Mod r0 r1", "Fmod r0 r1", "Add r2 r3"],
        lambda a, b: np.mod(a, b) + np.fmod(a, b),
    ),
    "leaky": (["LeakyRelu r0 #0.2", "Add r2 r1"], lambda a, b: np.where(a < 0, a * F(0.2), a) + b),
    "identity": (["Add r0 r1", "Identity r2"], lambda a, b: a + b),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_elementwise_programs(name: str) -> None:
    program, function = PROGRAMS[name]
    a, b = normal(3, 4), normal(4, seed=1)
    if function is None:

        def function(a: Array, b: Array) -> Array:
            s = a / (1 + np.exp(-a))
            return np.asarray(s / (1 + np.exp(-2 * s)) - b)

    got = run("Elementwise", [a, b], program=program, compute="f32")
    np.testing.assert_allclose(got, function(a, b), rtol=1e-5, atol=1e-6)


def test_elementwise_quantisation() -> None:
    x = np.random.default_rng(2).integers(-128, 128, (4, 5), np.int8)
    program = ["Dequantize r0 #0.1 #3", "Relu r1", "Quantize r2 #0.05 #-128 #-128 #127"]
    real = np.maximum((x.astype(F) - 3) * F(0.1), 0)
    got = run("Elementwise", [x], np.int8, program=program)
    np.testing.assert_array_equal(got, quantized(real, 0.05, -128, np.int8))


def test_elementwise_in_integers() -> None:
    a, b = np.array([2**40 + 1, -7], np.int64), np.array([3, 2], np.int64)
    got = run("Elementwise", [a, b], np.int64, program=["Mul r0 r1", "Add r2 #1"])
    np.testing.assert_array_equal(got, a * b + 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_lookup(dtype: Any) -> None:
    table = normal(256)
    x = np.arange(256, dtype=np.uint8).astype(dtype)
    np.testing.assert_array_equal(run("Lookup", [x], F, table=table), table[x.view(np.uint8)])


def test_shape_rules_agree_with_bodies() -> None:
    """Inference on a lepton node and on its expansion give the same type."""
    from lepton_rt.graph.lepton_ops import expand_graph
    from lepton_rt.graph.types import infer_types

    case = Quantized()
    operands = case.operands(True, True)
    graph = Graph(
        inputs={f"x{i}": Value(a.dtype, a.shape) for i, a in enumerate(operands) if a is not None},
        outputs={"y": Value(np.dtype(np.uint8))},
        nodes=[Node("QLinearConv", [f"x{i}" for i in range(14)], ["y"], {}, LEPTON_DOMAIN)],
    )
    inferred = infer_types(graph)
    assert inferred.outputs["y"] == Value(np.dtype(np.uint8), (2, 4, 4, 4))
    assert infer_types(expand_graph(inferred)).outputs == inferred.outputs


def test_unknown_operator_has_no_body() -> None:
    with pytest.raises(UnsupportedError, match="Mystery"):
        run("Mystery", [normal(1)])


@pytest.mark.parametrize("program", [[], ["Add r0"], ["Relu r7"], ["Relu x"], ["Clip r0 #a"], [""]])
def test_malformed_programs_are_refused(program: list[str]) -> None:
    with pytest.raises((ModelError, UnsupportedError)):
        run("Elementwise", [normal(2)], program=program)
