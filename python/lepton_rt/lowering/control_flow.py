"""If, Loop and Scan: the bodies become plans of their own.

A body is closed first: constants it reads from around it become its own, so that its weights are
packed and its operators fused like any others; what is computed around it becomes an input.
"""

from __future__ import annotations

from lepton_rt.errors import Error, ModelError
from lepton_rt.graph.ir import Graph, Node, Value, captures, subgraphs
from lepton_rt.graph.types import UNKNOWN_DTYPE
from lepton_rt.lower import LowerContext
from lepton_rt.plan import Plan, Step, StepAttr

OPERATORS = frozenset(["If", "Loop", "Scan"])


def lower_control_flow(node: Node, context: LowerContext) -> Step | None:
    """The step with its bodies as plans; None where one of them has no form a plan can hold."""
    made = len(context.host)
    try:
        return _lowered(node, context)
    except Error:
        del context.host[made:]
        return None


def _lowered(node: Node, context: LowerContext) -> Step:
    around: dict[str, Value] = {}
    for body in subgraphs(node):
        for name in captures(body):
            if name not in context.graph.constants:
                around[name] = context.value(name)
    attrs: dict[str, StepAttr] = {}
    for name, value in node.attrs.items():
        if isinstance(value, Graph):
            attrs[name] = _body_plan(value, around, context)
        elif isinstance(value, (int, list)):
            attrs[name] = value  # type: ignore[assignment]
    if node.op == "Loop":
        attrs["carried"] = max(0, len(node.inputs) - 2)
    elif node.op == "Scan":
        attrs["carried"] = len(node.inputs) - int(attrs["num_scan_inputs"])  # type: ignore[arg-type]
    _check_stacked(node, attrs, context)
    inputs = list(node.inputs)
    if node.op == "Loop":
        inputs += [""] * (2 - len(inputs))
    return Step(node.key, [*inputs, *around], list(node.outputs), attrs)


def _body_plan(body: Graph, around: dict[str, Value], context: LowerContext) -> Plan:
    closed = body.copy()
    closed.opsets = dict(context.graph.opsets)
    for name in captures(body):
        if name in context.graph.constants:
            closed.constants[name] = context.graph.constants[name]
    for name, value in around.items():
        if name in closed.inputs or name in closed.constants:
            raise ModelError(f"the name {name!r} means two tensors")
        closed.inputs[name] = value
    if any(value.dtype == UNKNOWN_DTYPE for value in closed.inputs.values()):
        raise ModelError("an input of a body has no type")
    return context.lower_body(closed)


def _check_stacked(node: Node, attrs: dict[str, StepAttr], context: LowerContext) -> None:
    """Slices and stacks are made of numbers: a handle says nothing of what is behind it."""
    if node.op == "If":
        return
    first = int(attrs["carried"])  # type: ignore[arg-type]
    names = node.outputs[first:]
    if node.op == "Scan":
        names = [*names, *node.inputs[first:]]
    for name in names:
        if name and context.value(name).is_object:
            raise ModelError(f"{name!r} is stacked or sliced, but holds no numbers")
