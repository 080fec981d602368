"""Type rules of quantisation."""

from __future__ import annotations

from lepton_rt.errors import ModelError
from lepton_rt.graph.inference.context import (
    FLOAT,
    UINT8,
    Context,
    Outputs,
    Rule,
    Shape,
    element_dtype,
    normal_axis,
    one,
)
from lepton_rt.graph.ir import Value


def _check_parameters(ctx: Context) -> None:
    """Scale and zero-point: one for all, one per index of `axis`, or one per block of it."""
    x, scale, zero = ctx.shape(0), ctx.shape(1), ctx.shape(2)
    if scale is None:
        return
    if zero is not None and ctx.has(2) and not _agree(scale, zero):
        raise ModelError(f"scale {list(scale)} and zero-point {list(zero)} differ in shape")
    if x is None or len(scale) == 0 or scale == (1,):
        return
    block = ctx.int_attr("block_size")
    if block < 0 or len(scale) != (len(x) if block else 1):
        raise ModelError(f"a scale of shape {list(scale)} for a tensor of shape {list(x)}")
    axis = normal_axis(ctx.int_attr("axis", 1), len(x))
    if block:
        return
    size, count = x[axis], scale[0]
    if isinstance(size, int) and isinstance(count, int) and size != count:
        raise ModelError(f"{count} scales for the {size} slices along axis {axis}")


def _agree(a: Shape, b: Shape) -> bool:
    if a in ((), (1,)) and b in ((), (1,)):
        return True
    pairs = zip(a, b, strict=False)
    static = all(x == y for x, y in pairs if isinstance(x, int) and isinstance(y, int))
    return len(a) == len(b) and static


def _quantize(ctx: Context) -> Outputs:
    _check_parameters(ctx)
    dtype = ctx.dtype(2) if ctx.has(2) else element_dtype(ctx.int_attr("output_dtype") or 2)
    return one(dtype, ctx.shape(0))


def _dequantize(ctx: Context) -> Outputs:
    _check_parameters(ctx)
    dtype = ctx.attr_dtype("output_dtype") or ctx.dtype(1) or FLOAT
    return one(dtype, ctx.shape(0))


def _dynamic_quantize(ctx: Context) -> Outputs:
    return [Value(UINT8, ctx.shape(0)), Value(FLOAT, ()), Value(UINT8, ())]


RULES: dict[str, Rule] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
}
