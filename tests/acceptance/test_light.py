"""The nine light_* networks of the onnx package, with real weights, against ONNX Runtime."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest

import lepton_rt
from oracle import assert_close, ort_run
from sample_models import LIGHT_NAMES, light_model, tame_softmax, with_outputs


def inner_tensors(model: onnx.ModelProto, count: int) -> list[str]:
    """Float tensors spread over the depth of the network."""
    names = [n.output[0] for n in model.graph.node if n.op_type in ("Conv", "Relu", "Concat")]
    return [names[len(names) * (i + 1) // (count + 1)] for i in range(count)]


def test_all_nine_are_there() -> None:
    assert len(LIGHT_NAMES) == 9


@pytest.mark.parametrize("name", LIGHT_NAMES)
def test_light_network(name: str) -> None:
    model = light_model(name)
    x = np.random.default_rng(7).normal(size=(1, 3, 224, 224)).astype(np.float32)
    feeds = {model.graph.input[0].name: x}
    output = model.graph.output[0].name
    inner = inner_tensors(model, 3)
    want = ort_run(with_outputs(model, inner), feeds)
    if model.graph.node[-1].op_type == "Softmax" and np.max(want[output]) > 0.5:
        logits = model.graph.node[-1].input[0]
        tame_softmax(model, ort_run(with_outputs(model, [logits]), feeds)[logits])
        want = ort_run(with_outputs(model, inner), feeds)
    assert np.max(want[output]) < 0.5 or model.graph.node[-1].op_type != "Softmax"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a host step would warn
        session = lepton_rt.Session(model)
        tapped = lepton_rt.Session(with_outputs(model, inner))
    assert not session.explain().host_steps
    assert_close(session.run(feeds), want[output])
    got = tapped.run(feeds)
    assert set(got.keys()) == set(want)
    for tensor in want:
        assert_close(got[tensor], want[tensor])
