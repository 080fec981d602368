"""Lowering rules: plan operator of each graph operator, one module per family."""

from __future__ import annotations

from lepton_rt.lower import Rule

from . import conv, elementwise, grid_sample, matmul, matmul_nbits, movement, pool, rnn

__all__ = ["RULES"]

RULES: dict[str, Rule] = {
    **conv.RULES,
    **elementwise.RULES,
    **grid_sample.RULES,
    **matmul.RULES,
    **matmul_nbits.RULES,
    **movement.RULES,
    **pool.RULES,
    **rnn.RULES,
}
"""Node key ("Conv", "lepton.QLinearConv") → rule."""
