"""ONNX message → Graph: functions inlined, weights separated, every structural claim checked.

The weights never pass through a protobuf serialisation here: they are read once into constants,
and everything else works on the skeleton that remains.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto

from lepton_rt.custom import find_op
from lepton_rt.errors import ModelError, UnsupportedError
from lepton_rt.graph.ir import (
    LEPTON_DOMAIN,
    ONNX_DOMAINS,
    Array,
    Attr,
    Constant,
    Dim,
    Graph,
    Node,
    Value,
)
from lepton_rt.graph.onnx_kinds import kind_of
from lepton_rt.graph.onnx_qoperators import SPELLINGS
from lepton_rt.graph.onnx_tensors import TensorReader, numpy_dtype, string_attribute
from lepton_rt.graph.types import UNKNOWN_DTYPE

MAX_NODES = 250_000
"""Nodes a model may have after its functions are inlined."""
_MAX_FUNCTION_DEPTH = 100

FunctionKey = tuple[str, str, str]


@dataclass
class _Scope:
    """How the names and attribute references of a function call map to the caller's."""

    prefix: str = ""
    names: dict[str, str] = field(default_factory=dict)
    attrs: dict[str, Attr] = field(default_factory=dict)
    opset: int = 0
    stack: tuple[FunctionKey, ...] = ()
    is_call: bool = False

    def rename(self, name: str) -> str:
        name = text(name)
        if not name or not self.is_call:
            return name
        return self.names.setdefault(name, self.prefix + name)

    def inner(self) -> _Scope:
        """The scope of a subgraph: sees the names around it, keeps its own to itself."""
        return _Scope(
            self.prefix, dict(self.names), self.attrs, self.opset, self.stack, self.is_call
        )


