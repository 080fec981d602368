"""A graph under construction, with the few ways quantisation adds to it."""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Array, Constant, Graph, Node, Value

FLOAT32 = np.dtype(np.float32)


class QdqBuilder:
    """Copies a graph's surroundings and lets its nodes be written anew, one after the other."""

    def __init__(self, source: Graph) -> None:
        self.source = source
        self.graph = source.copy()
        self.graph.nodes = []
        self._taken = source.tensor_names()

    def fresh(self, hint: str, value: Value | None = None) -> str:
        """A tensor name nothing uses yet, with its type noted."""
        name, serial = hint, 0
        while name in self._taken:
            serial += 1
            name = f"{hint}_{serial}"
        self._taken.add(name)
        if value is not None:
            self.graph.values[name] = value
        return name

    def constant(self, array: Array, hint: str) -> str:
        """Adds a dense constant; returns its name."""
        name = self.fresh(hint)
        self.graph.constants[name] = Constant.of(array)
        return name

    def add(self, op: str, inputs: list[str], output: str, axis: int | None = None) -> None:
        """Appends a QuantizeLinear or DequantizeLinear."""
        node = Node(op, inputs, [output], name=f"{output}_{op}")
        if axis is not None:
            node.attrs["axis"] = axis
        self.graph.nodes.append(node)

    def dequantized_constant(
        self, values: Array, scale: str, zero_point: str, hint: str, axis: int | None = None
    ) -> str:
        """Stores integers and appends their dequantisation; returns the float tensor's name."""
        stored = self.constant(values, f"{hint}_quantized")
        twin = self.fresh(f"{hint}_dequantized", Value(FLOAT32, values.shape))
        inputs = [stored, scale, zero_point] if zero_point else [stored, scale]
        self.add("DequantizeLinear", inputs, twin, axis)
        return twin

    def finish(self) -> Graph:
        """The graph, without the constants that nothing reads any more."""
        read = self.graph.consumers()
        self.graph.constants = {
            name: constant
            for name, constant in self.graph.constants.items()
            if name in read or name in self.graph.outputs
        }
        return self.graph
