"""Hands the spread of an activation's channels over to the weights that it is multiplied by.

Where a few channels of a tensor are far larger than the others, 256 levels over one range leave the
others hardly any. A scale for each channel moves between the factors, x W = (x / s) (s W), and
with s = max|x|^a / max|w|^(1-a) both have ranges that 8 bits can bear (SmoothQuant, Xiao et al.,
2022). The strength a is chosen for each tensor by the error that it leaves in the products
(as AWQ does for weights alone, Lin et al., 2023). Scales are powers of two, so that x / s and s W
lose nothing and the float model stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lepton_rt.compress.product_inputs import ProductInput, is_product
from lepton_rt.compress.qparams import quantize_weight
from lepton_rt.graph.ir import Constant, Graph, Node

__all__ = ["Smoothing", "find_smoothing"]

FloatArray = npt.NDArray[np.float32]

_STRENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_WORTH = 0.7  # of the squared error without smoothing: what is left must be less
_TINY = 1e-9
_LEAST = 2.0**-8  # of the median scale: a channel that calibration saw little of may still speak up


@dataclass
class Smoothing:
    """What to divide the channels of tensors by, powers of two: tensor → [channels]."""

    scales: dict[str, FloatArray] = field(default_factory=dict)

    def without(self, tensors: Iterable[str]) -> Smoothing:
        """The scales of all tensors but these."""
        left = set(tensors)
        return Smoothing({k: v for k, v in self.scales.items() if k not in left})

    def apply(self, graph: Graph) -> tuple[Graph, set[str]]:
        """The graph whose layers read x · (1 / s), by weights s · W, and the names of those."""
        result = graph.copy()
        result.nodes = []
        divided: dict[str, str] = {}
        for node in graph.nodes:
            x = node.inputs[0] if is_product(graph, node) else ""
            if x not in self.scales:
                result.nodes.append(node)
                continue
            if x not in divided:
                divided[x] = self._divide(result, x)
            node = Node(
                node.op,
                [divided[x], self._weight(result, node), *node.inputs[2:]],
                list(node.outputs),
                dict(node.attrs),
                node.domain,
                node.name,
            )
            result.nodes.append(node)
        read = {name for node in result.nodes for name in node.inputs} | set(result.outputs)
        result.constants = {k: v for k, v in result.constants.items() if k in read}
        return result, set(divided.values())

    def _divide(self, graph: Graph, x: str) -> str:
        """Appends the division of a tensor; its result."""
        factor = graph.fresh_name(f"{x}_smoothing")
        graph.constants[factor] = Constant.of(np.float32(1) / self.scales[x])
        made = graph.fresh_name(f"{x}_smoothed")
        value = graph.value(x)
        assert value is not None
        graph.values[made] = value
        graph.nodes.append(Node("Mul", [x, factor], [made], name=made))
        return made

    def _weight(self, graph: Graph, node: Node) -> str:
        """The weight of a product, multiplied."""
        scale = self.scales[node.inputs[0]]
        weight = graph.constants[node.inputs[1]].dense()
        name = graph.fresh_name(f"{node.inputs[1]}_smoothed")
        by = scale if node.attrs.get("transB", 0) else scale[:, None]
        graph.constants[name] = Constant.of(weight * by)
        return name


def find_smoothing(inputs: Mapping[str, ProductInput], bits: int, per_channel: bool) -> Smoothing:
    """Scales for the tensors whose products they make more exact. bits, per_channel: of weights."""
    smoothing = Smoothing()
    for name, seen in inputs.items():
        scale = _best_scale(seen, bits, 1 if per_channel else None)
        if scale is not None:
            smoothing.scales[name] = scale
    return smoothing


def _best_scale(seen: ProductInput, bits: int, axis: int | None) -> FloatArray | None:
    """The scales that leave the least error, where it is worth it."""
    peak = np.maximum(np.maximum(np.abs(seen.low), np.abs(seen.high)), _TINY)
    largest = np.maximum(np.abs(seen.weight).max(axis=1), _TINY)
    best, least = None, _WORTH * _error(seen, np.ones_like(peak), bits, axis)
    for strength in _STRENGTHS:
        raw = peak**strength / largest ** (1 - strength)
        raw = np.maximum(raw / np.median(raw), _LEAST)
        scale: FloatArray = np.exp2(np.rint(np.log2(raw))).astype(np.float32)
        error = _error(seen, scale, bits, axis)
        if error < least:
            best, least = scale, error
    return best


def _error(seen: ProductInput, scale: FloatArray, bits: int, axis: int | None) -> float:
    """Squared error of the products of rounded x / scale and rounded weight · scale."""
    multiplied = seen.weight * scale[:, None]
    rounded = quantize_weight("", multiplied, axis, bits=bits)
    off = np.asarray(rounded.values * rounded.scale - multiplied, np.float32)
    by_weight = (seen.rows / scale) @ off
    by_input = float(seen.static_errors(scale).sum())
    return by_input + float(np.square(by_weight).sum(dtype=np.float64))
