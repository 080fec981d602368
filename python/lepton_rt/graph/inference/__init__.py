"""Type rules, one per operator: key ("Conv", "lepton.MatMul") → rule."""

from __future__ import annotations

from lepton_rt.graph.inference import (
    elementwise,
    layers,
    lepton,
    movement,
    quantized,
    reduction,
    sequence,
    shapes,
    windows,
)
from lepton_rt.graph.inference.context import Context, Rule

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **shapes.RULES,
    **movement.RULES,
    **reduction.RULES,
    **windows.RULES,
    **layers.RULES,
    **sequence.RULES,
    **quantized.RULES,
    **lepton.RULES,
}

__all__ = ["RULES", "Context", "Rule"]
