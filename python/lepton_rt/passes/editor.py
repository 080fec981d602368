"""Rewriting a Graph: a private copy with its producers and readers kept up to date."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from lepton_rt.graph.ir import (
    LEPTON_DOMAIN,
    Array,
    Attr,
    Constant,
    Graph,
    Node,
    Value,
    captures,
    node_reads,
    subgraphs,
)

__all__ = ["Editor"]


class Editor:
    """Rewrites a copy of a graph node by node; `finish()` returns the result in topological order.

    A pass walks `nodes()`, asks `producer`, `readers` and `only_reader` about the surroundings of a
    node, and calls `replace`. Tensors that the caller or a subgraph reads by name are pinned: they
    must keep being produced.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph.copy()
        self._names = self.graph.tensor_names()
        self._pinned = set(self.graph.outputs)
        self._alive: dict[int, Node] = {}
        self._rank: dict[int, tuple[int, int]] = {}
        self._producer: dict[str, Node] = {}
        self._readers: dict[str, list[Node]] = {}
        self._serial = 0
        for position, node in enumerate(self.graph.nodes):
            self._attach(node, position)

    def nodes(self) -> Iterator[Node]:
        """The nodes as they stood at the call, in order, without those removed since."""
        for node in sorted(self._alive.values(), key=lambda n: self._rank[id(n)]):
            if id(node) in self._alive:
                yield node

    def producer(self, name: str) -> Node | None:
        """The node that makes a tensor; None for inputs, constants and omitted operands."""
        return self._producer.get(name)

    def readers(self, name: str) -> list[Node]:
        """The nodes that read a tensor, once per use."""
        return list(self._readers.get(name, ()))

    def pinned(self, name: str) -> bool:
        """Whether the tensor is an output of the graph or is read by a subgraph."""
        return name in self._pinned

    def only_reader(self, name: str) -> Node | None:
        """The node that alone reads a tensor, and once; None when there are others."""
        readers = self._readers.get(name, ())
        return readers[0] if len(readers) == 1 and name not in self._pinned else None

    def array(self, name: str) -> Array | None:
        """Dense contents of a constant; None for every other tensor."""
        return self.graph.array(name) if name else None

    def scalar(self, name: str) -> float | None:
        """The single element of a constant, or None."""
        array = self.array(name)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None

    def value(self, name: str) -> Value | None:
        """Type of a tensor where it is known."""
        return self.graph.value(name) if name else None

    def shape(self, name: str) -> tuple[int | str | None, ...] | None:
        """Shape of a tensor where its rank is known."""
        value = self.value(name)
        return None if value is None else value.shape

    def dtype(self, name: str) -> np.dtype | None:
        """Element type of a tensor where it is known."""
        value = self.value(name)
        return None if value is None else value.dtype

    def fresh(self, hint: str, value: Value | None = None) -> str:
        """A new tensor name made from `hint`, with its type noted."""
        name = hint
        while name in self._names:
            self._serial += 1
            name = f"{hint}_{self._serial}"
        self._names.add(name)
        if value is not None:
            self.graph.values[name] = value
        return name

    def constant(self, array: Array, hint: str = "constant") -> str:
        """Adds a dense constant; returns its name."""
        name = self.fresh(hint)
        self.graph.constants[name] = Constant.of(array)
        return name

    def set_input(self, node: Node, index: int, name: str) -> None:
        """Makes operand `index` of a node read another tensor."""
        self._unread(node, node.inputs[index])
        node.inputs[index] = name
        self._read(node, name)

    def add(
        self,
        at: Node,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attrs: dict[str, Attr] | None = None,
        lepton: bool = False,
    ) -> Node:
        """Adds a node where `at` stands; its outputs must have no other producer by then."""
        domain = LEPTON_DOMAIN if lepton else ""
        node = Node(op, list(inputs), list(outputs), dict(attrs or {}), domain, at.name)
        self._attach(node, self._rank[id(at)][0])
        return node

    def remove(self, *nodes: Node) -> None:
        """Takes nodes out."""
        for node in nodes:
            if self._alive.pop(id(node), None) is None:
                continue
            for name in node.inputs:
                self._unread(node, name)
            for name in node.outputs:
                if self._producer.get(name) is node:
                    del self._producer[name]

    def replace(
        self,
        old: Node | Sequence[Node],
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attrs: dict[str, Attr] | None = None,
        lepton: bool = False,
    ) -> Node:
        """Puts one node in the place of one or several; it stands where the last of them stood."""
        group = [old] if isinstance(old, Node) else list(old)
        at = max(group, key=lambda n: self._rank[id(n)])
        self.remove(*group)
        return self.add(at, op, inputs, outputs, attrs, lepton)

    def redirect(self, old: str, new: str) -> bool:
        """Lets every reader of `old` read `new`; False, and nothing done, when `old` is pinned."""
        if self.pinned(old):
            return False
        for node in self.readers(old):
            for index, name in enumerate(node.inputs):
                if name == old:
                    self.set_input(node, index, new)
        return True

    def drop_unread(self, *nodes: Node | None) -> None:
        """Removes those nodes of which no output is read any more."""
        for node in nodes:
            if node is None or id(node) not in self._alive:
                continue
            if not any(self._readers.get(o) or self.pinned(o) for o in node.outputs if o):
                self.remove(node)

    def finish(self) -> Graph:
        """The rewritten graph: nodes in topological order, constants and types still in use."""
        self.graph.nodes = self._sorted()
        used = set(self._pinned)
        for node in self.graph.nodes:
            used.update(node.inputs)
            used.update(node.outputs)
        self.graph.constants = {k: v for k, v in self.graph.constants.items() if k in used}
        self.graph.values = {k: v for k, v in self.graph.values.items() if k in used}
        return self.graph

    def _attach(self, node: Node, position: int) -> None:
        self._serial += 1
        self._alive[id(node)] = node
        self._rank[id(node)] = (position, self._serial)
        for name in node.outputs:
            if name:
                self._producer[name] = node
        for name in node.inputs:
            self._read(node, name)
        for graph in subgraphs(node):
            self._pinned.update(captures(graph))

    def _read(self, node: Node, name: str) -> None:
        if name:
            self._readers.setdefault(name, []).append(node)

    def _unread(self, node: Node, name: str) -> None:
        readers = self._readers.get(name, [])
        for index, reader in enumerate(readers):
            if reader is node:
                del readers[index]
                return

    def _sorted(self) -> list[Node]:
        """Kahn's algorithm; among ready nodes the one that stood first goes first."""
        waits: dict[int, int] = {}
        unlocks: dict[int, list[Node]] = {}
        for node in self._alive.values():
            makers = {id(p) for p in map(self._producer.get, node_reads(node)) if p is not None}
            waits[id(node)] = len(makers)
            for maker in makers:
                unlocks.setdefault(maker, []).append(node)
        ready = [(*self._rank[i], i) for i, count in waits.items() if count == 0]
        heapq.heapify(ready)
        order: list[Node] = []
        while ready:
            node = self._alive[heapq.heappop(ready)[2]]
            order.append(node)
            for reader in unlocks.get(id(node), ()):
                waits[id(reader)] -= 1
                if waits[id(reader)] == 0:
                    heapq.heappush(ready, (*self._rank[id(reader)], id(reader)))
        assert len(order) == len(self._alive), "a pass made a cycle"
        return order
