"""Static quantisation: what is quantised and how, and that the result means the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lepton_rt
from lepton_rt.compress.observers import METHODS
from lepton_rt.compress.placement import BETWEEN, BETWEEN_ALL, SAME_RANGE
from lepton_rt.compress.qparams import affine_parameters, quantize_array
from lepton_rt.graph.ir import Graph, Node
from lepton_rt.graph.onnx_io import export_onnx
from small_networks import Builder, batches, cnn, run_onnx

INTEGERS = {"uint8", "int8"}


def quantized(model: onnx.ModelProto, data: Any = None, **options: Any) -> lepton_rt.QuantizedModel:
    data = batches() if data is None else data
    return lepton_rt.quantize(model, data, progress=False, **options)


def producer(graph: Graph, tensor: str) -> Node:
    return graph.producers()[tensor]


def source_op(graph: Graph, tensor: str) -> str:
    made = graph.producers().get(tensor)
    return made.op if made else "input"


def dense(graph: Graph, tensor: str) -> np.ndarray:
    array = graph.array(tensor)
    assert array is not None
    return array


@given(st.floats(-1e20, 1e20), st.floats(-1e20, 1e20), st.sampled_from([np.uint8, np.int8]))
def test_parameters_hold_zero_exactly_and_cover_the_range(a: float, b: float, kind: Any) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    info = np.iinfo(kind)
    scale, zero_point = affine_parameters(low, high, int(info.min), int(info.max))
    assert info.min <= zero_point <= info.max
    assert 0 < float(scale) < np.inf
    zero = quantize_array(np.zeros(1, np.float32), scale, zero_point, np.dtype(kind))
    assert zero[0] == zero_point
    reach = [float(scale) * (int(end) - zero_point) for end in (info.min, info.max)]
    step = float(scale)
    assert reach[0] <= low + step
    assert reach[1] >= high - step


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_a_cnn_stays_close_to_its_float_self(method: str, activation: str) -> None:
    model = cnn()
    made = quantized(model, method=method, activation=activation)
    x = batches(seed=9, count=1)[0]
    before, after = run_onnx(model, {"x": x})[0], lepton_rt.Session(made).run(x)
    assert np.abs(before - after).max() < 0.03
    assert (before.argmax(1) == after.argmax(1)).mean() >= 0.75
    nearly_dead = "se2"
    assert all(row.snr_db > 20 for row in made.report.tensors if row.tensor != nearly_dead)


def test_onnx_runtime_and_session_agree_on_every_quantised_tensor(isa: str) -> None:
    made = quantized(cnn())
    model = export_onnx(made.graph, opset=21)
    onnx.checker.check_model(model, full_check=True)
    x = batches(seed=9, count=1)[0]
    names = [n.outputs[0] for n in made.graph.nodes if n.op == "QuantizeLinear"]
    expected = run_onnx(model, {"x": x}, *names)
    probe = made.graph.copy()
    probe.outputs = {name: probe.values[name] for name in names}
    got = lepton_rt.Session(probe, isa=isa).run(x)
    for name, ours, theirs in zip(names, got, expected):
        difference = np.abs(ours.astype(int) - theirs.astype(int))
        # One layer's rounding (float means, gates) may move the next by a step.
        assert difference.max() <= 2, name
        assert (difference == 0).mean() > 0.97, name


def test_no_float_step_between_first_and_last_layer() -> None:
    session = lepton_rt.Session(quantized(cnn()))
    steps = list(session.explain())
    first = next(i for i, s in enumerate(steps) if "Conv" in s.op)
    last = max(i for i, s in enumerate(steps) if "MatMul" in s.op)
    assert session.explain().host_steps == []
    for step in steps[first:last]:
        assert set(step.dtypes) <= INTEGERS, step
    assert steps[last].dtypes == ("float32",)


def test_nothing_is_quantised_between_an_operator_and_its_activation() -> None:
    graph = quantized(cnn()).graph
    readers = graph.consumers()
    for inner in ("n1", "sum", "se1", "c4"):
        assert [n.op for n in readers[inner]] in (["Clip"], ["Relu"])
    for outer in ("a1", "a3", "se2", "a4", "c2", "gate", "gated"):
        assert "QuantizeLinear" in {n.op for n in readers[outer]}, outer


def test_operators_that_hand_values_on_share_parameters() -> None:
    graph = quantized(cnn()).graph
    scales = {n.inputs[0]: n.inputs[1:] for n in graph.nodes if n.op == "QuantizeLinear"}
    assert scales["p1"] == scales["a3"]
    assert scales["up"] == scales["gated"]
    assert scales["flat"] == scales["pooled"]
    assert scales["p2"] != scales["a3"]


def test_weights_and_biases() -> None:
    model = cnn()
    graph = quantized(model, rounding="nearest").graph
    fc = next(n for n in graph.nodes if n.op == "Gemm")
    x_scale, w, bias = (producer(graph, name) for name in fc.inputs)
    original = onnx.numpy_helper.to_array(
        next(t for t in model.graph.initializer if t.name == "fc_w")
    )
    scale = dense(graph, w.inputs[1])
    assert w.attrs["axis"] == 0
    assert scale.dtype == np.float32
    assert np.allclose(scale, np.abs(original).max(1) / 127)
    assert dense(graph, w.inputs[0]).dtype == np.int8
    assert not dense(graph, w.inputs[2]).any()
    assert np.abs(dense(graph, w.inputs[0]) * scale[:, None] - original).max() <= scale.max() * 0.51
    bias_scale = dense(graph, bias.inputs[1])
    assert np.array_equal(bias_scale, dense(graph, x_scale.inputs[1]) * scale)
    assert dense(graph, bias.inputs[0]).dtype == np.int32


def test_weights_of_seven_bits() -> None:
    """Every column reaches ±63 and stays there; ONNX Runtime computes the same from them."""
    made = quantized(cnn(), bits=7, rounding="nearest")
    weights = [
        dense(made.graph, producer(made.graph, node.inputs[1]).inputs[0])
        for node in made.graph.nodes
        if node.op in {"Conv", "Gemm"}
    ]
    assert weights
    for w in weights:
        assert w.dtype == np.int8
        assert (np.abs(w.astype(int)).reshape(len(w), -1).max(1) == 63).all()
    x = batches(seed=9, count=1)[0]
    expected = run_onnx(export_onnx(made.graph, opset=21), {"x": x})[0]
    assert np.abs(lepton_rt.Session(made).run(x) - expected).max() < 0.01


def test_seven_bits_are_summed_in_sixteen(isa: str) -> None:
    """explain() says so where the processor has no VNNI."""
    notes = [row.note for row in lepton_rt.Session(quantized(cnn(), bits=7), isa=isa).explain()]
    in_runs = [note for note in notes if note.startswith("16-bit sums of 4, 2, 1 quads")]
    assert bool(in_runs) == (isa in {"avx2", "avx512"})
    assert all("activations <= 255" in note for note in in_runs)


def test_per_tensor_weights() -> None:
    graph = quantized(cnn(), per_channel=False).graph
    for node in graph.nodes:
        if node.op == "DequantizeLinear":
            assert dense(graph, node.inputs[1]).ndim == 0
            assert "axis" not in node.attrs
    x = batches(seed=9, count=1)[0]
    expected = run_onnx(export_onnx(graph, opset=21), {"x": x})[0]
    assert np.abs(lepton_rt.Session(graph).run(x) - expected).max() < 0.01


def test_what_follows_the_last_layer_is_float() -> None:
    graph = quantized(cnn()).graph
    assert source_op(graph, producer(graph, "scores").inputs[0]) == "Gemm"


@pytest.mark.parametrize("entry", ["node_c2", "c2", "Conv", "node_c1", "c1"])
def test_exclusions(entry: str) -> None:
    graph = quantized(cnn(), exclude=[entry]).graph
    convs = {n.outputs[0]: n for n in graph.nodes if n.op == "Conv"}
    excluded = {"c2": {"c2"}, "c1": {"n1"}, "Conv": set(convs)}[entry.removeprefix("node_")]
    for output, node in convs.items():
        is_float = node.inputs[1] in graph.constants
        assert is_float == (output in excluded), output
    x = batches(seed=9, count=1)[0]
    expected = run_onnx(cnn(), {"x": x})[0]
    assert np.abs(lepton_rt.Session(graph).run(x) - expected).max() < 0.03


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="'conv99'"):
        quantized(cnn(), exclude=["conv99", "Conv"])
    with pytest.raises(ValueError, match="method"):
        quantized(cnn(), method="best")
    with pytest.raises(ValueError, match="uint8"):
        quantized(cnn(), activation="int4")
    with pytest.raises(ValueError, match="rounding"):
        quantized(cnn(), rounding="up")
    with pytest.raises(ValueError, match="bits must be 7 or 8"):
        quantized(cnn(), bits=4)
    with pytest.raises(lepton_rt.ModelError, match="no convolution"):
        quantized(cnn(), exclude=["Conv", "Gemm"])


def linear(**changes: Any) -> onnx.ModelProto:
    """x [n, 5, 6] → MatMul → Add → Relu → MatMul → y."""
    b = Builder(3)
    w1 = changes.get("w1", b.rng.normal(size=(6, 7)).astype(np.float32))
    bias = changes.get("bias", b.rng.normal(size=7).astype(np.float32))
    b.node("MatMul", ["x", b.constant("w1", w1)], "m1")
    b.node("Add", ["m1", b.constant("bias", bias)], "s1")
    b.node("Relu", ["s1"], "r1")
    b.node("MatMul", ["r1", b.normal("w2", 7, 4)], "y")
    return b.model({"x": ["n", 5, 6]}, {"y": ["n", 5, 4]})


def check_against_onnx_runtime(model: onnx.ModelProto, data: list[Any], tolerance: float) -> Graph:
    """The quantised model agrees with ONNX Runtime's run of it, and with the float model."""
    made = quantized(model, data)
    name = model.graph.input[0].name
    exported = export_onnx(made.graph, opset=21)
    onnx.checker.check_model(exported, full_check=True)
    ours = lepton_rt.Session(made).run(data[0])
    theirs = run_onnx(exported, {name: data[0]})[0]
    exact = run_onnx(model, {name: data[0]})[0]
    spread = max(float(exact.std()), 1e-30)
    assert np.abs(ours - theirs).max() <= 0.02 * spread
    assert np.sqrt(np.mean((ours - exact) ** 2)) <= tolerance * spread
    return made.graph


