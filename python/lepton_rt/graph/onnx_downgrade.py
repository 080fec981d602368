"""Rewrites a skeleton from the house opset to an older one.

Operators the older opset lacks are replaced by their function bodies. For the rest only what the
newer form added matters: an added attribute must be at its default, an added input must be absent
or become the attribute it once was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import onnx.inliner
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper, numpy_helper

from lepton_rt.errors import ModelError, UnsupportedError
from lepton_rt.graph.ir import OPSET

MIN_OPSET = 13
"""The oldest opset models are written at."""

# Before this opset the operator meant something else: write its function body instead.
_REDEFINED = {"GroupNormalization": 21}
_REDUCE_WITH_AXES_ATTRIBUTE = {
    f"Reduce{name}": 18
    for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
}


def downgrade(model: ModelProto, opset: int) -> None:
    """Rewrites model, in place, from opset `OPSET` to `opset`.

    Raises UnsupportedError naming the operator that the older opset cannot express.
    """
    _expand_missing(model, opset)
    for graph in _graphs(model.graph):
        for node in graph.node:
            if node.domain in ("", "ai.onnx"):
                _rewrite(node, model.graph, opset)
    _drop_unused_constants(model.graph)
    beside = {entry.domain: entry.version for entry in model.opset_import}
    del model.opset_import[:]
    used = {node.domain for graph in _graphs(model.graph) for node in graph.node} - {"", "ai.onnx"}
    model.opset_import.append(helper.make_opsetid("", opset))
    model.opset_import.extend(helper.make_opsetid(d, beside.get(d, 1)) for d in sorted(used))
    model.ir_version = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])


def _expand_missing(model: ModelProto, opset: int) -> None:
    # A body may use operators that are missing in turn; every round gets to older ones.
    for _ in range(4):
        missing = {
            node.op_type
            for graph in _graphs(model.graph)
            for node in graph.node
            if node.domain == "" and not _exists(node.op_type, opset)
        }
        if not missing:
            return
        for op in missing:
            schema: Any = onnx.defs.get_schema(op, OPSET, "")
            if not (schema.has_function or schema.has_context_dependent_function):
                raise UnsupportedError(f"opset {opset} has no operator {op!r}")
        _type_constants(model.graph)
        for graph in _graphs(model.graph):
            for node in graph.node:
                if node.domain == "" and node.op_type in missing:
                    _state_defaults(node)
        try:
            expanded = onnx.inliner.inline_selected_functions(
                model, [("", op) for op in sorted(missing)], inline_schema_functions=True
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{', '.join(sorted(missing))} cannot be expanded") from error
        model.CopyFrom(expanded)
    raise UnsupportedError(f"opset {opset} cannot express {', '.join(sorted(missing))}")


def _state_defaults(node: NodeProto) -> None:
    # A body refers to attributes that the node need not have.
    given = {attribute.name for attribute in node.attribute}
    schema = onnx.defs.get_schema(node.op_type, OPSET, "")
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _type_constants(graph: GraphProto) -> None:
    # A body that depends on its operands' types is expanded only where all of them are stated.
    typed = {info.name for info in (*graph.value_info, *graph.input)}
    for tensor in graph.initializer:
        if tensor.name not in typed:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            graph.value_info.append(info)


def _exists(op: str, opset: int) -> bool:
    return opset >= _REDEFINED.get(op, 0) and onnx.defs.has(op, opset, "")


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attr in node.attribute:
            if attr.type == AttributeProto.GRAPH:
                yield from _graphs(attr.g)


def _rewrite(node: NodeProto, top: GraphProto, opset: int) -> None:
    new = onnx.defs.get_schema(node.op_type, OPSET, "")
    old = onnx.defs.get_schema(node.op_type, opset, "")
    if new.since_version == old.since_version:
        return
    if opset < _REDUCE_WITH_AXES_ATTRIBUTE.get(node.op_type, 0):
        _axes_to_attribute(node, top, opset)
    if node.op_type == "Split" and opset < 18:
        _drop_attribute(node, "num_outputs")
    if node.op_type == "Reshape" and opset < 14 and _has_no_zero(node.input[1], top):
        _drop_attribute(node, "allowzero")
    for attr in list(node.attribute):
        if attr.name in old.attributes:
            continue
        declared = new.attributes.get(attr.name)
        default = None if declared is None else declared.default_value
        if default is None or not default.name or not _equal(attr, default):
            raise UnsupportedError(
                f"opset {opset} has no attribute {attr.name!r} of {node.op_type}"
            )
        node.attribute.remove(attr)
    given = len([name for name in node.input if name])
    if len(node.input) > old.max_input or given < old.min_input:
        raise UnsupportedError(f"opset {opset} has {node.op_type} with other inputs than this one")


def _equal(a: AttributeProto, b: AttributeProto) -> bool:
    return bool(helper.get_attribute_value(a) == helper.get_attribute_value(b))


def _drop_attribute(node: NodeProto, name: str) -> None:
    for attr in [attr for attr in node.attribute if attr.name == name]:
        node.attribute.remove(attr)


def _constant(name: str, top: GraphProto) -> list[int] | None:
    tensor = next((t for t in top.initializer if t.name == name), None)
    return None if tensor is None else [int(v) for v in numpy_helper.to_array(tensor).reshape(-1)]


def _has_no_zero(name: str, top: GraphProto) -> bool:
    values = _constant(name, top)
    return values is not None and 0 not in values


def _axes_to_attribute(node: NodeProto, top: GraphProto, opset: int) -> None:
    noop = any(a.name == "noop_with_empty_axes" and a.i for a in node.attribute)
    _drop_attribute(node, "noop_with_empty_axes")
    axes: list[int] = []
    if len(node.input) > 1 and node.input[1]:
        known = _constant(node.input[1], top)
        if known is None:
            raise UnsupportedError(f"opset {opset} has no {node.op_type} with computed axes")
        axes = known
    if noop and not axes:
        raise UnsupportedError(f"opset {opset} has no {node.op_type} that reduces nothing")
    del node.input[1:]
    if axes:
        node.attribute.append(helper.make_attribute("axes", axes))


def _drop_unused_constants(top: GraphProto) -> None:
    used = {name for graph in _graphs(top) for node in graph.node for name in node.input}
    used.update(info.name for graph in _graphs(top) for info in graph.output)
    for tensor in [t for t in top.initializer if t.name not in used]:
        top.initializer.remove(tensor)
