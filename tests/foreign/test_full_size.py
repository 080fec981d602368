"""Architectures in their published sizes, quantised by ONNX Runtime: integers, and exact ones.

Every quantised tensor is computed from the oracle's own inputs, so a difference names its layer.
"""

from __future__ import annotations

import pytest

import foreign_models as models
import lepton_rt
from foreign.test_ort_quantized import assert_equal_to, assert_integers, exact
from oracle import core_operators, quantized_tensors, step_shares
from sample_models import submodel, with_outputs

pytestmark = pytest.mark.slow
NAMES = ["resnet/full", "mobilenet/full", "bert/full", "gpt2/full", "lstm/full"]
FORMS = [("QDQ", "u8", "s8", True), ("QOperator", "u8", "u8", False), ("QDQ", "s8", "s8", False)]
EXACT = {"Conv", "Gemm", "MatMul", "Relu", "Clip"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("form", "activation", "weight", "per_channel"), FORMS)
def test_static(name: str, form: str, activation: str, weight: str, per_channel: bool) -> None:
    model = models.static(name, form, activation, weight, per_channel)
    feeds = models.feeds(name)
    session = lepton_rt.Session(model)
    assert_integers(session)
    if not models.is_language(name):
        assert_equal_to(session.run(feeds), next(iter(exact(model, feeds).values())))
    if form == "QOperator":
        return
    tensors = quantized_tensors(model)
    frontier = {**feeds, **exact(with_outputs(model, tensors), feeds)}
    for tensor in tensors:
        if tensor not in frontier:
            continue
        layer = submodel(model, tensor, frontier)
        got = lepton_rt.Session(layer).run({i.name: frontier[i.name] for i in layer.graph.input})
        equal, within_one = step_shares(got, frontier[tensor])
        assert within_one == 1.0, tensor
        if core_operators(layer) <= EXACT:
            assert equal >= 0.9999, tensor


@pytest.mark.parametrize("name", NAMES[:-1])
def test_dynamic(name: str) -> None:
    model = models.dynamic(name, "s8", True)
    session = lepton_rt.Session(model)
    assert_integers(session)
    feeds = models.feeds(name)
    assert_equal_to(session.run(feeds), next(iter(exact(model, feeds).values())))
