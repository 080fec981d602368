"""Operators that another native operator says with fewer operands."""

from __future__ import annotations

from lepton_rt.graph.ir import Node
from lepton_rt.lower import LowerContext, Rule
from lepton_rt.plan import Step

__all__ = ["RULES"]


def _cast_like(node: Node, context: LowerContext) -> Step:
    """A cast to the output's dtype; the values of the second operand do not matter."""
    return Step("Cast", node.inputs[:1], list(node.outputs))


RULES: dict[str, Rule] = {"CastLike": _cast_like}
