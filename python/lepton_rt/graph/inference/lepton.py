"""Type rules of the lepton domain (see docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_rt.errors import ModelError
from lepton_rt.graph.inference.context import (
    FLOAT,
    UINT8,
    Context,
    Outputs,
    Rule,
    broadcast,
    one,
    typed,
)
from lepton_rt.graph.inference.layers import matmul_shape
from lepton_rt.graph.inference.reduction import reduced
from lepton_rt.graph.inference.windows import conv_dims, conv_transpose_dims, pool_dims
from lepton_rt.graph.ir import Dim


def _channels_last(dims: Sequence[Dim] | None) -> list[Dim] | None:
    return None if dims is None else [dims[0], *dims[2:], dims[1]]


def _layout(ctx: Context) -> bool:
    return bool(ctx.int_attr("channels_last"))


def _conv(ctx: Context) -> Outputs:
    return one(ctx.dtype(0), _channels_last(conv_dims(ctx, 0, 1, _layout(ctx))))


def _requantized(ctx: Context, y_scale: int, o_scale: int) -> np.dtype[Any] | None:
    """Output dtype of a quantised operator: its last zero-point's; float32 without a scale."""
    for scale in (o_scale, y_scale):
        if ctx.has(scale):
            return ctx.dtype(scale + 1) if ctx.has(scale + 1) else UINT8
    return FLOAT


def _qlinear_conv(ctx: Context) -> Outputs:
    dims = _channels_last(conv_dims(ctx, 0, 3, _layout(ctx)))
    return one(_requantized(ctx, 6, 12), dims)


def _matmul(ctx: Context) -> Outputs:
    return one(ctx.dtype(0), matmul_shape(ctx.shape(0), ctx.shape(1)))


def _qlinear_matmul(ctx: Context) -> Outputs:
    return one(_requantized(ctx, 6, 12), matmul_shape(ctx.shape(0), ctx.shape(3)))


def _float_matmul(ctx: Context) -> Outputs:
    return one(FLOAT, matmul_shape(ctx.shape(0), ctx.shape(1)))


def _conv_transpose(ctx: Context) -> Outputs:
    return one(ctx.dtype(0), _channels_last(conv_transpose_dims(ctx, _layout(ctx))))


def _pool(ctx: Context) -> Outputs:
    dims = pool_dims(ctx, _layout(ctx))
    return one(ctx.dtype(0), _channels_last(dims) if _layout(ctx) else dims)


def _qlinear_pool(ctx: Context) -> Outputs:
    dims = pool_dims(ctx, _layout(ctx))
    dtype = ctx.dtype(4) if ctx.has(4) else UINT8
    return one(dtype, _channels_last(dims) if _layout(ctx) else dims)


def _qlinear_reduce_mean(ctx: Context) -> Outputs:
    shape = reduced(ctx.shape(0), ctx.ints_attr("axes"), bool(ctx.int_attr("keepdims", 1)))
    return one(ctx.dtype(4) if ctx.has(4) else UINT8, shape)


def _same(ctx: Context) -> Outputs:
    return [ctx.value(0)]


def _elementwise(ctx: Context) -> Outputs:
    # The program says nothing of the output's dtype: it is the graph's own statement.
    before = ctx.previous[0]
    dtype = before.dtype if before is not None else ctx.dtype(0)
    return one(dtype, broadcast(*(ctx.shape(i) for i in range(len(ctx.inputs)))))


def _lookup(ctx: Context) -> Outputs:
    table = ctx.node.attrs.get("table")
    before = ctx.previous[0]
    if isinstance(table, np.ndarray):
        return one(table.dtype, ctx.shape(0))
    return [typed(None if before is None else before.dtype, ctx.shape(0))]


_LAYOUTS = {"BHSD": (0, 1, 2, 3), "BSHD": (0, 2, 1, 3), "SBHD": (1, 2, 0, 3)}


def _attention(ctx: Context) -> Outputs:
    """Batch, heads, rows and depth stand where each operand's layout puts them."""
    dims = []
    for index, role in enumerate("qkv"):
        shape, order = ctx.shape(index), _order(ctx, f"{role}_layout")
        if shape is None or len(shape) != 4:
            return [typed(ctx.dtype(0), None)] * len(ctx.node.outputs)
        dims.append([shape[i] for i in order])
    query, key, value = dims
    past = ctx.shape(4) if ctx.has(4) else None
    total: Dim = key[2] if not ctx.has(4) else None
    if past is not None and isinstance(past[2], int) and isinstance(key[2], int):
        total = past[2] + key[2]
    result = (query[0], query[1], query[2], value[3])
    placed: list[Dim] = [None] * 4
    for role_dim, position in enumerate(_order(ctx, "y_layout")):
        placed[position] = result[role_dim]
    return [
        typed(ctx.dtype(0), tuple(placed)),
        typed(ctx.dtype(0), (key[0], key[1], total, key[3])),
        typed(ctx.dtype(0), (key[0], key[1], total, value[3])),
        typed(ctx.dtype(0), (query[0], query[1], query[2], total)),
    ][: len(ctx.node.outputs)]


def _order(ctx: Context, name: str) -> tuple[int, ...]:
    """Where batch, heads, rows and depth stand."""
    layout = ctx.node.attrs.get(name, "BHSD")
    if not isinstance(layout, str) or layout not in _LAYOUTS:
        raise ModelError(f"{ctx.node.key} has the unknown layout {layout!r}")
    return _LAYOUTS[layout]


RULES: dict[str, Rule] = {
    "lepton.Attention": _attention,
    "lepton.DynamicQuantizeAttention": _attention,
    "lepton.Conv": _conv,
    "lepton.QLinearConv": _qlinear_conv,
    "lepton.MatMul": _matmul,
    "lepton.DynamicQuantizeMatMul": _float_matmul,
    "lepton.MatMulNBits": _float_matmul,
    "lepton.QLinearMatMul": _qlinear_matmul,
    "lepton.ConvTranspose": _conv_transpose,
    "lepton.MaxPool": _pool,
    "lepton.AveragePool": _pool,
    "lepton.LpPool": _pool,
    "lepton.QLinearAveragePool": _qlinear_pool,
    "lepton.QLinearReduceMean": _qlinear_reduce_mean,
    "lepton.LRN": _same,
    "lepton.Elementwise": _elementwise,
    "lepton.Lookup": _lookup,
}