def test_matmul_with_bias() -> None:
    graph = check_against_onnx_runtime(linear(), batches(shape=(4, 5, 6)), 0.03)
    add = producer(graph, producer(graph, "r1").inputs[0])
    assert add.op == "Add"
    assert {source_op(graph, name) for name in add.inputs} == {"MatMul", "DequantizeLinear"}
    bias = next(p for p in map(graph.producers().get, add.inputs) if p and p.op != "MatMul")
    assert dense(graph, bias.inputs[0]).dtype == np.int32


def test_room_for_what_calibration_did_not_see() -> None:
    """A range known from few values is widened, but for inputs."""
    data = batches(shape=(4, 5, 6))
    rows = {row.tensor: row for row in quantized(linear(), data, method="minmax").report.tensors}
    inner = [run_onnx(linear(), {"x": x}, "r1")[0] for x in data]
    seen, count = max(x.max() for x in inner), sum(x.size for x in inner)
    assert rows["r1"].low == 0
    assert rows["r1"].high == pytest.approx(float(seen) * np.sqrt(np.log(1e5) / np.log(count)))
    assert rows["x"].high == max(x.max() for x in data)


def test_matrix_products_with_bias_run_on_integers() -> None:
    steps = list(lepton_rt.Session(quantized(linear(), batches(shape=(4, 5, 6)))).explain())
    assert [step.op for step in steps] == ["QuantizeLinear"] + ["lepton.QLinearMatMul"] * 2
    assert [step.dtypes for step in steps] == [("uint8",), ("uint8",), ("float32",)]