class Importer:
    """Builds one Graph from one ModelProto.

    versions: output name → opset of inlined nodes; opsets: the versions of `ONNX_DOMAINS` it uses.
    """

    def __init__(
        self, model: ModelProto, tensors: TensorReader, domains: frozenset[str] = frozenset()
    ) -> None:
        self._model = model
        self._tensors = tensors
        self._domains = domains | {"", LEPTON_DOMAIN}
        self._functions = self._index_functions(model.functions)
        self._calls = 0
        self._count = 0
        self.opset = 0
        self.versions: dict[str, int] = {}
        self.opsets: dict[str, int] = {}

    def run(self) -> Graph:
        """The model's graph; nodes keep their written opset (see `versions`), unsorted."""
        if not self._model.HasField("graph"):
            raise ModelError("the file holds no ONNX graph")
        self.opset = _main_opset(self._model.opset_import, "the model")
        graph = self._graph(self._model.graph, _Scope(opset=self.opset), top=True)
        graph.metadata = {text(e.key): text(e.value) for e in self._model.metadata_props}
        graph.opsets.update(self.opsets)
        return graph

    # Graphs ----------------------------------------------------------------------------------

    def _graph(self, proto: GraphProto, scope: _Scope, top: bool = False) -> Graph:
        graph = Graph(name=text(proto.name) or "graph")
        self._read_initializers(proto, scope, graph)
        for info in proto.input:
            name = scope.rename(info.name)
            if name in graph.inputs or not name:
                raise ModelError(f"the graph input {name!r} is declared twice or has no name")
            if name not in graph.constants:
                graph.inputs[name] = _declared(info, f"graph input {info.name!r}", top)
        for info in proto.value_info:
            name = scope.rename(info.name)
            value = _value(info.type, f"tensor {info.name!r}")
            known = name in graph.constants or name in graph.inputs
            if value.dtype != UNKNOWN_DTYPE and not known:
                graph.values[name] = value
        for node in proto.node:
            self._node(node, scope, graph)
        for info in proto.output:
            name = scope.rename(info.name)
            if name in graph.outputs or not name:
                raise ModelError(f"the graph output {name!r} is declared twice or has no name")
            graph.outputs[name] = _declared(info, f"graph output {info.name!r}", False)
        return graph

    def _read_initializers(self, proto: GraphProto, scope: _Scope, graph: Graph) -> None:
        for tensor in proto.initializer:
            self._add_constant(graph, scope.rename(tensor.name), self._tensors.read(tensor))
        for sparse in proto.sparse_initializer:
            name = scope.rename(sparse.values.name)
            self._add_constant(graph, name, self._tensors.read_sparse(sparse))

    def _add_constant(self, graph: Graph, name: str, array: Array) -> None:
        if not name or name in graph.constants:
            raise ModelError(f"the constant {name!r} is defined twice or has no name")
        graph.constants[name] = Constant.of(array)

    # Nodes -----------------------------------------------------------------------------------

    def _node(self, proto: NodeProto, scope: _Scope, graph: Graph) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            raise ModelError(f"the model has more than {MAX_NODES} operators")
        domain, op = _plain_domain(proto.domain), text(proto.op_type)
        key = (domain, op, text(proto.overload))
        if key in self._functions:
            self._call(key, proto, scope, graph)
            return
        known = domain in self._domains or f"{domain}.{op}" in SPELLINGS
        known = known or self._is_onnx_own(domain, op)
        if not known and find_op(domain, op) is None:
            raise ModelError(
                f"operator {op!r} of domain {domain!r} is not known"
                + (f" (node {proto.name!r})" if proto.name else "")
                + "; lepton_rt.register_op can teach it"
            )
        attrs = self._attributes(proto, scope)
        inputs = [scope.rename(name) for name in proto.input]
        outputs = [scope.rename(name) for name in proto.output]
        if domain == "" and op == "Constant":
            if len(outputs) != 1:
                raise ModelError("a Constant operator must have one output")
            self._add_constant(graph, outputs[0], _constant_value(attrs, outputs[0]))
            return
        name = scope.prefix + text(proto.name)
        node = Node(op, inputs, outputs, attrs, domain, name)
        if scope.opset != self.opset:
            self.versions.update((name, scope.opset) for name in outputs if name)
        graph.nodes.append(node)

    def _is_onnx_own(self, domain: str, op: str) -> bool:
        if domain not in ONNX_DOMAINS or not onnx.defs.has(op, self.side_opset(domain), domain):
            return False
        self.opsets[domain] = self.side_opset(domain)
        return True

    def side_opset(self, domain: str) -> int:
        """The version of a domain beside the main one that the model (or a function) states."""
        imports = [self._model.opset_import, *(f.opset_import for f in self._model.functions)]
        stated = [e.version for entries in imports for e in entries if e.domain == domain]
        return stated[0] if stated else 1

    def _attributes(self, proto: NodeProto, scope: _Scope) -> dict[str, Attr]:
        attrs: dict[str, Attr] = {}
        for attr in proto.attribute:
            if text(attr.name) in attrs:
                raise ModelError(f"{proto.op_type} has the attribute {attr.name!r} twice")
            if attr.ref_attr_name:
                if attr.ref_attr_name in scope.attrs:
                    attrs[attr.name] = scope.attrs[attr.ref_attr_name]
            else:
                attrs[attr.name] = self._attribute(attr, scope, proto.op_type)
        return attrs

    def _attribute(self, attr: AttributeProto, scope: _Scope, op: str) -> Attr:
        what = f"attribute {attr.name!r} of {op}"
        kind = attr.type
        if kind == AttributeProto.INT:
            return int(attr.i)
        if kind == AttributeProto.FLOAT:
            return float(attr.f)
        if kind == AttributeProto.STRING:
            return string_attribute(attr.s, what)
        if kind == AttributeProto.INTS:
            return [int(i) for i in attr.ints]
        if kind == AttributeProto.FLOATS:
            return [float(f) for f in attr.floats]
        if kind == AttributeProto.STRINGS:
            return [string_attribute(s, what) for s in attr.strings]
        if kind == AttributeProto.TENSOR:
            return self._tensors.read(attr.t)
        if kind == AttributeProto.SPARSE_TENSOR:
            return self._tensors.read_sparse(attr.sparse_tensor)
        if kind == AttributeProto.GRAPH:
            return self._graph(attr.g, scope.inner())
        if kind == AttributeProto.TYPE_PROTO:
            return kind_of(attr.tp, what)
        if kind == AttributeProto.UNDEFINED:
            raise ModelError(f"{what} has no type")
        raise UnsupportedError(f"{what} is of a kind that is not supported ({kind})")

    # Functions -------------------------------------------------------------------------------

    def _index_functions(self, protos: Iterable[FunctionProto]) -> dict[FunctionKey, FunctionProto]:
        table: dict[FunctionKey, FunctionProto] = {}
        for proto in protos:
            key = (_plain_domain(proto.domain), text(proto.name), text(proto.overload))
            if key in table:
                raise ModelError(f"the function {proto.name!r} is defined twice")
            table[key] = proto
        return table

    def _call(self, key: FunctionKey, call: NodeProto, scope: _Scope, graph: Graph) -> None:
        if key in scope.stack or len(scope.stack) >= _MAX_FUNCTION_DEPTH:
            raise ModelError(f"the function {key[1]!r} calls itself")
        function = self._functions[key]
        if len(call.input) > len(function.input) or len(call.output) > len(function.output):
            raise ModelError(f"a call of function {key[1]!r} has too many inputs or outputs")
        self._calls += 1
        inner = _Scope(f"{scope.prefix}{call.name or call.op_type}.{self._calls}/", is_call=True)
        inner.opset = _main_opset(function.opset_import, f"function {key[1]!r}", scope.opset)
        inner.stack = (*scope.stack, key)
        inner.attrs = {
            text(a.name): self._attribute(a, inner, key[1]) for a in function.attribute_proto
        }
        inner.attrs.update(self._attributes(call, scope))
        formal_in = list(function.input)
        inner.names = dict.fromkeys(formal_in, "")
        inner.names.update(zip(formal_in, (scope.rename(n) for n in call.input), strict=False))
        for formal, actual in zip(function.output, call.output, strict=False):
            self._bind_output(formal, scope.rename(actual), inner, graph)
        for node in function.node:
            self._node(node, inner, graph)

    def _bind_output(self, formal: str, actual: str, inner: _Scope, graph: Graph) -> None:
        if not actual:
            return
        if formal in inner.names:
            # The function hands one of its inputs (or an earlier output) straight back.
            node = Node("Identity", [inner.names[formal]], [actual])
            graph.nodes.append(node)
        else:
            inner.names[formal] = actual


