"""Type rules of reductions."""

from __future__ import annotations

from lepton_rt.graph.inference.context import INT64, Context, Outputs, Rule, Shape, normal_axis, one

_REDUCE = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]


def reduced(shape: Shape | None, axes: list[int] | None, keepdims: bool) -> Shape | None:
    """Shape after reducing `axes` (None: not known)."""
    if shape is None:
        return None
    if axes is None:
        return (None,) * len(shape) if keepdims else None
    gone = {normal_axis(a, len(shape)) for a in axes}
    if keepdims:
        return tuple(1 if i in gone else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in gone)


def _reduce(ctx: Context) -> Outputs:
    shape, keepdims = ctx.shape(0), bool(ctx.int_attr("keepdims", 1))
    axes = ctx.ints(1) if ctx.has(1) else []
    if axes == [] and not ctx.int_attr("noop_with_empty_axes"):
        if not keepdims:
            return one(ctx.dtype(0), ())
        return one(ctx.dtype(0), None if shape is None else (1,) * len(shape))
    return one(ctx.dtype(0), reduced(shape, axes, keepdims))


def _arg(ctx: Context) -> Outputs:
    shape = reduced(ctx.shape(0), [ctx.int_attr("axis")], bool(ctx.int_attr("keepdims", 1)))
    return one(INT64, shape)


RULES: dict[str, Rule] = {
    **{f"Reduce{name}": _reduce for name in _REDUCE},
    "ArgMax": _arg,
    "ArgMin": _arg,
}
