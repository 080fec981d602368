"""quantize(mode="dynamic") and quantize(mode="weight_only"): no calibration, known errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import lepton_rt
from lepton_rt.compress.weights import group_quantize
from lepton_rt.errors import ModelError
from lepton_rt.graph.onnx_io import export_onnx
from oracle import ort_run
from pass_graphs import Model

Rng = np.random.Generator


def network(rng: Rng) -> Any:
    """MatMul and Add, Relu, and a transposed Gemm."""
    model = Model(x=("FLOAT", ["n", 100]))
    first = rng.normal(0, 0.1, (100, 70)).astype(np.float32)
    y = model("Add", model("MatMul", "x", first), rng.normal(size=70).astype(np.float32))
    second = rng.normal(0, 0.1, (30, 70)).astype(np.float32)
    y = model("Gemm", model("Relu", y), second, rng.normal(size=30).astype(np.float32), transB=1)
    return model.proto(y)


def feeds(rng: Rng) -> dict[str, Any]:
    return {"x": rng.normal(size=(9, 100)).astype(np.float32)}


OPTIONS: list[tuple[dict[str, Any], float]] = [
    ({"mode": "dynamic"}, 35),
    ({"mode": "dynamic", "per_channel": False}, 30),
    ({"mode": "dynamic", "per_row": False}, 35),
    ({"mode": "weight_only", "bits": 8, "group_size": 64}, 40),
    ({"mode": "weight_only", "bits": 4, "group_size": 32}, 18),
    ({"mode": "weight_only", "bits": 4, "group_size": 32, "optimise_clip": True}, 18),
    ({"mode": "weight_only", "bits": 4, "group_size": 128, "symmetric": False}, 16),
    ({"mode": "weight_only", "bits": 8, "group_size": 32, "symmetric": False}, 40),
]


def oracle(proto: Any, feed: dict[str, Any]) -> Any:
    """The one output by ONNX Runtime: exact integers, or float products as they are written."""
    if any(node.op_type == "MatMulInteger" for node in proto.graph.node):
        return next(iter(ort_run(proto, feed).values()))
    options = ort.SessionOptions()
    # Its optimiser makes MatMulNBits of the rest, which rounds the activations.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, feed)[0]


def ratio_db(signal: Any, other: Any) -> float:
    return float(10 * np.log10(np.sum(signal**2) / np.sum((signal - other) ** 2)))


@pytest.mark.parametrize(("options", "floor"), OPTIONS)
@pytest.mark.parametrize("suffix", [".onnx", ".lepton"])
def test_saved_model_means_what_the_oracle_says(
    rng: Rng, tmp_path: Path, options: dict[str, Any], floor: float, suffix: str
) -> None:
    proto, feed = network(rng), feeds(rng)
    made = lepton_rt.quantize(proto, **options)
    assert made.report.bytes_after < 0.4 * made.report.bytes_before
    made.save(tmp_path / f"m{suffix}")
    got = lepton_rt.Session(tmp_path / f"m{suffix}").run(feed)
    want = oracle(export_onnx(made.graph, opset=21), feed)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * float(want.std()))
    assert ratio_db(lepton_rt.Session(proto).run(feed), got) > floor


@pytest.mark.parametrize("per_row", [False, True])
def test_dynamic_runs_integer_layers_only(rng: Rng, per_row: bool) -> None:
    made = lepton_rt.quantize(network(rng), mode="dynamic", per_row=per_row)
    session = lepton_rt.Session(made.graph)
    assert [step.op for step in session.explain()] == ["lepton.DynamicQuantizeMatMul"] * 2


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_groups(rng: Rng, bits: int, symmetric: bool) -> None:
    weight = rng.standard_t(3, (70, 5)).astype(np.float32)
    errors = []
    for optimise in (False, True):
        values, scale, zero = group_quantize(weight, bits, 32, symmetric, optimise)
        assert values.shape == (70, 5)
        assert scale.shape == (3, 5)
        assert values.dtype.name == f"{'' if symmetric else 'u'}int{bits}"
        real = values.astype(np.float32)
        real -= np.repeat(zero.astype(np.float32), 32, axis=0)[:70]
        real *= np.repeat(scale, 32, axis=0)[:70]
        if not optimise:
            assert np.all(np.abs(real - weight) <= 0.501 * np.repeat(scale, 32, axis=0)[:70])
        errors.append(float(np.sum((real - weight) ** 2)))
    assert errors[1] <= errors[0]
    assert bits == 8 or errors[1] < errors[0]


def test_exclude(rng: Rng) -> None:
    made = lepton_rt.quantize(network(rng), mode="dynamic", exclude=["Gemm"])
    assert [n.op for n in made.graph.nodes].count("DynamicQuantizeMatMul") == 1
    made = lepton_rt.quantize(network(rng), mode="dynamic", exclude=["Gemm"], per_row=False)
    assert [n.op for n in made.graph.nodes].count("MatMulInteger") == 1


def test_rows_keep_their_accuracy_beside_a_large_one(rng: Rng) -> None:
    proto, feed = network(rng), feeds(rng)
    feed["x"][0] *= 100
    want = lepton_rt.Session(proto).run(feed)[1:]
    decibels = [
        ratio_db(want, lepton_rt.Session(made.graph).run(feed)[1:])
        for made in (lepton_rt.quantize(proto, mode="dynamic", per_row=r) for r in (False, True))
    ]
    assert decibels[1] > 35 > 15 > decibels[0]


def test_rejects_what_it_cannot_do(rng: Rng) -> None:
    proto = network(rng)
    for options in ({"mode": "other"}, {}, {"mode": "weight_only", "bits": 3}):
        with pytest.raises(ValueError):
            lepton_rt.quantize(proto, **options)
    with pytest.raises(ValueError):
        lepton_rt.quantize(proto, mode="weight_only", group_size=7)
    with pytest.raises(ModelError):
        lepton_rt.quantize(proto, mode="dynamic", exclude=["Gemm", "MatMul"])
    bad = Model(x=("FLOAT", [2, 2]))
    y = bad("MatMul", "x", np.full((2, 2), np.nan, np.float32))
    with pytest.raises(ModelError):
        lepton_rt.quantize(bad.proto(y), mode="dynamic")
