"""Topological order of a graph's nodes."""

from __future__ import annotations

import heapq

from lepton_rt.errors import ModelError
from lepton_rt.graph.ir import Graph, Node, node_reads, subgraphs


def sort_nodes(graph: Graph, outer: frozenset[str] = frozenset()) -> None:
    """Puts nodes (and those of subgraphs) in topological order, in place, keeping theirs if valid.

    `outer` are the names a subgraph may capture. Raises ModelError for a tensor made twice, one
    that nothing makes, or a cycle.
    """
    known = set(graph.inputs) | set(graph.constants)
    producer: dict[str, int] = {}
    for i, node in enumerate(graph.nodes):
        for name in node.outputs:
            if name and (name in producer or name in known):
                raise ModelError(f"the tensor {name!r} is defined twice")
            if name:
                producer[name] = i
    visible = outer | known | producer.keys()
    for node in graph.nodes:
        for subgraph in subgraphs(node):
            sort_nodes(subgraph, visible)
    waits, users = _dependencies(graph.nodes, producer, visible)
    graph.nodes[:] = _schedule(graph.nodes, waits, users)
    for name in graph.outputs:
        if name not in visible:
            raise ModelError(f"nothing makes the graph output {name!r}")


def _dependencies(
    nodes: list[Node], producer: dict[str, int], visible: frozenset[str]
) -> tuple[list[int], list[list[int]]]:
    waits = [0] * len(nodes)
    users: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        for name in set(node_reads(node)):
            if name in producer:
                users[producer[name]].append(i)
                waits[i] += 1
            elif name not in visible:
                label = f" (node {node.name!r})" if node.name else ""
                raise ModelError(f"{node.op}{label} reads {name!r}, which nothing makes")
    return waits, users


def _schedule(nodes: list[Node], waits: list[int], users: list[list[int]]) -> list[Node]:
    # The ready node that was written first goes first: a sorted graph stays as it is.
    ready = [i for i, count in enumerate(waits) if count == 0]
    heapq.heapify(ready)
    order: list[Node] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(nodes[i])
        for user in users[i]:
            waits[user] -= 1
            if waits[user] == 0:
                heapq.heappush(ready, user)
    if len(order) != len(nodes):
        stuck = next(node for node, count in zip(nodes, waits, strict=True) if count > 0)
        raise ModelError(f"the graph has a cycle through {stuck.op} {stuck.name!r}")
    return order
