"""Rotary embeddings move before the transposes of attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import lepton_rt
from lepton_rt.graph.onnx_io import import_onnx
from lepton_rt.graph.types import infer_types
from lepton_rt.graph.verify import verify
from lepton_rt.passes import PASSES
from lepton_rt.passes.choose_layout import choose_layout
from pass_graphs import keys

Rng = np.random.Generator
H, D = 3, 8


def model(interleaved: int, split: bool) -> ModelProto:
    """Attention of one turned tensor; its heads come split or are split here."""
    first: list[Any] = ["b", "s", H, D] if split else ["b", "s", H * D]
    nodes = [] if split else [helper.make_node("Reshape", ["x", "shape"], ["rows"])]
    rows = "x" if split else "rows"
    nodes += [
        helper.make_node("Transpose", [rows], ["heads"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", [rows], ["v"], perm=[0, 2, 1, 3]),
        helper.make_node(
            "RotaryEmbedding", ["heads", "cos", "sin"], ["turned"], interleaved=interleaved
        ),
        helper.make_node("Attention", ["turned", "turned", "v"], ["y"]),
        helper.make_node("Transpose", ["y"], ["z"], perm=[0, 2, 1, 3]),
    ]
    angles: list[Any] = ["b", "s", D // 2]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, first),
            helper.make_tensor_value_info("cos", TensorProto.FLOAT, angles),
            helper.make_tensor_value_info("sin", TensorProto.FLOAT, angles),
        ],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([0, 0, H, D]), "shape")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("split", [True, False])
def test_no_transpose_is_left(interleaved: int, split: bool, rng: Rng) -> None:
    proto = model(interleaved, split)
    graph = infer_types(import_onnx(proto))
    for run in PASSES[: PASSES.index(choose_layout)]:
        graph = run(graph)
        verify(graph)
    assert "Transpose" not in keys(graph)
    assert keys(graph).count("RotaryEmbedding") == 1
    shape = (2, 5, H, D) if split else (2, 5, H * D)
    angles = rng.standard_normal((2, 5, D // 2))
    feeds = {
        "x": rng.standard_normal(shape).astype(np.float32),
        "cos": np.cos(angles).astype(np.float32),
        "sin": np.sin(angles).astype(np.float32),
    }
    (want,) = ReferenceEvaluator(proto).run(None, feeds)
    got = lepton_rt.Session(proto, threads=1).run(feeds)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
