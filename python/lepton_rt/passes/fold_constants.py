"""Evaluates, once and for all, what depends on nothing but constants and static shapes.

Budgets keep a small file from costing much: what would exceed them stays to be computed when the
model runs. Quantised weights stay quantised (DequantizeLinear is not folded), and whatever draws
random numbers is left alone.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from lepton_rt.errors import Error
from lepton_rt.graph.ir import Array, Constant, Graph, Node, Value, static_dims, subgraphs
from lepton_rt.graph.types import Scope

from .constant_ops import EVALUATORS

__all__ = ["MAX_BYTES", "MAX_SECONDS", "fold_constants"]

MAX_BYTES = 1 << 30
"""Total size of the tensors one call may make."""
MAX_SECONDS = 10.0
"""Time after which one call starts no further evaluation."""

_NEVER = {
    "DequantizeLinear",
    "Bernoulli",
    "Dropout",
    "If",
    "ImageDecoder",
    "Loop",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Scan",
    "SequenceMap",
}
# The reference evaluator is slow: operators without an evaluator here are folded only when small.
_REFERENCE_ELEMENTS = 1 << 20


def fold_constants(
    graph: Graph, max_bytes: int = MAX_BYTES, max_seconds: float = MAX_SECONDS
) -> Graph:
    """Replaces nodes whose outputs are known by constants; types must have been inferred.

    max_bytes bounds the tensors made in total, max_seconds the time in which evaluations are
    begun. Subgraphs are folded too, with what is left of the budgets.
    """
    return _Folder(max_bytes, time.monotonic() + max_seconds).fold(graph)


class _Folder:
    def __init__(self, max_bytes: int, deadline: float) -> None:
        self._bytes = max_bytes
        self._deadline = deadline

    def fold(self, graph: Graph) -> Graph:
        result = graph.copy()
        known = _known_contents(result)
        kept: list[Node] = []
        for node in result.nodes:
            outputs = self._outputs(node, result, known)
            if outputs is None:
                self._fold_subgraphs(node)
                kept.append(node)
                continue
            for name, array in zip(node.outputs, outputs):
                if name:
                    result.constants[name] = Constant.of(array)
                    result.values.pop(name, None)
        result.nodes = kept
        return result

    def _fold_subgraphs(self, node: Node) -> None:
        if any(True for _ in subgraphs(node)):
            node.attrs = {
                name: self.fold(value) if isinstance(value, Graph) else value
                for name, value in node.attrs.items()
            }

    def _outputs(self, node: Node, graph: Graph, known: dict[str, Array]) -> list[Array] | None:
        if node.domain or node.op in _NEVER or time.monotonic() > self._deadline:
            return None
        if len(node.outputs) == 1 and node.outputs[0] in known:
            return [known[node.outputs[0]]]
        if not node.inputs or any(n and n not in graph.constants for n in node.inputs):
            return None
        size = self._result_bytes(node, graph)
        if size is None or size > self._bytes:
            return None
        outputs = _evaluate(node, graph)
        if outputs is None or not _as_inferred(node, graph, outputs):
            return None
        self._bytes -= sum(array.nbytes for array in outputs)
        return outputs

    def _result_bytes(self, node: Node, graph: Graph) -> int | None:
        """Size of the outputs, known or bounded before anything is allocated."""
        total = 0
        for name in node.outputs:
            value = graph.value(name) if name else Value(np.dtype(np.int8), (0,))
            dims = None if value is None else static_dims(value.shape)
            if value is None:
                return None
            if dims is None:
                bound = _bounded_by_inputs(node, graph)
                if bound is None:
                    return None
                total += bound
            else:
                total += math.prod(dims) * value.dtype.itemsize
        return total


def _bounded_by_inputs(node: Node, graph: Graph) -> int | None:
    if node.op not in ("NonZero", "Compress", "Unique"):
        return None
    constant = graph.constants[node.inputs[0]]
    return math.prod(constant.shape) * max(1, len(constant.shape)) * 8


def _known_contents(graph: Graph) -> dict[str, Array]:
    """Integer tensors that follow from static shapes, though their inputs are no constants."""
    scope = Scope(graph.copy(), None)
    scope.run()
    known: dict[str, Array] = {}
    for name, content in scope.contents.items():
        value = scope.value(name)
        if value is None or value.dtype.kind not in "iu":
            continue
        elements = content.reshape(-1).tolist()
        if all(isinstance(e, int) for e in elements):
            array = np.empty(content.shape, value.dtype)
            limits = np.iinfo(value.dtype)
            if all(limits.min <= e <= limits.max for e in elements):
                array[...] = np.array(elements, value.dtype).reshape(content.shape)
                known[name] = array
    return known


def _evaluate(node: Node, graph: Graph) -> list[Array] | None:
    inputs = [graph.array(name) if name else None for name in node.inputs]
    evaluator = EVALUATORS.get(node.op)
    try:
        if evaluator is not None:
            with np.errstate(all="ignore"):
                outputs = evaluator(node, inputs)
            if outputs is not None:
                return outputs
        return _evaluate_by_reference(node, graph, inputs)
    except (ValueError, IndexError, TypeError, ArithmeticError, MemoryError, Error):
        # Whatever is wrong with the node is reported when it is compiled, or run.
        return None


def _evaluate_by_reference(
    node: Node, graph: Graph, inputs: list[Array | None]
) -> list[Array] | None:
    elements = sum(array.size for array in inputs if array is not None)
    values = [graph.value(name) for name in node.outputs if name]
    for value in values:
        dims = None if value is None else static_dims(value.shape)
        elements += math.prod(dims) if dims is not None else 0
    if elements > _REFERENCE_ELEMENTS:
        return None
    try:
        from onnx.reference import ReferenceEvaluator
    except ImportError:
        return None
    from lepton_rt.graph.onnx_io import export_onnx

    feeds = {n: a for n, a in zip(node.inputs, inputs) if n and a is not None}
    alone = Graph(
        inputs={name: Value(array.dtype, array.shape) for name, array in feeds.items()},
        outputs={name: _output_value(graph, name) for name in node.outputs if name},
        nodes=[node],
    )
    evaluator: Any = ReferenceEvaluator(export_onnx(alone, graph.opsets[""]))
    try:
        made = dict(zip(alone.outputs, evaluator.run(None, feeds)))
    except Exception:  # any operator may fail in its own way
        return None
    return [np.asarray(made[name]) if name else np.zeros(0) for name in node.outputs]


def _output_value(graph: Graph, name: str) -> Value:
    value = graph.value(name)
    if value is None:
        raise ValueError(f"the type of {name!r} is not known")
    return value


def _as_inferred(node: Node, graph: Graph, outputs: list[Array]) -> bool:
    """Whether the evaluator agrees with the type rules; what does not is not trusted."""
    if len(outputs) < len(node.outputs):
        return False
    for name, array in zip(node.outputs, outputs):
        value = graph.value(name) if name else None
        if value is None:
            continue
        dims = static_dims(value.shape)
        if array.dtype != value.dtype or (dims is not None and dims != array.shape):
            return False
    return True
