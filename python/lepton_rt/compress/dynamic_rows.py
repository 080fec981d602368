"""Products of a statically quantised model whose inputs one range for all rows does not suit.

Where a few rows are far larger than the others, as behind Gelu and attention in Transformers, the
others keep hardly any of the 256 levels. Such products quantise each row over a range of its own
as they run (as ZeroQuant does all of them, Yao et al., 2022), which costs time: only those are
chosen that lose much.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from lepton_rt.compress.input_moments import Moments
from lepton_rt.compress.product_inputs import ProductInput
from lepton_rt.compress.report import DynamicReport
from lepton_rt.compress.smoothing import Smoothing
from lepton_rt.compress.weights import products, quantize_dynamic
from lepton_rt.graph.ir import Graph

__all__ = ["DYNAMIC_BELOW", "choose_dynamic_rows", "quantize_rows"]

DYNAMIC_BELOW = 38.0
"""dB: evenly spread inputs, as of networks with random weights, keep 38 to 40 over one range."""

_WORTH = 0.7  # of the squared error of a static range: what is left must be less


def choose_dynamic_rows(
    graph: Graph, inputs: Mapping[str, ProductInput], smoothing: Smoothing, below: float | None
) -> list[DynamicReport]:
    """The inputs whose products are to take dynamic rows, in graph order. below None: none.

    Those that a static range, smoothed or not, leaves a signal-to-noise ratio under `below` dB in
    their products, if rows leave clearly less noise. Ratios are of each row, since what follows
    often norms each: a large one must not hide the noise in others.
    """
    if below is None:
        return []
    able = {id(node) for node in products(graph, ())}
    chosen = []
    for name, seen in inputs.items():
        if not all(id(node) in able for node in seen.nodes):
            continue
        static = seen.noise(seen.static_errors(smoothing.scales.get(name, 1.0)))
        dynamic = seen.noise(seen.dynamic_errors())
        if dynamic < _WORTH * static and _decibels(static) < below:
            outputs = [node.outputs[0] for node in seen.nodes]
            chosen.append(DynamicReport(name, outputs, _decibels(static), _decibels(dynamic)))
    return chosen


def quantize_rows(
    graph: Graph,
    outputs: Collection[str],
    per_channel: bool,
    bits: int,
    moments: Mapping[str, Moments],
) -> Graph:
    """The graph with the products of these outputs as lepton.DynamicQuantizeMatMul by rows."""
    if not outputs:
        return graph
    others = {name for node in graph.nodes for name in node.outputs} - set(outputs)
    return quantize_dynamic(graph, others, per_channel, bits, moments=moments)


def _decibels(noise: float) -> float:
    return -10 * math.log10(noise) if noise > 0 else math.inf
