"""Rotary embeddings before the heads are moved in front of the rows, where attention reads them.

RotaryEmbedding(Transpose(x)) turns every row of every head by its position either way: on the rows
as the projection wrote them it needs no transpose, and neither does the attention behind it.
"""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Graph, Node, Value, static_dims

from .attributes import ints_attr
from .editor import Editor

__all__ = ["rotate_rows"]


def rotate_rows(graph: Graph) -> Graph:
    """Moves 4-D RotaryEmbedding before the exchange of heads and rows."""
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key == "RotaryEmbedding":
            _move(editor, node)
    return editor.finish()


def _move(editor: Editor, node: Node) -> None:
    turn = editor.producer(node.inputs[0])
    if turn is None or turn.key != "Transpose" or ints_attr(turn, "perm", []) != [0, 2, 1, 3]:
        return
    shape = editor.shape(turn.inputs[0])
    sizes = None if shape is None else static_dims(shape[2:])
    if shape is None or sizes is None:
        return
    heads, depth = sizes
    dtype = editor.dtype(node.inputs[0]) or np.dtype(np.float32)
    flat = _flat(editor, turn.inputs[0], (*shape[:2], heads * depth))
    flat = flat or _reshaped(editor, node, turn.inputs[0], [heads * depth], dtype, shape[:2])
    turned = editor.fresh(f"{node.outputs[0]}.flat", editor.value(flat))
    output = node.outputs[0]
    attrs = {**node.attrs, "num_heads": heads}
    made = editor.replace(node, "RotaryEmbedding", [flat, *node.inputs[1:]], [turned], attrs)
    rows = _reshaped(editor, made, turned, [heads, depth], dtype, shape[:2])
    _transpose(editor, made, rows, output)
    split = editor.producer(turn.inputs[0])
    editor.drop_unread(turn, split)


def _flat(editor: Editor, rows: str, shape: tuple[int | str | None, ...]) -> str:
    """What a Reshape split into heads, when it has this shape; else ""."""
    split = editor.producer(rows)
    if split is None or split.key != "Reshape" or None in shape:
        return ""
    return split.inputs[0] if editor.shape(split.inputs[0]) == shape else ""


def _reshaped(
    editor: Editor,
    at: Node,
    name: str,
    dims: list[int],
    dtype: np.dtype[np.generic],
    lead: tuple[int | str | None, ...],
) -> str:
    """The tensor with its last dimensions as `dims`."""
    target = editor.constant(np.array([0, 0, *dims], np.int64), "rows")
    made = editor.fresh(f"{name}.rows", Value(np.dtype(dtype), (*lead, *dims)))
    editor.add(at, "Reshape", [name, target], [made])
    return made


def _transpose(editor: Editor, at: Node, rows: str, output: str) -> None:
    """`output` is `rows` with the heads first; a transpose behind it is taken in."""
    for reader in editor.readers(output):
        if reader.key == "Transpose":
            after = ints_attr(reader, "perm", [3, 2, 1, 0])
            perm = [[0, 2, 1, 3][i] for i in after]
            editor.replace(reader, "Transpose", [rows], reader.outputs, {"perm": perm})
    if editor.readers(output) or editor.pinned(output):
        editor.add(at, "Transpose", [rows], [output], {"perm": [0, 2, 1, 3]})
