"""Models quantised by NNCF run as integers, and give ONNX Runtime's exact results."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import foreign_models as models
import lepton_rt
from oracle import ort_run

nncf = pytest.importorskip("nncf", reason="NNCF is not installed")


@pytest.mark.parametrize("name", ["cnn", "mlp", "bert"])
def test_nncf(name: str) -> None:
    feeds = models.feeds(name)
    (key,) = feeds
    calibration = nncf.Dataset([{key: x} for x in models.batches(name)])
    model = nncf.quantize(copy.deepcopy(models.float_model(name)), calibration, subset_size=3)
    session = lepton_rt.Session(model)
    layers = [s.op for s in session.explain() if "MatMul" in s.op or "Conv" in s.op]
    assert layers
    assert all(op.startswith("lepton.QLinear") for op in layers)
    (want,) = ort_run(model, feeds).values()
    assert float(np.abs(session.run(feeds) - want).max()) <= 1e-5 * float(want.std())
