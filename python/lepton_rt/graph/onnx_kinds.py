"""ONNX types that are no tensors, as text: "seq(tensor(float))", "optional(map(int64,…))".

The text is what ONNX's own schemas use; shapes are not part of it.
"""

from __future__ import annotations

import re

from onnx import TensorProto, TypeProto

from lepton_rt.errors import ModelError, UnsupportedError

_MAX_DEPTH = 8
_WRAPPED = re.compile(r"(seq|optional)\((.*)\)")
_MAP = re.compile(r"map\((\w+),(.*)\)")
_TENSOR = re.compile(r"tensor\((\w+)\)")


def kind_of(proto: TypeProto, what: str, depth: int = 0) -> str:
    """Text of a type; `what` names the tensor in errors.

    Raises ModelError for a type that is incomplete, UnsupportedError for one of another kind.
    """
    if depth > _MAX_DEPTH:
        raise ModelError(f"the type of {what} is nested more than {_MAX_DEPTH} deep")
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        return f"tensor({_element_name(proto.tensor_type.elem_type, what)})"
    if kind == "sequence_type":
        return f"seq({kind_of(proto.sequence_type.elem_type, what, depth + 1)})"
    if kind == "optional_type":
        return f"optional({kind_of(proto.optional_type.elem_type, what, depth + 1)})"
    if kind == "map_type":
        key = _element_name(proto.map_type.key_type, what)
        return f"map({key},{kind_of(proto.map_type.value_type, what, depth + 1)})"
    if kind is None:
        raise ModelError(f"the type of {what} is incomplete")
    raise UnsupportedError(f"{what} is a {kind.removesuffix('_type')}, not a tensor")


def type_of(kind: str) -> TypeProto:
    """The inverse of `kind_of`. Raises ModelError for text that is no type."""
    proto = TypeProto()
    wrapped, mapped, tensor = (form.fullmatch(kind) for form in (_WRAPPED, _MAP, _TENSOR))
    if tensor is not None:
        proto.tensor_type.elem_type = _element_type(tensor[1])
    elif wrapped is not None and wrapped[1] == "seq":
        proto.sequence_type.elem_type.CopyFrom(type_of(wrapped[2]))
    elif wrapped is not None:
        proto.optional_type.elem_type.CopyFrom(type_of(wrapped[2]))
    elif mapped is not None:
        proto.map_type.key_type = _element_type(mapped[1])
        proto.map_type.value_type.CopyFrom(type_of(mapped[2]))
    else:
        raise ModelError(f"{kind!r:.80} is no type of ONNX")
    return proto


def _element_name(code: int, what: str) -> str:
    if code not in TensorProto.DataType.values() or code == TensorProto.UNDEFINED:
        raise ModelError(f"{what} has the unknown element type {code}")
    return str(TensorProto.DataType.Name(code)).lower()


def _element_type(name: str) -> int:
    names = TensorProto.DataType.keys()
    if name.upper() not in names or name == "undefined":
        raise ModelError(f"{name!r:.40} is no element type of ONNX")
    return int(TensorProto.DataType.Value(name.upper()))
