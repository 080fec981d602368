"""Lowering rules: plan operator of each graph operator, one module per family."""

from __future__ import annotations

from lepton_rt.lower import Rule

RULES: dict[str, Rule] = {}
"""Node key ("Conv", "lepton.QLinearConv") → rule."""
