"""Activations that layers can apply in their epilogue: Relu, and Clip with constant bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lepton_rt.graph.ir import Attr, Node

from .editor import Editor

__all__ = ["Activation", "fusable_activation"]


@dataclass
class Activation:
    """An activation node and the attributes that say the same inside a fused operator."""

    node: Node
    attrs: dict[str, Attr]


def fusable_activation(editor: Editor, name: str) -> Activation | None:
    """The float32 Relu or Clip that alone reads a tensor."""
    node = editor.only_reader(name)
    if node is None or node.domain or editor.dtype(name) != np.float32:
        return None
    if node.op == "Relu":
        return Activation(node, {"activation": "Relu"})
    if node.op != "Clip" or node.inputs[0] != name:
        return None
    bounds = [-np.inf, np.inf]
    for index, bound in enumerate(node.inputs[1:3]):
        if bound:
            scalar = editor.scalar(bound)
            if scalar is None or np.isnan(scalar):
                return None
            bounds[index] = scalar
    if bounds[0] > bounds[1]:
        return None
    return Activation(node, {"activation": "Clip", "activation_params": [float(b) for b in bounds]})
