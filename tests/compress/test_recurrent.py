"""Dynamic quantisation of recurrent layers, ours and ONNX Runtime's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import lepton_rt
from compiler.onnx_models import make_model
from lepton_rt.graph.ir import LEPTON_DOMAIN

onnx = pytest.importorskip("onnx")

Array = npt.NDArray[Any]
F32 = np.float32
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def model_of(op: str, direction: str, rng: np.random.Generator) -> tuple[Any, Array]:
    """Two layers of which the second reads the first, and an input."""
    d, size, hidden = 2 if direction == "bidirectional" else 1, 12, 20
    x = rng.standard_normal((9, 3, size)).astype(F32)
    constants, nodes, source, width = {}, [], "x", size
    for k in range(2):
        rows = GATES[op] * hidden
        for name, shape in (
            ("w", (d, rows, width)),
            ("r", (d, rows, hidden)),
            ("b", (d, 2 * rows)),
        ):
            constants[f"{name}{k}"] = (rng.standard_normal(shape) * shape[-1] ** -0.5).astype(F32)
        nodes.append(
            onnx.helper.make_node(
                op, [source, f"w{k}", f"r{k}", f"b{k}"], [f"s{k}"], hidden_size=hidden,
                direction=direction, name=f"layer{k}",
            )
        )  # fmt: skip
        nodes.append(onnx.helper.make_node("Transpose", [f"s{k}"], [f"t{k}"], perm=[0, 2, 1, 3]))
        constants[f"shape{k}"] = np.array([0, 0, -1])
        nodes.append(onnx.helper.make_node("Reshape", [f"t{k}", f"shape{k}"], [f"y{k}"]))
        source, width = f"y{k}", d * hidden
    return make_model(nodes, {"x": x}, ["y1"], constants, 17), x


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op", GATES)
def test_stays_close_to_the_float_model(
    op: str, direction: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    model, x = model_of(op, direction, rng)
    before = lepton_rt.Session(model)
    graph = lepton_rt.quantize(model, mode="dynamic").graph
    lepton_rt.save_lepton(graph, tmp_path / "m.lepton")
    after = lepton_rt.Session(tmp_path / "m.lepton")
    layers = [step for step in after.explain() if op in step.op]
    assert [step.op for step in layers] == [f"{LEPTON_DOMAIN}.DynamicQuantize{op}"] * 2
    assert not any(step.is_host for step in after.explain())
    a, b = before.run(x), after.run(x)
    assert 0 < np.abs(a - b).max() < 0.05
    assert np.abs(a - b).mean() < 0.01
    sizes = [sum(c.nbytes for c in g.constants.values()) for g in (graph, before.graph)]
    assert sizes[0] < 0.4 * sizes[1]


@pytest.mark.parametrize("op", GATES)
def test_body_is_the_layer_of_dequantised_weights(op: str, rng: np.random.Generator) -> None:
    model, x = model_of(op, "bidirectional", rng)
    graph = lepton_rt.quantize(model, mode="dynamic").graph
    exported = lepton_rt.export_onnx(graph, 17)
    assert {o.domain for o in exported.opset_import} == {""}
    a, b = lepton_rt.Session(exported).run(x), lepton_rt.Session(graph).run(x)
    assert 0 < np.abs(a - b).max() < 0.05


def test_layers_with_computed_weights_stay(rng: np.random.Generator) -> None:
    model, _ = model_of("LSTM", "forward", rng)
    weights = next(i for i in model.graph.initializer if i.name == "w1")
    model.graph.initializer.remove(weights)
    model.graph.input.append(onnx.helper.make_tensor_value_info("w1", 1, list(weights.dims)))
    graph = lepton_rt.quantize(model, mode="dynamic").graph
    ops = [node.op for node in graph.nodes if "LSTM" in node.op]
    assert ops == ["DynamicQuantizeLSTM", "LSTM"]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_onnx_runtimes_dynamic_lstm(
    direction: str, per_channel: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    quantization = pytest.importorskip("onnxruntime.quantization")
    model, x = model_of("LSTM", direction, rng)
    model.ir_version = 10
    onnx.save(model, tmp_path / "float.onnx")
    quantization.quantize_dynamic(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", per_channel=per_channel
    )
    assert "DynamicQuantizeLSTM" in {
        n.op_type for n in onnx.load(tmp_path / "int8.onnx").graph.node
    }
    theirs = runtime.InferenceSession(str(tmp_path / "int8.onnx")).run(None, {"x": x})[0]
    session = lepton_rt.Session(tmp_path / "int8.onnx")
    layers = [step for step in session.explain() if "LSTM" in step.op]
    assert [step.op for step in layers] == [f"{LEPTON_DOMAIN}.DynamicQuantizeLSTM"] * 2
    assert not any(step.is_host for step in session.explain())
    exact = lepton_rt.Session(
        lepton_rt.export_onnx(lepton_rt.import_onnx(tmp_path / "int8.onnx"), 17)
    )
    ours, real = session.run(x), exact.run(x)
    assert np.abs(ours - theirs).max() < 0.05
    # Rounding row by row is no worse than rounding whole tensors.
    assert np.abs(ours - real).mean() <= 1.05 * np.abs(theirs - real).mean()
