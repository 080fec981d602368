"""Writes QuantizeLinear and DequantizeLinear into a graph, for a given placement and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_rt.compress.input_moments import Moments
from lepton_rt.compress.layer_operands import LayerOperands
from lepton_rt.compress.placement import BETWEEN_ALL, Placement, Unit
from lepton_rt.compress.qdq_builder import FLOAT32, QdqBuilder
from lepton_rt.compress.qparams import quantize_array
from lepton_rt.graph.ir import Graph, Node, Value


@dataclass(frozen=True)
class TensorParameters:
    """How one activation tensor is quantised: real = scale · (q - zero_point)."""

    scale: np.float32
    zero_point: int
    dtype: np.dtype[Any]


def insert_qdq(
    graph: Graph,
    placement: Placement,
    parameters: Mapping[str, TensorParameters],
    per_channel: bool = True,
    bits: int = 8,
    moments: Mapping[str, Moments] | None = None,
) -> Graph:
    """The quantised graph. parameters: one entry for each tensor in placement.observed.

    bits: of the weights, 8 or 7. moments: of the inputs of layers, by the name of the weight; those
    weights are rounded to them, others to the nearest integers.

    Tensor names survive: t becomes `t` → QuantizeLinear → `t_quantized` → DequantizeLinear →
    `t_dequantized`. An output of the graph keeps its name on the dequantised side instead.
    """
    return _Writer(graph, placement, parameters, per_channel, bits, moments or {}).write()


class _Writer:
    def __init__(
        self,
        graph: Graph,
        placement: Placement,
        parameters: Mapping[str, TensorParameters],
        per_channel: bool,
        bits: int,
        moments: Mapping[str, Moments],
    ) -> None:
        self.source = graph
        self.placement = placement
        self.parameters = parameters
        self.builder = QdqBuilder(graph)
        self.operands = LayerOperands(self.builder, per_channel, bits, moments)
        self._twins: dict[str, str] = {}  # tensor → its dequantised twin
        self._shared: dict[str, tuple[str, str]] = {}  # root → names of scale and zero point
        self._added_bias: dict[int, str] = {}  # id of a unit → dequantised bias of its MatMul
        self._made_inside = {name for unit in placement.units for name in unit.outputs}

    def write(self) -> Graph:
        unit_of = {id(node): unit for unit in self.placement.units for node in unit.nodes}
        for name in self.source.inputs:
            self._quantize(name, name)
        for source in self.source.nodes:
            self._write_node(source, unit_of.get(id(source)))
        return self.builder.finish()

    def _write_node(self, source: Node, unit: Unit | None) -> None:
        node = Node(
            source.op,
            list(source.inputs),
            list(source.outputs),
            dict(source.attrs),
            source.domain,
            source.name,
        )
        for index, name in enumerate(source.inputs):
            node.inputs[index] = self._read(source, index, name, unit)
        if unit is not None and source is unit.head and unit.is_layer:
            scale = self.parameters[self.placement.roots[unit.data[0]]].scale
            self._added_bias[id(unit)] = self.operands.quantize(node, unit, scale)
        for index, name in enumerate(source.outputs):
            node.outputs[index] = self._written_name(name)
        self.builder.graph.nodes.append(node)
        for name, written in zip(source.outputs, node.outputs):
            self._quantize(name, written)

    def _read(self, source: Node, index: int, name: str, unit: Unit | None) -> str:
        """What operand `index` of a node becomes."""
        if unit is not None and source is unit.head:
            if name in unit.data and (index == 0 or source.op in BETWEEN_ALL):
                constant = name in self.source.constants
                return self._quantized_constant(name) if constant else self._twins[name]
        elif unit is not None and source.op == "Add" and unit.head.op == "MatMul":
            if name in self.source.constants:
                return self._added_bias[id(unit)]
        # Others read what the integers mean where only integers are made, and the float elsewhere.
        return self._twins.get(name, name) if name in self._made_inside else name

    def _written_name(self, name: str) -> str:
        """What the producer of `name` writes: another name when `name` is to be the dequantised."""
        quantized = name in self.placement.roots and name in self._made_inside
        if quantized and name in self.source.outputs:
            return self.builder.fresh(f"{name}_float", self.source.value(name))
        return name

    def _quantize(self, name: str, written: str) -> None:
        """Quantises and dequantises a tensor written under a name, when the placement says so."""
        root = self.placement.roots.get(name)
        if root is None:
            return
        scale, zero_point = self._parameter_names(root)
        value = self.source.value(name)
        shape = None if value is None else value.shape
        stored = self.builder.fresh(f"{name}_quantized", Value(self.parameters[root].dtype, shape))
        twin = name
        if written == name:
            twin = self.builder.fresh(f"{name}_dequantized", Value(FLOAT32, shape))
        self.builder.add("QuantizeLinear", [written, scale, zero_point], stored)
        self.builder.add("DequantizeLinear", [stored, scale, zero_point], twin)
        self._twins[name] = twin

    def _quantized_constant(self, name: str) -> str:
        """A constant activation (an addend, a factor) as the dequantisation of its integers."""
        if name not in self._twins:
            parameters = self.parameters[self.placement.roots[name]]
            scale, zero_point = self._parameter_names(name)
            values = quantize_array(
                self.source.constants[name].dense(),
                parameters.scale,
                parameters.zero_point,
                parameters.dtype,
            )
            self._twins[name] = self.builder.dequantized_constant(values, scale, zero_point, name)
        return self._twins[name]

    def _parameter_names(self, root: str) -> tuple[str, str]:
        if root not in self._shared:
            parameters = self.parameters[root]
            self._shared[root] = (
                self.builder.constant(np.asarray(parameters.scale, np.float32), f"{root}_scale"),
                self.builder.constant(
                    np.asarray(parameters.zero_point, parameters.dtype), f"{root}_zero_point"
                ),
            )
        return self._shared[root]
