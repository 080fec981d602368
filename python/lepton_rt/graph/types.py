"""Type inference: dtypes always, shapes as far as they follow cheaply, without the onnx package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from lepton_rt.custom import find_op, infer_custom
from lepton_rt.errors import ModelError, UnsupportedError
from lepton_rt.graph.inference import RULES, contents
from lepton_rt.graph.inference.context import Context, merge_shape
from lepton_rt.graph.ir import Array, Graph, Node, Value

UNKNOWN_DTYPE = np.dtype("V")
"""Stands for a subgraph's undeclared element type until inference finds it."""

Fallback = Callable[[Node, list["Value | None"]], "list[Value | None]"]
Rewrite = Callable[[Node, "Scope"], list[Node]]


def infer_types(
    graph: Graph, fallback: Fallback | None = None, rewrite: Rewrite | None = None
) -> Graph:
    """A copy of graph with `values` filled and output types completed.

    What a rule finds replaces what the graph said; dimensions no rule knows keep what was said.
    An operator without a rule keeps its outputs' values, or asks `fallback` (node, input types).
    rewrite (node, scope), if given, replaces each node by those it returns before they are typed.
    Raises ModelError where operands cannot fit together.
    """
    result = graph.copy()
    Scope(result, None, fallback, rewrite).run()
    return result


@dataclass
class Scope:
    """One graph under inference, inside the graph whose names it may capture."""

    graph: Graph
    parent: Scope | None
    fallback: Fallback | None = None
    rewrite: Rewrite | None = None
    contents: dict[str, Array] = field(default_factory=dict)

    def value(self, name: str) -> Value | None:
        graph = self.graph
        if name in graph.constants:
            return graph.constants[name].value
        for table in (graph.inputs, graph.values):
            if name in table:
                value = table[name]
                return None if value.dtype == UNKNOWN_DTYPE else value
        return self.parent.value(name) if self.parent is not None else None

    def array(self, name: str) -> Array | None:
        """Dense contents of a constant of this graph or those around it."""
        if name in self.graph.constants:
            return self.graph.array(name)
        return self.parent.array(name) if self.parent is not None else None

    def content(self, name: str) -> Array | None:
        if name in self.contents:
            return self.contents[name]
        constant = self.graph.constants.get(name)
        if constant is not None:
            small = constant.value.is_static and _count(constant.shape) <= contents.MAX_ELEMENTS
            return contents.of_constant(constant.dense()) if small else None
        if name in self.graph.inputs or self.parent is None:
            return None
        return self.parent.content(name)

    def run(self) -> None:
        said = dict(self.graph.values)
        made = {name for node in self.graph.nodes for name in node.outputs}
        # Statements about tensors are used only once their producers have been seen.
        self.graph.values = {}
        nodes: list[Node] = []
        for node in self.graph.nodes:
            for each in self._rewritten(node):
                self._node(each, said)
                nodes.append(each)
        self.graph.nodes = nodes
        for name, before in self.graph.outputs.items():
            found = self.value(name)
            if found is not None:
                self._check_output(name, before, found)
                shape = merge_shape(found.shape, before.shape)
                self.graph.outputs[name] = replace(found, shape=shape)
                if name in made:
                    self.graph.values[name] = self.graph.outputs[name]

    def _rewritten(self, node: Node) -> list[Node]:
        if self.rewrite is None:
            return [node]
        with _naming(node):
            return self.rewrite(node, self)

    def _check_output(self, name: str, before: Value, found: Value) -> None:
        if before.dtype not in (found.dtype, UNKNOWN_DTYPE):
            raise ModelError(
                f"output {name!r} is declared {before.dtype.name}, but is {found.dtype.name}"
            )

    def _node(self, node: Node, said: dict[str, Value]) -> None:
        previous = [said.get(name, self.graph.outputs.get(name)) for name in node.outputs]
        previous = [None if v is None or v.dtype == UNKNOWN_DTYPE else v for v in previous]
        inputs = [self.value(name) if name else None for name in node.inputs]
        known = [self.content(name) if name else None for name in node.inputs]
        ctx = Context(node, inputs, known, previous)
        with _naming(node):
            found = self._infer(ctx)
            content = contents.evaluate(ctx, found[0] if found else None)
        for i, name in enumerate(node.outputs):
            if not name:
                continue
            value = _merged(found[i] if i < len(found) else None, previous[i])
            if value is not None:
                self.graph.values[name] = value
        if content is not None and node.outputs[0]:
            self.contents[node.outputs[0]] = content

    def _infer(self, ctx: Context) -> list[Value | None]:
        control = _CONTROL.get(ctx.node.key)
        if control is not None:
            return control(self, ctx)
        rule = RULES.get(ctx.node.key)
        if rule is not None:
            return list(rule(ctx))
        custom = find_op(ctx.node.domain, ctx.node.op)
        if custom is not None:
            return infer_custom(custom, ctx.node, ctx.inputs, ctx.previous)
        if self.fallback is not None:
            return self.fallback(ctx.node, ctx.inputs)
        return []

    def body(self, node: Node, attr: str, inputs: list[Value | None] | None = None) -> Graph:
        """Infers the subgraph in `attr` in place of the node's own, its inputs typed as given."""
        held = node.attrs.get(attr)
        if not isinstance(held, Graph):
            raise ModelError(f"there is no graph in attribute {attr!r}")
        graph = held.copy()
        for name, value in zip(graph.inputs, inputs or (), strict=False):
            if value is not None:
                declared = graph.inputs[name]
                graph.inputs[name] = replace(value, shape=merge_shape(value.shape, declared.shape))
        Scope(graph, self, self.fallback, self.rewrite).run()
        node.attrs[attr] = graph
        return graph


