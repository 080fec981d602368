"""Values a caller gives → arrays the executor takes, and back."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from lepton_rt.errors import InputError
from lepton_rt.graph.ir import Array, Value
from lepton_rt.interface import TensorSpec, shape_text
from lepton_rt.objects import checked_object


def is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_torch(array: Array) -> Any:
    return sys.modules["torch"].from_numpy(array)


def as_array(spec: TensorSpec, value: Any) -> Any:
    """The value as a C-contiguous array of the input's dtype, its shape checked."""
    if spec.dtype.hasobject:
        return checked_object(spec.name, Value(spec.dtype, spec.shape, spec.kind), value)
    if is_torch(value):
        value = np.from_dlpack(value.detach().cpu().contiguous())
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype != spec.dtype:
            raise InputError(
                f'input "{spec.name}" expects {spec.dtype}, got an array of {array.dtype}; '
                f"convert it with .astype({spec.dtype.name!r}) if that is what you mean"
            )
    else:
        array = _converted(spec, value)
    if spec.shape is not None:
        fits = len(spec.shape) == array.ndim and all(
            not isinstance(want, int) or want == got for want, got in zip(spec.shape, array.shape)
        )
        if not fits:
            raise InputError(
                f'input "{spec.name}" expects shape {shape_text(spec.shape)}, '
                f"got {list(array.shape)}"
            )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.ascontiguousarray(array) if array.ndim else array


def _converted(spec: TensorSpec, value: Any) -> Array:
    """Numbers or nested lists as an array of the input's dtype, if every value survives."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f'input "{spec.name}" is not a regular array: {error}') from None
    if array.dtype.kind not in "biuf":
        raise InputError(
            f'input "{spec.name}" expects numbers of {spec.dtype}, got {type(value).__name__}'
        )
    with np.errstate(all="ignore"):
        converted = array.astype(spec.dtype)
        exact = spec.dtype.kind not in "biu" or bool((converted == array).all())
    if not exact:
        raise InputError(f'input "{spec.name}" expects {spec.dtype}, and some values do not fit it')
    return converted


def copied_to(target: Any, result: Array, name: str) -> Array:
    fits = isinstance(target, np.ndarray) and target.dtype == result.dtype
    if not fits or target.shape != result.shape:
        raise InputError(
            f'out for "{name}" must be an array of {result.dtype} of shape {list(result.shape)}'
        )
    target[...] = result
    return np.asarray(target)
