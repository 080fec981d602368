"""`Attention` takes over what stands around it: the transposes of its operands and result, repeated
key and value heads, expanded masks.
"""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Graph, Node

from .attributes import has_window, int_attr, ints_attr
from .editor import Editor
from .eliminate import eliminate

__all__ = ["fuse_attention"]

_ATTENTION = {"Attention", "lepton.Attention", "lepton.DynamicQuantizeAttention"}
_LAYOUTS: dict[tuple[int, ...], str] = {(0, 2, 1, 3): "BSHD", (1, 2, 0, 3): "SBHD"}
"""Permutation to batch, heads, rows, depth → layout of what is permuted."""


def fuse_attention(graph: Graph) -> Graph:
    """Makes `lepton.Attention` of 4-D float32 `Attention`, with as much around it as it can do.

    `lepton.DynamicQuantizeAttention` takes in the same.
    """
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key in _ATTENTION and _is_plain(editor, node):
            _grouped_heads(editor, node)
            _smaller_mask(editor, node)
            _layouts(editor, node)
    return eliminate(editor.finish())


def _is_plain(editor: Editor, node: Node) -> bool:
    if has_window(node):
        return False
    shapes = [editor.shape(name) for name in node.inputs[:3]]
    if any(shape is None or len(shape) != 4 for shape in shapes):
        return False
    return all(editor.dtype(name) == np.float32 for name in node.inputs[:3])


def _input(node: Node, index: int) -> str:
    return node.inputs[index] if index < len(node.inputs) else ""


def _grouped_heads(editor: Editor, node: Node) -> None:
    """Keys and values that are repeated for several query heads are read from one copy."""
    if _input(node, 4) or any(node.outputs[1:]):
        return
    sources = [_repeated(editor, name) for name in node.inputs[1:3]]
    if sources[0] is None or sources[1] is None:
        return
    heads = {(editor.shape(name) or (0, 0))[1] for name in sources if name}
    if len(heads) != 1:
        return
    for index, source in enumerate(sources):
        old = editor.producer(node.inputs[1 + index])
        editor.set_input(node, 1 + index, source or "")
        editor.drop_unread(old)


def _repeated(editor: Editor, name: str) -> str | None:
    """x of Reshape(Expand(Unsqueeze(x, 2))) that repeats every head of a 4-D x in place."""
    merge = editor.producer(name)
    if merge is None or merge.key != "Reshape":
        return None
    repeat = editor.producer(merge.inputs[0])
    if repeat is None or repeat.key != "Expand":
        return None
    split = editor.producer(repeat.inputs[0])
    if split is None or split.key not in ("Unsqueeze", "Reshape"):
        return None
    before, after = editor.shape(split.inputs[0]), editor.shape(name)
    one, many = editor.shape(split.outputs[0]), editor.shape(repeat.outputs[0])
    if before is None or after is None or one is None or many is None:
        return None
    if (len(before), len(one), len(many), len(after)) != (4, 5, 5, 4):
        return None
    heads, times = before[1], many[2]
    if not isinstance(heads, int) or not isinstance(times, int) or times < 1:
        return None
    if tuple(one) != (*before[:2], 1, *before[2:]) or after[1] != heads * times:
        return None
    same = all(many[i] == one[i] for i in (0, 1, 3, 4)) and None not in one
    rest = (after[0], after[2], after[3]) == (before[0], before[2], before[3])
    return split.inputs[0] if same and rest else None


def _smaller_mask(editor: Editor, node: Node) -> None:
    """A mask is broadcast by the kernel; one of 0 and −∞ is read as booleans."""
    mask = _input(node, 3)
    maker = editor.producer(mask) if mask else None
    if maker is not None and maker.key == "Expand":
        small, whole = editor.shape(maker.inputs[0]), editor.shape(mask)
        fits = small is not None and whole is not None and 1 <= len(small) <= len(whole) <= 4
        if fits and small is not None and small[-1] != 1:
            editor.set_input(node, 3, maker.inputs[0])
            editor.drop_unread(maker)
            maker = editor.producer(node.inputs[3])
    if maker is not None and maker.key == "Where":
        kept, masked = (editor.scalar(name) for name in maker.inputs[1:])
        if kept == 0 and masked is not None and np.isneginf(masked):
            editor.set_input(node, 3, maker.inputs[0])
            editor.drop_unread(maker)


def _layouts(editor: Editor, node: Node) -> None:
    """Reads operands and writes the result with the heads beside each other in every row."""
    attrs = dict(node.attrs)
    operands = list(node.inputs)
    turned: list[Node] = []
    for index, role in enumerate("qkv"):
        turn = editor.producer(operands[index])
        layout = _layout_before(turn)
        if turn is not None and layout and attrs.get(f"{role}_layout", "BHSD") == "BHSD":
            operands[index] = turn.inputs[0]
            attrs[f"{role}_layout"] = layout
            turned.append(turn)
    outputs, replaced = list(node.outputs), [node]
    after = editor.only_reader(outputs[0])
    attrs.setdefault("y_layout", "BHSD")
    if after is not None and attrs["y_layout"] == "BHSD" and _layout_before(after) == "BSHD":
        outputs[0] = after.outputs[0]
        attrs["y_layout"] = "BSHD"
        replaced.append(after)
    if int_attr(node, "qk_matmul_output_mode", 0) == 0:
        attrs.pop("qk_matmul_output_mode", None)
    editor.replace(replaced, node.op, operands, outputs, attrs, lepton=True)
    editor.drop_unread(*turned)


def _layout_before(node: Node | None) -> str | None:
    """Layout of what a Transpose turns into batch, heads, rows, depth."""
    if node is None or node.key != "Transpose":
        return None
    return _LAYOUTS.get(tuple(ints_attr(node, "perm", [])))
