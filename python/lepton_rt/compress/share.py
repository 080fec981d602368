"""Weight sharing: each layer's weights become indices into a small table of values.

The table is found by k-means over the layer's weights from evenly spaced starts (Han et al., "Deep
Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman
Coding", 2015, section 3).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lepton_rt.compress.exclude import excluded_outputs
from lepton_rt.compress.prepare import prepare
from lepton_rt.compress.report import shorten, text_table
from lepton_rt.dtypes import dtype_from_name
from lepton_rt.errors import ModelError
from lepton_rt.graph.codebooks import table_unit
from lepton_rt.graph.ir import Array, Constant, Graph, Node
from lepton_rt.loading import load_graph, save_graph

__all__ = ["SharedLayer", "SharedModel", "share_weights"]

_ROUNDS = 30
_BINS = 1 << 12  # k-means runs on a histogram of the weights


@dataclass(frozen=True)
class SharedLayer:
    """One layer: its weight, the size of its table, the power of the weights over the error's."""

    weight: str
    op: str
    entries: int
    snr_db: float


@dataclass
class SharedModel:
    """A graph whose weights are encoded by tables; goes wherever a model goes."""

    graph: Graph
    layers: list[SharedLayer] = field(default_factory=list)

    def save(self, path: str | os.PathLike[str], opset: int = 21) -> None:
        """Writes the model as `.lepton`, which keeps indices and tables, or expanded as `.onnx`.

        Raises InputError for another suffix.
        """
        save_graph(self.graph, path, opset)

    def __str__(self) -> str:
        rows = [
            (shorten(row.weight), row.op, str(row.entries), f"{row.snr_db:.1f}")
            for row in self.layers
        ]
        return text_table(("weight", "op", "entries", "SNR dB"), rows)


def share_weights(model: Any, bits: int = 4, *, exclude: Collection[str] = ()) -> SharedModel:
    """Gives the weights of every convolution and matrix product 2 ** bits values a layer to share.

    model: path, bytes, ModelProto or Graph, in float32. bits: 1 to 8. exclude: node names, tensor
    names or operator types that stay as they are. Table values are bfloat16 numbers, held as
    float32 (up to 4 bits those that are 8-bit integers times a power of two); zeros stay zero.

    The model computes with the shared values exactly. Up to 4 bits, products read the indices as
    they are, an eighth of the bytes: of any number of rows with AVX512-VNNI, of few or unknown
    ones elsewhere. Other weights become floats when a Session compiles. Raises ValueError for
    impossible bits or an exclusion that names nothing, ModelError when no layer is left or a weight
    is not finite.
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must be 1 to 8, not {bits}")
    names = [exclude] if isinstance(exclude, str) else exclude
    original = load_graph(model)
    graph = prepare(original)
    excluded = excluded_outputs(original, graph, names)
    result = graph.copy()
    rows: dict[str, SharedLayer] = {}
    for node in result.nodes:
        if not excluded.intersection(node.outputs) and _is_layer(result, node):
            _share_layer(result, node, bits, rows)
    if not rows:
        raise ModelError("the model has no convolution or matrix product left to share weights in")
    return SharedModel(result, list(rows.values()))


def _is_layer(graph: Graph, node: Node) -> bool:
    if node.key not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
        return False
    value = graph.constants.get(node.inputs[1])
    return value is not None and value.dtype == np.float32 and len(value.shape) >= 2


def _share_layer(graph: Graph, node: Node, bits: int, rows: dict[str, SharedLayer]) -> None:
    name = node.inputs[1]
    if name in rows:
        return
    weight = graph.constants[name].dense()
    if weight.size == 0:
        return
    if not np.isfinite(weight).all():
        raise ModelError(f"constant {name!r} holds NaN or infinity")
    if node.op == "Gemm" and node.attrs.get("transB", 0) and len(graph.consumers()[name]) == 1:
        # As [k, n], the form in which products read it.
        weight = np.ascontiguousarray(weight.T)
        node.attrs = {key: value for key, value in node.attrs.items() if key != "transB"}
    table = _table(weight, 1 << bits)
    indices = _nearest(weight, table)
    stored = indices.astype(dtype_from_name("uint4") if bits <= 4 else np.uint8)
    parts = {"indices": stored, "table": table}
    graph.constants[name] = Constant(weight.dtype, weight.shape, "codebook", parts)
    power = float(np.square(weight, dtype=np.float64).sum())
    error = float(np.square(table[indices] - weight, dtype=np.float64).sum())
    ratio = 10 * np.log10(power / error) if error > 0 and power > 0 else np.inf
    rows[name] = SharedLayer(name, node.op, table.size, float(ratio))


def _table(weight: Array, entries: int) -> Array:
    """At most `entries` ascending bfloat16 values, as float32; with 0 if the weights have it.

    Up to 16 that k-means finds are 8-bit integers times a power of two, for integer kernels.
    """
    distinct = np.unique(_bfloat16(weight))
    if distinct.size <= entries:
        return distinct
    has_zeros = bool((weight == 0).any())
    counts, edges = np.histogram(weight[weight != 0], bins=_BINS)
    points, mass = (edges[:-1] + edges[1:]) / 2, counts.astype(np.float64)
    centres = np.linspace(points[0], points[-1], entries - has_zeros)
    for _ in range(_ROUNDS):
        owner = np.searchsorted((centres[:-1] + centres[1:]) / 2, points)
        total = np.bincount(owner, mass, centres.size)
        moved = np.bincount(owner, mass * points, centres.size) / np.maximum(total, 1e-30)
        centres = np.where(total > 0, moved, centres)
    values = np.concatenate([centres, np.zeros(int(has_zeros))])
    if entries <= 16:
        unit = table_unit(values)
        values = np.clip(np.rint(values / unit), -127, 127) * unit
    return np.unique(_bfloat16(values.astype(np.float32)))


def _bfloat16(values: Array) -> Array:
    """Rounded to bfloat16, as float32; −0 as 0."""
    rounded: Array = values.astype(dtype_from_name("bfloat16")).astype(np.float32) + np.float32(0)
    return rounded


def _nearest(weight: Array, table: Array) -> Array:
    """Index of the nearest table value; zeros take the table's zero."""
    found: Array = np.searchsorted((table[:-1] + table[1:]) / 2, weight)
    return found
