"""Well-formedness of a Graph: what every pass may assume and must leave true."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lepton_rt.errors import ModelError
from lepton_rt.graph.inference import RULES
from lepton_rt.graph.ir import (
    ENCODINGS,
    LEPTON_DOMAIN,
    OPSET,
    Constant,
    Dim,
    Graph,
    Node,
    Value,
    node_reads,
    subgraphs,
)
from lepton_rt.graph.operators import operators

MAX_DEPTH = 32
"""Graphs within graphs."""
MAX_RANK = 64
"""Dimensions a tensor may have (numpy's own bound)."""

ENCODING_CHECKS: dict[str, Callable[[Constant], bool]] = {
    "dense": lambda c: (
        c.parts.keys() == {"data"}
        and c.parts["data"].dtype == c.dtype
        and c.parts["data"].shape == c.shape
    ),
    "codebook": lambda c: c.parts.keys() == {"indices", "table"} and _is_codebook(c),
}
"""Encoding name → whether a constant's parts fit its dtype, shape and meta. See `ir.ENCODINGS`."""


def _is_codebook(constant: Constant) -> bool:
    indices, table = constant.parts["indices"], constant.parts["table"]
    return (
        indices.dtype.name in ("uint4", "uint8")
        and indices.shape == constant.shape
        and table.dtype == constant.dtype
        and table.ndim == 1
        and int(indices.astype(np.uint8).max(initial=0)) < table.size
    )


# Leading inputs of lepton operators that must be given (zero-points, 2 and 5, may be omitted).
_NEEDED_INPUTS = {
    "Attention": 3,
    "Conv": 2,
    "ConvTranspose": 2,
    "MatMul": 2,
    "DynamicQuantizeAttention": 3,
    "DynamicQuantizeMatMul": 3,
    "MatMulNBits": 3,
    "QLinearConv": 5,
    "QLinearMatMul": 5,
    "QLinearAveragePool": 4,
    "QLinearReduceMean": 4,
}


def verify(graph: Graph) -> None:
    """Raises ModelError, naming the culprit, unless graph is well formed.

    Every tensor is produced once, before it is read; outputs are produced; domains are known;
    constants are what they say; attributes have the types of the IR.
    """
    _verify(graph, frozenset(), 0)


def _verify(graph: Graph, outer: frozenset[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ModelError(f"graphs are nested more than {MAX_DEPTH} deep")
    for name, constant in graph.constants.items():
        _verify_constant(name, constant)
    for table in (graph.inputs, graph.outputs, graph.values):
        for name, value in table.items():
            _verify_value(name, value)
    made = set(graph.constants)
    for name in graph.inputs:
        if name in made:
            raise ModelError(f"the tensor {name!r} is both an input and a constant")
        made.add(name)
    for node in graph.nodes:
        _verify_node(node, graph)
        for name in node_reads(node):
            if name not in made and name not in outer:
                raise ModelError(f"{_label(node)} reads {name!r} before anything makes it")
        for name in node.outputs:
            if name and name in made:
                raise ModelError(f"the tensor {name!r} is defined twice, by {_label(node)} last")
            if name:
                made.add(name)
    for name in graph.outputs:
        if name not in made and name not in outer:
            raise ModelError(f"nothing makes the graph output {name!r}")
    _verify_subgraphs(graph, outer | made, depth)


def _verify_subgraphs(graph: Graph, visible: frozenset[str], depth: int) -> None:
    for node in graph.nodes:
        for subgraph in subgraphs(node):
            _verify(subgraph, visible, depth + 1)


def _verify_node(node: Node, graph: Graph) -> None:
    if not node.op or not all(isinstance(name, str) for name in (*node.inputs, *node.outputs)):
        raise ModelError(f"{_label(node)} is malformed")
    if not any(node.outputs):
        raise ModelError(f"{_label(node)} has no outputs")
    if node.domain not in graph.opsets:
        raise ModelError(f"operator {node.op!r} of domain {node.domain!r} is not known")
    if node.domain == LEPTON_DOMAIN:
        _verify_lepton_node(node)
    elif not node.domain:
        _verify_standard_node(node)
    for name, value in node.attrs.items():
        if not name or not _is_attribute(value):
            raise ModelError(f"attribute {name!r} of {_label(node)} has no type of the IR")


def _verify_standard_node(node: Node) -> None:
    operator = operators().get(node.op)
    if operator is None:
        raise ModelError(f"ONNX opset {OPSET} has no operator {node.op!r}")
    if not operator.accepts_inputs(node.inputs):
        raise ModelError(f"{_label(node)} does not take the inputs {node.inputs}")
    if not operator.accepts_outputs(node.outputs):
        raise ModelError(f"{_label(node)} does not make the outputs {node.outputs}")
    for name, value in node.attrs.items():
        if not operator.accepts_attr(name, value):
            raise ModelError(f"{_label(node)} has no attribute {name!r} of that kind")


def _verify_lepton_node(node: Node) -> None:
    if node.key not in RULES:
        raise ModelError(f"operator {node.key!r} is not known")
    needed = _NEEDED_INPUTS.get(node.op, 1)
    if len(node.inputs) < needed or not all(
        node.inputs[i] for i in range(needed) if i not in (2, 5)
    ):
        raise ModelError(f"{_label(node)} needs {needed} inputs")


def _is_attribute(value: object) -> bool:
    if isinstance(value, list):
        return any(all(isinstance(v, kind) for v in value) for kind in (int, float, str))
    return isinstance(value, (int, float, str, np.ndarray, Graph))


def _verify_constant(name: str, constant: Constant) -> None:
    if not name:
        raise ModelError("a constant has no name")
    if constant.encoding not in ENCODINGS or constant.encoding not in ENCODING_CHECKS:
        raise ModelError(f"constant {name!r} has the unknown encoding {constant.encoding!r}")
    if not _is_shape(constant.shape) or not all(isinstance(d, int) for d in constant.shape):
        raise ModelError(f"constant {name!r} has the impossible shape {constant.shape}")
    if math.prod(constant.shape) >= 2**62 or not ENCODING_CHECKS[constant.encoding](constant):
        raise ModelError(
            f"constant {name!r} does not hold a {constant.dtype.name} tensor of shape "
            f"{list(constant.shape)} in the {constant.encoding} encoding"
        )


def _verify_value(name: str, value: Value) -> None:
    if not name:
        raise ModelError("a tensor has no name")
    if value.kind and (not value.dtype.hasobject or value.shape is not None):
        raise ModelError(f"tensor {name!r} has the impossible type {value}")
    if value.shape is not None and not _is_shape(value.shape):
        raise ModelError(f"tensor {name!r} has the impossible shape {value.shape}")


def _is_shape(shape: tuple[Dim, ...]) -> bool:
    return len(shape) <= MAX_RANK and all(
        d is None or isinstance(d, str) or (isinstance(d, int) and 0 <= d < 2**62) for d in shape
    )


def _label(node: Node) -> str:
    return f"{node.key} {node.name!r}" if node.name else node.key