def text(value: str | bytes) -> str:
    """A string field; protobuf hands over bytes where the file's are not UTF-8."""
    if not isinstance(value, str):
        raise ModelError(f"the file has a name that is not UTF-8 text: {value[:40]!r}")
    return value


def _plain_domain(domain: str) -> str:
    return "" if text(domain) == "ai.onnx" else domain


def _main_opset(
    imports: Iterable[onnx.OperatorSetIdProto], what: str, default: int | None = None
) -> int:
    versions = {entry.version for entry in imports if entry.domain in ("", "ai.onnx")}
    if not versions and default is not None:
        return default
    if len(versions) > 1:
        raise ModelError(f"{what} imports several versions of the ONNX operators")
    return versions.pop() if versions else 1


def _declared(info: onnx.ValueInfoProto, what: str, strict: bool) -> Value:
    value = _value(info.type, what)
    if strict and value.dtype == UNKNOWN_DTYPE:
        raise ModelError(f"{what} has no element type")
    return value


def _value(proto: onnx.TypeProto, what: str) -> Value:
    kind = proto.WhichOneof("value")
    if kind is None:
        return Value(UNKNOWN_DTYPE)
    if kind != "tensor_type":
        return Value(np.dtype(object), None, kind_of(proto, what))
    tensor = proto.tensor_type
    dtype = numpy_dtype(tensor.elem_type, what) if tensor.elem_type else UNKNOWN_DTYPE
    if not tensor.HasField("shape"):
        return Value(dtype)
    return Value(dtype, tuple(_dim(dim, what) for dim in tensor.shape.dim))


def _dim(dim: onnx.TensorShapeProto.Dimension, what: str) -> Dim:
    if dim.HasField("dim_value"):
        if dim.dim_value < 0:
            # Exporters write -1 for a free dimension; the format has no such thing, but its
            # meaning is plain. Anything lower is damage.
            if dim.dim_value == -1:
                return None
            raise ModelError(f"{what} has the negative dimension {dim.dim_value}")
        return int(dim.dim_value)
    return text(dim.dim_param) or None


_CONSTANT_FORMS: dict[str, np.dtype[Any] | None] = {
    "value": None,
    "sparse_value": None,
    "value_int": np.dtype(np.int64),
    "value_ints": np.dtype(np.int64),
    "value_float": np.dtype(np.float32),
    "value_floats": np.dtype(np.float32),
    "value_string": np.dtype(object),
    "value_strings": np.dtype(object),
}


def _constant_value(attrs: dict[str, Attr], name: str) -> Array:
    forms = [form for form in _CONSTANT_FORMS if form in attrs]
    if len(forms) != 1:
        raise ModelError(f"the Constant operator that makes {name!r} has no single value")
    value, dtype = attrs[forms[0]], _CONSTANT_FORMS[forms[0]]
    if dtype is None:
        if not isinstance(value, np.ndarray):
            raise ModelError(f"the Constant operator that makes {name!r} holds no tensor")
        return value
    try:
        array = np.array(value, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelError(f"the Constant operator that makes {name!r} is malformed") from error
    if array.ndim != (1 if forms[0].endswith("s") else 0):
        raise ModelError(f"the Constant operator that makes {name!r} is malformed")
    return array
