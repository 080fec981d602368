"""What a session tells of its model besides the plan; a `.plan` file carries it as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_rt.dtypes import dtype_from_name
from lepton_rt.errors import ModelError, as_model_error
from lepton_rt.graph.ir import Dim
from lepton_rt.plan import DTYPE_CODES

if TYPE_CHECKING:
    from lepton_rt import _core
    from lepton_rt.graph.ir import Value


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of an input or output; a dimension may be a symbol or None (any).

    What is no tensor has its ONNX type in kind ("seq(tensor(float))"), and no shape.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dim, ...] | None
    kind: str = ""

    @classmethod
    def of(cls, name: str, value: Value) -> TensorSpec:
        return cls(name, value.dtype, value.shape, value.kind)

    def __str__(self) -> str:
        if self.kind:
            return f"{self.name}: {self.kind}"
        return f"{self.name}: {self.dtype} {shape_text(self.shape)}"


def shape_text(shape: Sequence[Dim] | None) -> str:
    """ "[n, 3, ?]", or "any shape"."""
    if shape is None:
        return "any shape"
    return f"[{', '.join('?' if dim is None else str(dim) for dim in shape)}]"


@dataclass(frozen=True)
class Interface:
    """Types of the inputs and outputs, and what the plan itself does not hold."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: dict[str, str]
    """Input that continues an output of the run before → that output."""
    state_axes: dict[str, int]
    """State input that grows in place → its growing axis."""
    metadata: dict[str, str]
    """The model's own."""
    notes: tuple[str, ...]
    """Why each step is what it is."""

    def encode(self) -> bytes:
        specs = {
            kind: [[s.name, s.dtype.name, s.shape] for s in getattr(self, kind)]
            for kind in ("inputs", "outputs")
        }
        rest = {
            "state": self.state,
            "state_axes": self.state_axes,
            "metadata": self.metadata,
            "notes": self.notes,
        }
        return json.dumps({**specs, **rest}).encode()

    @classmethod
    def decode(cls, data: bytes, executor: _core.Executor) -> Interface:
        """The interface of a plan from a file, whose tensors it must fit.

        Raises:
            ModelError: it does not fit, or is malformed.
        """
        with as_model_error("the plan's annotations are malformed"):
            found = json.loads(data)
            interface = cls(
                _specs(found["inputs"]),
                _specs(found["outputs"]),
                _table(found["state"], str),
                _table(found["state_axes"], int),
                _table(found["metadata"], str),
                tuple(_checked(note, str) for note in found["notes"]),
            )
        interface._check(executor)
        return interface

    def _check(self, executor: _core.Executor) -> None:
        inputs = {spec.name: spec for spec in self.inputs}
        outputs = {spec.name: spec for spec in self.outputs}
        for specs, tensors in ((self.inputs, executor.inputs), (self.outputs, executor.outputs)):
            if [(spec.name, spec.dtype.name) for spec in specs] != tensors:
                raise ModelError("the plan's annotations name other inputs or outputs than it has")
        fits = len(self.notes) == len(executor.steps) and len(inputs) == len(self.inputs)
        fits = fits and len(set(self.state.values())) == len(self.state)
        for past, present in self.state.items():
            fits = fits and past in inputs and present in outputs
        for past, axis in self.state_axes.items():
            shape = inputs[past].shape if past in self.state and past in inputs else None
            fits = fits and shape is not None and 0 <= axis < len(shape)
        if not fits:
            raise ModelError("the plan's annotations do not fit its steps and tensors")


def _specs(rows: list[list[Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            _checked(name, str),
            _dtype(_checked(dtype, str)),
            None if shape is None else tuple(_dim(dim) for dim in shape),
        )
        for name, dtype, shape in rows
    )


def _dtype(name: str) -> np.dtype[Any]:
    if name not in DTYPE_CODES:
        raise TypeError(f"{name!r} is no dtype of a plan")
    return dtype_from_name(name)


def _dim(dim: Any) -> Dim:
    if dim is None or isinstance(dim, str) or (type(dim) is int and dim >= 0):
        return dim
    raise TypeError(f"a dimension is a size, a symbol or null, not {dim!r}")


def _table(found: dict[str, Any], kind: type) -> dict[str, Any]:
    return {key: _checked(value, kind) for key, value in found.items()}


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
