"""fuse_batch_norm: affine operators disappear into the layer before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lepton_rt.passes.fuse_batch_norm import fuse_batch_norm
from pass_graphs import Model, assert_same_meaning, keys

Rng = np.random.Generator


def layer(model: Model, op: str, rng: Rng, bias: bool) -> str:
    """A layer of 6 output channels over x."""

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    if op == "MatMul":
        return str(model("MatMul", "x", normal(4, 6)))
    group = 2 if op.startswith("Grouped") else 1
    op = op.removeprefix("Grouped")
    shape = (6, 4 // group, 3, 3) if op == "Conv" else (4, 6 // group, 3, 3)
    operands = ["x", normal(*shape)] + ([normal(6)] if bias else [])
    return str(model(op, *operands, group=group))


def feeds(op: str, rng: Rng) -> dict[str, Any]:
    shape = (2, 5, 4) if op == "MatMul" else (2, 4, 6, 5)
    return {"x": rng.standard_normal(shape).astype(np.float32)}


LAYERS = ["Conv", "GroupedConv", "ConvTranspose", "GroupedConvTranspose"]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("op", LAYERS)
def test_batch_norm(op: str, bias: bool, rng: Rng) -> None:
    model = Model(x=("FLOAT", ["n", 4, None, None]))
    y = layer(model, op, rng, bias)
    parameters = [rng.uniform(0.5, 2, 6).astype(np.float32) for _ in range(4)]
    graph = model.graph(model("BatchNormalization", y, *parameters, epsilon=1e-3))
    after = fuse_batch_norm(graph)
    assert keys(after) == [op.removeprefix("Grouped")]
    assert_same_meaning(graph, after, feeds(op, rng))


@pytest.mark.parametrize("op", [*LAYERS, "MatMul"])
def test_channel_scale_and_offset(op: str, rng: Rng) -> None:
    shape = [None, 5, 4] if op == "MatMul" else [None, 4, 6, 5]
    dims = (6,) if op == "MatMul" else (6, 1, 1)
    model = Model(x=("FLOAT", shape))
    y = layer(model, op, rng, bias=False)

    def constant() -> Any:
        return rng.uniform(0.5, 2, dims).astype(np.float32)

    y = model("Div", model("Mul", constant(), y), constant())
    graph = model.graph(model("Sub", model("Add", y, constant()), np.float32(0.25)))
    after = fuse_batch_norm(graph)
    assert len(after.nodes) == 1
    assert_same_meaning(graph, after, feeds(op, rng))


def test_batch_norm_alone_becomes_mul_and_add(rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 6, 3, 3]))
    parameters = [rng.uniform(0.5, 2, 6).astype(np.float32) for _ in range(4)]
    graph = model.graph(model("BatchNormalization", "x", *parameters))
    after = fuse_batch_norm(graph)
    assert keys(after) == ["Mul", "Add"]
    assert_same_meaning(graph, after, {"x": rng.standard_normal((2, 6, 3, 3)).astype(np.float32)})


@pytest.mark.parametrize("what", ["two readers", "graph output", "other axis", "reversed"])
def test_what_must_not_be_folded(what: str, rng: Rng) -> None:
    model = Model(x=("FLOAT", [2, 4, 6, 5]))
    y = layer(model, "Conv", rng, bias=True)
    outputs = []
    dims = (1, 3) if what == "other axis" else (6, 1, 1)
    constant = rng.uniform(0.5, 2, dims).astype(np.float32)
    z = model("Sub", constant, y) if what == "reversed" else model("Mul", y, constant)
    if what == "two readers":
        z = model("Add", z, model("Relu", y))
    if what == "graph output":
        outputs = [y]
    graph = model.graph(z, *outputs)
    after = fuse_batch_norm(graph)
    assert keys(after) == keys(graph)
    assert_same_meaning(graph, after, feeds("Conv", rng))
