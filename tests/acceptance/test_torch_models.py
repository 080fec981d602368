"""Networks of the kinds PyTorch users bring agree with PyTorch and need no host step."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxscript")
from torch.utils import _pytree as pytree

import lepton_rt
from acceptance.torch_models import CASES

TOLERANCE = 1e-3
"""Largest difference, relative to the standard deviation of PyTorch's output."""
QUICK = {"convnext", "unet"}


def tensors(outputs: Any) -> list[Any]:
    if hasattr(outputs, "to_tuple"):
        outputs = outputs.to_tuple()
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def assert_agrees(session: lepton_rt.Session, module: Any, inputs: tuple[Any, ...]) -> None:
    with torch.no_grad():
        want = tensors(module(*inputs))
    got = tensors(list(session(*inputs)) if len(want) > 1 else session(*inputs))
    assert [t.shape for t in got] == [t.shape for t in want]
    for g, w in zip(got, want):
        assert float((g - w).abs().max()) <= TOLERANCE * float(w.std())


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_agrees_with_torch(name: str, dynamic: bool) -> None:
    torch.manual_seed(0)
    case = CASES[name]()
    case.module.eval()
    with warnings.catch_warnings():
        # A host step is announced by a warning.
        warnings.simplefilter("error", RuntimeWarning)
        session = lepton_rt.Session(
            case.module, example_inputs=case.inputs, dynamic=case.dynamic if dynamic else None
        )
    assert_agrees(session, case.module, case.inputs)
    if dynamic:
        assert_agrees(session, case.module, case.others)
