"""dynamic_below: products whose input one range does not suit round its rows one by one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import lepton_rt
from lepton_rt.compress.product_inputs import ProductInput
from small_networks import Builder, batches, cnn, run_onnx

Array = np.ndarray[Any, Any]
WIDTH = 24
SHAPE = (16, 5, WIDTH)


def network(last: str = "MatMul", first: bool = True) -> onnx.ModelProto:
    """A product (if first), Gelu, a second product; row 0 of five enters Gelu 60 times as large."""
    b = Builder(3)
    size = np.ones((5, 1), np.float32)
    size[0] = 60

    def weight(name: str) -> str:
        return b.constant(name, b.rng.normal(size=(WIDTH, WIDTH)).astype(np.float32))

    source = b.node("MatMul", ["x", weight("w1")], "h") if first else "x"
    b.node("Mul", [source, b.constant("size", size)], "large")
    gelu = b.node("Gelu", ["large"], "gelu")
    if last == "Gemm":
        flat = b.node("Reshape", [gelu, b.constant("rows", np.array([-1, WIDTH]))], "flat")
        bias = b.constant("b", b.rng.normal(size=WIDTH).astype(np.float32))
        b.node("Gemm", [flat, weight("w2"), bias], "y", transB=1)
        return b.model({"x": ["n", 5, WIDTH]}, {"y": ["m", WIDTH]})
    b.node("MatMul", [gelu, weight("w2")], "y")
    return b.model({"x": ["n", 5, WIDTH]}, {"y": ["n", 5, WIDTH]})


def quantized(model: Any, data: Any = None, **options: Any) -> lepton_rt.QuantizedModel:
    data = batches(shape=SHAPE) if data is None else data
    return lepton_rt.quantize(model, data, progress=False, **options)


def small_rows_error(made: lepton_rt.QuantizedModel, model: onnx.ModelProto) -> float:
    x = batches(7, 1, SHAPE)[0]
    want = run_onnx(model, {"x": x}, "y")[0].reshape(-1, 5, WIDTH)[:, 1:]
    got = lepton_rt.Session(made).run(x).reshape(-1, 5, WIDTH)[:, 1:]
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def dynamic_products(made: lepton_rt.QuantizedModel) -> list[str]:
    found = [node for node in made.graph.nodes if node.op == "DynamicQuantizeMatMul"]
    assert all(node.attrs["per_row"] == 1 for node in found)
    return [node.outputs[0] for node in found]


@pytest.mark.parametrize(
    "options",
    [{}, {"bits": 7}, {"per_channel": False}, {"rounding": "nearest"}, {"smooth": False}],
    ids=str,
)
def test_a_large_row(options: dict[str, Any]) -> None:
    model = network()
    made = quantized(model, **options)
    assert dynamic_products(made) == ["y"]
    plain = quantized(model, dynamic_below=None, **options)
    assert dynamic_products(plain) == []
    assert plain.report.dynamic == []
    assert small_rows_error(made, model) < 0.3 * small_rows_error(plain, model)


def test_gemm_keeps_its_bias() -> None:
    model = network("Gemm", first=False)
    made = quantized(model)
    assert len(dynamic_products(made)) == 1
    assert small_rows_error(made, model) < 0.01


def test_no_static_layer_is_left() -> None:
    model = network(first=False)
    made = quantized(model)
    assert dynamic_products(made) == ["y"]
    assert not any(node.op == "QuantizeLinear" for node in made.graph.nodes)
    assert small_rows_error(made, model) < 0.01


def test_even_rows_are_left_alone() -> None:
    b = Builder(3)
    b.node("Softsign", ["x"], "s")
    w = b.rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)
    b.node("MatMul", ["s", b.constant("w", w)], "y")
    model = b.model({"x": ["n", 5, WIDTH]}, {"y": ["n", 5, WIDTH]})
    assert dynamic_products(quantized(model)) == []
    assert dynamic_products(quantized(model, dynamic_below=20.0)) == []
    assert quantized(cnn(), batches(), dynamic_below=math.inf).report.dynamic == []


def test_excluded_products_are_left_alone() -> None:
    assert dynamic_products(quantized(network(), exclude=["y"])) == []


def test_the_report_names_them() -> None:
    report = quantized(network()).report
    (row,) = report.dynamic
    assert (row.tensor, row.products) == ("gelu", ["y"])
    assert row.static_db < 38
    assert row.dynamic_db > row.static_db + 3
    assert "dynamic rows" in str(report)
    assert f"{row.static_db:.1f}" in str(report)
    stored = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert stored["dynamic"][0]["static_db"] == row.static_db


@pytest.mark.parametrize("suffix", [".onnx", ".lepton"])
def test_files(suffix: str, tmp_path: Path) -> None:
    made = quantized(network())
    made.save(tmp_path / f"m{suffix}")
    x = batches(7, 1, SHAPE)[0]
    got = lepton_rt.Session(tmp_path / f"m{suffix}").run(x)
    want = lepton_rt.Session(made).run(x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_noise_is_of_each_row() -> None:
    rows = np.array([[100, 50], [0.5, 0.25], [0, 0]], np.float32)
    seen = ProductInput([], rows.min(axis=0), rows.max(axis=0), rows, np.eye(2, dtype=np.float32))
    step = 100 / 255
    expected = (np.rint(rows / step) * step - rows).astype(np.float64) ** 2
    np.testing.assert_allclose(seen.static_errors(), expected.sum(axis=1), rtol=1e-3, atol=1e-12)
    assert np.all(seen.dynamic_errors() <= (rows.max(axis=1) / 510) ** 2 * 2 + 1e-12)
    powers = np.square(rows.astype(np.float64)).sum(axis=1)
    least = 1e-4 * powers.mean()
    want = np.mean(expected.sum(axis=1) / np.maximum(powers, least))
    assert seen.noise(seen.static_errors()) == pytest.approx(want, rel=1e-3)
