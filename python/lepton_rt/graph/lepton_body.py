"""A builder of operator bodies: standard nodes that together mean one lepton operator."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_rt.errors import ModelError
from lepton_rt.graph.inference.context import ELEMENT_TYPES
from lepton_rt.graph.ir import Array, Attr, Constant, Graph, Node

_CODES = {name: code for code, name in ELEMENT_TYPES.items()}


class Body:
    """Collects the nodes that replace `node` in `graph`; new constants go into the graph."""

    def __init__(self, node: Node, graph: Graph, taken: set[str]) -> None:
        self.node = node
        self.graph = graph
        self.nodes: list[Node] = []
        self._taken = taken
        self._prefix = node.outputs[0] or node.name or node.op

    def __call__(self, op: str, *inputs: str, **attrs: Attr) -> str:
        """Appends a standard operator with one output; returns the output's name."""
        out = self._fresh(op)
        operands = list(inputs)
        while operands and not operands[-1]:
            operands.pop()
        self.nodes.append(Node(op, operands, [out], attrs, "", out))
        return out

    def dynamically_quantized(self, x: str) -> tuple[str, str, str]:
        """Appends DynamicQuantizeLinear; names of the integers, their scale and zero point."""
        out = tuple(self._fresh(f"dynamic_{part}") for part in ("y", "scale", "zero_point"))
        self.nodes.append(Node("DynamicQuantizeLinear", [x], list(out), {}, "", out[0]))
        return out[0], out[1], out[2]

    def constant(self, array: Array, hint: str = "constant") -> str:
        """Adds a constant; returns its name."""
        name = self._fresh(hint)
        self.graph.constants[name] = Constant.of(np.asarray(array))
        return name

    def cast(self, x: str, dtype: np.dtype[Any]) -> str:
        return self("Cast", x, to=_CODES[dtype.name])

    def input(self, i: int) -> str:
        """Name of operand i, "" when omitted."""
        return self.node.inputs[i] if i < len(self.node.inputs) else ""

    def dtype(self, name: str) -> np.dtype[Any]:
        value = self.graph.value(name)
        if value is None:
            raise ModelError(f"the type of {name!r} is not known")
        return value.dtype

    def rank(self, *names: str) -> int:
        """Rank of the first of `names` whose rank is known."""
        for name in names:
            value = self.graph.value(name) if name else None
            if value is not None and value.rank is not None:
                return value.rank
        raise ModelError(f"the rank of {names[0]!r} is not known")

    def attrs(self, *without: str) -> dict[str, Attr]:
        """The node's attributes, less the house's own."""
        own = {"activation", "activation_params", "channels_last", *without}
        return {name: value for name, value in self.node.attrs.items() if name not in own}

    def flag(self, name: str) -> bool:
        return bool(self.node.attrs.get(name, 0))

    def finish(self, result: str) -> list[Node]:
        """The nodes, the last of which makes the replaced node's output."""
        target = self.node.outputs[0]
        if self.nodes and self.nodes[-1].outputs == [result]:
            self.nodes[-1].outputs = [target]
        else:
            self.nodes.append(Node("Identity", [result], [target], {}, "", target))
        return self.nodes

    def _fresh(self, hint: str) -> str:
        base, serial = f"{self._prefix}/{hint}", 0
        name = base
        while name in self._taken:
            serial += 1
            name = f"{base}_{serial}"
        self._taken.add(name)
        return name