def test_gelu_spelt_out_is_one_operator() -> None:
    """Between its operators nothing is rounded: the layer before it takes them as a table."""
    b = Builder(21)

    def scalar(value: float) -> str:
        return b.constant(f"c{value}", np.float32(value))

    b.node("MatMul", ["x", b.normal("w1", 6, 8)], "h")
    b.node("Pow", ["h", scalar(3)], "cube")
    b.node("Mul", ["cube", scalar(0.044715)], "part")
    b.node("Add", ["h", "part"], "total")
    b.node("Mul", ["total", scalar(np.sqrt(2 / np.pi))], "scaled")
    b.node("Tanh", ["scaled"], "tanh")
    b.node("Add", ["tanh", scalar(1)], "above")
    b.node("Mul", ["h", scalar(0.5)], "half")
    b.node("Mul", ["half", "above"], "gelu")
    b.node("MatMul", ["gelu", b.normal("w2", 8, 3)], "y")
    model = b.model({"x": ["n", 5, 6]}, {"y": ["n", 5, 3]})
    made = quantized(model, batches(shape=(4, 5, 6)), dynamic_below=None)
    steps = "+".join(step.op for step in lepton_rt.Session(made).explain())
    product = "lepton.QLinearMatMul"
    assert steps == f"QuantizeLinear+{product}+lepton.Lookup+{product}"


