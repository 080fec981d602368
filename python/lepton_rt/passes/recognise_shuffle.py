"""Channel shuffles, spelt Reshape → Transpose → Reshape, as one Gather along the channels.

Splitting the channels into groups and exchanging the two axes ties the tensor to channels-first
layout; a Gather by a constant permutation works in either.
"""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Graph, Node, static_dims

from .attributes import ints_attr
from .editor import Editor

__all__ = ["recognise_shuffle"]


def recognise_shuffle(graph: Graph) -> Graph:
    """Replaces channel shuffles of N, C, spatial… tensors."""
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key == "Transpose":
            _recognise(editor, node)
    return editor.finish()


def _recognise(editor: Editor, node: Node) -> None:
    before = editor.producer(node.inputs[0])
    after = editor.only_reader(node.outputs[0])
    if before is None or after is None or before.key != "Reshape" or after.key != "Reshape":
        return
    if editor.only_reader(before.outputs[0]) is not node:
        return
    split = static_dims((editor.shape(before.outputs[0]) or ())[1:])
    inner = static_dims((editor.shape(before.inputs[0]) or ())[1:])
    final = static_dims((editor.shape(after.outputs[0]) or ())[1:])
    if not split or not inner or inner != final or len(split) != len(inner) + 1:
        return
    groups, size = split[:2]
    if groups * size != inner[0] or split[2:] != inner[1:] or len(inner) < 2:
        return
    rank = len(split) + 1
    if ints_attr(node, "perm", []) != [0, 2, 1, *range(3, rank)]:
        return
    order = np.arange(inner[0], dtype=np.int64).reshape(groups, size).T.reshape(-1)
    indices = editor.constant(order, "channel_order")
    source = before.inputs[0]
    editor.replace([before, node, after], "Gather", [source, indices], after.outputs, {"axis": 1})
