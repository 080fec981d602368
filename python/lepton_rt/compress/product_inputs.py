"""Inputs of matrix products as calibration shows them, and what rounding them costs those."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_rt.compress.batches import sized_feeds
from lepton_rt.compress.placement import Placement
from lepton_rt.compress.qparams import affine_parameters
from lepton_rt.compress.tensors import TensorReader
from lepton_rt.graph.ir import Graph, Node

__all__ = ["BATCHES", "ProductInput", "is_product", "observe_product_inputs"]

BATCHES = 16
"""As many of the first batches are looked at."""

FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_ROWS = 256  # of a tensor that errors are measured on
_LEAST = 1e-4  # of the rows' mean power: 1 % of their size
_TINY = 1e-30


@dataclass
class ProductInput:
    """A tensor, [..., k], that only products read, and they by constant weights.

    nodes: those. low, high: extents of its channels, [k]. rows: some of it, [rows, k]. weight: all
    columns that it is multiplied by, [k, n].
    """

    nodes: list[Node]
    low: FloatArray
    high: FloatArray
    rows: FloatArray
    weight: FloatArray

    def static_errors(self, scale: FloatArray | float = 1.0) -> Doubles:
        """Squared error of each row's products, with x / scale rounded over calibration's range."""
        low, high = float((self.low / scale).min()), float((self.high / scale).max())
        step, zero_point = affine_parameters(low, high, 0, 255)
        divided = self.rows / scale
        level = np.clip(np.rint(divided / step), -zero_point, 255 - zero_point)
        return self._powers((level * step - divided) * scale)

    def dynamic_errors(self) -> Doubles:
        """Squared error of each row's products, with each row rounded over its own range."""
        low = np.minimum(self.rows.min(axis=1, keepdims=True), 0)
        high = np.maximum(self.rows.max(axis=1, keepdims=True), 0)
        step = np.where(high > low, (high - low) / np.float32(255), np.float32(1))
        zero_point = np.rint(-low / step)
        level = np.clip(np.rint(self.rows / step), -zero_point, 255 - zero_point)
        return self._powers(level * step - self.rows)

    def noise(self, errors: Doubles) -> float:
        """Mean over rows of their squared error over their products' power.

        Rows of next to no power count as if they had a little.
        """
        powers = self._powers(self.rows)
        return float(np.mean(errors / np.maximum(powers, _LEAST * powers.mean() + _TINY)))

    def _powers(self, rows: npt.NDArray[Any]) -> Doubles:
        """Sum of the squares of each row's products."""
        products = rows.astype(np.float32) @ self.weight
        return np.asarray(np.square(products).sum(axis=1, dtype=np.float64))


def is_product(graph: Graph, node: Node) -> bool:
    """A product of rows by a constant matrix."""
    if node.key not in ("MatMul", "Gemm") or node.attrs.get("transA", 0):
        return False
    weight = graph.constants.get(node.inputs[1])
    return weight is not None and len(weight.shape) == 2 and weight.dtype == np.float32


def observe_product_inputs(
    graph: Graph, placement: Placement, batches: Iterable[Any] | Any
) -> dict[str, ProductInput]:
    """The tensors that only products read after they are quantised, by name.

    They come from float operators, or from Gelu: what else lies between layers runs on integers
    and would not any more. graph: a prepared float graph. placement: of it. batches: as for
    calibration; few are enough. Raises InputError for batches that do not fit the graph.
    """
    readers = _candidates(graph, placement)
    found: dict[str, ProductInput] = {}
    if not readers:
        return found
    reader = TensorReader(graph, list(readers))
    parts: dict[str, list[FloatArray]] = {name: [] for name in readers}
    rng = np.random.default_rng(0)
    for feed in sized_feeds(graph, batches):
        for part in reader.slices(feed):
            for name, array in reader.read(part).items():
                rows = array.reshape(-1, array.shape[-1])
                if len(rows) == 0 or not np.isfinite(rows).all():
                    continue  # calibration has the word for it
                low, high = rows.min(axis=0), rows.max(axis=0)
                if name not in found:
                    weight = np.concatenate([_columns(graph, n) for n in readers[name]], axis=1)
                    found[name] = ProductInput(readers[name], low, high, rows[:0], weight)
                one = found[name]
                one.low, one.high = np.minimum(one.low, low), np.maximum(one.high, high)
                # At random, since rows at even distances may all be first tokens.
                parts[name].append(rows[rng.permutation(len(rows))[: _ROWS // BATCHES]])
    for name, one in found.items():
        one.rows = np.concatenate(parts[name])[: 2 * _ROWS]
    return found


def _columns(graph: Graph, node: Node) -> FloatArray:
    """[k, n]."""
    weight: FloatArray = graph.constants[node.inputs[1]].dense()
    return weight.T if node.attrs.get("transB", 0) else weight


def _candidates(graph: Graph, placement: Placement) -> dict[str, list[Node]]:
    """Tensors that only products read after they are quantised → those."""
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
        if is_free and name not in graph.inputs and all(is_product(graph, n) for n in nodes):
            found[name] = nodes
    return found