def test_a_batch_norm_that_follows_no_layer() -> None:
    b = Builder(14)
    b.conv("x", "c1", 3, 4)
    b.conv("x", "c2", 3, 4)
    b.node("Concat", ["c1", "c2"], "cat", axis=1)
    b.batch_norm("cat", "bn", 8)
    b.node("Relu", ["bn"], "r")
    b.conv("r", "y", 8, 2)
    model = b.model({"x": ["n", 3, 8, 8]}, {"y": ["n", 2, 8, 8]})
    graph = check_against_onnx_runtime(model, batches(shape=(2, 3, 8, 8)), 0.05)
    exported = export_onnx(graph, opset=21)
    names = [node.name for node in exported.graph.node]
    assert len(set(names)) == len(names)


def test_a_product_scaled_before_it_is_a_layer_too() -> None:
    b = Builder(13)
    b.node("MatMul", ["x", b.normal("w", 6, 4)], "m")
    b.node("Mul", ["m", b.constant("half", np.float32(0.5))], "y")
    model = b.model({"x": ["n", 5, 6]}, {"y": ["n", 5, 4]})
    graph = check_against_onnx_runtime(model, batches(shape=(4, 5, 6)), 0.03)
    assert source_op(graph, producer(graph, "y").inputs[1]) == "DequantizeLinear"


def test_channels_of_zeros_and_huge_biases() -> None:
    rng = np.random.default_rng(0)
    w1 = rng.normal(size=(6, 7)).astype(np.float32)
    w1[:, 2] = 0
    w1[:, 4] *= 1e-12
    bias = np.array([1, 2, 3, -4, 5, 1000, 0], np.float32)
    graph = check_against_onnx_runtime(
        linear(w1=w1, bias=bias), batches(shape=(4, 5, 6)), tolerance=0.05
    )
    for node in graph.nodes:
        if node.op == "DequantizeLinear" and node.inputs[0] in graph.constants:
            stored, scale = dense(graph, node.inputs[0]), dense(graph, node.inputs[1])
            assert np.isfinite(scale).all()
            assert (scale > 0).all()
            if stored.dtype == np.int32:
                assert np.allclose(stored * scale, bias, atol=1e-3 * np.abs(bias).max())


@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_with_alpha_and_beta(trans_b: int) -> None:
    b = Builder(5)
    shape = (7, 6) if trans_b else (6, 7)
    b.node(
        "Gemm",
        ["x", b.normal("w", *shape), b.normal("c", 1, 7)],
        "h",
        transB=trans_b,
        alpha=0.5,
        beta=2.0,
    )
    b.node("Gemm", ["h", b.normal("w2", 7, 3)], "y")
    model = b.model({"x": ["n", 6]}, {"y": ["n", 3]})
    check_against_onnx_runtime(model, batches(shape=(16, 6)), 0.03)


def test_transposed_convolution_with_groups() -> None:
    b = Builder(6)
    b.conv("x", "c1", 4, 4)
    b.node(
        "ConvTranspose",
        ["c1", b.normal("w", 4, 3, 2, 2), b.normal("b", 6)],
        "t1",
        strides=[2, 2],
        group=2,
    )
    b.node("Relu", ["t1"], "t2")
    b.conv("t2", "y", 6, 2)
    model = b.model({"x": ["n", 4, 6, 6]}, {"y": ["n", 2, 12, 12]})
    check_against_onnx_runtime(model, batches(shape=(2, 4, 6, 6)), 0.05)


