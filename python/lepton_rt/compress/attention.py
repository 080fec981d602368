"""Attention between quantised layers, rounded to 8 bits as it runs."""

from __future__ import annotations

from collections.abc import Collection

from lepton_rt.graph.ir import LEPTON_DOMAIN, Graph, Node
from lepton_rt.graph.types import infer_types
from lepton_rt.passes.attributes import has_window
from lepton_rt.passes.recognise_attention import recognise_attention

__all__ = ["quantize_attention"]

_OP = "DynamicQuantizeAttention"


def quantize_attention(graph: Graph, excluded: Collection[str] = ()) -> Graph:
    """`Attention`, and what spells it out, as `lepton.DynamicQuantizeAttention` over float32.

    graph: a quantised graph. excluded: outputs of operators to leave in float; an attention with
    one of them in it stays. So do attentions with a state, a window, softcap or several outputs.
    Other tensors that are still computed keep their names.
    """
    held = graph.copy()
    value_of = held.value
    # An output of the graph is not swallowed by an attention.
    pinned = {name: value for name in excluded if (value := value_of(name)) is not None}
    held.outputs = {**held.outputs, **{n: v for n, v in pinned.items() if n not in held.outputs}}
    made = recognise_attention(infer_types(held))
    made.outputs = dict(graph.outputs)
    if not any(_is_plain(node, excluded) for node in made.nodes):
        return graph
    made.nodes = [_rounded(node) if _is_plain(node, excluded) else node for node in made.nodes]
    return made


def _is_plain(node: Node, excluded: Collection[str]) -> bool:
    if node.key != "Attention" or any(node.inputs[4:]) or any(node.outputs[1:]):
        return False
    return not (has_window(node) or node.attrs.get("softcap") or node.outputs[0] in excluded)


def _rounded(node: Node) -> Node:
    attrs = {k: v for k, v in node.attrs.items() if k not in ("softcap", "qk_matmul_output_mode")}
    return Node(_OP, list(node.inputs), list(node.outputs), attrs, LEPTON_DOMAIN, node.name)
