"""What an int8 BERT compiles to: integer products, attention in one step, few steps a layer."""

from __future__ import annotations

from typing import Any

import pytest

import foreign_models as models
import lepton_rt

ATTENTION = {"lepton.DynamicQuantizeAttention", "lepton.QLinearAttention"}
MOST_STEPS = 8


def own(**options: Any) -> Any:
    (key,) = models.feeds("bert")
    batches = [{key: ids} for ids in models.batches("bert")]
    return lepton_rt.quantize(models.float_model("bert"), batches, progress=False, **options).graph


def check(model: Any) -> set[str]:
    """Asserts what the title says; returns the attention operators."""
    steps = [step.op.split("+") for step in lepton_rt.Session(model).explain()]
    parts = [part for step in steps for part in step]
    products = [part for part in parts if "MatMul" in part or part == "Gemm"]
    assert set(products) == {"lepton.QLinearMatMul"}
    assert "Softmax" not in parts
    places = [i for i, step in enumerate(steps) if step[0] in ATTENTION]
    assert len(places) == 2
    assert places[1] - places[0] <= MOST_STEPS
    assert len(steps) - places[1] <= MOST_STEPS
    return {steps[i][0] for i in places}


@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_quantised_here(activation: str) -> None:
    assert check(own(activation=activation)) == {"lepton.DynamicQuantizeAttention"}


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize(("activation", "weight"), [("u8", "u8"), ("u8", "s8"), ("s8", "s8")])
def test_quantised_by_onnx_runtime(form: str, activation: str, weight: str) -> None:
    made = check(models.static("bert", form, activation, weight, False))
    assert made == {"lepton.QLinearAttention"}