def test_layout_operators_between_layers() -> None:
    b = Builder(7)
    b.conv("x", "c1", 4, 8)
    pads = b.constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    b.node("Pad", ["c1", pads], "p")
    b.node("Split", ["p"], "s1", "s2", axis=1, num_outputs=2)
    b.node("Mul", ["s1", b.constant("factor", np.float32(0.7))], "m")
    b.node("Sub", ["m", "s2"], "d")
    b.node("LeakyRelu", ["d"], "l", alpha=0.2)
    b.node("Transpose", ["l"], "t", perm=[0, 1, 3, 2])
    starts, ends, axes = (
        b.constant(n, np.array([v], np.int64)) for n, v in (("starts", 1), ("ends", 7), ("axes", 3))
    )
    b.node("Slice", ["t", starts, ends, axes], "sl")
    b.conv("sl", "y", 4, 2)
    model = b.model({"x": ["n", 4, 6, 6]}, {"y": ["n", 2, 8, 6]})
    check_against_onnx_runtime(model, batches(shape=(2, 4, 6, 6)), 0.05)
    steps = list(lepton_rt.Session(quantized(model, batches(shape=(2, 4, 6, 6)))).explain())
    layers = [i for i, s in enumerate(steps) if "Conv" in s.op]
    assert len(layers) == 2
    for step in steps[layers[0] : layers[1]]:
        assert set(step.dtypes) <= INTEGERS, step


def residual_block(b: Builder, x: str, kind: str) -> str:
    """Two layers and an Add of x [n, 4, 6, 6], or of a third layer; its output."""
    b.conv(x, "c1", 4, 4)
    b.node("Relu", ["c1"], "r1")
    b.conv("r1", "c2", 4, 4, group=4 if kind == "depthwise" else 1)
    other = b.conv(x, "c3", 4, 4, k=1) if kind == "two layers" else x
    b.node("Add", ["c2", other], "sum")
    return b.node("Relu", ["sum"], "r2")


@pytest.mark.parametrize("kind", ["identity", "two layers", "depthwise"])
def test_a_layer_before_an_add_is_rounded_with_it(kind: str) -> None:
    b = Builder(10)
    b.conv("x", "h", 4, 4)
    b.conv(residual_block(b, "h", kind), "y", 4, 2)
    model = b.model({"x": ["n", 4, 6, 6]}, {"y": ["n", 2, 6, 6]})
    data = batches(shape=(2, 4, 6, 6))
    graph = check_against_onnx_runtime(model, data, 0.05)
    sources = [source_op(graph, name) for name in producer(graph, "sum").inputs]
    assert sorted(sources) == ["Conv", "DequantizeLinear"]
    (step,) = (s for s in lepton_rt.Session(graph).explain() if "r2" in s.outputs[0])
    assert "QLinearConv" in step.op
    assert set(step.dtypes) <= INTEGERS


def test_layers_before_an_add_that_are_rounded_themselves() -> None:
    """Read elsewhere, clamped, or added to another shape."""
    b = Builder(11)
    for name in ("c1", "c2", "c3"):
        b.conv("x", name, 4, 4)
    b.node("Relu", ["c2"], "r2")
    b.node("Add", ["c1", "r2"], "s1")
    b.node("GlobalAveragePool", ["c3"], "p")
    b.node("Add", ["s1", "p"], "s2")
    b.node("Add", ["s2", "c1"], "s3")
    b.conv("s3", "y", 4, 2)
    model = b.model({"x": ["n", 4, 6, 6]}, {"y": ["n", 2, 6, 6]})
    graph = check_against_onnx_runtime(model, batches(shape=(2, 4, 6, 6)), 0.06)
    for name in ("s1", "s2", "s3"):
        inputs = producer(graph, name).inputs
        assert {source_op(graph, x) for x in inputs} == {"DequantizeLinear"}


