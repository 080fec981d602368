"""PyTorch's recurrent layers, of any length, run as one native step each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lepton_rt

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")


class TwoLayers(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A two-layer recurrent network that gives its sequence and its last states."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        options = {"batch_first": True, **options}
        self.rnn = getattr(torch.nn, kind)(24, 48, num_layers=2, **options)
        self.head = torch.nn.Linear(96 if options.get("bidirectional") else 48, 7)

    def forward(self, x: Any) -> Any:
        y, state = self.rnn(x)
        return self.head(y), *(state if isinstance(state, tuple) else (state,))


def session_of(model: Any) -> lepton_rt.Session:
    example = torch.randn(3, 8, 24)
    return lepton_rt.Session(model, example_inputs=example, dynamic={"x": {0: "b", 1: "l"}})


def assert_agrees(session: lepton_rt.Session, model: Any, *inputs: Any) -> None:
    with torch.no_grad():
        want = torch.utils._pytree.tree_leaves(model(*inputs))
    for a, b in zip(session.run(*inputs), want, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= 1e-3 * float(b.std())


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True},
        {"bidirectional": True, "bias": False},
        {"batch_first": False, "dropout": 0.5},
    ],
    ids=["plain", "bidirectional", "no bias", "length first"],
)
def test_two_layers(kind: str, options: dict[str, Any]) -> None:
    torch.manual_seed(3)
    model = TwoLayers(kind, **options).eval()
    session = session_of(model)
    steps = list(session.explain())
    assert not any(step.is_host for step in steps)
    assert [step.op for step in steps if step.op == kind] == [kind] * 2
    for batch, length in ((3, 8), (1, 1), (2, 50), (5, 3)):
        assert_agrees(session, model, torch.randn(batch, length, 24))


def test_length_is_free_after_a_static_export() -> None:
    """What PyTorch remembers of one export does not spoil the next."""
    torch.manual_seed(3)
    model = TwoLayers("LSTM", bidirectional=True).eval()
    x = torch.randn(3, 8, 24)
    assert_agrees(lepton_rt.Session(model, example_inputs=x), model, x)
    assert_agrees(session_of(model), model, torch.randn(2, 11, 24))
    # And PyTorch itself computes as before.
    program = torch.export.export(model, (x,)).run_decompositions()
    with torch.no_grad():
        for a, b in zip(program.module()(x), model(x), strict=True):
            assert float((a - b).abs().max()) < 1e-5


def test_first_state_is_an_input() -> None:
    torch.manual_seed(3)
    model = torch.nn.GRU(8, 12, num_layers=2, bidirectional=True).eval()
    names = {"input": {0: "length", 1: "batch"}, "hx": {1: "batch"}}
    session = lepton_rt.Session(
        model,
        example_inputs={"input": torch.randn(5, 2, 8), "hx": torch.randn(4, 2, 12)},
        dynamic=names,
    )
    assert_agrees(session, model, torch.randn(9, 3, 8), torch.randn(4, 3, 12))


def test_relu_network() -> None:
    torch.manual_seed(3)
    model = TwoLayers("RNN", nonlinearity="relu", bidirectional=True).eval()
    assert_agrees(session_of(model), model, torch.randn(2, 6, 24))


def test_exported_program() -> None:
    torch.manual_seed(3)
    model = TwoLayers("LSTM", bidirectional=True).eval()
    x = torch.randn(3, 8, 24)
    assert_agrees(lepton_rt.Session(torch.export.export(model, (x,))), model, x)


def test_projections_are_refused() -> None:
    model = torch.nn.Sequential(torch.nn.LSTM(24, 48, proj_size=7))
    with pytest.raises(lepton_rt.UnsupportedError, match="proj_size"):
        lepton_rt.Session(model, example_inputs=torch.randn(3, 8, 24))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_two_layers_with_int8_weights(kind: str) -> None:
    torch.manual_seed(3)
    model = TwoLayers(kind, bidirectional=True).eval()
    session = lepton_rt.Session(lepton_rt.quantize(session_of(model).graph, mode="dynamic").graph)
    steps = list(session.explain())
    assert not any(step.is_host for step in steps)
    assert sum(step.op == f"lepton.DynamicQuantize{kind}" for step in steps) == 2
    x = torch.randn(4, 30, 24)
    with torch.no_grad():
        want = [y.numpy() for y in model(x)]
    for a, b in zip(session.run(x.numpy()), want, strict=True):
        assert np.abs(a - b).mean() <= 0.05 * b.std()
