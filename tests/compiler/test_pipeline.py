"""The whole road: small networks through all passes, lowered and run, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import lepton_rt
from lepton_rt._core import usable_isas
from lepton_rt.graph.onnx_io import import_onnx
from lepton_rt.passes import PASSES, legalise, optimise
from oracle import assert_close, ort_run
from pass_graphs import Model, assert_same_meaning, dequantize, fake, keys

Rng = np.random.Generator
IMAGE = (2, 3, 16, 12)


def normal(rng: Rng, *shape: int) -> Any:
    return (rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)


def float_network(rng: Rng) -> onnx.ModelProto:
    """Residual blocks with batch norms, a gate, a shuffle, a branch and a head."""
    model = Model(x=("FLOAT", ["n", *IMAGE[1:]]))

    def conv(x: str, cin: int, cout: int, size: int = 3, **attrs: Any) -> str:
        pads = [size // 2] * 4
        weights = normal(rng, cout, cin // attrs.get("group", 1), size, size)
        y = model("Conv", x, weights, normal(rng, cout), pads=pads, **attrs)
        norm = [rng.uniform(0.5, 1.5, cout).astype(np.float32) for _ in range(4)]
        return str(model("BatchNormalization", y, *norm))

    axes = np.array([2, 3], np.int64)
    x = model("MaxPool", model("Relu", conv("x", 3, 8)), kernel_shape=[2, 2], strides=[2, 2])
    x = model("Relu", model("Add", conv(model("Relu", conv(x, 8, 8)), 8, 8), x))
    gate = model("Sigmoid", conv(model("ReduceMean", x, axes, keepdims=1), 8, 8, 1))
    x = model("HardSwish", conv(model("Mul", x, gate), 8, 8, group=8))
    x = model("Reshape", x, np.array([0, 2, 4, 8, 6], np.int64))
    x = model("Transpose", x, perm=[0, 2, 1, 3, 4])
    x = model("Reshape", x, np.array([0, 8, 8, 6], np.int64))
    x = model("Concat", x, model("Relu", conv(x, 8, 4, group=2)), axis=1)
    x = model("Flatten", model("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]))
    return model.proto(model("Gemm", x, normal(rng, 10, 144), normal(rng, 10), transB=1))


def int8_network(rng: Rng) -> onnx.ModelProto:
    """The same kinds of layers, quantised, float only at its ends."""
    model = Model(x=("FLOAT", ["n", *IMAGE[1:]]))
    grids: dict[str, float] = {}

    def quantised(x: str, scale: float, zero: int) -> str:
        y = fake(model, x, scale, zero)
        grids[y] = scale
        return y

    def weights(x: str, shape: tuple[int, ...], **attrs: Any) -> list[str]:
        w = rng.integers(-127, 128, shape).astype(np.int8)
        scales = rng.uniform(0.5, 1, shape[0]).astype(np.float32) / 60 / np.sqrt(w[0].size)
        steps = rng.integers(-500, 500, shape[0]).astype(np.int32)
        zeros, none = np.zeros(shape[0], np.int8), np.zeros(shape[0], np.int32)
        bias = dequantize(model, steps, np.float32(grids[x]) * scales, none, axis=0)
        return [dequantize(model, w, scales, zeros, axis=0), bias]

    def conv(x: str, shape: tuple[int, ...], **attrs: Any) -> str:
        return str(model("Conv", x, *weights(x, shape), pads=[shape[2] // 2] * 4, **attrs))

    x = quantised("x", 0.03, 120)
    x = quantised(model("Relu", conv(x, (8, 3, 3, 3))), 0.02, 0)
    grids[pooled := model("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])] = 0.02
    x = quantised(pooled, 0.02, 0)
    y = quantised(model("Relu", conv(x, (8, 8, 3, 3))), 0.015, 0)
    y = quantised(conv(y, (8, 8, 3, 3)), 0.02, 128)
    x = quantised(model("Relu", model("Add", y, x)), 0.025, 0)
    x = quantised(
        model("HardSwish", quantised(conv(x, (8, 1, 3, 3), group=8), 0.02, 110)), 0.02, 20
    )
    y = quantised(model("Clip", conv(x, (4, 8, 1, 1)), np.float32(0), np.float32(6)), 0.015, 3)
    x = quantised(model("Concat", x, y, axis=1), 0.02, 20)
    x = quantised(model("GlobalAveragePool", x), 0.01, 60)
    grids[flat := model("Flatten", x)] = 0.01
    x = quantised(flat, 0.01, 60)
    y = model("Gemm", x, *weights(x, (10, 12)), transB=1)
    return model.proto(quantised(y, 0.02, 128))


NETWORKS = {"float": float_network, "int8": int8_network}


def image(rng: Rng, batch: int = IMAGE[0]) -> dict[str, Any]:
    return {"x": rng.standard_normal((batch, *IMAGE[1:])).astype(np.float32)}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_pass_keeps_the_meaning(name: str, rng: Rng) -> None:
    start = graph = import_onnx(NETWORKS[name](rng))
    feeds = image(rng)
    for run in PASSES:
        graph = run(graph)
        if name == "float":
            assert_same_meaning(start, graph, feeds)
    assert_same_meaning(start, legalise(start), feeds)


@pytest.mark.parametrize("name", NETWORKS)
def test_passes_leave_their_operand_alone(name: str, rng: Rng) -> None:
    graph = import_onnx(NETWORKS[name](rng))
    for run in PASSES:
        before = repr((graph.nodes, graph.inputs, graph.outputs, sorted(graph.constants)))
        after = run(graph)
        assert repr((graph.nodes, graph.inputs, graph.outputs, sorted(graph.constants))) == before
        graph = after


def test_float_network_is_fused(rng: Rng) -> None:
    after = keys(optimise(import_onnx(float_network(rng))))
    assert after.count("lepton.Conv") == 6
    assert not {"Transpose", "Relu", "Add", "BatchNormalization"} & set(after)


def test_int8_network_has_no_float_step_inside(rng: Rng) -> None:
    graph = optimise(import_onnx(int8_network(rng)))
    after = keys(graph)
    assert after[0] == "QuantizeLinear"
    assert after[-1] == "DequantizeLinear"
    assert "Transpose" not in after
    for node in graph.nodes[:-1]:
        value = graph.value(node.outputs[0])
        assert value is not None
        assert value.dtype.itemsize == 1, node.key


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("batch", [1, 3, 0])
def test_float_network_runs(fused: bool, batch: int, isa: str, rng: Rng) -> None:
    model = float_network(rng)
    session = lepton_rt.Session(model, isa=isa, optimise=fused)
    assert not session.explain().host_steps
    feeds = image(rng, batch)
    got = session.run(feeds)
    if batch == 0:
        assert got.shape == (0, 10)
        return
    (want,) = ort_run(model, feeds).values()
    assert_close(got, want)


@pytest.mark.parametrize("fused", [True, False])
def test_int8_network_runs(fused: bool, isa: str, rng: Rng) -> None:
    """Equal to ONNX Runtime but where its quantised Add rounds otherwise: one step."""
    model = int8_network(rng)
    session = lepton_rt.Session(model, isa=isa, optimise=fused)
    assert not session.explain().host_steps
    feeds = image(rng, 4)
    got = session.run(feeds)
    (want,) = ort_run(model, feeds).values()
    steps = np.rint(np.abs(got - want) / 0.02)
    assert np.std(want) > 0.02
    assert steps.max() <= 1
    assert np.mean(steps == 0) > 0.9


def test_int8_network_is_the_same_everywhere(rng: Rng) -> None:
    model, feeds = int8_network(rng), image(rng, 4)
    results = [
        lepton_rt.Session(model, isa=isa, threads=threads).run(feeds)
        for isa in usable_isas()
        for threads in (1, 2)
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("size", "stride"), [(8, 8), (5, 4), (4, 3)])
def test_windows_larger_than_the_image(
    op: str, fused: bool, size: int, stride: int, isa: str, rng: Rng
) -> None:
    """Rounded up, one window remains; EfficientNet ends in such a pool."""
    model = Model(x=("FLOAT", ["n", 3, 2, 3]))
    y = model(op, "x", kernel_shape=[size] * 2, strides=[stride] * 2, ceil_mode=1)
    proto = model.proto(y)
    feeds = {"x": rng.standard_normal((2, 3, 2, 3)).astype(np.float32)}
    (want,) = ort_run(proto, feeds).values()
    got = lepton_rt.Session(proto, isa=isa, optimise=fused).run(feeds)
    np.testing.assert_allclose(got, want, rtol=1e-6)
