"""A table that only clamps its bytes, done by the integer layer before it.

Quantisers that put QuantizeLinear before every Relu leave one behind: between two equal
quantisations a Relu keeps an integer or raises it to the zero point.
"""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Array, Attr, Graph, Node

from .editor import Editor

__all__ = ["fuse_clamp"]

_LAYERS = {"lepton.QLinearConv", "lepton.QLinearMatMul"}
_Y_SCALE, _OUT_SCALE = 6, 12


def fuse_clamp(graph: Graph) -> Graph:
    """Fuses clamping `lepton.Lookup` nodes as activations."""
    editor = Editor(graph)
    for node in editor.nodes():
        layer = editor.producer(node.inputs[0]) if node.key == "lepton.Lookup" else None
        if layer is not None and layer.key in _LAYERS and not layer.attrs.get("activation"):
            _fuse(editor, layer, node)
    return editor.finish()


def _fuse(editor: Editor, layer: Node, node: Node) -> None:
    bounds = _bounds(node, editor.dtype(node.inputs[0]))
    residual = len(layer.inputs) > _OUT_SCALE and bool(layer.inputs[_OUT_SCALE])
    index = _OUT_SCALE if residual else _Y_SCALE
    if bounds is None or editor.only_reader(layer.outputs[0]) is not node:
        return
    scale = editor.array(layer.inputs[index])
    zero = editor.array(layer.inputs[index + 1])
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return
    # The activation is stated in reals; quantised again, they are these integers.
    reals = [(b - int(zero.reshape(-1)[0])) * float(scale.reshape(-1)[0]) for b in bounds]
    attrs: dict[str, Attr] = {**layer.attrs, "activation": "Clip", "activation_params": reals}
    editor.replace([layer, node], layer.op, layer.inputs, node.outputs, attrs, lepton=True)


def _bounds(node: Node, dtype: np.dtype | None) -> tuple[int, int] | None:
    """(lo, hi) when the table is min(max(x, lo), hi) over its own dtype."""
    table = node.attrs["table"]
    if dtype is None or not isinstance(table, np.ndarray) or table.dtype != dtype:
        return None
    every: Array = np.arange(256, dtype=np.uint8).view(dtype)
    low, high = int(table.min()), int(table.max())
    return (low, high) if np.array_equal(table, np.clip(every, low, high)) else None
