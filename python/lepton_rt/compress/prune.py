"""Block pruning: the smallest blocks of each layer's weights become zero, in one shot.

Magnitude pruning (Han et al., "Learning both Weights and Connections for Efficient Neural
Networks", 2015) with whole blocks as its unit (Narang et al., "Block-Sparse Recurrent Neural
Networks", 2017), because a processor can skip a block and gains nothing from a single zero.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lepton_rt.compress.exclude import excluded_outputs
from lepton_rt.compress.prepare import prepare
from lepton_rt.compress.report import shorten, text_table
from lepton_rt.errors import ModelError
from lepton_rt.graph.ir import Array, Constant, Graph, Node
from lepton_rt.loading import load_graph, save_graph

__all__ = ["PrunedLayer", "PrunedModel", "prune"]


@dataclass(frozen=True)
class PrunedLayer:
    """One layer: its weight, and which share of it is zero, and of its norm is kept."""

    weight: str
    op: str
    sparsity: float
    norm_kept: float


@dataclass
class PrunedModel:
    """A graph with zeros in its weights; goes wherever a model goes: Session, quantize, save."""

    graph: Graph
    layers: list[PrunedLayer] = field(default_factory=list)

    def save(self, path: str | os.PathLike[str], opset: int = 21) -> None:
        """Writes the model as `.lepton` or, at an ONNX opset, as `.onnx`.

        Raises InputError for another suffix.
        """
        save_graph(self.graph, path, opset)

    def __str__(self) -> str:
        rows = [
            (shorten(row.weight), row.op, f"{row.sparsity:.1%}", f"{row.norm_kept:.1%}")
            for row in self.layers
        ]
        return text_table(("weight", "op", "zeros", "norm kept"), rows)


def prune(
    model: Any,
    sparsity: float,
    *,
    block: tuple[int, int] = (16, 4),
    exclude: Collection[str] = (),
    ends: bool = False,
) -> PrunedModel:
    """Sets the blocks of smallest L2 norm to zero in every convolution and matrix product.

    model: path, bytes, ModelProto or Graph, in float32. sparsity: share of each layer's blocks,
    0 ≤ sparsity < 1. block: outputs × inputs; inputs are neighbouring input channels of one kernel
    position. (16, 4) is what every kernel here can skip; (16, 1) will do in float32, and (8, 4) in
    8 bits on processors with AVX2 and no AVX-512, which cost less accuracy. exclude: node names,
    tensor names or operator types that stay as they are; so do grouped convolutions, layers of
    fewer inputs or outputs than a block has, and, unless `ends`, the first and the last layer.

    In one shot a small network loses a point of accuracy with every few hundredths of its blocks
    (a large one bears more): train on with the zeros held, and check with `compare`. Zeros survive
    `quantize`, whose weights are symmetric. Float32 and 8-bit layers skip zero blocks where that
    pays (`Session.explain()` says where); infinities and NaNs that meet zeros alone leave no trace
    there. Raises ValueError for impossible numbers or an exclusion that names nothing, ModelError
    when no layer is left to prune.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be at least 0 and below 1, not {sparsity}")
    if len(block) != 2 or min(block) < 1:
        raise ValueError(f"block must be two positive sizes, not {block}")
    names = [exclude] if isinstance(exclude, str) else exclude
    original = load_graph(model)
    graph = prepare(original)
    excluded = excluded_outputs(original, graph, names)
    layers = [node for node in graph.nodes if _matrix_of(graph, node) is not None]
    chosen = layers if ends else layers[1:-1]
    result = graph.copy()
    rows: dict[str, PrunedLayer] = {}
    for node in chosen:
        name = node.inputs[1]
        if name in rows or excluded.intersection(node.outputs):
            continue
        _prune_layer(result, node, sparsity, block, rows)
    if not rows:
        raise ModelError("the model has no convolution or matrix product left to prune")
    return PrunedModel(result, list(rows.values()))


def _matrix_of(graph: Graph, node: Node) -> Callable[[Array], Array] | None:
    """For a layer that can be pruned: its weight as a view [positions, inputs, outputs]."""
    if node.key not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
        return None
    value = graph.constants.get(node.inputs[1])
    if value is None or value.dtype != np.float32:
        return None
    if node.op == "Conv":
        if node.attrs.get("group", 1) != 1 or len(value.shape) < 3:
            return None
        outputs, inputs = value.shape[:2]
        return lambda w: w.reshape(outputs, inputs, -1).transpose(2, 1, 0)
    if len(value.shape) != 2:
        return None
    if node.op == "Gemm" and node.attrs.get("transB", 0):
        return lambda w: w.T[None]
    return lambda w: w[None]


def _prune_layer(
    graph: Graph,
    node: Node,
    sparsity: float,
    block: tuple[int, int],
    rows: dict[str, PrunedLayer],
) -> None:
    name = node.inputs[1]
    view = _matrix_of(graph, node)
    assert view is not None
    weight = np.array(graph.constants[name].dense())
    matrix = view(weight)
    outputs, inputs = block
    if matrix.shape[1] < inputs or matrix.shape[2] < outputs:
        return
    power = np.square(matrix, dtype=np.float64)
    norms = _sum_blocks(power, inputs, outputs)
    count = round(sparsity * norms.size)
    kept = np.ones(norms.size, bool)
    kept[np.argsort(norms, axis=None, kind="stable")[:count]] = False
    mask = np.repeat(np.repeat(kept.reshape(norms.shape), inputs, axis=1), outputs, axis=2)
    matrix[~mask[:, : matrix.shape[1], : matrix.shape[2]]] = 0
    graph.constants[name] = Constant.of(weight)
    total = float(power.sum())
    share = float(np.square(weight, dtype=np.float64).sum()) / total if total else 1.0
    rows[name] = PrunedLayer(name, node.op, float((weight == 0).mean()), share**0.5)


def _sum_blocks(power: Array, inputs: int, outputs: int) -> Array:
    """[positions, inputs, outputs] summed over blocks; those at the edges may be smaller."""
    summed = np.add.reduceat(power, np.arange(0, power.shape[1], inputs), axis=1)
    total: Array = np.add.reduceat(summed, np.arange(0, power.shape[2], outputs), axis=2)
    return total
