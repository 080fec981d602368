"""Einsum becomes matrix products, and means what NumPy means by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
from onnx import helper

import lepton_rt
from compiler.onnx_models import make_model, normal
from lepton_rt.graph.types import infer_types
from lepton_rt.passes.decompose_einsum import decompose_einsum

EQUATIONS = {
    "ij,jk->ik": [(3, 4), (4, 5)],
    "bhqd,bhkd->bhqk": [(2, 3, 4, 5), (2, 3, 6, 5)],
    "bqhd,bkhd->bhqk": [(2, 4, 3, 5), (2, 6, 3, 5)],
    "bhqk,bkhd->bqhd": [(2, 3, 4, 6), (2, 6, 3, 5)],
    "abc,cd->abd": [(2, 3, 4), (4, 5)],
    "bnij,bni->bnj": [(2, 3, 4, 5), (2, 3, 4)],
    "i,j->ij": [(3,), (4,)],
    "i,i->": [(5,), (5,)],
    "ij,ij->ij": [(3, 4), (3, 4)],
    "ijk->kj": [(2, 3, 4)],
    "ij->ij": [(2, 3)],
    "ij->": [(2, 3)],
    "ij,jk": [(3, 4), (4, 5)],
    "ij,jk,kl->il": [(2, 3), (3, 4), (4, 5)],
    "ab,cd->dbca": [(2, 3), (4, 5)],
    "ijx,jky->ik": [(2, 3, 4), (3, 5, 6)],
    " b i , b j k -> b i k ": [(2, 3), (2, 4, 5)],
}


def einsum(equation: str, shapes: list[tuple[int, ...]], symbols: bool) -> Any:
    arrays = {f"x{i}": normal(*shape, seed=i) for i, shape in enumerate(shapes)}
    model = make_model(
        [helper.make_node("Einsum", list(arrays), ["y"], equation=equation)], arrays, ["y"]
    )
    if symbols:
        terms = equation.replace(" ", "").split("->")[0].split(",")
        for info, term in zip(model.graph.input, terms):
            for dim, label in zip(info.type.tensor_type.shape.dim, term):
                dim.dim_param = label
    return model, arrays


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize("symbols", [False, True])
@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.filterwarnings("ignore:.*native kernel:RuntimeWarning")
def test_same_as_numpy(equation: str, symbols: bool, optimise: bool) -> None:
    model, arrays = einsum(equation, EQUATIONS[equation], symbols)
    session = lepton_rt.Session(model, optimise=optimise)
    if not symbols:
        assert not session.explain().host_steps
    want = np.einsum(equation.replace(" ", ""), *arrays.values())
    got = session.run(arrays)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("equation", ["bhqd,bhkd->bhqk", "bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd"])
def test_attention_with_free_dimensions_needs_no_host(equation: str) -> None:
    model, _ = einsum(equation, EQUATIONS[equation], symbols=True)
    ops = [node.op for node in decompose_einsum(infer_types(lepton_rt.import_onnx(model))).nodes]
    assert ops.count("MatMul") == 1
    assert "Einsum" not in ops


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ii->i", [(3, 3)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
        ("ij,jk->ik", [(3, 1), (4, 5)]),
        ("ij,jk->ik", [(3, 0), (0, 5)]),
    ],
)
def test_other_forms_stay(equation: str, shapes: list[tuple[int, ...]]) -> None:
    model, _ = einsum(equation, shapes, symbols=False)
    graph = decompose_einsum(infer_types(lepton_rt.import_onnx(model)))
    assert [node.op for node in graph.nodes] == ["Einsum"]
