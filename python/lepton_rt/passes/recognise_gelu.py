"""Gelu spelt out with Erf, or with Tanh as GPT-2 has it, as one operator."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from lepton_rt.graph.ir import Graph, Node

from .editor import Editor

__all__ = ["recognise_gelu"]


def recognise_gelu(graph: Graph) -> Graph:
    """Makes `Gelu` of float32 x · (1 + erf(x / √2)) / 2 and of its approximation by tanh."""
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key in ("Erf", "Tanh"):
            _recognise(editor, node)
    return editor.finish()


@dataclass
class _Inner:
    """What Erf or Tanh reads: nodes that make it of x alone."""

    x: str
    nodes: list[Node] = field(default_factory=list)


def _recognise(editor: Editor, node: Node) -> None:
    inner = _of_erf(editor, node) if node.key == "Erf" else _of_tanh(editor, node)
    if inner is None or editor.dtype(inner.x) != np.float32:
        return
    above = _with_scalar(editor, editor.only_reader(node.outputs[0]), "Add", 1.0)
    if above is None:
        return
    outer = _outer(editor, above, inner.x)
    if outer is None:
        return
    approximate = "tanh" if node.key == "Tanh" else "none"
    last, *others = outer
    editor.replace(last, "Gelu", [inner.x], last.outputs, {"approximate": approximate})
    editor.drop_unread(*others, above, node, *inner.nodes)


def _outer(editor: Editor, node: Node, x: str) -> list[Node] | None:
    """The products from 1 + erf(…) on that multiply it by x / 2, the last first."""
    nodes: list[Node] = []
    factor, has_x = 1.0, False
    while not (has_x and math.isclose(factor, 0.5)):
        product = editor.only_reader(node.outputs[0])
        if product is None or product.key != "Mul" or len(nodes) > 2:
            return None
        other = product.inputs[1 - product.inputs.index(node.outputs[0])]
        nodes.insert(0, product)
        scaled = editor.producer(other)
        scalar = editor.scalar(other)
        if scalar is not None:
            factor *= scalar
        elif other == x and not has_x:
            has_x = True
        elif scaled is not None and scaled.key == "Mul" and x in scaled.inputs and not has_x:
            by = editor.scalar(scaled.inputs[1 - scaled.inputs.index(x)])
            if by is None:
                return None
            factor, has_x = factor * by, True
            nodes.append(scaled)
        else:
            return None
        node = product
    return nodes


def _with_scalar(editor: Editor, node: Node | None, key: str, value: float) -> Node | None:
    """The node, if it is `key` of something and about this constant."""
    if node is None or node.key != key or len(node.inputs) != 2:
        return None
    found = any(_is(editor.scalar(name), value) for name in node.inputs)
    return node if found else None


def _is(scalar: float | None, value: float) -> bool:
    return scalar is not None and math.isclose(scalar, value, rel_tol=1e-5)


def _other(editor: Editor, node: Node) -> str:
    """The operand that is no scalar constant."""
    return node.inputs[1] if editor.scalar(node.inputs[0]) is not None else node.inputs[0]


def _of_erf(editor: Editor, erf: Node) -> _Inner | None:
    """x / √2."""
    node = editor.producer(erf.inputs[0])
    if node is None or editor.only_reader(node.outputs[0]) is not erf:
        return None
    if node.key == "Div":
        fits = _is(editor.scalar(node.inputs[1]), math.sqrt(2))
    else:
        fits = _with_scalar(editor, node, "Mul", math.sqrt(0.5)) is not None
    return _Inner(_other(editor, node), [node]) if fits else None


def _of_tanh(editor: Editor, tanh: Node) -> _Inner | None:
    """√(2/π) · (x + 0.044715 · x³)."""
    scaled = _with_scalar(editor, editor.producer(tanh.inputs[0]), "Mul", math.sqrt(2 / math.pi))
    if scaled is None or editor.only_reader(scaled.outputs[0]) is not tanh:
        return None
    total = editor.producer(_other(editor, scaled))
    if total is None or total.key != "Add" or editor.only_reader(total.outputs[0]) is not scaled:
        return None
    for x, term in (total.inputs, total.inputs[::-1]):
        part = _with_scalar(editor, editor.producer(term), "Mul", 0.044715)
        cube = None if part is None else editor.producer(_other(editor, part))
        if part is None or cube is None or cube.key != "Pow" or cube.inputs[0] != x:
            continue
        alone = editor.only_reader(term) is total and editor.only_reader(cube.outputs[0]) is part
        if alone and _is(editor.scalar(cube.inputs[1]), 3.0):
            return _Inner(x, [scaled, total, part, cube])
    return None
