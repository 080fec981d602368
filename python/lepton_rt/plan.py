"""The plan writer: steps and constants in, the byte layout of csrc/runtime/plan.h out."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from lepton_rt.errors import ModelError, UnsupportedError
from lepton_rt.graph.ir import Value

Array = npt.NDArray[Any]
StepAttr = Union[int, float, str, Sequence[int], Sequence[float], Array, "Plan"]

PRODUCER = "lepton_rt"
HOST = "lepton.Host"
"""Operator of a step that a Python callback runs."""
MAX_RANK = 8

# numpy dtype name → DType of csrc/core/dtype.h (ONNX's numbers).
DTYPE_CODES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
    "complex64": 14,
    "complex128": 15,
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
    "uint4": 21,
    "int4": 22,
    "float4_e2m1fn": 23,
    "float8_e8m0fnu": 24,
    "uint2": 25,
    "int2": 26,
}


@dataclass
class Step:
    """One step of a plan: an operator of csrc/ops/ops.inc over named tensors ("" = omitted)."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, StepAttr] = field(default_factory=dict)
    kernel: str = ""
    name: str = ""
    note: str = ""
    """Why this kernel, for `Session.explain()`; not part of the plan."""
    node: str = ""
    """First output of the node it was made of; not part of the plan."""


@dataclass
class Plan:
    """A compiled model: what the executor needs, by name.

    Tensor names in steps refer to inputs, constants or outputs of earlier steps.
    """

    isa: str
    inputs: dict[str, Value]
    outputs: list[str]
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    dtypes: dict[str, np.dtype[Any]] = field(default_factory=dict)
    """Dtype of every tensor that a step makes."""

    def all_steps(self) -> Iterator[Step]:
        """The steps in order, those of a body after the step that it belongs to."""
        for step in self.steps:
            yield step
            for value in step.attrs.values():
                if isinstance(value, Plan):
                    yield from value.all_steps()

    def encode(self) -> tuple[bytes, list[Array]]:
        """Returns (meta, blobs) as `_core.Executor` takes them.

        Raises:
            UnsupportedError: a tensor's dtype or rank has no place in a plan.
        """
        return _Encoder(self).encode()


class _Encoder:
    def __init__(self, plan: Plan, blobs: list[Array] | None = None) -> None:
        self.plan = plan
        self.out = bytearray()
        self.ids: dict[str, int] = {}
        self.blobs: list[Array] = [] if blobs is None else blobs

    def encode(self) -> tuple[bytes, list[Array]]:
        self.string(self.plan.isa)
        self.string(PRODUCER)
        self.tensors()
        self.u32(len(self.plan.inputs))
        for name, value in self.plan.inputs.items():
            self.graph_input(name, value)
        self.u32(len(self.plan.outputs))
        for name in self.plan.outputs:
            self.u32(self.id_of(name))
        self.u32(len(self.plan.steps))
        for step in self.plan.steps:
            self.step(step)
        return bytes(self.out), self.blobs

    def u32(self, value: int) -> None:
        self.out += struct.pack("<I", value)

    def string(self, text: str) -> None:
        data = text.encode()
        self.u32(len(data))
        self.out += data

    def id_of(self, name: str) -> int:
        if name not in self.ids:
            raise ModelError(f'tensor "{name}" is read but never made')
        return self.ids[name]

    def tensors(self) -> None:
        plan = self.plan
        made = [out for step in plan.steps for out in step.outputs if out]
        read = {name for step in plan.steps for name in step.inputs} | set(plan.outputs)
        constants = [name for name in plan.constants if name in read]
        self.u32(len(plan.inputs) + len(constants) + len(made))
        for name, value in plan.inputs.items():
            self.tensor(name, value.dtype, None)
        for name in constants:
            self.tensor(name, plan.constants[name].dtype, plan.constants[name])
        for name in made:
            if name not in plan.dtypes:
                raise ModelError(f'the dtype of tensor "{name}" is not known')
            self.tensor(name, plan.dtypes[name], None)

    def tensor(self, name: str, dtype: np.dtype[Any], array: Array | None) -> None:
        code = DTYPE_CODES.get(dtype.name)
        if code is None:
            raise UnsupportedError(f'tensor "{name}" has dtype {dtype}, which is not supported')
        if name in self.ids:
            raise ModelError(f'tensor "{name}" is made twice')
        self.ids[name] = len(self.ids)
        shape = () if array is None else array.shape
        if len(shape) > MAX_RANK:
            raise UnsupportedError(f'tensor "{name}" has rank {len(shape)}; {MAX_RANK} is the most')
        self.string(name)
        self.out += struct.pack(
            f"<BBB{len(shape)}qI", code, array is not None, len(shape), *shape, len(self.blobs)
        )
        if array is not None:
            self.blobs.append(np.ascontiguousarray(array))

    def graph_input(self, name: str, value: Value) -> None:
        self.u32(self.id_of(name))
        if value.shape is None:
            self.out += struct.pack("<B", 255)
            return
        if len(value.shape) > MAX_RANK:
            raise UnsupportedError(f'input "{name}" has rank {len(value.shape)}')
        dims = [dim if isinstance(dim, int) else -1 for dim in value.shape]
        self.out += struct.pack(f"<B{len(dims)}q", len(dims), *dims)

    def step(self, step: Step) -> None:
        self.string(step.op)
        self.string(step.kernel)
        self.string(step.name)
        for names in (step.inputs, step.outputs):
            ids = [self.id_of(name) if name else -1 for name in names]
            self.out += struct.pack(f"<I{len(ids)}i", len(ids), *ids)
        self.u32(len(step.attrs))
        for name, value in step.attrs.items():
            self.attribute(name, value)

    def attribute(self, name: str, value: StepAttr) -> None:
        self.string(name)
        if isinstance(value, Plan):
            payload = _Encoder(value, self.blobs).encode()[0]
            kind, count = 3, len(payload)
        else:
            kind, count, payload = attribute_payload(name, value)
        self.out += struct.pack("<BI", kind, count)
        self.out += b"\0" * (-len(self.out) % 8)
        self.out += payload


def joined(value: Any) -> StepAttr:
    """An attribute of a node as plans have it: lists of strings are one string."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        return ";".join(str(item) for item in value)
    made: StepAttr = value
    return made


def attribute_payload(name: str, value: StepAttr) -> tuple[int, int, bytes]:
    """(kind, count, bytes): 0 = int64 list, 1 = float32 list, 2 = string (3 is a plan)."""
    if isinstance(value, str):
        data = value.encode()
        return 2, len(data), data
    array = np.atleast_1d(np.asarray(value))
    if array.size == 0 or array.dtype.kind in "iub":
        return 0, array.size, array.astype("<i8").tobytes()
    if array.dtype.kind == "f":
        return 1, array.size, array.astype("<f4").tobytes()
    raise UnsupportedError(f'attribute "{name}" of dtype {array.dtype} has no place in a plan')
