"""Nodes that compute the same from the same operands become one."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_rt.graph.ir import LEPTON_DOMAIN, Graph, Node, subgraphs

from .editor import Editor

__all__ = ["share_nodes"]

# Random ones differ, and quantised operators absorb a DequantizeLinear of their own.
_KEPT = {
    "Bernoulli",
    "DequantizeLinear",
    "Dropout",
    "Multinomial",
    "QuantizeLinear",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def share_nodes(graph: Graph) -> Graph:
    """Exporters write the same sines, masks and shapes once a layer; one copy serves all."""
    editor = Editor(graph)
    seen: dict[Any, Node] = {}
    for node in editor.nodes():
        own = node.domain not in ("", LEPTON_DOMAIN)  # may have a state
        if own or node.op in _KEPT or any(True for _ in subgraphs(node)):
            continue
        key = (node.key, tuple(node.inputs), len(node.outputs), _frozen(node.attrs))
        first = seen.setdefault(key, node)
        if first is node or any(bool(a) != bool(b) for a, b in zip(first.outputs, node.outputs)):
            continue
        if any(editor.pinned(name) for name in node.outputs):
            continue
        for old, new in zip(node.outputs, first.outputs):
            if old:
                editor.redirect(old, new)
        editor.remove(node)
    return editor.finish()


def _frozen(value: Any) -> Any:
    """A hashable stand-in for attributes."""
    if isinstance(value, dict):
        return tuple(sorted((k, _frozen(v)) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, float):
        return value.hex()  # tells 0.0 from −0.0, and NaN equal to itself
    return value
