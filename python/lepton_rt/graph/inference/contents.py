"""Symbolic evaluation of small integer tensors: the arithmetic that models do on shapes.

A content is an object array whose elements are int (or float, for scales), a symbol, or None.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lepton_rt.graph.inference.context import Context, add, product
from lepton_rt.graph.ir import Array, Dim, Value

MAX_ELEMENTS = 4096
"""Larger tensors are data, not shapes."""

Evaluator = Callable[[Context], "Array | None"]


def of_constant(array: Array) -> Array | None:
    """Content of a constant, when it is small and of a type that shapes are computed with."""
    if array.size > MAX_ELEMENTS or array.dtype.kind not in "iuf":
        return None
    content = np.empty(array.shape, object)
    content.reshape(-1)[:] = array.reshape(-1).tolist()
    return content


def _of(ctx: Context, i: int) -> Array | None:
    return ctx.contents[i] if i < len(ctx.contents) else None


def _shape(ctx: Context) -> Array | None:
    shape = ctx.shape(0)
    if shape is None:
        return None
    content = np.empty(len(shape), object)
    content[:] = shape
    return content[ctx.int_attr("start") : ctx.int_attr("end", len(shape))]


def _size(ctx: Context) -> Array | None:
    shape = ctx.shape(0)
    return None if shape is None else np.array(product(shape), object)


def _same(ctx: Context) -> Array | None:
    return _of(ctx, 0)


def _cast(ctx: Context) -> Array | None:
    content = _of(ctx, 0)
    if content is None or ctx.int_attr("to") not in (6, 7):
        return None
    return _map(lambda a: int(a) if isinstance(a, float) else a, content)


def _gather(ctx: Context) -> Array | None:
    data, indices = _of(ctx, 0), ctx.ints(1)
    places = _of(ctx, 1)
    if data is None or indices is None or places is None or data.ndim != 1:
        return None
    if any(not -data.size <= i < data.size for i in indices):
        return None
    picked = np.empty(len(indices), object)
    picked[:] = [data[i] for i in indices]
    return picked.reshape(places.shape)


def _concat(ctx: Context) -> Array | None:
    parts = [_of(ctx, i) for i in range(len(ctx.inputs))]
    if any(part is None or part.ndim != 1 for part in parts):
        return None
    return np.concatenate(parts)  # type: ignore[arg-type]


def _slice(ctx: Context) -> Array | None:
    data, starts, ends = _of(ctx, 0), ctx.ints(1), ctx.ints(2)
    steps = ctx.ints(4) if ctx.has(4) else [1]
    if data is None or data.ndim != 1 or not starts or not ends or not steps or steps[0] == 0:
        return None
    start, end, step = starts[0], ends[0], steps[0]
    stop = None if step < 0 and end < -data.size else end
    return data[start:stop:step]


def _squeeze(ctx: Context) -> Array | None:
    data = _of(ctx, 0)
    return data.reshape(()) if data is not None and data.shape == (1,) else None


def _unsqueeze(ctx: Context) -> Array | None:
    data = _of(ctx, 0)
    return data.reshape(1) if data is not None and data.ndim == 0 else None


def _reshape(ctx: Context) -> Array | None:
    data, target = _of(ctx, 0), ctx.ints(1)
    if data is None or target is None or len(target) > 1:
        return None
    return data.reshape(-1 if target else ())


def _map(function: Callable[..., Dim], *arrays: Array) -> Array:
    out = np.empty(np.broadcast_shapes(*(a.shape for a in arrays)), object)
    views = [np.broadcast_to(a, out.shape).reshape(-1) for a in arrays]
    flat = [function(*elements) for elements in zip(*views, strict=True)]
    out.reshape(-1)[:] = flat
    return out


def _binary(function: Callable[[Dim, Dim], Dim]) -> Evaluator:
    def evaluate(ctx: Context) -> Array | None:
        a, b = _of(ctx, 0), _of(ctx, 1)
        if a is None or b is None:
            return None
        if not all(isinstance(e, (int, str, type(None))) for x in (a, b) for e in x.reshape(-1)):
            return None
        return _map(function, a, b)

    return evaluate


def _sub(a: Dim, b: Dim) -> Dim:
    if a is not None and a == b:
        return 0
    return add(a, -b) if isinstance(b, int) else None


def _div(a: Dim, b: Dim) -> Dim:
    if b == 1:
        return a
    if not isinstance(a, int) or not isinstance(b, int) or b == 0:
        return None
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _mul(a: Dim, b: Dim) -> Dim:
    return 0 if 0 in (a, b) else product((a, b))


def _min(a: Dim, b: Dim) -> Dim:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else None


def _max(a: Dim, b: Dim) -> Dim:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else None


def _constant_of_shape(ctx: Context) -> Array | None:
    dims, value = ctx.ints(0), ctx.node.attrs.get("value")
    if dims is None or not isinstance(value, np.ndarray) or len(dims) != 1:
        return None
    if not 0 <= dims[0] <= MAX_ELEMENTS or value.dtype.kind not in "iu" or value.size != 1:
        return None
    return np.full(dims[0], int(value.reshape(-1)[0]), object)


def _range(ctx: Context) -> Array | None:
    parts = [ctx.ints(i) for i in range(3)]
    if any(part is None or len(part) != 1 for part in parts):
        return None
    start, limit, delta = (part[0] for part in parts if part is not None)
    if delta == 0 or (limit - start) // delta > MAX_ELEMENTS:
        return None
    values = list(range(start, limit, delta))
    content = np.empty(len(values), object)
    content[:] = values
    return content


EVALUATORS: dict[str, Evaluator] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _same,
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Add": _binary(add),
    "Sub": _binary(_sub),
    "Mul": _binary(_mul),
    "Div": _binary(_div),
    "Min": _binary(_min),
    "Max": _binary(_max),
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
}


def evaluate(ctx: Context, output: Value | None) -> Array | None:
    """Content of a node's first output, as far as it is known."""
    evaluator = EVALUATORS.get(ctx.node.key)
    if evaluator is None or output is None or output.dtype.kind not in "iu":
        return None
    content = evaluator(ctx)
    return None if content is None or content.size > MAX_ELEMENTS else content
