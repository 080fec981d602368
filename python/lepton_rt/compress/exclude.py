"""What a user's exclusions (node names, tensor names, operator types) mean in a prepared graph."""

from __future__ import annotations

from collections.abc import Collection

from lepton_rt.graph.ir import Graph, Node


def excluded_outputs(original: Graph, prepared: Graph, entries: Collection[str]) -> set[str]:
    """Outputs of the prepared graph's nodes that match, or that took in a node that matches.

    Raises ValueError when an entry matches nothing.
    """
    wanted = set(entries)
    found: set[str] = set()
    outputs: set[str] = set()
    kept = {name for node in prepared.nodes for name in node.outputs}
    readers = original.consumers()
    for graph in (original, prepared):
        for node in graph.nodes:
            hits = wanted & {node.op, node.name, *node.outputs}
            if hits:
                found |= hits
                outputs |= _surviving(node, kept, readers)
    missing = sorted(wanted - found)
    if missing:
        raise ValueError(f"exclude names nothing in the model: {', '.join(map(repr, missing))}")
    return outputs


def _surviving(node: Node, kept: set[str], readers: dict[str, list[Node]]) -> set[str]:
    """The node's outputs, or those of the node it was fused into."""
    while node.outputs:
        outputs = {name for name in node.outputs if name in kept}
        following = readers.get(node.outputs[0], [])
        if outputs or len(following) != 1:
            return outputs
        node = following[0]
    return set()
