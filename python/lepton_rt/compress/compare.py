"""Two models side by side, tensor by tensor: where does the second drift away from the first?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lepton_rt.compress.batches import Feed, make_feed
from lepton_rt.compress.qparams import signal_to_noise_db
from lepton_rt.compress.report import shorten, text_table
from lepton_rt.compress.tensors import TensorReader
from lepton_rt.errors import ModelError
from lepton_rt.graph.ir import Array, Graph, Node
from lepton_rt.loading import load_graph


@dataclass(frozen=True)
class TensorComparison:
    """One tensor of both models.

    snr_db: power of a's tensor over that of the difference. cosine: of the flattened tensors.
    """

    tensor: str
    op: str
    snr_db: float
    max_abs_error: float
    cosine: float


@dataclass(frozen=True)
class Comparison:
    """The tensors that both models have, in the order of the first."""

    tensors: list[TensorComparison]

    def __iter__(self) -> Iterator[TensorComparison]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, tensor: str) -> TensorComparison:
        for row in self.tensors:
            if row.tensor == tensor:
                return row
        raise KeyError(tensor)

    def worst(self, count: int = 5) -> list[TensorComparison]:
        """The tensors with the smallest signal-to-noise ratio, worst first."""
        return sorted(self.tensors, key=lambda row: row.snr_db)[:count]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON (an infinite ratio becomes None)."""
        rows = [asdict(row) for row in self.tensors]
        for row in rows:
            row["snr_db"] = row["snr_db"] if math.isfinite(row["snr_db"]) else None
        return {"tensors": rows}

    def __str__(self) -> str:
        header = ("tensor", "op", "SNR dB", "max |error|", "cosine")
        rows = [
            (
                shorten(row.tensor),
                row.op,
                f"{row.snr_db:.1f}",
                f"{row.max_abs_error:.4g}",
                f"{row.cosine:.6f}",
            )
            for row in self.tensors
        ]
        return text_table(header, rows)


def compare(a: Any, b: Any, x: Any) -> Comparison:
    """Runs two models on the same input and compares every tensor that both name.

    a, b: path, bytes, ModelProto, Graph or QuantizedModel. x: an array, a tuple in input order, or
    a dict by name. Where a model quantises a tensor, what its integers mean is compared. Raises
    ModelError when the models share no tensor, InputError when x does not fit them.
    """
    first, second = load_graph(a), load_graph(b)
    feed = make_feed(first, x)
    feed_b = dict(zip(second.inputs, feed.values()))
    make_feed(second, feed_b)
    names = _common(first, second)
    if not names:
        raise ModelError("the two models have no tensor name in common; nothing to compare")
    return Comparison(compare_tensors(first, second, feed, names, feed_b))


def compare_tensors(
    a: Graph, b: Graph, feed: Feed, names: Sequence[str], feed_b: Feed | None = None
) -> list[TensorComparison]:
    """Compares the named tensors of two graphs on one feed."""
    meaning_a, meaning_b = _meanings(a), _meanings(b)
    in_a = {name: meaning_a.get(name, name) for name in names}
    in_b = {name: meaning_b.get(name, name) for name in names}
    values_a = TensorReader(a, list(dict.fromkeys(in_a.values()))).read(feed)
    values_b = TensorReader(b, list(dict.fromkeys(in_b.values()))).read(feed_b or feed)
    producers = a.producers()
    rows = []
    for name in names:
        left, right = values_a[in_a[name]], values_b[in_b[name]]
        if left.shape != right.shape:
            raise ModelError(
                f"tensor {name!r} is {left.shape} in one model, {right.shape} in the other"
            )
        op = producers[name].op if name in producers else "input"
        rows.append(_compare(name, op, left, right))
    return rows


def _compare(name: str, op: str, left: Array, right: Array) -> TensorComparison:
    x, y = left.astype(np.float64).reshape(-1), right.astype(np.float64).reshape(-1)
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    cosine = float(x @ y) / lengths if lengths else float(np.array_equal(x, y))
    error = float(np.abs(x - y).max(initial=0.0))
    return TensorComparison(name, op, signal_to_noise_db(x, y), error, min(cosine, 1.0))


def _common(a: Graph, b: Graph) -> list[str]:
    """Float tensors that nodes of both graphs make, or that b quantises from an input."""
    made_b = {name for node in b.nodes for name in node.outputs} - _fused(b)
    names = [name for node in a.nodes for name in node.outputs]
    names += [name for name in a.outputs if name not in names]
    quantized_inputs = [name for name in a.inputs if name in _meanings(b)]
    skip = _fused(a)
    return quantized_inputs + [
        name for name in names if name in made_b and name not in skip and _is_float(a, b, name)
    ]


def _is_float(a: Graph, b: Graph, name: str) -> bool:
    return all(value is None or value.dtype.kind == "f" for value in (a.value(name), b.value(name)))


def _meanings(graph: Graph) -> dict[str, str]:
    """Tensor → the dequantised tensor that stands for it downstream."""
    readers = graph.consumers()
    meanings = {}
    for node in graph.nodes:
        if node.op == "QuantizeLinear" and node.inputs[0] not in meanings:
            for reader in readers.get(node.outputs[0], []):
                if reader.op == "DequantizeLinear":
                    meanings[node.inputs[0]] = reader.outputs[0]
                    break
    return meanings


def _fused(graph: Graph) -> set[str]:
    """Tensors inside a quantised operator, between its head and what is fused to it.

    Asking for one would take the operator apart.
    """
    readers = graph.consumers()
    producers = graph.producers()
    meanings = _meanings(graph)
    fused: set[str] = set()
    for name in meanings:
        node: Node | None = producers.get(name)
        while node is not None and node.op in {"Relu", "Clip", "Add"}:
            name = node.inputs[0]
            node = producers.get(name)
            alone = len(readers.get(name, [])) == 1 and name not in graph.outputs
            if node is None or node.op == "DequantizeLinear" or not alone:
                break
            fused.add(name)
    return fused
