"""What ONNX's own operator schemas say of a graph: validity, and types where we have no rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from onnx import helper

from lepton_rt.errors import Error
from lepton_rt.graph.inference.context import Shape
from lepton_rt.graph.ir import OPSET, Graph, Node, Value, subgraphs
from lepton_rt.graph.onnx_export import check_skeleton, element_type, node_proto, skeleton
from lepton_rt.graph.onnx_kinds import kind_of, type_of
from lepton_rt.graph.onnx_tensors import numpy_dtype


def check_graph(graph: Graph) -> None:
    """Raises ModelError or UnsupportedError where a graph is not valid ONNX."""
    check_skeleton(skeleton(graph))


def infer_by_schema(
    node: Node, inputs: list[Value | None], opsets: Mapping[str, int]
) -> list[Value | None]:
    """Output types of a node by its ONNX schema; [] where it cannot say."""
    known = {name: v for name, v in zip(node.inputs, inputs, strict=True) if name}
    if any(v is None for v in known.values()) or any(subgraphs(node)):
        return []
    try:
        schema = onnx.defs.get_schema(node.op, opsets[node.domain], node.domain)
        types = {name: _type_proto(v) for name, v in known.items() if v is not None}
        found = onnx.shape_inference.infer_node_outputs(
            schema,
            node_proto(node),
            types,
            opset_imports=[helper.make_opsetid(*entry) for entry in opsets.items()],
            ir_version=helper.find_min_ir_version_for([helper.make_opsetid("", OPSET)]),
        )
    except (
        KeyError,
        onnx.defs.SchemaError,
        onnx.shape_inference.InferenceError,
        RuntimeError,
        ValueError,
    ):
        return []
    return [_value(found.get(name)) for name in node.outputs]


def _type_proto(value: Value) -> onnx.TypeProto:
    if value.kind:
        return type_of(value.kind)
    shape = None if value.shape is None else list(value.shape)
    proto: onnx.TypeProto = helper.make_tensor_type_proto(element_type(value.dtype), shape)
    return proto


def _value(proto: Any) -> Value | None:
    if proto is None or proto.WhichOneof("value") is None:
        return None
    if not proto.HasField("tensor_type"):
        try:
            return Value(np.dtype(object), None, kind_of(proto, "an inferred tensor"))
        except Error:
            return None
    if not proto.tensor_type.elem_type:
        return None
    tensor = proto.tensor_type
    dtype = numpy_dtype(tensor.elem_type, "an inferred tensor")
    if not tensor.HasField("shape"):
        return Value(dtype)
    dims: Shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in tensor.shape.dim
    )
    return Value(dtype, dims)
