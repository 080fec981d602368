"""Graph → ONNX message, in two parts: a skeleton without weights, then the weights.

The skeleton is what gets checked and converted to another opset; large constants stand in it as
inputs, so models of any size pass. How a weight is stored (inside, or in a file beside) is the
caller's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from lepton_rt.errors import ModelError, UnsupportedError
from lepton_rt.graph.ir import ONNX_DOMAINS, OPSET, Attr, Constant, Graph, Node, Value
from lepton_rt.graph.lepton_ops import expand_graph
from lepton_rt.graph.onnx_downgrade import MIN_OPSET, downgrade
from lepton_rt.graph.onnx_kinds import type_of
from lepton_rt.graph.types import UNKNOWN_DTYPE

SMALL_BYTES = 1024
"""Constants up to this size stay in the skeleton: shapes and axes, which checks want to see."""

StoreTensor = Callable[[str, Constant], TensorProto]


def embedded(name: str, constant: Constant) -> TensorProto:
    """A weight stored inside the model."""
    array = np.ascontiguousarray(constant.dense()).reshape(constant.shape)
    return onnx.numpy_helper.from_array(array, name)


def build_model(
    graph: Graph, opset: int, store: StoreTensor = embedded, *, checked: bool = True
) -> ModelProto:
    """The graph as an ONNX model of main-domain opset `opset`.

    checked holds it against ONNX's own rules, which ask for the rank of every input. Raises
    UnsupportedError for an opset, or an operator, that cannot be written.
    """
    if not MIN_OPSET <= opset <= OPSET:
        raise UnsupportedError(f"models are written at opset {MIN_OPSET} to {OPSET}, not {opset}")
    graph = expand_graph(graph)
    model = skeleton(graph)
    if opset < OPSET:
        downgrade(model, opset)
    if checked:
        check_skeleton(model)
    _attach_weights(model.graph, graph, store)
    return model


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def check_skeleton(model: ModelProto) -> None:
    """Holds a model without weights against ONNX's own rules; raises ModelError."""
    shapeless = [info for info in _boundaries(model.graph) if _has_no_shape(info)]
    for info in shapeless:
        # The checker wants a shape even where the rank is unknown; it does not look at it.
        info.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"the model is not valid ONNX: {_first_line(error)}") from None
    finally:
        for info in shapeless:
            info.type.tensor_type.ClearField("shape")


