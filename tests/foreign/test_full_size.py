"""Architectures in their published sizes, quantised by ONNX Runtime, run as integers, exact ones.

Over so many layers one rounding of a float moves everything after it, so each quantised tensor is
computed from the oracle's own inputs; then a difference names its layer, too.
"""

from __future__ import annotations

import numpy as np
import pytest

import foreign_models as models
import lepton_rt
from foreign.test_ort_quantized import assert_integers, exact
from oracle import Layer, by_layer, core_operators, step_shares

pytestmark = pytest.mark.slow
NAMES = ["resnet/full", "mobilenet/full", "bert/full", "gpt2/full", "lstm/full"]
FORMS = [("QDQ", "u8", "s8", True), ("QOperator", "u8", "u8", False), ("QDQ", "s8", "s8", False)]
INTEGER = {"Conv", "Gemm", "MatMul", "Relu", "Clip"}
QOPERATORS = {"QLinearConv", "QLinearMatMul", "QGemm"}


def assert_exact(layer: Layer) -> None:
    equal, within_one = step_shares(layer.got, layer.want)
    assert within_one == 1.0, layer.tensor
    if core_operators(layer.model) <= INTEGER | QOPERATORS:
        assert equal >= 0.9999, layer.tensor


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("form", "activation", "weight", "per_channel"), FORMS)
def test_static(name: str, form: str, activation: str, weight: str, per_channel: bool) -> None:
    model = models.static(name, form, activation, weight, per_channel)
    assert_integers(lepton_rt.Session(model))
    quantised = [
        node.output[0]
        for node in model.graph.node
        if node.op_type.startswith(("Quantize", "QLinear", "QGemm"))
    ]
    compared = 0
    for layer in by_layer(model, models.feeds(name), quantised, exact):
        if layer.want.dtype.kind != "f":  # an output of the model may have lost its quantisation
            assert_exact(layer)
            compared += 1
    assert compared > (30 if "lstm" not in name else 0)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_dynamic(name: str) -> None:
    model = models.dynamic(name, "s8", True)
    assert_integers(lepton_rt.Session(model))
    dynamic = {n.input[0] for n in model.graph.node if n.op_type == "DynamicQuantizeLinear"}
    made = [out for node in model.graph.node for out in node.output]
    tensors = [t for t in made if t in dynamic] + [model.graph.output[0].name]
    compared = 0
    for layer in by_layer(model, models.feeds(name), tensors, exact):
        error = float(np.abs(layer.got - layer.want).max())
        assert error <= 1e-4 * float(layer.want.std()), layer.tensor
        compared += 1
    assert compared > 30
