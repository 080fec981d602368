"""Attention reads and writes rows of all heads, [batch, rows, heads · depth], as they lie.

A Reshape that only splits rows into heads before it, or merges them after it, costs no time but
stands between steps that belong together (`row_blocks`).
"""

from __future__ import annotations

from typing import Any

from lepton_rt.graph.ir import Graph
from lepton_rt.plan import Plan, Step

__all__ = ["absorb_heads", "splits_rows"]

_ATTENTION = {"lepton.Attention", "lepton.DynamicQuantizeAttention", "lepton.QLinearAttention"}
_ROLES = (("q", "q_num_heads"), ("k", "kv_num_heads"), ("v", "kv_num_heads"))

Dims = tuple[Any, ...]


def absorb_heads(plan: Plan, graph: Graph) -> Plan:
    """The plan without such Reshapes. graph: what it was lowered from, for the shapes."""
    makers = {out: step for step in plan.steps for out in step.outputs}
    readers: dict[str, list[Step]] = {}
    for step in plan.steps:
        for name in step.inputs:
            readers.setdefault(name, []).append(step)
    kept = set(plan.outputs)
    gone: set[int] = set()
    for step in plan.steps:
        if step.op not in _ATTENTION:
            continue
        for index, (role, heads) in enumerate(_ROLES):
            maker = makers.get(step.inputs[index])
            if step.attrs.get(f"{role}_layout") == "BSHD" and _splits(graph, maker):
                assert maker is not None
                step.attrs[heads] = _dims(graph, step.inputs[index])[2]
                step.inputs[index] = maker.inputs[0]
        if _is_flat(graph, step.inputs[0]) and step.attrs.get("y_layout") == "BSHD":
            _merge(graph, step, readers, kept, gone)
    read = {name for step in plan.steps if id(step) not in gone for name in step.inputs} | kept
    steps = [
        step
        for step in plan.steps
        if id(step) not in gone and (step.op != "Reshape" or step.outputs[0] in read)
    ]
    return Plan(plan.isa, plan.inputs, plan.outputs, steps, plan.constants, plan.dtypes)


def _dims(graph: Graph, name: str) -> Dims:
    value = graph.value(name) if name else None
    return () if value is None or value.shape is None else tuple(value.shape)


def _is_flat(graph: Graph, name: str) -> bool:
    return len(_dims(graph, name)) == 3


def splits_rows(flat: Dims, heads: Dims) -> bool:
    """Whether [b, s, h · d] as [b, s, h, d] only splits the rows."""
    if len(flat) != 3 or len(heads) != 4 or None in flat or flat[:2] != heads[:2]:
        return False
    sizes = (flat[2], *heads[2:])
    return all(isinstance(size, int) for size in sizes) and heads[2] * heads[3] == flat[2]


def _splits(graph: Graph, maker: Step | None) -> bool:
    if maker is None or maker.op != "Reshape":
        return False
    return splits_rows(_dims(graph, maker.inputs[0]), _dims(graph, maker.outputs[0]))


def _merge(
    graph: Graph,
    step: Step,
    readers: dict[str, list[Step]],
    kept: set[str],
    gone: set[int],
) -> None:
    """Lets attention write what a Reshape makes of its result, quantised in between or not."""
    writer = step
    after = readers.get(step.outputs[0], [])
    if len(after) == 1 and after[0].op == "QuantizeLinear" and step.outputs[0] not in kept:
        writer = after[0]
        after = readers.get(writer.outputs[0], [])
    name = writer.outputs[0]
    if len(after) != 1 or after[0].op != "Reshape" or name in kept:
        return
    merged = after[0].outputs[0]
    if not splits_rows(_dims(graph, merged), _dims(graph, name)):
        return
    writer.outputs = [merged, *writer.outputs[1:]]
    del step.attrs["y_layout"]
    gone.add(id(after[0]))
