"""normalise: one spelling, the same meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lepton_rt.passes.normalise import normalise
from pass_graphs import Model, assert_same_meaning, keys


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("strides", [[1, 1], [2, 3]])
@pytest.mark.parametrize("op", ["Conv", "MaxPool", "AveragePool", "ConvTranspose"])
def test_pads_become_explicit(
    op: str, strides: list[int], auto_pad: str, rng: np.random.Generator
) -> None:
    model = Model(x=("FLOAT", [2, 3, 11, 8]))
    attrs: dict[str, Any] = {"auto_pad": auto_pad, "strides": strides, "kernel_shape": [3, 4]}
    if op in {"Conv", "ConvTranspose"}:
        shape = (4, 3, 3, 4) if op == "Conv" else (3, 4, 3, 4)
        y = model(op, "x", rng.standard_normal(shape).astype(np.float32), **attrs)
    else:
        y = model(op, "x", **attrs)
    graph = model.graph(y)
    after = normalise(graph)
    assert "auto_pad" not in after.nodes[0].attrs
    feeds = {"x": rng.standard_normal((2, 3, 11, 8)).astype(np.float32)}
    assert_same_meaning(graph, after, feeds)


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools_are_reductions(op: str, rng: np.random.Generator) -> None:
    model = Model(x=("FLOAT", ["n", 3, 5, 4]))
    graph = model.graph(model(op, "x"))
    after = normalise(graph)
    assert after.nodes[0].op.startswith("Reduce")
    assert_same_meaning(graph, after, {"x": rng.standard_normal((2, 3, 5, 4)).astype(np.float32)})


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("offset", [None, (6,), (1, 6), (1,), ()])
def test_gemm_with_constants(
    trans_b: int, alpha: float, offset: tuple[int, ...] | None, rng: np.random.Generator
) -> None:
    model = Model(x=("FLOAT", ["n", 5]))
    b = rng.standard_normal((6, 5) if trans_b else (5, 6)).astype(np.float32)
    operands = ["x", b]
    if offset is not None:
        operands.append(np.asarray(rng.standard_normal(offset), np.float32))
    graph = model.graph(model("Gemm", *operands, transB=trans_b, alpha=alpha, beta=2.0))
    after = normalise(graph)
    assert keys(after) == ["lepton.MatMul"]
    assert_same_meaning(graph, after, {"x": rng.standard_normal((3, 5)).astype(np.float32)})


def test_gemm_with_a_column_offset_stays(rng: np.random.Generator) -> None:
    model = Model(x=("FLOAT", [3, 5]))
    c = rng.standard_normal((3, 1)).astype(np.float32)
    graph = model.graph(model("Gemm", "x", rng.standard_normal((5, 6)).astype(np.float32), c))
    assert keys(normalise(graph)) == ["Gemm"]


def test_dropout_and_sums(rng: np.random.Generator) -> None:
    model = Model(x=("FLOAT", [2, 3]))
    a = model("Dropout", "x")
    b = model("Sum", model("Sum", a), a)
    graph = model.graph(b)
    after = normalise(graph)
    assert keys(after) == ["Identity", "Add"]
    assert_same_meaning(graph, after, {"x": rng.standard_normal((2, 3)).astype(np.float32)})


def test_a_dropout_at_the_output_keeps_its_name() -> None:
    model = Model(x=("FLOAT", [2, 3]))
    graph = model.graph(model("Dropout", "x"))
    after = normalise(graph)
    assert list(after.outputs) == list(graph.outputs)
    assert_same_meaning(graph, after, {"x": np.ones((2, 3), np.float32)})
