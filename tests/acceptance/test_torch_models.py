"""Networks of the kinds PyTorch users bring agree with PyTorch and need no host step."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxscript")
from torch.utils import _pytree as pytree

import lepton_rt
from acceptance.torch_models import CASES, enlivened

TOLERANCE = 1e-3
"""Largest difference, relative to the standard deviation of PyTorch's output."""
QUICK = ("convnext", "distilbert", "unet")
"""Small versions that every run of the suite tests."""


def versions() -> list[Any]:
    """(name, whether at its real size, whether dynamic); most are slow."""
    small = [(name, False, True) for name in CASES]
    full = [(name, True, dynamic) for name in CASES for dynamic in (False, True)]
    made = []
    for name, real, dynamic in small + full:
        label = f"{name}-{'full' if real else 'small'}-{'dynamic' if dynamic else 'static'}"
        marks = () if name in QUICK and not real else pytest.mark.slow
        made.append(pytest.param(name, real, dynamic, marks=marks, id=label))
    return made


@pytest.fixture(autouse=True)
def _memory_comes_back() -> Iterator[None]:
    """Models hold cycles; at full size the next one should not wait for the collector."""
    yield
    gc.collect()


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
        if len(w) > 1:
            assert (w - w.flip(0)).std() > 0.02 * w.std(), "the output hardly depends on the input"
        assert float((g - w).abs().max()) <= TOLERANCE * float(w.std())


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name, full, dynamic", versions())
def test_agrees_with_torch(name: str, full: bool, dynamic: bool) -> None:
    torch.manual_seed(0)
    case = CASES[name](full)
    module = enlivened(case.module, case.inputs)
    with warnings.catch_warnings():
        # A host step is announced by a warning.
        warnings.simplefilter("error", RuntimeWarning)
        session = lepton_rt.Session(
            module, example_inputs=case.inputs, dynamic=case.dynamic if dynamic else None
        )
    assert not [step.name for step in session.explain() if step.is_host]
    assert_agrees(session, module, case.inputs)
    if dynamic:
        assert_agrees(session, module, case.others)