def test_an_output_in_the_middle_keeps_its_name() -> None:
    b = Builder(8)
    b.conv("x", "c1", 3, 4)
    b.node("Relu", ["c1"], "middle")
    b.conv("middle", "y", 4, 2)
    model = b.model({"x": ["n", 3, 8, 8]}, {"middle": ["n", 4, 8, 8], "y": ["n", 2, 8, 8]})
    data = batches(shape=(2, 3, 8, 8))
    made = quantized(model, data)
    got = lepton_rt.Session(made).run(data[0])
    expected = run_onnx(model, {"x": data[0]})
    assert list(got.keys()) == ["middle", "y"]
    for ours, theirs in zip(got, expected):
        assert np.abs(ours - theirs).max() < 0.05 * theirs.std() + 0.1


def test_a_float_reader_of_a_quantised_input_keeps_the_float() -> None:
    b = Builder(9)
    b.conv("x", "c1", 3, 3)
    b.node("Exp", ["x"], "e")
    b.node("Add", ["c1", "e"], "y")
    model = b.model({"x": ["n", 3, 4, 4]}, {"y": ["n", 3, 4, 4]})
    graph = quantized(model, batches(shape=(2, 3, 4, 4))).graph
    assert producer(graph, "e").inputs == ["x"]
    assert source_op(graph, producer(graph, "y").inputs[0]) == "Conv"


@pytest.mark.parametrize("value", [0.0, 2.5, -1e-20])
def test_constant_activations(value: float) -> None:
    data = [np.full((2, 5, 6), value, np.float32)]
    made = quantized(linear(), data)
    ours, exact = lepton_rt.Session(made).run(data[0]), run_onnx(linear(), {"x": data[0]})[0]
    assert np.abs(ours - exact).max() <= 0.05 * np.abs(exact).max()


def test_values_that_are_not_finite_are_errors() -> None:
    weights = np.ones((6, 7), np.float32)
    weights[0, 0] = np.nan
    with pytest.raises(lepton_rt.ModelError, match="'w1'"):
        quantized(linear(w1=weights), [np.zeros((1, 5, 6), np.float32)])
    x = np.zeros((1, 5, 6), np.float32)
    x[0, 0, 0] = np.inf
    with pytest.raises(lepton_rt.InputError, match="'x'"):
        quantized(linear(), [x])


@pytest.mark.parametrize("suffix", [".onnx", ".lepton"])
def test_saved_models_give_the_same_results(suffix: str, tmp_path: Path) -> None:
    made = quantized(cnn())
    made.save(tmp_path / f"m{suffix}")
    x = batches(seed=9, count=1)[0]
    expected = lepton_rt.Session(made).run(x)
    assert np.array_equal(lepton_rt.Session(tmp_path / f"m{suffix}").run(x), expected)


def test_opset_of_the_saved_model(tmp_path: Path) -> None:
    made = quantized(cnn())
    for opset in (21, 23):
        made.save(tmp_path / "m.onnx", opset=opset)
        model = onnx.load(tmp_path / "m.onnx")
        assert {o.version for o in model.opset_import if o.domain == ""} == {opset}
    with pytest.raises(lepton_rt.InputError, match=r"m\.txt"):
        made.save(tmp_path / "m.txt")


def test_report() -> None:
    made = quantized(cnn(), method="percentile", percentile=99.0)
    report = made.report
    rows = {row.tensor: row for row in report.tensors}
    assert rows["x"].op == "input"
    assert 0.005 < rows["x"].clipped < 0.04
    assert rows["a1"].zero_point == 0
    assert rows["a1"].low == 0
    assert report.bytes_after < 0.6 * report.bytes_before
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [row["tensor"] for row in data["tensors"]] == list(rows)
    assert "gate" in str(report)
    assert "percentile" in str(report)


def test_the_model_given_is_left_alone() -> None:
    graph = lepton_rt.import_onnx(cnn())
    before = export_onnx(graph).SerializeToString(deterministic=True)
    quantized(graph)
    assert export_onnx(graph).SerializeToString(deterministic=True) == before


def ints(b: Builder, name: str, *values: int) -> str:
    return b.constant(name, np.array(values, np.int64))


