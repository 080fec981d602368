"""Models quantised by ONNX Runtime run as integers, and give ONNX Runtime's exact results."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

import foreign_models as models
import lepton_rt
from lepton_rt._core import usable_isas
from oracle import quantized_tensors, step_shares
from sample_models import submodel, with_outputs

Array = npt.NDArray[Any]
PAIRS = [("u8", "u8"), ("u8", "s8"), ("s8", "s8")]
LAYERS = ("Conv", "MatMul", "Gemm", "Host")
INTEGER = ("lepton.QLinear", "lepton.DynamicQuantize", "lepton.MatMulNBits")
"""The last: where the quantiser left activations float, before a tied embedding, say."""


def exact(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """All outputs by ONNX Runtime with exact integers; skips where it has no kernel."""
    for level in (
        ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        ort.GraphOptimizationLevel.ORT_DISABLE_ALL,  # some graphs break its optimiser
    ):
        options = ort.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.graph_optimization_level = level
        options.log_severity_level = 4
        try:
            session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            if "NOT_IMPLEMENTED" in str(error):
                pytest.skip(f"ONNX Runtime cannot run its own model: {str(error)[:120]}")
            continue
        names = [out.name for out in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds)))
    pytest.skip("ONNX Runtime cannot load its own model")


def assert_integers(session: lepton_rt.Session) -> None:
    """Every layer is an integer kernel."""
    layers = [s.op for s in session.explain() if any(word in s.op for word in LAYERS)]
    assert layers
    assert not [op for op in layers if not op.startswith(INTEGER)]


def assert_same_everywhere(model: onnx.ModelProto, feeds: dict[str, Array]) -> None:
    """ISA and thread count change no bit where the graph is integer from end to end."""
    runs = [
        lepton_rt.Session(model, isa=isa, threads=threads).run(feeds)
        for isa in usable_isas()
        for threads in (1, 2)
    ]
    for other in runs[1:]:
        np.testing.assert_array_equal(other, runs[0])


def assert_equal_to(got: Array, want: Array) -> None:
    spread = float(want.std())
    assert spread > 0
    assert float(np.abs(got - want).max()) <= 1e-5 * spread


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("activation", "weight"), PAIRS)
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("name", ["cnn", "mlp", "resnet", "mobilenet", "lstm"])
def test_static(name: str, form: str, activation: str, weight: str, per_channel: bool) -> None:
    model = models.static(name, form, activation, weight, per_channel)
    feeds = models.feeds(name)
    session = lepton_rt.Session(model)
    assert_integers(session)
    if name != "lstm":  # static quantisation leaves recurrent layers in float32
        assert_same_everywhere(model, feeds)
    assert_equal_to(session.run(feeds), next(iter(exact(model, feeds).values())))


@pytest.mark.parametrize(("weight", "per_channel"), [("u8", False), ("s8", True)])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_static_transformers(name: str, weight: str, per_channel: bool) -> None:
    model = models.static(name, "QOperator", "u8", weight, per_channel)
    feeds = models.feeds(name)
    session = lepton_rt.Session(model)
    assert_integers(session)
    assert_equal_to(session.run(feeds), next(iter(exact(model, feeds).values())))


@pytest.mark.parametrize(("activation", "weight"), PAIRS)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_static_transformers_layer_by_layer(name: str, activation: str, weight: str) -> None:
    """Each quantised tensor from the oracle's own inputs, so a difference names its layer."""
    model = models.static(name, "QDQ", activation, weight, False)
    feeds = models.feeds(name)
    assert_integers(lepton_rt.Session(model))
    frontier = {**feeds, **exact(with_outputs(model, quantized_tensors(model)), feeds)}
    tensors = [t for t in quantized_tensors(model) if t in frontier]
    assert len(tensors) > 20
    for tensor in tensors:
        layer = submodel(model, tensor, frontier)
        inputs = {i.name: frontier[i.name] for i in layer.graph.input}
        results = [lepton_rt.Session(layer, isa=isa).run(inputs) for isa in usable_isas()]
        for got in results:
            _, within_one = step_shares(got, frontier[tensor])
            assert within_one == 1.0, tensor


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("weight", ["u8", "s8"])
@pytest.mark.parametrize("name", ["cnn", "mlp", "resnet", "mobilenet", "bert", "gpt2"])
def test_dynamic(name: str, weight: str, per_channel: bool) -> None:
    model = models.dynamic(name, weight, per_channel)
    feeds = models.feeds(name)
    session = lepton_rt.Session(model)
    assert_integers(session)
    if not models.is_language(name):
        assert_same_everywhere(model, feeds)
    if name != "cnn":
        assert "MatMulInteger" not in {step.op for step in session.explain()}
    assert_equal_to(session.run(feeds), next(iter(exact(model, feeds).values())))


def lstm_feeds(rng: np.random.Generator, one_range: bool) -> dict[str, Array]:
    """Rows of a batch of one; with one_range all of them span the same interval."""
    feeds = models.feeds("lstm")
    (key,) = feeds
    x = rng.normal(size=(1, *feeds[key].shape[1:])).astype(np.float32).clip(-2, 2)
    if one_range:
        x[..., 0], x[..., 1] = -2, 2
    return {key: x}


@pytest.mark.parametrize("weight", ["u8", "s8"])
def test_dynamic_lstm(rng: np.random.Generator, weight: str) -> None:
    """ONNX Runtime has one range for all rows, we one for each: equal where the ranges are."""
    model = models.dynamic("lstm", weight, False)
    session = lepton_rt.Session(model)
    layers = [step.op for step in session.explain() if "LSTM" in step.op or "MatMul" in step.op]
    assert layers == ["lepton.DynamicQuantizeLSTM"] * 2 + ["lepton.DynamicQuantizeMatMul"]
    first = next(node.output[0] for node in model.graph.node if node.op_type.endswith("LSTM"))
    tapped = copy.deepcopy(model)
    tapped.graph.output.append(  # shape inference knows nothing of this operator
        onnx.helper.make_tensor_value_info(first, onnx.TensorProto.FLOAT, ["s", "d", "n", "h"])
    )
    feeds = lstm_feeds(rng, one_range=True)
    assert_equal_to(lepton_rt.Session(tapped).run(feeds)[first], exact(tapped, feeds)[first])
    errors = {"ours": 0.0, "theirs": 0.0}
    for _ in range(10):
        feeds = lstm_feeds(rng, one_range=False)
        (true,) = exact(models.float_model("lstm"), feeds).values()
        (theirs,) = exact(model, feeds).values()
        errors["ours"] += float(np.square(session.run(feeds) - true).sum())
        errors["theirs"] += float(np.square(theirs - true).sum())
    assert errors["ours"] <= 1.1 * errors["theirs"]
