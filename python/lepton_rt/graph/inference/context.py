"""What a type rule sees of a node, and the arithmetic of partly known dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_rt.dtypes import dtype_from_name
from lepton_rt.errors import ModelError
from lepton_rt.graph.ir import Array, Dim, Node, Value

Shape = tuple[Dim, ...]
Outputs = Sequence[Value | None]

BOOL = np.dtype(np.bool_)
FLOAT = np.dtype(np.float32)
INT32 = np.dtype(np.int32)
INT64 = np.dtype(np.int64)
UINT8 = np.dtype(np.uint8)
INT8 = np.dtype(np.int8)

# Numbering of TensorProto.DataType, which attributes such as Cast's `to` use.
ELEMENT_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "object",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    24: "float8_e8m0fnu",
    25: "uint2",
    26: "int2",
}


def element_dtype(code: int) -> np.dtype[Any]:
    """numpy dtype of an ONNX element type number."""
    if code not in ELEMENT_TYPES:
        raise ModelError(f"{code} is not an ONNX element type")
    return dtype_from_name(ELEMENT_TYPES[code])


@dataclass
class Context:
    """One node as its rule sees it.

    inputs[i] is None for an omitted or unknown input. contents[i] holds small integer tensors
    whose elements are known at least in part: an object array of int, symbol or None.
    previous[i] is what the graph said of output i before.
    """

    node: Node
    inputs: list[Value | None]
    contents: list[Array | None]
    previous: list[Value | None]

    def value(self, i: int) -> Value | None:
        return self.inputs[i] if i < len(self.inputs) else None

    def has(self, i: int) -> bool:
        """Whether optional input i was given."""
        return i < len(self.node.inputs) and bool(self.node.inputs[i])

    def shape(self, i: int) -> Shape | None:
        value = self.value(i)
        return None if value is None else value.shape

    def dtype(self, i: int, default: np.dtype[Any] | None = None) -> np.dtype[Any] | None:
        value = self.value(i)
        return default if value is None else value.dtype

    def dims(self, i: int) -> list[Dim] | None:
        """Elements of a 1-D (or scalar) integer input as far as they are known."""
        content = self.contents[i] if i < len(self.contents) else None
        return None if content is None else list(content.reshape(-1))

    def ints(self, i: int) -> list[int] | None:
        """Elements of an integer input when all are known."""
        dims = self.dims(i)
        if dims is None or not all(isinstance(d, (int, np.integer)) for d in dims):
            return None
        return [int(d) for d in dims]  # type: ignore[arg-type]

    def int_attr(self, name: str, default: int = 0) -> int:
        value = self.node.attrs.get(name, default)
        if not isinstance(value, int):
            raise ModelError(f"attribute {name!r} is not an integer")
        return value

    def str_attr(self, name: str, default: str = "") -> str:
        value = self.node.attrs.get(name, default)
        if not isinstance(value, str):
            raise ModelError(f"attribute {name!r} is not a string")
        return value

    def ints_attr(self, name: str) -> list[int] | None:
        value = self.node.attrs.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(v, int) for v in value):
            raise ModelError(f"attribute {name!r} is not a list of integers")
        return list(value)  # type: ignore[arg-type]

    def attr_dtype(self, name: str) -> np.dtype[Any] | None:
        code = self.int_attr(name)
        return element_dtype(code) if code else None


Rule = Callable[[Context], Outputs]


def one(dtype: np.dtype[Any] | None, shape: Sequence[Dim] | None) -> Outputs:
    """The single output of a rule; unknown when the dtype is."""
    return [typed(dtype, shape)]


def typed(dtype: np.dtype[Any] | None, shape: Sequence[Dim] | None) -> Value | None:
    return None if dtype is None else Value(dtype, None if shape is None else tuple(shape))


def normal_axis(axis: int, rank: int) -> int:
    """axis in 0 … rank−1."""
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} is outside a tensor of rank {rank}")
    return axis + rank if axis < 0 else axis


def broadcast_dim(a: Dim, b: Dim) -> Dim:
    if a == 1:
        return b
    if b == 1 or a == b:
        return a
    if isinstance(a, int) and isinstance(b, int):
        raise ModelError(f"dimensions {a} and {b} do not broadcast")
    if isinstance(a, int) and a > 1:
        return a
    if isinstance(b, int) and b > 1:
        return b
    return None


def broadcast(*shapes: Shape | None) -> Shape | None:
    """Multidirectional broadcasting of partly known shapes."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes) or not known:
        return None
    result: Shape = known[0]
    for shape in known[1:]:
        rank = max(len(result), len(shape))
        left = (1,) * (rank - len(result)) + result
        right = (1,) * (rank - len(shape)) + shape
        result = tuple(broadcast_dim(a, b) for a, b in zip(left, right, strict=True))
    return result


def product(dims: Sequence[Dim]) -> Dim:
    """Product of dimensions; a lone symbol among ones survives."""
    total, symbol = 1, None
    for dim in dims:
        if isinstance(dim, int):
            total *= dim
        elif dim is None or symbol is not None:
            return None
        else:
            symbol = dim
    if symbol is None:
        return total
    return symbol if total == 1 else None


def add(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if a == 0:
        return b
    return a if b == 0 else None


def merge_dim(first: Dim, second: Dim) -> Dim:
    """The better known of two statements about one dimension; the first wins a contradiction."""
    if isinstance(first, int) or second is None:
        return first
    return second if isinstance(second, int) or first is None else first


def merge_shape(first: Shape | None, second: Shape | None) -> Shape | None:
    if first is None:
        return second
    if second is None or len(first) != len(second):
        return first
    return tuple(merge_dim(a, b) for a, b in zip(first, second, strict=True))
