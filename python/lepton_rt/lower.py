"""Graph → Plan: each node becomes one step for one ISA, with weights packed for the chosen kernels.

`lowering.RULES` holds a rule per operator; a node without one passes through with its attributes.
A step whose native operator rejects it becomes a host step, which runs the node's ONNX reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lepton_rt import _core
from lepton_rt.custom import find_op
from lepton_rt.errors import ModelError
from lepton_rt.graph.ir import Array, Graph, Node, Value, node_reads, subgraphs
from lepton_rt.objects import HANDLE
from lepton_rt.plan import HOST, Plan, Step, StepAttr, joined


@dataclass
class LowerContext:
    """What a lowering rule may read and add."""

    graph: Graph
    isa: str
    precision: str = "f32"
    """Of constant weights of float32 products and convolutions: "f32" or "bf16"."""
    added: dict[str, Array] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    dtypes: dict[str, np.dtype[Any]] = field(default_factory=dict)
    """Dtypes of intermediate tensors that rules invent (`fresh`)."""
    choose: Choose | None = None
    choice: Choice = field(default_factory=dict)
    """What was chosen for the node at hand (tuning.py)."""
    prepare: Prepare | None = None
    host: list[HostStep] = field(default_factory=list)
    """Host steps so far, of bodies too; a host step's number is its place here."""

    def constant(self, name: str) -> Array | None:
        """Dense contents of a constant input; None when it is computed or omitted."""
        return self.graph.array(name) if name else None

    def value(self, name: str) -> Value:
        """Type of a tensor. Raises ModelError when its dtype is unknown."""
        value = self.graph.value(name)
        if value is None:
            raise ModelError(f'the type of tensor "{name}" is not known')
        return value

    def add_constant(self, array: Array, hint: str) -> str:
        """Adds a constant of the plan; returns its name."""
        name = self._fresh_name(hint)
        self.added[name] = array
        return name

    def fresh(self, hint: str, dtype: Any) -> str:
        """A name for an intermediate tensor of a rule that makes several steps."""
        name = self._fresh_name(hint)
        self.dtypes[name] = np.dtype(dtype)
        return name

    def select(self, family: str) -> str:
        """The kernel of a family for this ISA: the preferred one unless another was chosen."""
        return self.choice.get(family) or _core.select_kernel(family, self.isa)

    def lower_body(self, body: Graph) -> Plan:
        """The plan of a body of If, Loop or Scan that reads nothing from around it."""
        prepared = body if self.prepare is None else self.prepare(body)
        how = _How(self.isa, self.prepare, self.choose, self.precision)
        return _lower(prepared, how, self.host)[0]

    def _fresh_name(self, hint: str) -> str:
        name, serial = hint, 0
        while name in self.names:
            serial += 1
            name = f"{hint}.{serial}"
        self.names.add(name)
        return name


Choice = dict[str, str]
Choose = Callable[[Node], Choice]
"""Node → kernel family → kernel to use instead of the preferred one."""

Prepare = Callable[[Graph], Graph]
"""What brings a graph into a form that can be lowered."""

Rule = Callable[[Node, LowerContext], "Step | list[Step] | None"]
"""A rule returns the step (or steps, in order) of a node, or None to pass the node through."""


@dataclass
class HostStep:
    """A node without a native kernel, the types of the graph it stands in, and why."""

    node: Node
    graph: Graph
    reason: str


@dataclass
class Lowered:
    """A plan with what the runtime does not need: the graph its names are of, and host steps."""

    plan: Plan
    graph: Graph
    host: list[HostStep] = field(default_factory=list)


def lower(
    graph: Graph,
    isa: str,
    prepare: Prepare | None = None,
    choose: Choose | None = None,
    precision: str = "f32",
) -> Lowered:
    """Lowers an optimised graph for `isa` (a name from `_core.machine_isas()`).

    prepare: what made `graph` of the model; the bodies of If, Loop and Scan go through it, too.
    choose: which kernels to use instead of the preferred ones.
    precision: of float32 layers' constant weights, "f32" or "bf16".

    Raises:
        ModelError: a tensor's dtype is not known, or the graph is inconsistent.
        UnsupportedError: a dtype or rank that plans cannot hold.
    """
    host: list[HostStep] = []
    plan, graph = _lower(graph, _How(isa, prepare, choose, precision), host)
    return Lowered(plan, graph, host)


class _How(NamedTuple):
    """What is the same for a graph and the bodies in it."""

    isa: str
    prepare: Prepare | None
    choose: Choose | None
    precision: str


def _lower(graph: Graph, how: _How, host: list[HostStep]) -> tuple[Plan, Graph]:
    graph = _with_made_objects(graph)
    names = graph.tensor_names()
    context = LowerContext(
        graph,
        how.isa,
        how.precision,
        names=names,
        choose=how.choose,
        prepare=how.prepare,
        host=host,
    )
    isa = how.isa
    nodes: list[Node] = []
    steps: list[Step] = []
    for node in graph.nodes:
        for step in _steps_of(node, context):
            nodes.append(node)
            steps.append(step)
    plan = _plan_of(graph, isa, steps, context)
    rejected = dict(_core.rejected_steps(*plan.encode())) if steps else {}
    if not rejected:
        return plan, graph
    # A rejected step falls back with its whole node, whatever other steps the node had.
    reasons = {id(nodes[i]): reason for i, reason in rejected.items()}
    steps = _replace_rejected(nodes, steps, reasons, context)
    return _plan_of(graph, isa, steps, context), graph


