"""`Attention` without masks that hide nothing, such as a constant True expanded to a batch."""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Graph, Node

from .editor import Editor
from .eliminate import eliminate

__all__ = ["drop_masks"]

_ATTENTION = {"Attention", "lepton.Attention", "lepton.DynamicQuantizeAttention"}
_MOVES = {
    *("Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice"),
    *("Gather", "Tile"),
}
"""Operators whose result has no other values than their first input."""
_DEPTH = 16
"""Nodes that are looked through for the values of a mask."""


def drop_masks(graph: Graph) -> Graph:
    """Removes masks that are True everywhere, or 0 where they are added."""
    editor = Editor(graph)
    for node in editor.nodes():
        mask = node.inputs[3] if len(node.inputs) > 3 else ""
        if node.key not in _ATTENTION or not mask or not _covers_all_keys(editor, node):
            continue
        dtype, value = editor.dtype(mask), _uniform(editor, mask, _DEPTH)
        if value is None or dtype is None or value != (1.0 if dtype == np.bool_ else 0.0):
            continue
        maker = editor.producer(mask)
        editor.set_input(node, 3, "")
        while node.inputs[-1] == "":
            node.inputs.pop()
        editor.drop_unread(maker)
    return eliminate(editor.finish())


def _covers_all_keys(editor: Editor, node: Node) -> bool:
    """Whether the mask has an entry for every key: those beyond its end would be hidden."""
    if any(node.inputs[4:6]):
        return False
    mask, keys = editor.shape(node.inputs[3]), editor.shape(node.inputs[1])
    if not mask or keys is None or node.attrs.get("k_layout", "BHSD") != "BHSD":
        return False
    return mask[-1] is not None and mask[-1] == keys[-2]


def _uniform(editor: Editor, name: str, depth: int) -> float | None:
    """The value that every element of a tensor has; None where that is not known."""
    array = editor.array(name)
    if array is not None:
        first = array.reshape(-1)[:1]
        return float(first[0]) if first.size and (array == first[0]).all() else None
    node = editor.producer(name)
    if node is None or depth == 0:
        return None
    if node.key in _MOVES:
        return _uniform(editor, node.inputs[0], depth - 1)
    if node.key == "Where":
        condition = _uniform(editor, node.inputs[0], depth - 1)
        if condition is not None:
            return _uniform(editor, node.inputs[1 if condition else 2], depth - 1)
    return None
