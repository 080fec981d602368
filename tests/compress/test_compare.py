"""Layer-by-layer comparison."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

import lepton_rt
from small_networks import Builder, batches, cnn, run_onnx


def test_a_model_equals_itself() -> None:
    rows = lepton_rt.compare(cnn(), cnn(), batches()[0])
    assert len(rows) > 10
    assert all(row.snr_db == np.inf and row.max_abs_error == 0 for row in rows)
    assert all(row.cosine == pytest.approx(1) for row in rows)
    assert json.dumps(rows.to_dict(), allow_nan=False)


def test_float_against_quantised() -> None:
    model, data = cnn(), batches()
    made = lepton_rt.quantize(model, data, progress=False)
    rows = lepton_rt.compare(model, made, data[0])
    assert {"x", "a1", "gated", "pooled", "logits", "scores"} <= {row.tensor for row in rows}
    assert all(15 < row.snr_db < 80 for row in rows), str(rows)
    assert [row.tensor for row in rows.worst(2)] == [
        row.tensor for row in sorted(rows, key=lambda r: r.snr_db)[:2]
    ]
    assert "gated" in str(rows)


def test_the_numbers() -> None:
    first, second = cnn(seed=0), onnx.ModelProto()
    second.CopyFrom(first)
    weight = next(t for t in second.graph.initializer if t.name == "c2_w")
    changed = onnx.numpy_helper.to_array(weight) * np.float32(1.1)
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, "c2_w"))
    x = batches()[0]
    rows = lepton_rt.compare(first, second, {"x": x})
    a, b = (run_onnx(m, {"x": x}, "c2")[0].astype(np.float64) for m in (first, second))
    row = rows["c2"]
    assert rows["a1"].snr_db > 100
    assert row.op == "Conv"
    assert row.snr_db == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()), abs=0.01)
    assert row.max_abs_error == pytest.approx(np.abs(a - b).max(), rel=1e-3)
    cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    assert row.cosine == pytest.approx(cosine, abs=1e-6)


def test_tensors_that_are_looked_at_do_not_change_the_rest() -> None:
    b = Builder(2)
    b.node("MatMul", ["x", b.normal("w1", 6, 7)], "m")
    b.node("Gelu", ["m"], "g")
    b.node("MatMul", ["g", b.normal("w2", 7, 4)], "y")
    model, data = b.model({"x": ["n", 6]}, {"y": ["n", 4]}), batches(shape=(8, 6))
    rows = lepton_rt.compare(model, lepton_rt.quantize(model, data, progress=False), data[0])
    assert [row.tensor for row in rows] == ["x", "m", "g", "y"]
    assert all(row.snr_db > 25 for row in rows)


def test_models_without_a_common_tensor() -> None:
    b = Builder()
    b.node("Relu", ["u"], "v")
    other = b.model({"u": ["n", 3, 16, 16]}, {"v": ["n", 3, 16, 16]})
    with pytest.raises(lepton_rt.ModelError, match="in common"):
        lepton_rt.compare(cnn(), other, batches()[0])
    with pytest.raises(lepton_rt.InputError, match="shape"):
        lepton_rt.compare(cnn(), cnn(), np.zeros((1, 2), np.float32))
