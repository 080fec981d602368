"""One node that an import rule rewrites, and what it may ask of its surroundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lepton_rt.errors import ModelError
from lepton_rt.graph.ir import Array, Attr, Constant, Graph, Node, Value

INT64 = np.dtype(np.int64)


class Surroundings(Protocol):
    """What is known around a node while it is rewritten."""

    graph: Graph

    def value(self, name: str) -> Value | None: ...
    def array(self, name: str) -> Array | None: ...


@dataclass
class Site:
    """One node to be rewritten in place, and where it stands."""

    node: Node
    around: Surroundings
    taken: set[str]
    versions: dict[str, int] = field(default_factory=dict)
    """Output name → opset, of nodes in bodies that a rule has brought up to date itself."""

    def fresh(self, hint: str) -> str:
        base = f"{next((o for o in self.node.outputs if o), self.node.op)}/{hint}"
        name, serial = base, 0
        while name in self.taken:
            serial += 1
            name = f"{base}_{serial}"
        self.taken.add(name)
        return name

    def constant(self, values: Any, dtype: np.dtype[Any] = INT64, hint: str = "constant") -> str:
        name = self.fresh(hint)
        try:
            self.around.graph.constants[name] = Constant.of(np.array(values, dtype))
        except (ValueError, TypeError, OverflowError) as error:
            raise ModelError(f"an attribute of {self.node.op} is malformed: {error}") from None
        return name

    def rank(self, i: int) -> int | None:
        value = self.value(i)
        return None if value is None else value.rank

    def value(self, i: int) -> Value | None:
        given = i < len(self.node.inputs) and self.node.inputs[i]
        return self.around.value(self.node.inputs[i]) if given else None

    def array(self, i: int) -> Array | None:
        given = i < len(self.node.inputs) and self.node.inputs[i]
        return self.around.array(self.node.inputs[i]) if given else None

    def dtype(self, i: int) -> np.dtype[Any]:
        value = self.value(i)
        return np.dtype(np.float32) if value is None else value.dtype

    def pop(self, name: str, default: Attr | None = None) -> Any:
        return self.node.attrs.pop(name, default)

    def input_from(self, attr: str, place: int, dtype: np.dtype[Any] = INT64) -> None:
        """Turns an attribute into input `place`."""
        if attr in self.node.attrs:
            self.set_input(place, self.constant(self.pop(attr), dtype, attr))

    def set_input(self, place: int, name: str) -> None:
        self.node.inputs.extend([""] * (place + 1 - len(self.node.inputs)))
        self.node.inputs[place] = name

    def unsqueeze(self, i: int, axes: list[int]) -> list[Node]:
        out = self.fresh("unsqueezed")
        node = Node("Unsqueeze", [self.node.inputs[i], self.constant(axes, hint="axes")], [out])
        self.node.inputs[i] = out
        return [node]


Rule = Callable[[Site], "list[Node] | None"]
"""Rewrites site.node in place; returns nodes instead when more than that one is needed."""
