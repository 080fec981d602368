"""GridSample: the kernel must know the number of spatial dimensions when it is chosen."""

from __future__ import annotations

from lepton_rt.graph.ir import Node
from lepton_rt.lower import LowerContext, Rule, pass_through
from lepton_rt.plan import Step

__all__ = ["RULES"]


def _grid_sample(node: Node, context: LowerContext) -> Step:
    rank = context.value(node.inputs[0]).rank
    step = pass_through(node)
    step.attrs["spatial_dims"] = 0 if rank is None else rank - 2
    return step


RULES: dict[str, Rule] = {"GridSample": _grid_sample}
