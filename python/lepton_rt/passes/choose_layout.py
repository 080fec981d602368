"""Channels-last convolution and pooling, with the transposes between them gone.

Every spatial operator becomes its `lepton` form, which takes and makes N, spatial…, C. The pass
walks the graph once. A tensor whose channels-first form nobody has asked for yet exists only as its
channels-last twin. Operators that do not care about layout run on the twins and make twins; the
first operator that does care gets the one Transpose of that tensor. With `sink=False` every twin is
transposed back at once: the plainest correct form.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_rt.graph.ir import Constant, Graph, Node, Value, captures, node_reads, subgraphs

from .layout_flatten import flatten, permute_weights
from .layout_rules import RULES, SPATIAL, Shape, permuted, to_channels_first, to_channels_last

__all__ = ["choose_layout", "LayoutWalk"]


def choose_layout(graph: Graph, sink: bool = True) -> Graph:
    """Rewrites spatial operators to channels-last and moves transposes as far down as they go."""
    return LayoutWalk(graph, sink).result()


class LayoutWalk:
    """One walk over a graph; rules in `layout_rules` call its methods.

    `twin[name]` is the channels-last form of a tensor. A name in `twin` that is not in `ready` has
    no channels-first form yet.
    """

    def __init__(self, graph: Graph, sink: bool) -> None:
        self.source = graph
        self.graph = graph.copy()
        self.graph.nodes = []
        self.sink = sink
        self.twin: dict[str, str] = {}
        self.ready = set(graph.inputs) | set(graph.constants)
        self.readers = graph.consumers()
        self.makers = graph.producers()
        self.row_order: dict[int, np.ndarray] = {}
        self.pinned = set(graph.outputs)
        self._names = graph.tensor_names()
        self._serial = 0
        for node in graph.nodes:
            for inner in subgraphs(node):
                self.pinned.update(captures(inner))

    def result(self) -> Graph:
        """Runs the walk."""
        for node in self.source.nodes:
            self._visit(node)
        for name in sorted(self.pinned):
            self.first(name)
        return self.graph

    def _visit(self, node: Node) -> None:
        rule = None
        if node.key in SPATIAL:
            rule = SPATIAL[node.key]
        elif self.sink and self.has_twin(node):
            rule = flatten if node.op in {"Flatten", "Reshape"} else RULES.get(node.key)
        elif node.op == "Transpose" and self.sink:
            rule = RULES["Transpose"]
        if rule is None or not rule(self, node):
            self.keep(node)
        if not self.sink:
            for name in node.outputs:
                self.first(name)

    def has_twin(self, node: Node) -> bool:
        """Whether an operand of the node has a channels-last form."""
        return any(name in self.twin for name in node.inputs)

    # What rules ask.

    def shape(self, name: str) -> Shape | None:
        """Shape of a tensor where its rank is known."""
        value = self.graph.value(name) if name else None
        return None if value is None else value.shape

    def array(self, name: str) -> np.ndarray | None:
        """Contents of a constant, or None."""
        return self.graph.array(name) if name else None

    def lazy(self, name: str) -> str | None:
        """The channels-last form of a tensor, if it has one."""
        return self.twin.get(name)

    # What rules do.

    def emit(
        self,
        like: Node,
        op: str,
        inputs: list[str],
        outputs: list[str],
        attrs: dict[str, Any] | None = None,
        domain: str = "",
    ) -> None:
        """Appends a node whose operands all exist already."""
        self.graph.nodes.append(Node(op, inputs, outputs, dict(attrs or {}), domain, like.name))
        self.ready.update(o for o in outputs if o)

    def keep(self, node: Node) -> None:
        """Appends the node as it stands, on channels-first operands."""
        for name in node_reads(node):
            self.first(name)
        inputs = permute_weights(self, node) if id(node) in self.row_order else list(node.inputs)
        self.emit(node, node.op, inputs, list(node.outputs), node.attrs, node.domain)

    def new_twin(self, name: str) -> str:
        """A name for the channels-last form of `name`, with its type."""
        twin = self.fresh(f"{name}_nhwc")
        value = self.graph.value(name)
        if value is not None:
            shape = value.shape
            dims = None if shape is None else permuted(shape, to_channels_last(len(shape)))
            self.graph.values[twin] = Value(value.dtype, dims)
        self.twin[name] = twin
        return twin

    def last(self, name: str, rank: int) -> str:
        """The channels-last form of a tensor, transposing it when there is none yet."""
        if name not in self.twin:
            twin = self.new_twin(name)
            self._transpose(name, twin, to_channels_last(rank))
        return self.twin[name]

    def first(self, name: str) -> str:
        """Makes sure that the channels-first form of a tensor exists."""
        if name in self.twin and name not in self.ready:
            twin = self.twin[name]
            shape = self.shape(name) or self.shape(twin)
            assert shape is not None, "only tensors of known rank get twins"
            self._transpose(twin, name, to_channels_first(len(shape)))
        return name

    def constant(self, array: np.ndarray, hint: str) -> str:
        """Adds a constant; returns its name."""
        name = self.fresh(hint)
        self.graph.constants[name] = Constant.of(np.ascontiguousarray(array))
        self.ready.add(name)
        return name

    def fresh(self, hint: str) -> str:
        """A new tensor name."""
        name = hint
        while name in self._names:
            self._serial += 1
            name = f"{hint}_{self._serial}"
        self._names.add(name)
        return name

    def _transpose(self, source: str, target: str, perm: list[int]) -> None:
        like = Node("Transpose", [], [], name=source)
        shape = self.shape(source)
        if shape is not None and moves_only_ones(shape, perm):
            dims = self.constant(np.array(reshape_dims(shape, perm), np.int64), "shape")
            self.emit(like, "Reshape", [source, dims], [target])
        else:
            self.emit(like, "Transpose", [source], [target], {"perm": perm})


def moves_only_ones(shape: Shape, perm: list[int]) -> bool:
    """Whether a transpose keeps the order in memory, and one Reshape can say the result."""
    big = [axis for axis in perm if shape[axis] != 1]
    unknown = [axis for axis in perm[1:] if not isinstance(shape[axis], int)]
    return big == sorted(big) and perm[0] == 0 and len(unknown) <= 1


def reshape_dims(shape: Shape, perm: list[int]) -> list[int]:
    """The Reshape operand for `moves_only_ones`: 0 copies the batch, -1 infers one unknown."""
    dims = [0]
    for axis in perm[1:]:
        size = shape[axis]
        dims.append(size if isinstance(size, int) else -1)
    return dims
