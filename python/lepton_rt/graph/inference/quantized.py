"""Type rules of quantisation."""

from __future__ import annotations

from lepton_rt.graph.inference.context import (
    FLOAT,
    UINT8,
    Context,
    Outputs,
    Rule,
    element_dtype,
    one,
)
from lepton_rt.graph.ir import Value


def _quantize(ctx: Context) -> Outputs:
    dtype = ctx.dtype(2) if ctx.has(2) else element_dtype(ctx.int_attr("output_dtype") or 2)
    return one(dtype, ctx.shape(0))


def _dequantize(ctx: Context) -> Outputs:
    dtype = ctx.attr_dtype("output_dtype") or ctx.dtype(1) or FLOAT
    return one(dtype, ctx.shape(0))


def _dynamic_quantize(ctx: Context) -> Outputs:
    return [Value(UINT8, ctx.shape(0)), Value(FLOAT, ()), Value(UINT8, ())]


RULES: dict[str, Rule] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
}