def _if(scope: Scope, ctx: Context) -> list[Value | None]:
    branches = [scope.body(ctx.node, attr) for attr in ("then_branch", "else_branch")]
    pairs = zip(*(_output_values(branch) for branch in branches), strict=False)
    return [_common(a, b) for a, b in pairs]


def _loop(scope: Scope, ctx: Context) -> list[Value | None]:
    carried = len(ctx.inputs) - 2
    if carried < 0:
        raise ModelError("Loop needs a trip count and a condition, given or omitted")
    outs = _loop_body(scope, ctx.node, ctx.inputs[2:])
    finals = [_common(a, b) for a, b in zip(ctx.inputs[2:], outs[:carried], strict=False)]
    return [*finals, *(_stacked(v, None, 0) for v in outs[carried:])]


def _loop_body(scope: Scope, node: Node, states: list[Value | None]) -> list[Value | None]:
    """Outputs of a Loop's body, less the condition, whatever the iteration.

    A carried tensor may change shape from one iteration to the next, but not type: what the body
    changes of the shapes it starts with is forgotten, until nothing changes any more.
    """
    counter, condition = Value(np.dtype(np.int64), ()), Value(np.dtype(np.bool_), ())
    held = node.attrs.get("body")
    rankless = [None if v is None else replace(v, shape=None) for v in states]
    for _ in range(3):
        try:
            outs = _output_values(scope.body(node, "body", [counter, condition, *states]))[1:]
        except ModelError:
            if states == rankless:
                raise
            general = rankless
        else:
            general = [_common(a, b) for a, b in zip(states, outs, strict=False)]
            if general == states:
                return outs
        if held is not None:
            node.attrs["body"] = held
        states = general
    return _output_values(scope.body(node, "body", [counter, condition, *rankless]))[1:]


def _scan(scope: Scope, ctx: Context) -> list[Value | None]:
    count = ctx.int_attr("num_scan_inputs")
    if not 0 < count <= len(ctx.inputs):
        raise ModelError(f"Scan with num_scan_inputs {count} has {len(ctx.inputs)} inputs")
    states, scanned = ctx.inputs[:-count], ctx.inputs[-count:]
    in_axes = ctx.ints_attr("scan_input_axes") or [0] * count
    slices = [_sliced(v, axis) for v, axis in zip(scanned, in_axes, strict=True)]
    body = scope.body(ctx.node, "body", [*states, *slices])
    outs = _output_values(body)
    made = outs[len(states) :]
    out_axes = ctx.ints_attr("scan_output_axes") or [0] * len(made)
    first = scanned[0]
    length = None
    if first is not None and first.shape:
        length = first.shape[in_axes[0]]
    stacks = [_stacked(v, length, axis) for v, axis in zip(made, out_axes, strict=True)]
    return [*states, *stacks]


def _output_values(graph: Graph) -> list[Value | None]:
    return [None if v.dtype == UNKNOWN_DTYPE else v for v in graph.outputs.values()]


def _sliced(value: Value | None, axis: int) -> Value | None:
    if value is None or value.shape is None:
        return value
    axis = axis % len(value.shape) if value.shape else 0
    return Value(value.dtype, (*value.shape[:axis], *value.shape[axis + 1 :]))


def _stacked(value: Value | None, length: int | str | None, axis: int) -> Value | None:
    if value is None or value.shape is None:
        return value
    place = axis if axis >= 0 else axis + len(value.shape) + 1
    return Value(value.dtype, (*value.shape[:place], length, *value.shape[place:]))


def _common(a: Value | None, b: Value | None) -> Value | None:
    """What two values agree on."""
    if a is None or b is None:
        return None
    if a.dtype != b.dtype:
        raise ModelError(f"one tensor may be {a.dtype.name} or {b.dtype.name}")
    if a.kind != b.kind:
        return None
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return replace(a, shape=None)
    return Value(
        a.dtype, tuple(x if x == y else None for x, y in zip(a.shape, b.shape, strict=True))
    )


_CONTROL: dict[str, Callable[[Scope, Context], list[Value | None]]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
}


def _merged(found: Value | None, said: Value | None) -> Value | None:
    if found is None:
        return said
    if said is None or said.dtype != found.dtype or said.kind != found.kind:
        return found
    return replace(found, shape=merge_shape(found.shape, said.shape))


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for dim in shape:
        total *= dim
    return total


@contextmanager
def _naming(node: Node) -> Iterator[None]:
    """Turns whatever goes wrong with a malformed node into an error that names it."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{_label(node)}: {error}") from None
    except UnsupportedError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, ArithmeticError) as error:
        raise ModelError(f"{_label(node)} is malformed: {error}") from error


def _label(node: Node) -> str:
    return f"{node.key} {node.name!r}" if node.name else node.key


__all__ = ["UNKNOWN_DTYPE", "infer_types"]
