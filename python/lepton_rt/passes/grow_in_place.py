"""Caches that grow along an axis get that axis first: a longer one then begins with the old one.

A decoder reads `past`, appends rows and gives `present`. With the growing axis first, `present` is
`past` with new rows behind it: the caller passes the same memory for both, and only the new rows
are written.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lepton_rt.graph.ir import Graph, Node, Value

from .attributes import has_window, int_attr, ints_attr
from .editor import Editor
from .eliminate import eliminate

__all__ = ["grow_in_place"]


def grow_in_place(graph: Graph, pairs: Mapping[str, str]) -> tuple[Graph, dict[str, int]]:
    """The graph with moved axes, and the axis that grew, by input, of the caches it applies to.

    pairs: names of inputs and of the outputs that continue them. Those that are not appended to
    stay as they are. Types must have been inferred.
    """
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key == "Attention" and not has_window(node):
            _append_outside(editor, node, pairs)
    axes: dict[str, int] = {}
    for past, present in pairs.items():
        axis = _move_axis(editor, past, present)
        if axis is not None:
            axes[past] = axis
    return eliminate(editor.finish()), axes


def _input(node: Node, index: int) -> str:
    return node.inputs[index] if index < len(node.inputs) else ""


def _append_outside(editor: Editor, node: Node, pairs: Mapping[str, str]) -> None:
    """Attention with past keys as Concat and an Attention whose frontier is at the last key."""
    pasts = (_input(node, 4), _input(node, 5))
    presents = [*node.outputs[1:3], "", ""][:2]
    if "" in pasts or any(pairs.get(a) != b for a, b in zip(pasts, presents)):
        return
    ranks = [len(editor.shape(name) or ()) for name in node.inputs[:3]]
    if any(editor.dtype(name) != np.float32 for name in (*node.inputs[:3], *pasts)):
        return
    if ranks not in ([3] * 3, [4] * 3) or any(node.outputs[3:]) or _input(node, 6):
        return
    inputs, attrs = list(node.inputs[:4]), dict(node.attrs)
    q_heads, kv_heads = (int_attr(node, f"{x}_num_heads", 0) for x in ("q", "kv"))
    output = node.outputs[0]
    for index, (past, present) in enumerate(zip(pasts, presents), start=1):
        new = inputs[index]
        if ranks[0] == 3:
            new = _added(
                editor, node, "Transpose", [_split(editor, node, new, kv_heads)], perm=True
            )
        value = editor.value(present)
        editor.graph.values[present] = value or Value(np.dtype(np.float32), None)
        inputs[index] = present
        pasts_new = [past, new]
        node.outputs[index] = ""
        editor.add(node, "Concat", pasts_new, [present], {"axis": 2})
    if ranks[0] == 3:
        inputs[0] = _split(editor, node, inputs[0], q_heads)
        attrs.update(q_layout="BSHD", y_layout="BSHD")
        split = editor.fresh(f"{output}.heads", Value(np.dtype(np.float32), None))
        merge = editor.constant(np.array([0, 0, -1], np.int64), "merge")
        editor.add(node, "Reshape", [split, merge], [output])
        output = split
    attrs["bottom_right"] = 1
    for name in ("q_num_heads", "kv_num_heads", "qk_matmul_output_mode"):
        attrs.pop(name, None)
    editor.replace(node, "Attention", inputs, [output], attrs, lepton=True)


def _split(editor: Editor, at: Node, name: str, heads: int) -> str:
    """[batch, rows, heads * depth] as [batch, rows, heads, depth]."""
    shape = editor.constant(np.array([0, 0, heads, -1], np.int64), "heads")
    return _added(editor, at, "Reshape", [name, shape])


def _added(editor: Editor, at: Node, op: str, inputs: list[str], perm: bool = False) -> str:
    name = editor.fresh(f"{inputs[0]}.heads", Value(np.dtype(np.float32), None))
    editor.add(at, op, inputs, [name], {"perm": [0, 2, 1, 3]} if perm else {})
    return name


def _move_axis(editor: Editor, past: str, present: str) -> int | None:
    """Rewrites one cache; returns its axis, or None when it is not one that grows by a Concat."""
    append = editor.producer(present)
    shape, value = editor.shape(past), editor.value(present)
    if append is None or append.key != "Concat" or shape is None or value is None:
        return None
    if len(append.inputs) != 2 or append.inputs[0] != past or not editor.pinned(present):
        return None
    rank = len(shape)
    axis = int_attr(append, "axis", 0) % rank
    order = [axis, *(i for i in range(rank) if i != axis)]
    readers = [n for n in editor.readers(past) if n is not append]
    if any(n.key != "Shape" for n in readers) or editor.pinned(past):
        return None
    for reader in readers:
        _shape_of_moved(editor, reader, past, order)
    moved = tuple(shape[i] for i in order)
    editor.graph.inputs[past] = Value(value.dtype, moved)
    new = _moved(editor, append, append.inputs[1], order)
    whole = editor.shape(present)
    _named_back(editor, append, present, order)
    turned = Value(value.dtype, None if whole is None else tuple(whole[i] for i in order))
    editor.graph.outputs[present] = turned
    editor.graph.values[present] = turned
    editor.replace(append, "Concat", [past, new], [present], {"axis": 0})
    return axis


def _named_back(editor: Editor, append: Node, present: str, order: list[int]) -> None:
    """Lets the other readers of a cache see it with its axes as they were."""
    name = editor.fresh(f"{present}.rows", editor.value(present))
    for reader in editor.readers(present):
        for index, read in enumerate(reader.inputs):
            if read == present:
                editor.set_input(reader, index, name)
    inverse = [order.index(i) for i in range(len(order))]
    editor.add(append, "Transpose", [present], [name], {"perm": inverse})


def _shape_of_moved(editor: Editor, reader: Node, past: str, order: list[int]) -> None:
    """Shape of the cache as it was, from the cache as it is."""
    rank = len(order)
    wanted = list(range(rank))[int_attr(reader, "start", 0) : int_attr(reader, "end", rank)]
    value = Value(np.dtype(np.int64), (rank,))
    whole = editor.fresh(f"{past}.shape", value)
    editor.add(reader, "Shape", [past], [whole])
    index = editor.constant(np.array([order.index(i) for i in wanted], np.int64), "axes")
    editor.replace(reader, "Gather", [whole, index], reader.outputs, {"axis": 0})


def _moved(editor: Editor, at: Node, name: str, order: list[int]) -> str:
    """The new rows with the growing axis first; a transpose before is taken in."""
    shape, value = editor.shape(name), editor.value(name)
    turn = editor.producer(name)
    source, perm = name, list(order)
    if turn is not None and turn.key == "Transpose":
        before = ints_attr(turn, "perm", list(range(len(order)))[::-1])
        source, perm = turn.inputs[0], [before[i] for i in order]
    dtype = np.dtype(np.float32) if value is None else value.dtype
    made = editor.fresh(
        f"{name}.new", Value(dtype, None if shape is None else tuple(shape[i] for i in order))
    )
    editor.add(at, "Transpose", [source], [made], {"perm": perm})
    return made
