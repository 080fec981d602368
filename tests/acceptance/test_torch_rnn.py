"""torch's recurrent layers, exported with a dynamic length and batch, run natively."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

import lepton_rt

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")


class TwoLayers(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A two-layer recurrent network that gives its sequence and its last states."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        layer = getattr(torch.nn, kind)
        self.rnn = layer(24, 48, num_layers=2, batch_first=True)
        self.head = torch.nn.Linear(48, 7)

    def forward(self, x: Any) -> Any:
        y, state = self.rnn(x)
        return self.head(y), *(state if isinstance(state, tuple) else (state,))


def exported(model: Any) -> bytes:
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    program = torch.onnx.export(
        model, (torch.randn(3, 8, 24),), dynamo=True, dynamic_shapes=(dims,), verbose=False
    )
    buffer = io.BytesIO()
    program.save(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_two_layers(kind: str) -> None:
    torch.manual_seed(3)
    model = TwoLayers(kind).eval()
    session = lepton_rt.Session(exported(model))
    steps = list(session.explain())
    assert not any(step.is_host for step in steps)
    assert [step.op for step in steps if step.op == kind] == [kind] * 2
    for batch, length in ((3, 8), (1, 1), (2, 50), (5, 3)):
        x = torch.randn(batch, length, 24)
        with torch.no_grad():
            want = [y.numpy() for y in model(x)]
        for a, b in zip(session.run(x.numpy()), want, strict=True):
            assert a.shape == b.shape
            assert np.abs(a - b).max() <= 1e-3 * b.std()


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_two_layers_with_int8_weights(kind: str) -> None:
    torch.manual_seed(3)
    model = TwoLayers(kind).eval()
    session = lepton_rt.Session(lepton_rt.quantize(exported(model), mode="dynamic").graph)
    steps = list(session.explain())
    assert not any(step.is_host for step in steps)
    assert sum(step.op == f"lepton.DynamicQuantize{kind}" for step in steps) == 2
    x = torch.randn(4, 30, 24)
    with torch.no_grad():
        want = [y.numpy() for y in model(x)]
    for a, b in zip(session.run(x.numpy()), want, strict=True):
        assert np.abs(a - b).mean() <= 0.05 * b.std()
