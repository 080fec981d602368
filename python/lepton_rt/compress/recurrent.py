"""Recurrent layers with int8 weights and activations quantised as they come."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from lepton_rt.compress.qparams import quantize_weight
from lepton_rt.graph.ir import LEPTON_DOMAIN, Array, Constant, Graph, Node, subgraphs

_RECURRENT = ("LSTM", "GRU", "RNN")


def quantize_rnn_weights(graph: Graph, excluded: Collection[str] = (), bits: int = 8) -> Graph:
    """LSTM, GRU and RNN with constant float32 W and R as lepton.DynamicQuantizeLSTM, …

    Weights become symmetric int8 with one scale per direction and gate channel; inputs and states
    are quantised to uint8 row by row while the model runs. Layers that make a tensor of
    `excluded`, whose weights are computed, or hold NaN or infinity, stay as they are.
    """
    result = graph.copy()
    made: dict[str, tuple[str, str]] = {}
    left_alone = set(excluded)
    result.nodes = [
        node if not left_alone.isdisjoint(node.outputs) else _quantized(node, result, made, bits)
        for node in result.nodes
    ]
    reads = {name for node in result.nodes for name in node.inputs} | set(result.outputs)
    if not any(True for node in result.nodes for _ in subgraphs(node)):
        result.constants = {n: c for n, c in result.constants.items() if n in reads}
    return result


def _quantized(node: Node, graph: Graph, made: dict[str, tuple[str, str]], bits: int) -> Node:
    if node.domain or node.op not in _RECURRENT:
        return node
    weights = [graph.array(name) for name in node.inputs[1:3]]
    if any(w is None or w.dtype != np.float32 or w.ndim != 3 for w in weights):
        return node
    if not all(np.isfinite(w).all() for w in weights if w is not None):
        return node
    operands = [*node.inputs, *[""] * (8 - len(node.inputs))]
    scales = []
    for i, array in zip((1, 2), weights):
        assert array is not None
        name = operands[i]
        if name not in made:
            made[name] = _add_weight(graph, name, array, bits)
        operands[i], scale = made[name]
        scales.append(scale)
    operands += [scales[0], "", scales[1]]
    op = f"DynamicQuantize{node.op}"
    return Node(op, operands, list(node.outputs), dict(node.attrs), LEPTON_DOMAIN, node.name)


def _add_weight(graph: Graph, name: str, array: Array, bits: int) -> tuple[str, str]:
    """Names of the int8 weights and of their scales [directions, columns]."""
    flat = quantize_weight(name, array.reshape(-1, array.shape[2]), axis=0, bits=bits)
    values = graph.fresh_name(f"{name}_quantized")
    graph.constants[values] = Constant.of(flat.values.reshape(array.shape))
    scale = graph.fresh_name(f"{name}_scale")
    graph.constants[scale] = Constant.of(flat.scale.reshape(array.shape[:2]))
    return values, scale
