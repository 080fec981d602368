"""QuantizeLinear moved up past operators that only move elements, towards what made them.

There it meets the operator it belongs to (an averaging pool, say), and the moving is done on bytes.
"""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Graph, Node, Value

from .editor import Editor
from .quantised import Quantised, quantising_reader

__all__ = ["move_quantize"]

_MOVES = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Flatten",
        "Identity",
        "Reshape",
        "SpaceToDepth",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
        "lepton.MaxPool",
    }
)
"""Every output element is one element of an operand, chosen by position or as the greatest."""


def move_quantize(graph: Graph) -> Graph:
    """Moves QuantizeLinear up where it is the only reader of what was moved."""
    editor = Editor(graph)
    for node in reversed(list(editor.nodes())):
        if node.key in _MOVES and editor.producer(node.outputs[0]) is node:
            _move(editor, node)
    return editor.finish()


def _move(editor: Editor, node: Node) -> None:
    target = quantising_reader(editor, node.outputs[0])
    if target is None or not (target.per_tensor and target.is_8_bit):
        return
    count = len(node.inputs) if node.op == "Concat" else 1
    sources = node.inputs[:count]
    if any(editor.dtype(name) != np.float32 for name in sources):
        return
    quantised = [_quantized(editor, node, target, name) for name in sources]
    inputs = [*quantised, *node.inputs[count:]]
    group = [node, target.node]
    editor.replace(group, node.op, inputs, [target.data], node.attrs, lepton=bool(node.domain))


def _quantized(editor: Editor, node: Node, target: Quantised, name: str) -> str:
    out = editor.fresh(f"{name}_quantized", Value(target.dtype, editor.shape(name)))
    operands = [name, target.scale, target.zero_point]
    editor.add(node, "QuantizeLinear", operands, [out], target.node.attrs)
    return out
