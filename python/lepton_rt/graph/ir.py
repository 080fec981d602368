"""The intermediate representation: a Graph of ONNX operators over named tensors.

Operators have ONNX names and ONNX semantics (normalised opset, `OPSET`). What ONNX has no word for
lives in the domain ``"lepton"`` (`LEPTON_DOMAIN`). A compressed encoding is a property of a
`Constant`; its meaning is its dense expansion.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np
import numpy.typing as npt

OPSET = 28
"""The main-domain opset every Graph is normalised to."""
OLDEST_OPSET = 23
"""Since this opset operators were only added, or widened: such graphs are valid at `OPSET`."""
LEPTON_DOMAIN = "lepton"
ONNX_DOMAINS = frozenset(["ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training"])
"""ONNX's domains beside the main one. Their operators keep the version the model states."""

Array = npt.NDArray[Any]
Dim = int | str | None
"""A static size, a named symbol, or unknown."""
Attr = Union[int, float, str, list[int], list[float], list[str], Array, "Graph"]


@dataclass(frozen=True)
class Value:
    """Type of a tensor: numpy dtype, and shape (None when even the rank is unknown).

    What is no tensor (a sequence, an optional, a map) has its ONNX type as text in `kind`
    ("seq(tensor(float))"), dtype object, and no shape.
    """

    dtype: np.dtype[Any]
    shape: tuple[Dim, ...] | None = None
    kind: str = ""

    @property
    def is_object(self) -> bool:
        """Whether only Python can hold it: strings, and what is no tensor."""
        return self.dtype.hasobject

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    @property
    def is_static(self) -> bool:
        return self.shape is not None and all(isinstance(d, int) for d in self.shape)


@dataclass
class Constant:
    """A tensor whose contents belong to the model.

    encoding names how `parts` store it ("dense": parts["data"]); `dense()` is its meaning. New
    encodings register a decoder in `ENCODINGS`, and nothing else changes.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    encoding: str
    parts: dict[str, Array]
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, array: Array) -> Constant:
        array = np.asarray(array)
        return cls(array.dtype, array.shape, "dense", {"data": array})

    def dense(self) -> Array:
        return ENCODINGS[self.encoding](self)

    @property
    def value(self) -> Value:
        return Value(self.dtype, self.shape)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts.values())


ENCODINGS: dict[str, Callable[[Constant], Array]] = {
    "dense": lambda constant: constant.parts["data"],
    "codebook": lambda constant: constant.parts["table"][constant.parts["indices"].astype(np.intp)],
}
"""Encoding name → function(Constant) → dense array of the constant's dtype and shape.

"codebook": parts "indices" (uint4 or uint8, the constant's shape) into "table" (of its dtype).
"""


@dataclass
class Node:
    """One operator application. Omitted optional inputs and outputs are empty strings."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Attr] = field(default_factory=dict)
    domain: str = ""
    name: str = ""

    @property
    def key(self) -> str:
        """The name plans use: "Conv", or "lepton.QLinearConv"."""
        return f"{self.domain}.{self.op}" if self.domain else self.op


@dataclass
class Graph:
    """Nodes in topological order over tensors named by strings.

    inputs and outputs keep their order and carry types; `values` holds the type of every other
    tensor where it is known. A tensor is produced once: by the caller, a constant or one node.
    """

    name: str = "graph"
    inputs: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    opsets: dict[str, int] = field(default_factory=lambda: {"": OPSET, LEPTON_DOMAIN: 1})
    metadata: dict[str, str] = field(default_factory=dict)
    _serial: int = field(default=0, repr=False, compare=False)

    def value(self, name: str) -> Value | None:
        """Type of a tensor, or None when unknown."""
        if name in self.constants:
            return self.constants[name].value
        for table in (self.inputs, self.values, self.outputs):
            if name in table:
                return table[name]
        return None

    def array(self, name: str) -> Array | None:
        """Dense contents of a constant, or None when `name` is not one."""
        constant = self.constants.get(name)
        return None if constant is None else constant.dense()

    def producers(self) -> dict[str, Node]:
        """Tensor name → the node that makes it."""
        return {out: node for node in self.nodes for out in node.outputs if out}

    def consumers(self) -> dict[str, list[Node]]:
        """Tensor name → nodes that read it, in order, once per use (subgraph captures included)."""
        table: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node_reads(node):
                table.setdefault(name, []).append(node)
        return table

    def add_constant(self, array: Array, hint: str = "constant") -> str:
        """Adds a dense constant under a fresh name made from hint; returns the name."""
        name = self.fresh_name(hint)
        self.constants[name] = Constant.of(array)
        return name

    def fresh_name(self, hint: str) -> str:
        """A tensor name nothing uses yet: hint itself, or hint with a serial number."""
        taken = self.tensor_names()
        name = hint
        while name in taken:
            self._serial += 1
            name = f"{hint}_{self._serial}"
        return name

    def tensor_names(self) -> set[str]:
        names = set(self.inputs) | set(self.constants) | set(self.values) | set(self.outputs)
        for node in self.nodes:
            names.update(node.inputs)
            names.update(node.outputs)
        return names

    def copy(self) -> Graph:
        """A copy that may be rewritten freely; constant arrays are shared, not copied."""
        return Graph(
            self.name,
            dict(self.inputs),
            dict(self.outputs),
            [
                Node(n.op, list(n.inputs), list(n.outputs), copy.copy(n.attrs), n.domain, n.name)
                for n in self.nodes
            ],
            dict(self.constants),
            dict(self.values),
            dict(self.opsets),
            dict(self.metadata),
        )


def subgraphs(node: Node) -> Iterator[Graph]:
    """Graphs held by a node's attributes (If, Loop, Scan)."""
    for attr in node.attrs.values():
        if isinstance(attr, Graph):
            yield attr


def node_reads(node: Node) -> list[str]:
    """Tensors a node reads: its inputs and what its subgraphs capture from outside."""
    reads = [name for name in node.inputs if name]
    for graph in subgraphs(node):
        reads.extend(captures(graph))
    return reads


def captures(graph: Graph) -> list[str]:
    """Names a subgraph reads from its surroundings."""
    own = set(graph.inputs) | set(graph.constants)
    reads: list[str] = []
    for node in graph.nodes:
        reads.extend(name for name in node_reads(node) if name not in own)
        own.update(node.outputs)
    reads.extend(name for name in graph.outputs if name not in own)
    return reads


def static_dims(shape: Iterable[Dim] | None) -> tuple[int, ...] | None:
    """The shape as ints when every dimension is static, else None."""
    if shape is None:
        return None
    dims = tuple(shape)
    return dims if all(isinstance(d, int) for d in dims) else None  # type: ignore[return-value]
