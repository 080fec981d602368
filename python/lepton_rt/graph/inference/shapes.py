"""Type rules of operators that make or change shapes without moving elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lepton_rt.errors import ModelError
from lepton_rt.graph.inference.context import (
    FLOAT,
    INT64,
    Context,
    Outputs,
    Rule,
    Shape,
    broadcast,
    normal_axis,
    one,
    product,
    typed,
)
from lepton_rt.graph.ir import Dim, Value


def _checked(dims: list[Dim]) -> Shape:
    """Dimensions taken from tensor contents: never negative."""
    if any(isinstance(d, int) and d < 0 for d in dims):
        raise ModelError(f"negative dimension in the shape {dims}")
    return tuple(dims)


def _shape(ctx: Context) -> Outputs:
    rank = None if ctx.shape(0) is None else len(ctx.shape(0) or ())
    if rank is None:
        return one(INT64, (None,))
    start, end, _ = slice(ctx.int_attr("start"), ctx.int_attr("end", rank)).indices(rank)
    return one(INT64, (max(0, end - start),))


def _scalar_int64(_: Context) -> Outputs:
    return one(INT64, ())


def _reshape(ctx: Context) -> Outputs:
    target = ctx.dims(1)
    if target is None:
        length = ctx.shape(1)
        rank = length[0] if length is not None and len(length) == 1 else None
        return one(ctx.dtype(0), (None,) * rank if isinstance(rank, int) and rank < 64 else None)
    return one(ctx.dtype(0), reshape_dims(ctx.shape(0), target, bool(ctx.int_attr("allowzero"))))


def reshape_dims(source: Shape | None, target: list[Dim], allowzero: bool) -> Shape:
    """Resolves 0 (copy) and −1 (infer) in a Reshape target."""
    dims = list(target)
    if not allowzero:
        for i, dim in enumerate(dims):
            if dim == 0:
                if source is not None and i >= len(source):
                    raise ModelError("Reshape copies a dimension that its input does not have")
                dims[i] = None if source is None else source[i]
    if dims.count(-1) > 1 or any(isinstance(d, int) and d < -1 for d in dims):
        raise ModelError(f"Reshape to the impossible shape {target}")
    if -1 in dims:
        i = dims.index(-1)
        dims[i] = _missing_dim(source, dims[:i] + dims[i + 1 :])
    elif source is not None:
        _check_counts(source, dims, target)
    return tuple(dims)


def _missing_dim(source: Shape | None, others: list[Dim]) -> Dim:
    if source is None:
        return None
    remaining = list(source)
    known = 1
    for dim in others:
        # A symbol on both sides cancels; an unknown on the target side leaves nothing to say.
        if isinstance(dim, int):
            known *= dim
        elif dim is not None and dim in remaining:
            remaining.remove(dim)
        else:
            return None
    if known == 0:
        return None
    if all(isinstance(d, int) for d in remaining):
        count = math.prod(d for d in remaining if isinstance(d, int))
        if count % known:
            raise ModelError(f"{count} elements do not reshape into rows of {known}")
        return count // known
    count = math.prod(d for d in remaining if isinstance(d, int))
    free = [d for d in remaining if not isinstance(d, int)]
    return free[0] if count == known and len(free) == 1 else None


def _check_counts(source: Shape, dims: list[Dim], target: list[Dim]) -> None:
    old, new = product(source), product(dims)
    if isinstance(old, int) and isinstance(new, int) and old != new:
        raise ModelError(f"a tensor of shape {list(source)} does not reshape to {target}")


def _flatten(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    if shape is None:
        return one(ctx.dtype(0), (None, None))
    axis = ctx.int_attr("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise ModelError(f"Flatten axis {axis} is outside rank {len(shape)}")
    axis += len(shape) if axis < 0 else 0
    return one(ctx.dtype(0), (product(shape[:axis]), product(shape[axis:])))


def _squeeze(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    if shape is None:
        return one(ctx.dtype(0), None)
    if not ctx.has(1):
        if not all(isinstance(d, int) for d in shape):
            return one(ctx.dtype(0), None)
        return one(ctx.dtype(0), tuple(d for d in shape if d != 1))
    axes = ctx.ints(1)
    if axes is None:
        return one(ctx.dtype(0), None)
    drop = {normal_axis(a, len(shape)) for a in axes}
    if any(isinstance(shape[a], int) and shape[a] != 1 for a in drop):
        raise ModelError(f"Squeeze of a dimension that is not 1 in {list(shape)}")
    return one(ctx.dtype(0), tuple(d for i, d in enumerate(shape) if i not in drop))


def _unsqueeze(ctx: Context) -> Outputs:
    shape, axes = ctx.shape(0), ctx.ints(1)
    if shape is None or axes is None:
        return one(ctx.dtype(0), None)
    rank = len(shape) + len(axes)
    places = {normal_axis(a, rank) for a in axes}
    if len(places) != len(axes):
        raise ModelError(f"Unsqueeze axes {axes} repeat")
    rest = iter(shape)
    return one(ctx.dtype(0), tuple(1 if i in places else next(rest) for i in range(rank)))


def _expand(ctx: Context) -> Outputs:
    target = ctx.dims(1)
    if target is None:
        return one(ctx.dtype(0), None)
    return one(ctx.dtype(0), broadcast(ctx.shape(0), _checked(target)))


def _tile(ctx: Context) -> Outputs:
    shape, repeats = ctx.shape(0), ctx.dims(1)
    if shape is None or repeats is None:
        return one(ctx.dtype(0), None if shape is None else (None,) * len(shape))
    if len(shape) != len(repeats):
        raise ModelError(f"Tile has {len(repeats)} repeats for rank {len(shape)}")
    return one(ctx.dtype(0), _checked([product(p) for p in zip(shape, repeats, strict=True)]))


def _constant_of_shape(ctx: Context) -> Outputs:
    value = ctx.node.attrs.get("value")
    dtype = value.dtype if isinstance(value, np.ndarray) else FLOAT
    dims = ctx.dims(0)
    if dims is None:
        return one(dtype, None)
    return one(dtype, _checked(dims))


def _range(ctx: Context) -> Outputs:
    parts = [ctx.contents[i] if i < len(ctx.contents) else None for i in range(3)]
    numbers = [part.reshape(-1)[0] for part in parts if part is not None and part.size == 1]
    length: Dim = None
    if len(numbers) == 3 and all(isinstance(v, (int, float)) for v in numbers):
        start, limit, delta = numbers
        if delta == 0 or not all(math.isfinite(v) for v in numbers):
            raise ModelError(f"Range from {start} to {limit} in steps of {delta}")
        if all(isinstance(v, int) for v in numbers):
            length = max(0, -((start - limit) // delta))
        else:
            length = max(0, math.ceil((limit - start) / delta))
    return one(ctx.dtype(0), (length,))


def _one_hot(ctx: Context) -> Outputs:
    shape, depth = ctx.shape(0), ctx.ints(1)
    if shape is None:
        return one(ctx.dtype(2), None)
    axis = normal_axis(ctx.int_attr("axis", -1), len(shape) + 1)
    dims: list[Dim] = list(shape)
    dims.insert(axis, depth[0] if depth else None)
    return one(ctx.dtype(2), _checked(dims))


def _non_zero(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    return one(INT64, (None if shape is None else len(shape), None))


def _random(ctx: Context) -> Outputs:
    shape = ctx.ints_attr("shape")
    dtype: np.dtype[Any] | None = ctx.attr_dtype("dtype") or FLOAT
    return one(dtype, None if shape is None else _checked(list(shape)))


def _unique(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    first: Value | None
    if "axis" not in ctx.node.attrs:
        first = typed(ctx.dtype(0), (None,))
    elif shape is None:
        first = typed(ctx.dtype(0), None)
    else:
        axis = normal_axis(ctx.int_attr("axis"), len(shape))
        first = typed(ctx.dtype(0), (*shape[:axis], None, *shape[axis + 1 :]))
    return [first, *(Value(INT64, (None,)) for _ in range(3))]


RULES: dict[str, Rule] = {
    "Shape": _shape,
    "Size": _scalar_int64,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "OneHot": _one_hot,
    "NonZero": _non_zero,
    "RandomNormal": _random,
    "RandomUniform": _random,
    "Unique": _unique,
}
