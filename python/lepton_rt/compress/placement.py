"""Which operators of a graph run on 8-bit integers, and which tensors are quantised for that.

Layers (convolutions and matrix products with constant weights) always do. The operators between
two layers do, when every operator on the way can: then no step between the first and the last
layer is float. What comes before the first or after the last layer stays float. An operator and
the Relu, Clip or bias addition fused to it form one unit with nothing quantised in between. So do
a layer and the residual Add that alone reads it: their sum is rounded, not the layer's result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

from lepton_rt.graph.ir import Graph, Node

LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
BETWEEN_ALL = {"Add", "Sub", "Mul", "Div", "Concat", "Sum", "Max", "Min"}
"""Operators between layers all of whose computed inputs are quantised; constants stay float."""
BETWEEN = {
    *("AveragePool", "GlobalAveragePool", "ReduceMean"),
    *("Relu", "Clip", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid"),
    *("HardSwish", "Swish", "Mish", "Tanh", "Gelu", "Softplus", "Softsign"),
}
"""Operators between layers that quantise their first input and have a range of their own."""
SAME_RANGE = {
    *("MaxPool", "GlobalMaxPool", "ReduceMax", "Reshape", "Flatten", "Transpose", "Slice", "Split"),
    *("Squeeze", "Unsqueeze", "Identity", "Dropout", "DepthToSpace", "SpaceToDepth", "Expand"),
    *("Tile", "Pad", "Resize", "Gather"),
}
"""Operators that hand on values of their first input; outputs reuse its scale and zero point."""
_AFFINE = {"Add", "Sub", "Mul", "Div"}
_TAIL_HEADS = LAYERS | _AFFINE
_ACTIVATIONS = {"Relu", "Clip"}


@dataclass
class Unit:
    """An operator with what is fused to its output: [MatMul, Add(bias), Relu], say."""

    nodes: list[Node]
    data: list[str]
    """Tensors that are quantised when the unit runs on integers."""
    inside: bool = False

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def outputs(self) -> list[str]:
        return [name for name in self.nodes[-1].outputs if name]

    @property
    def is_layer(self) -> bool:
        return self.head.op in LAYERS


@dataclass
class Placement:
    """The units that run on integers, and the root of each tensor they quantise.

    roots: tensor → the tensor whose scale and zero point it uses (itself, unless it is the output
    of an operator that hands on its input's values).
    """

    units: list[Unit]
    roots: dict[str, str] = field(default_factory=dict)

    @property
    def observed(self) -> list[str]:
        """The tensors that need a range, in graph order."""
        return [name for name, root in self.roots.items() if name == root]


def place(graph: Graph, excluded: Collection[str] = ()) -> Placement:
    """Decides for a graph without batch norms. excluded: outputs of operators to leave float."""
    left_out = {id(node) for node in graph.nodes if not set(node.outputs).isdisjoint(excluded)}
    units = _units(graph, left_out)
    _mark_inside(graph, units)
    inside = [unit for unit in units if unit.inside]
    _leave_unrounded(graph, inside)
    return Placement(inside, _roots(graph, inside))


def is_bias_add(graph: Graph, node: Node, product: str) -> bool:
    """Whether an Add adds a constant vector along the last axis of `product`."""
    if node.op != "Add" or node.domain or product not in node.inputs:
        return False
    other = graph.array(node.inputs[1 - node.inputs.index(product)])
    return other is not None and other.ndim == 1 and other.dtype == np.float32


def _units(graph: Graph, excluded: set[int]) -> list[Unit]:
    """Every operator that could run on integers, with its tail; in graph order."""
    consumers = graph.consumers()
    taken: set[int] = set()
    units: list[Unit] = []
    for node in graph.nodes:
        if id(node) in excluded or id(node) in taken:
            continue
        data = _data_inputs(graph, node)
        if data is None:
            continue
        unit = Unit([node], data)
        if node.op in _TAIL_HEADS:
            _extend(graph, unit, consumers, excluded)
        taken.update(id(member) for member in unit.nodes)
        units.append(unit)
    return units


def _extend(graph: Graph, unit: Unit, consumers: dict[str, list[Node]], excluded: set[int]) -> None:
    """Appends what alone reads the unit's output: a bias addition, constants, an activation."""
    while True:
        output = unit.nodes[-1].outputs[0]
        readers = consumers.get(output, [])
        if len(readers) != 1 or output in graph.outputs or id(readers[0]) in excluded:
            return
        reader = readers[0]
        first = len(unit.nodes) == 1
        if not reader.domain and (reader.op == "Relu" or _constant_clip(graph, reader)):
            unit.nodes.append(reader)
            return
        is_bias = first and unit.head.op == "MatMul" and is_bias_add(graph, reader, output)
        if not is_bias and not (_is_affine(graph, unit.head) and _is_affine(graph, reader)):
            return
        unit.nodes.append(reader)


def _is_affine(graph: Graph, node: Node) -> bool:
    """A sum or product with a constant: what a batch norm without a layer before it becomes."""
    return (
        not node.domain
        and node.op in _AFFINE
        and sum(name in graph.constants for name in node.inputs) == 1
    )


def _data_inputs(graph: Graph, node: Node) -> list[str] | None:
    """The inputs to quantise when the node runs on integers; None when it cannot."""
    if node.domain or not node.inputs or not node.inputs[0]:
        return None
    if node.op in LAYERS:
        data = [node.inputs[0]] if _is_layer(graph, node) else None
    elif node.op == "Concat":
        data = list(node.inputs)
    elif node.op in BETWEEN_ALL:
        data = [name for name in node.inputs if name not in graph.constants] or None
    elif node.op in BETWEEN:
        fits = node.op != "Clip" or _constant_clip(graph, node)
        data = [node.inputs[0]] if fits else None
    elif node.op in SAME_RANGE:
        data = [node.inputs[0]] if _keeps_range(graph, node) else None
    else:
        data = None
    if data is None or not all(_is_float32(graph, name) for name in data):
        return None
    return None if all(name in graph.constants for name in data) else data


def _is_layer(graph: Graph, node: Node) -> bool:
    weight = graph.constants.get(node.inputs[1])
    if weight is None or weight.dtype != np.float32 or len(weight.shape) < 2:
        return False
    if node.op == "Gemm" and node.attrs.get("transA", 0):
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    if not bias:
        return True
    shape = graph.constants[bias].shape if bias in graph.constants else None
    return shape is not None and all(d == 1 for d in shape[:-1])


def _keeps_range(graph: Graph, node: Node) -> bool:
    if node.op == "MaxPool" or node.op == "Dropout":
        return not any(node.outputs[1:])
    if node.op == "Pad":
        return _pads_with_zero(graph, node)
    if node.op == "Resize":
        return node.attrs.get("mode", "nearest") in {"nearest", "linear"} and (
            node.attrs.get("coordinate_transformation_mode") != "tf_crop_and_resize"
        )
    return True


def _pads_with_zero(graph: Graph, node: Node) -> bool:
    if node.attrs.get("mode", "constant") != "constant":
        return True
    if len(node.inputs) < 3 or not node.inputs[2]:
        return True
    value = graph.array(node.inputs[2])
    return value is not None and not value.any()


def _constant_clip(graph: Graph, node: Node) -> bool:
    return node.op == "Clip" and all(name in graph.constants for name in node.inputs[1:] if name)


def _is_float32(graph: Graph, name: str) -> bool:
    value = graph.value(name)
    return value is None or value.dtype == np.float32


def _mark_inside(graph: Graph, units: list[Unit]) -> None:
    """A unit is inside when it is a layer, or lies on a path of units between two layers."""
    maker = {name: unit for unit in units for name in unit.outputs}
    after: set[int] = set()
    for unit in units:
        if unit.is_layer or any(id(maker.get(name)) in after for name in unit.data):
            after.add(id(unit))
    before: set[str] = set()
    for unit in reversed(units):
        if unit.is_layer or any(name in before for name in unit.outputs):
            unit.inside = id(unit) in after
            before.update(unit.data)


def _leave_unrounded(graph: Graph, inside: list[Unit]) -> None:
    """Of two tensors that an Add sums, the result of a layer is not quantised.

    Where both are, the earlier is: it waits in memory.
    """
    consumers = graph.consumers()
    made = {name: (i, unit) for i, unit in enumerate(inside) for name in unit.outputs}
    for add in inside:
        if add.head.op != "Add" or len(add.data) != 2 or not _same_shapes(graph, add.data):
            continue
        candidates = [
            (made[name][0], name)
            for name in add.data
            if name in made and _could_add(graph, made[name][1]) and len(consumers[name]) == 1
        ]
        if candidates:
            add.data.remove(max(candidates)[1])


def _could_add(graph: Graph, unit: Unit) -> bool:
    """Whether the unit is a layer that could add a residual to its result."""
    plain = unit.head.op in LAYERS - {"ConvTranspose"} and unit.nodes[-1].op not in _ACTIVATIONS
    return plain and not any(name in graph.outputs for name in unit.outputs)


def _same_shapes(graph: Graph, names: list[str]) -> bool:
    a, b = (value.shape if (value := graph.value(name)) else None for name in names)
    return a is not None and None not in a and a == b


def _roots(graph: Graph, inside: Iterable[Unit]) -> dict[str, str]:
    handed_on = {
        name: unit.data[0] for unit in inside if unit.head.op in SAME_RANGE for name in unit.outputs
    }
    roots: dict[str, str] = {}
    for unit in inside:
        for name in unit.data:
            root = name
            while root in handed_on:
                root = handed_on[root]
            roots[name] = root
    # An output of Split that only float operators read still needs its twin's parameters.
    for name, source in handed_on.items():
        roots.setdefault(name, roots[source])
    return roots
