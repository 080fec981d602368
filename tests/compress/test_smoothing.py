"""smooth: the spread of channels moves into the weights where that makes products more exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

import lepton_rt
from lepton_rt.errors import InputError
from lepton_rt.graph.ir import Graph
from small_networks import Builder, batches, cnn, run_onnx

Array = np.ndarray[Any, Any]
WIDTH = 24
SHAPE = (16, 5, WIDTH)


def network(spread: float) -> onnx.ModelProto:
    """Products of a normalised tensor, which a sum reads too, and Gelu between two of them.

    spread: of two channels of what is normalised, and of what comes out of Gelu; what is multiplied
    by these channels is as much smaller.
    """
    b = Builder(3)
    gain = np.ones(WIDTH, np.float32)
    gain[[2, 7]] = spread

    def weight(name: str, rows: Any, columns: Any) -> str:
        values = b.rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)
        return b.constant(name, values * columns / rows)

    b.node("LayerNormalization", ["x", b.constant("gain", gain)], "n")
    b.node("MatMul", ["n", weight("w1", gain[:, None], 1)], "p")
    b.node("Add", ["p", "n"], "sum")
    b.node("MatMul", ["n", weight("w2", gain[:, None], gain[::-1])], "h")
    b.node("Gelu", ["h"], "gelu")
    b.node("MatMul", ["gelu", weight("w3", gain[::-1, None], 1)], "y")
    return b.model({"x": ["n", 5, WIDTH]}, {"y": ["n", 5, WIDTH], "sum": ["n", 5, WIDTH]})


def smoothed(graph: Graph) -> list[str]:
    return [node.inputs[0] for node in graph.nodes if node.outputs[0].endswith("_smoothed")]


def error(made: lepton_rt.QuantizedModel, model: onnx.ModelProto) -> float:
    x = batches(7, 1, SHAPE)[0]
    want = run_onnx(model, {"x": x}, "y")[0]
    got = lepton_rt.Session(made).run(x)["y"]
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def quantized(model: Any, data: Any = None, **options: Any) -> lepton_rt.QuantizedModel:
    data = batches(shape=SHAPE) if data is None else data
    return lepton_rt.quantize(model, data, progress=False, dynamic_below=None, **options)


@pytest.mark.parametrize("options", [{}, {"bits": 7}, {"per_channel": False}], ids=str)
def test_large_channels(options: dict[str, Any]) -> None:
    model = network(100)
    made = quantized(model, **options)
    assert smoothed(made.graph) == ["n", "gelu"]
    assert error(made, model) < 0.4 * error(quantized(model, smooth=False, **options), model)


def test_the_float_model_stays_the_same() -> None:
    made = quantized(network(100))
    plain = quantized(network(100), smooth=False)
    x = batches(7, 1, SHAPE)[0]
    for a, b in zip(*(lepton_rt.Session(m.float_graph).run(x) for m in (made, plain)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_scales_are_powers_of_two_and_bytes_are_read_at_once() -> None:
    made = quantized(network(100))
    factors = [c.dense() for n, c in made.graph.constants.items() if n.endswith("_smoothing")]
    assert len(factors) == 2
    assert all(np.all(np.frexp(f)[0] == 0.5) and len(set(f)) > 1 for f in factors)
    steps = "+".join(step.op for step in lepton_rt.Session(made).explain()).split("+")
    assert steps.count("QuantizeLinear") == 2
    assert steps.count("lepton.Elementwise") == 1  # Gelu
    assert "Mul" not in steps


def test_even_channels_are_left_alone() -> None:
    made = quantized(network(1))
    assert smoothed(made.graph) == []
    assert "lepton.Lookup" in "".join(step.op for step in lepton_rt.Session(made).explain())
    assert smoothed(quantized(cnn(), batches()).graph) == []


@pytest.mark.parametrize("exclude, left", [("y", ["n"]), (["h", "p"], ["gelu"])])
def test_excluded_products_are_left_alone(exclude: Any, left: list[str]) -> None:
    assert smoothed(quantized(network(100), exclude=exclude).graph) == left


def test_batches_that_can_be_read_once() -> None:
    left = batches(count=20, shape=SHAPE)

    def once() -> Iterator[Array]:
        while left:
            yield left.pop(0)

    made = quantized(network(100), once())
    assert not left
    assert smoothed(made.graph) == ["n", "gelu"]
    again = quantized(network(100), batches(count=20, shape=SHAPE))
    x = batches(7, 1, SHAPE)[0]
    for a, b in zip(*(lepton_rt.Session(m).run(x) for m in (made, again)), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="at least one"):
        quantized(network(100), iter([]))