def _boundaries(graph: GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.output
    for node in graph.node:
        for attr in node.attribute:
            if attr.type == AttributeProto.GRAPH:
                yield from _boundaries(attr.g)


def _has_no_shape(info: onnx.ValueInfoProto) -> bool:
    tensor = info.type.tensor_type
    return info.type.HasField("tensor_type") and not tensor.HasField("shape")


def skeleton(graph: Graph) -> ModelProto:
    """The graph at the house opset, large constants standing as inputs."""
    domains = {node.domain for node in graph.nodes} - {""}
    imports = [helper.make_opsetid("", OPSET)]
    imports += [helper.make_opsetid(d, graph.opsets.get(d, 1)) for d in sorted(domains)]
    model = helper.make_model(
        _graph_proto(graph, top=True), opset_imports=imports, producer_name="lepton_rt"
    )
    model.ir_version = helper.find_min_ir_version_for(imports[:1])
    for key, value in graph.metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model


def _attach_weights(proto: GraphProto, graph: Graph, store: StoreTensor) -> None:
    large = {name for name, c in graph.constants.items() if not _is_small(c)}
    inputs = [info for info in proto.input if info.name not in large]
    del proto.input[:]
    proto.input.extend(inputs)
    for name, constant in graph.constants.items():
        if name in large:
            proto.initializer.append(store(name, constant))


def _is_small(constant: Constant) -> bool:
    count = 1
    for dim in constant.shape:
        count *= dim
    return count * constant.dtype.itemsize <= SMALL_BYTES


# Graphs --------------------------------------------------------------------------------------


def _graph_proto(graph: Graph, top: bool = False) -> GraphProto:
    proto = GraphProto(name=graph.name or "graph")
    for name, value in graph.inputs.items():
        proto.input.append(_value_info(name, value))
    for name, constant in graph.constants.items():
        if top and not _is_small(constant):
            proto.input.append(_value_info(name, constant.value))
        else:
            proto.initializer.append(embedded(name, constant))
    for node in graph.nodes:
        proto.node.append(node_proto(node))
    _tell_apart(proto)
    for name, value in graph.outputs.items():
        proto.output.append(_value_info(name, value))
    _add_inner_values(proto, graph)
    return proto


def _tell_apart(proto: GraphProto) -> None:
    """Numbers the nodes that share a name; ONNX Runtime refuses them otherwise."""
    taken = {node.name for node in proto.node}
    seen: set[str] = set()
    for node in proto.node:
        if node.name in seen:
            stem, serial = node.name, 1
            while node.name in taken:
                serial += 1
                node.name = f"{stem}_{serial}"
            taken.add(node.name)
        if node.name:
            seen.add(node.name)


def _add_inner_values(proto: GraphProto, graph: Graph) -> None:
    made = {name for node in graph.nodes for name in node.outputs if name}
    for name, value in graph.values.items():
        if name in made and name not in graph.outputs and value.dtype != UNKNOWN_DTYPE:
            proto.value_info.append(_value_info(name, value))


def _value_info(name: str, value: Value) -> onnx.ValueInfoProto:
    if value.dtype == UNKNOWN_DTYPE:
        return onnx.ValueInfoProto(name=name)
    if value.kind:
        return onnx.ValueInfoProto(name=name, type=type_of(value.kind))
    shape = None if value.shape is None else list(value.shape)
    info: onnx.ValueInfoProto = helper.make_tensor_value_info(
        name, element_type(value.dtype), shape
    )
    return info


def element_type(dtype: np.dtype[Any]) -> int:
    """ONNX element type of a numpy dtype."""
    try:
        return int(helper.np_dtype_to_tensor_dtype(dtype))
    except (KeyError, ValueError, TypeError):
        raise UnsupportedError(f"ONNX has no tensors of {dtype.name}") from None


# Nodes ---------------------------------------------------------------------------------------


def node_proto(node: Node) -> NodeProto:
    """One node as a message, attributes in the kinds the schema names."""
    proto = NodeProto(op_type=node.op, domain=node.domain, name=node.name)
    proto.input.extend(node.inputs)
    proto.output.extend(node.outputs)
    kinds = _attribute_kinds(node)
    for name in sorted(node.attrs):
        proto.attribute.append(_attribute(node, name, node.attrs[name], kinds.get(name)))
    return proto


def _attribute_kinds(node: Node) -> dict[str, int]:
    if node.domain and node.domain not in ONNX_DOMAINS:
        return {}
    try:
        schema: Any = (
            onnx.defs.get_schema(node.op, domain=node.domain)
            if node.domain
            else onnx.defs.get_schema(node.op, OPSET, "")
        )
    except onnx.defs.SchemaError:
        raise UnsupportedError(f"ONNX opset {OPSET} has no operator {node.key!r}") from None
    return {name: int(attr.type.value) for name, attr in schema.attributes.items()}


def _attribute(node: Node, name: str, value: Attr, kind: int | None) -> AttributeProto:
    if isinstance(value, Graph):
        return AttributeProto(name=name, type=AttributeProto.GRAPH, g=_graph_proto(value))
    if isinstance(value, np.ndarray):
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape))
        return AttributeProto(name=name, type=AttributeProto.TENSOR, t=tensor)
    if kind == AttributeProto.TYPE_PROTO and isinstance(value, str):
        return AttributeProto(name=name, type=AttributeProto.TYPE_PROTO, tp=type_of(value))
    if kind == AttributeProto.FLOAT and isinstance(value, int):
        value = float(value)
    if kind == AttributeProto.FLOATS and isinstance(value, list):
        value = [float(v) for v in value]
    if isinstance(value, (list, tuple)) and not value:
        empty = AttributeProto(name=name)
        empty.type = kind or AttributeProto.INTS  # type: ignore[assignment]
        return empty
    try:
        made: AttributeProto = helper.make_attribute(name, value)
    except (TypeError, ValueError) as error:
        raise ModelError(f"attribute {name!r} of {node.op} cannot be written: {error}") from error
    return made
