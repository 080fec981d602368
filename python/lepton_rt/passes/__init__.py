"""Graph passes and their order."""

from __future__ import annotations

from lepton_rt.graph.ir import Graph


def legalise(graph: Graph) -> Graph:
    """What lowering needs and nothing more: every node stays a step of its own."""
    return graph


def optimise(graph: Graph) -> Graph:
    """All passes in order; Session compiles what this returns."""
    return legalise(graph)
