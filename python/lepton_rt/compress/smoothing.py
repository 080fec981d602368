"""Hands the spread of an activation's channels over to the weights that it is multiplied by.

Where a few channels of a tensor are far larger than the others, 256 levels over one range leave the
others hardly any. A scale for each channel moves between the factors, x W = (x / s) (s W), and
with s = max|x|^a / max|w|^(1-a) both have ranges that 8 bits can bear (SmoothQuant, Xiao et al.,
2022). The strength a is chosen for each tensor by the error that it leaves in the products
(as AWQ does for weights alone, Lin et al., 2023). Scales are powers of two, so that x / s and s W
lose nothing and the float model stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_rt.compress.batches import Feed, sized_feeds
from lepton_rt.compress.placement import Placement
from lepton_rt.compress.qparams import affine_parameters, quantize_weight
from lepton_rt.compress.tensors import TensorReader
from lepton_rt.graph.ir import Constant, Graph, Node

__all__ = ["BATCHES", "Smoothing", "find_smoothing"]

BATCHES = 16
"""As many of the first batches are looked at."""

FloatArray = npt.NDArray[np.float32]

_STRENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_ROWS = 256  # of a tensor that errors are measured on
_WORTH = 0.7  # of the squared error without smoothing: what is left must be less
_TINY = 1e-9
_LEAST = 2.0**-8  # of the median scale: a channel that calibration saw little of may still speak up


@dataclass
class Smoothing:
    """What to divide the channels of tensors by, powers of two: tensor → [channels]."""

    scales: dict[str, FloatArray] = field(default_factory=dict)

    def apply(self, graph: Graph) -> tuple[Graph, set[str]]:
        """The graph whose layers read x · (1 / s), by weights s · W, and the names of those."""
        result = graph.copy()
        result.nodes = []
        divided: dict[str, str] = {}
        for node in graph.nodes:
            x = node.inputs[0] if _is_product(graph, node) else ""
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


def find_smoothing(
    graph: Graph, placement: Placement, batches: Iterable[Any] | Any, bits: int, per_channel: bool
) -> Smoothing:
    """Scales for the tensors whose products they make more exact.

    graph: a prepared float graph. placement: of it. batches: as for calibration; few are enough.
    bits, per_channel: of the weights. Raises InputError for batches that do not fit the graph.
    """
    readers = _candidates(graph, placement)
    smoothing = Smoothing()
    if not readers:
        return smoothing
    for x, seen in _observe(graph, list(readers), sized_feeds(graph, batches)).items():
        weights = [_columns(graph, node) for node in readers[x]]
        scale = _best_scale(seen, weights, bits, 1 if per_channel else None)
        if scale is not None:
            smoothing.scales[x] = scale
    return smoothing


def _is_product(graph: Graph, node: Node) -> bool:
    """A product of rows by a constant matrix."""
    if node.key not in ("MatMul", "Gemm") or node.attrs.get("transA", 0):
        return False
    weight = graph.constants.get(node.inputs[1])
    return weight is not None and len(weight.shape) == 2 and weight.dtype == np.float32


def _columns(graph: Graph, node: Node) -> FloatArray:
    """[k, n]."""
    weight: FloatArray = graph.constants[node.inputs[1]].dense()
    return weight.T if node.attrs.get("transB", 0) else weight


def _candidates(graph: Graph, placement: Placement) -> dict[str, list[Node]]:
    """Tensors that only products read after they are quantised → those.

    They come from float operators, or from Gelu: what else lies between layers runs on integers
    and would not any more.
    """
    heads = {id(unit.head): unit for unit in placement.units}
    inside = {name: unit for unit in placement.units for name in unit.outputs}
    read: dict[str, list[Node]] = {}
    for node in graph.nodes:
        unit = heads.get(id(node))
        for name in unit.data if unit else ():
            read.setdefault(name, []).append(node)
    found = {}
    for name, nodes in read.items():
        maker = inside.get(placement.roots[name])
        is_free = maker is None or maker.head.op == "Gelu"
        if is_free and name not in graph.inputs and all(_is_product(graph, n) for n in nodes):
            found[name] = nodes
    return found


@dataclass
class _Seen:
    """Extents of a tensor's channels, and some of its rows."""

    low: FloatArray
    high: FloatArray
    rows: list[FloatArray]


def _observe(graph: Graph, names: Sequence[str], feeds: Iterable[Feed]) -> dict[str, _Seen]:
    reader = TensorReader(graph, names)
    seen: dict[str, _Seen] = {}
    for feed in feeds:
        for part in reader.slices(feed):
            for name, array in reader.read(part).items():
                rows = array.reshape(-1, array.shape[-1])
                if len(rows) == 0 or not np.isfinite(rows).all():
                    continue  # calibration has the word for it
                low, high = rows.min(axis=0), rows.max(axis=0)
                one = seen.setdefault(name, _Seen(low, high, []))
                one.low, one.high = np.minimum(one.low, low), np.maximum(one.high, high)
                step = -(-len(rows) * BATCHES // _ROWS)
                one.rows.append(rows[:: max(step, 1)].copy())
    return seen


def _best_scale(
    seen: _Seen, weights: Sequence[FloatArray], bits: int, axis: int | None
) -> FloatArray | None:
    """The scales that leave the least error, where it is worth it."""
    x, weight = np.concatenate(seen.rows)[: 2 * _ROWS], np.concatenate(weights, axis=1)
    peak = np.maximum(np.maximum(np.abs(seen.low), np.abs(seen.high)), _TINY)
    largest = np.maximum(np.abs(weight).max(axis=1), _TINY)
    best, least = None, _WORTH * _error(x, seen, weight, np.ones_like(peak), bits, axis)
    for strength in _STRENGTHS:
        raw = peak**strength / largest ** (1 - strength)
        raw = np.maximum(raw / np.median(raw), _LEAST)
        scale: FloatArray = np.exp2(np.rint(np.log2(raw))).astype(np.float32)
        error = _error(x, seen, weight, scale, bits, axis)
        if error < least:
            best, least = scale, error
    return best


def _error(
    x: FloatArray, seen: _Seen, weight: FloatArray, scale: FloatArray, bits: int, axis: int | None
) -> float:
    """Squared error of the products of rounded x / scale and rounded weight · scale."""
    low, high = float((seen.low / scale).min()), float((seen.high / scale).max())
    step, zero_point = affine_parameters(low, high, 0, 255)
    divided, multiplied = x / scale, weight * scale[:, None]
    level = np.clip(np.rint(divided / step), -zero_point, 255 - zero_point)
    lost = np.asarray((level * step - divided) * scale, np.float32)
    rounded = quantize_weight("", multiplied, axis, bits=bits)
    off = rounded.values * rounded.scale - multiplied
    by_x, by_weight = lost @ weight, divided @ np.asarray(off, np.float32)
    return float(np.square(by_x).sum(dtype=np.float64) + np.square(by_weight).sum(dtype=np.float64))
