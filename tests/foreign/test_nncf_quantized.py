"""Models quantised by NNCF run as integers, and mean what their graphs say."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest

import foreign_models as models
import lepton_rt
from oracle import by_layer, ort_run, quantized_tensors, step_shares

nncf = pytest.importorskip("nncf", reason="NNCF is not installed")


@pytest.mark.parametrize("name", ["cnn", "mlp", "resnet", "mobilenet", "lstm", "bert", "gpt2"])
def test_nncf(name: str) -> None:
    feeds = models.feeds(name)
    (key,) = feeds
    calibration = nncf.Dataset([{key: x} for x in models.batches(name)])
    model = nncf.quantize(copy.deepcopy(models.float_model(name)), calibration, subset_size=3)
    session = lepton_rt.Session(model)
    layers = [s.op for s in session.explain() if "MatMul" in s.op or "Conv" in s.op]
    assert layers
    assert all(op.startswith("lepton.QLinear") for op in layers)
    # ONNX Runtime's optimiser would round the float biases that NNCF leaves.
    as_written = functools.partial(ort_run, optimise=False)
    tensors = quantized_tensors(model)
    for layer in by_layer(model, feeds, tensors, as_written):
        equal, within_one = step_shares(layer.got, layer.want)
        assert equal >= 0.99, layer.tensor
        assert within_one == 1.0, layer.tensor
    if name not in {"resnet", "mobilenet"}:  # deep: one rounding moves all after it
        (want,) = ort_run(model, feeds).values()
        assert float(np.abs(session.run(feeds) - want).max()) <= 1e-5 * float(want.std())