def between(b: Builder, op: str) -> str:
    """Adds an operator that reads "h" and "g" [n, 4, 6, 6], which layers make; its output."""
    two = {"Add", "Sub", "Mul", "Max", "Min", "Sum"}
    attrs: dict[str, dict[str, Any]] = {
        "AveragePool": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        "MaxPool": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        "DepthToSpace": {"blocksize": 2},
        "SpaceToDepth": {"blocksize": 2},
        "Concat": {"axis": 1},
        "Gather": {"axis": 1},
        "Transpose": {"perm": [0, 2, 1, 3]},
        "ReduceMean": {"keepdims": 1},
        "ReduceMax": {"keepdims": 1},
        "Gelu": {"approximate": "tanh"},
        "Resize": {"mode": "nearest", "nearest_mode": "floor"},
        "Pad": {"mode": "reflect"},
    }
    extra = {
        "Div": lambda: [b.constant("k", np.float32(1.7))],
        "Clip": lambda: [b.constant("lo", np.float32(-0.5)), b.constant("hi", np.float32(2))],
        "ReduceMean": lambda: [ints(b, "k", 2)],
        "ReduceMax": lambda: [ints(b, "k", 3)],
        "Pad": lambda: [ints(b, "k", 0, 0, 1, 1, 0, 0, 1, 1)],
        "Gather": lambda: [ints(b, "k", 3, 0, 2, 1)],
        "Tile": lambda: [ints(b, "k", 1, 1, 2, 1)],
        "Expand": lambda: [ints(b, "k", 1, 1, 1, 1)],
        "Unsqueeze": lambda: [ints(b, "k", 2)],
        "Reshape": lambda: [ints(b, "k", 0, 4, 9, 4)],
        "Resize": lambda: ["", b.constant("k", np.array([1, 1, 2, 2], np.float32))],
    }
    inputs = ["h", "g"] if op in two or op == "Concat" else ["h"]
    inputs += extra.get(op, list)()
    out = b.node(op, inputs, "o", **attrs.get(op, {}))
    return b.node("Squeeze", [out, "k"], "sq") if op == "Unsqueeze" else out


OPERATORS = sorted(BETWEEN_ALL | BETWEEN | SAME_RANGE)
ELSEWHERE = {"Slice", "Split", "Flatten", "Squeeze", "Identity", "Dropout", "Swish"}


@pytest.mark.parametrize("op", [op for op in OPERATORS if op not in ELSEWHERE])
def test_every_operator_between_layers_runs_on_integers(op: str) -> None:
    b = Builder(11)
    b.conv("x", "h", 4, 4, bias=True)
    b.conv("x", "g", 4, 4, bias=True)
    out = between(b, op)
    channels = {"DepthToSpace": 1, "SpaceToDepth": 16, "Concat": 8, "Transpose": 6}.get(op, 4)
    b.conv(out, "y", channels, 2, k=1)
    model = b.model({"x": ["n", 4, 6, 6]}, {"y": ["n", 2, None, None]})
    data = batches(shape=(2, 4, 6, 6))
    check_against_onnx_runtime(model, data, 0.06)
    steps = list(lepton_rt.Session(quantized(model, data)).explain())
    layers = [i for i, s in enumerate(steps) if "Conv" in s.op]
    assert len(layers) >= 2
    for step in steps[layers[0] : layers[-1]]:
        assert set(step.dtypes) <= INTEGERS, step
        assert not step.is_host, step


def test_linear_interpolation_between_layers() -> None:
    b = Builder(12)
    b.conv("x", "h", 4, 4)
    scales = b.constant("k", np.array([1, 1, 2, 2], np.float32))
    b.node("Resize", ["h", "", scales], "o", mode="linear")
    b.conv("o", "y", 4, 2, k=1)
    model = b.model({"x": ["n", 4, 6, 6]}, {"y": ["n", 2, 12, 12]})
    data = batches(shape=(2, 4, 6, 6))
    made = quantized(model, data)
    ours = lepton_rt.Session(made).run(data[0])
    theirs = run_onnx(export_onnx(made.graph, opset=21), {"x": data[0]})[0]
    # Means of two neighbours fall on ties of the grid, which may round either way.
    difference = np.abs(ours - theirs)
    assert difference.max() <= 0.1 * theirs.std()
    assert np.median(difference) <= 1e-5