def _steps_of(node: Node, context: LowerContext) -> list[Step]:
    from lepton_rt.lowering import RULES
    from lepton_rt.lowering.control_flow import OPERATORS, lower_control_flow

    if node.key in OPERATORS:
        step = lower_control_flow(node, context)
        if step is not None:
            step.name = node.name or next(filter(None, node.outputs), "")
            return [step]
    context.choice = {} if context.choose is None else context.choose(node)
    rule = RULES.get(node.key)
    objects = _objects_of(node, context.graph)
    made = None if rule is None or objects else rule(node, context)
    if made is None:
        made = pass_through(node)
        custom = find_op(node.domain, node.op)
        if objects:
            made.op += f" of {objects}"
        elif custom is not None and not custom.is_native:
            made.op += " in Python"
    steps = [made] if isinstance(made, Step) else made
    for step in steps:
        step.name = step.name or node.name or (node.outputs[0] if node.outputs else "")
        step.node = node.outputs[0] if node.outputs else ""
        if context.choice and step.kernel in context.choice.values():
            step.note = "; ".join(filter(None, [step.note, "measured to be faster"]))
    return steps


def pass_through(node: Node) -> Step:
    """The node as a step of the same name, operands and (plain) attributes.

    A node with subgraphs or attributes that plans cannot hold gets a key no operator has, so that
    it becomes a host step.
    """
    attrs: dict[str, StepAttr] = {}
    key = node.key
    for name, value in node.attrs.items():
        if isinstance(value, Graph):
            key = f"{node.key} with subgraphs"
        elif isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
            key = f"{node.key} with a tensor of {value.dtype.name}"
        else:
            attrs[name] = joined(value)
    inputs = node_reads(node) if any(subgraphs(node)) else list(node.inputs)
    return Step(key, inputs, list(node.outputs), attrs)


def _objects_of(node: Node, graph: Graph) -> str:
    """What only Python can hold of a node's operands: "string", "seq(tensor(float))", or ""."""
    for name in [*node_reads(node), *node.outputs]:
        value = graph.value(name) if name else None
        if value is not None and value.is_object:
            return value.kind or "string"
    return ""


def _with_made_objects(graph: Graph) -> Graph:
    """The graph, where no output is a constant that a plan cannot hold: a node makes it."""
    names = [n for n in graph.outputs if n in graph.constants and graph.outputs[n].is_object]
    if not names:
        return graph
    graph = graph.copy()
    for name in names:
        source = graph.fresh_name(f"{name}/constant")
        graph.constants[source] = graph.constants.pop(name)
        graph.nodes.append(Node("Identity", [source], [name]))
    return graph


def _replace_rejected(
    nodes: list[Node], steps: list[Step], reasons: dict[int, str], context: LowerContext
) -> list[Step]:
    host, types = context.host, _types_of(context.graph)
    replaced: list[Step] = []
    done: set[int] = set()
    for node, step in zip(nodes, steps):
        if id(node) not in reasons:
            replaced.append(step)
        elif id(node) not in done:
            done.add(id(node))
            replaced.append(_host_step(node, step.name, len(host), reasons[id(node)]))
            host.append(HostStep(node, types, reasons[id(node)]))
    return replaced


def _types_of(graph: Graph) -> Graph:
    """The graph as types, and constants that no plan holds: weights need not live that long."""
    typed = ((name, graph.value(name)) for name in graph.tensor_names())
    values = {name: value for name, value in typed if value is not None}
    held = {name: c for name, c in graph.constants.items() if c.value.is_object}
    return Graph(graph.name, values=values, constants=held, opsets=dict(graph.opsets))


def _host_step(node: Node, name: str, index: int, reason: str) -> Step:
    inputs = node_reads(node) if any(subgraphs(node)) else list(node.inputs)
    return Step(HOST, inputs, list(node.outputs), {"id": index}, "", name, reason)


def _planned(value: Value) -> Value:
    return HANDLE if value.is_object else value


def _plan_of(graph: Graph, isa: str, steps: list[Step], context: LowerContext) -> Plan:
    held = {name for name, constant in graph.constants.items() if constant.value.is_object}
    for step in steps:
        # Constants that only Python can hold reach host steps without the plan.
        step.inputs = ["" if name in held else name for name in step.inputs]
    read = {name for step in steps for name in step.inputs} | set(graph.outputs)
    constants = {name: graph.constants[name].dense() for name in graph.constants if name in read}
    constants.update({name: array for name, array in context.added.items() if name in read})
    dtypes = dict(context.dtypes)
    for step in steps:
        for out in step.outputs:
            if out and out not in dtypes:
                dtypes[out] = _planned(context.value(out)).dtype
    inputs = {name: _planned(value) for name, value in graph.inputs.items()}
    return Plan(isa, inputs, list(graph.outputs), steps, constants, dtypes)
