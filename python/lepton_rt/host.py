"""Host steps: operators without a native kernel, run by the onnx package's reference evaluator."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lepton_rt.custom import find_op, run_custom
from lepton_rt.errors import ModelError, as_model_error
from lepton_rt.graph.ir import Array, Graph, Node, Value, node_reads, subgraphs
from lepton_rt.host_ops import HOST_OPS
from lepton_rt.lower import HostStep
from lepton_rt.objects import ObjectTable


class HostRunner:
    """What the native executor calls for host steps. Evaluators are made on first use."""

    def __init__(self, steps: Sequence[HostStep], objects: ObjectTable) -> None:
        self._steps = list(steps)
        self._objects = objects
        self._evaluators: dict[int, Any] = {}
        self._custom = [find_op(step.node.domain, step.node.op) for step in steps]

    def operands(self, index: int) -> tuple[int, int]:
        """(number of inputs, number of outputs) of host step `index`."""
        node = self._steps[index].node
        reads = node_reads(node) if any(subgraphs(node)) else node.inputs
        return len(reads), len(node.outputs)

    def run(self, index: int, inputs: list[Array | None]) -> list[Array | None]:
        """Evaluates host step `index`; None stands for an omitted operand."""
        node, graph = self._steps[index].node, self._steps[index].graph
        names = node_reads(node) if any(subgraphs(node)) else node.inputs
        if any(_keeps(graph, name) for name in node.outputs):
            # An object outlives the step, what it is made of must too.
            inputs = [None if array is None else array.copy() for array in inputs]
        feeds = {
            name: self._given(graph, name, array) for name, array in zip(names, inputs) if name
        }
        custom = self._custom[index]
        if custom is not None:
            operands = [feeds.get(name) for name in names]
            made_here = zip(node.outputs, run_custom(custom, node, operands))
            return [self._typed(graph, name, array) if name else None for name, array in made_here]
        own = HOST_OPS.get(node.key)
        if own is not None:
            made_here = zip(node.outputs, [own([feeds.get(name) for name in names])])
            return [self._typed(graph, name, result) for name, result in made_here]
        wanted = [name for name in node.outputs if name]
        with as_model_error(f'{node.key} "{node.name}" failed in the reference evaluator'):
            if index not in self._evaluators:
                self._evaluators[index] = _evaluator(node, graph)
            made = dict(zip(wanted, self._evaluators[index].run(wanted, feeds)))
        return [self._typed(graph, name, made[name]) if name else None for name in node.outputs]

    def _given(self, graph: Graph, name: str, array: Array | None) -> Any:
        """What a step gets of an operand: itself, or the object behind its handle."""
        value = graph.value(name)
        if value is None or not value.is_object:
            return array
        constant = graph.array(name)
        if constant is not None:
            return constant
        return None if array is None else self._objects.get(array)

    def _typed(self, graph: Graph, name: str, result: Any) -> Array:
        value = graph.value(name)
        if value is not None and value.is_object:
            return self._objects.keep(result if value.kind else np.asarray(result, object))
        array = np.asarray(result)
        return array if value is None else array.astype(value.dtype, copy=False)


def _keeps(graph: Graph, name: str) -> bool:
    value = graph.value(name) if name else None
    return value is not None and value.is_object


def _evaluator(node: Node, graph: Graph) -> Any:
    try:
        from onnx.reference import ReferenceEvaluator
    except ImportError:  # pragma: no cover - onnx is a base dependency
        raise ModelError(
            f"operator {node.key} runs through the onnx package: install onnx"
        ) from None
    from lepton_rt.graph.onnx_export import build_model

    model = build_model(single_node_graph(node, graph), graph.opsets[""], checked=False)
    return ReferenceEvaluator(model)


def single_node_graph(node: Node, graph: Graph) -> Graph:
    """A graph of just this node; what it reads are inputs, with their known types."""

    def typed(name: str) -> Value:
        value = graph.value(name)
        if value is None:
            raise ModelError(f'the type of tensor "{name}" is not known')
        return replace(value, shape=None if value.shape is None else (None,) * len(value.shape))

    return Graph(
        name=node.name or node.op,
        inputs={name: typed(name) for name in node_reads(node)},
        outputs={name: typed(name) for name in node.outputs if name},
        nodes=[node],
        opsets=dict(graph.opsets),
    )


def warn_about(steps: Sequence[HostStep]) -> None:
    """One warning that names the operators that run on the host, and why.

    Custom operators go without: they run where their author wanted.
    """
    steps = [step for step in steps if find_op(step.node.domain, step.node.op) is None]
    if not steps:
        return
    reasons: dict[str, str] = {}
    for step in steps:
        reasons.setdefault(step.node.key, step.reason)
    listed = "; ".join(f"{key} ({reason})" for key, reason in sorted(reasons.items()))
    warnings.warn(
        f"{len(steps)} of the model's steps have no native kernel and run through the slow "
        f"reference evaluator: {listed}",
        RuntimeWarning,
        stacklevel=4,
    )
