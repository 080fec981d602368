"""Type rules of recurrent layers."""

from __future__ import annotations

from lepton_rt.errors import ModelError
from lepton_rt.graph.inference.context import Context, Outputs, Rule, Shape, typed
from lepton_rt.graph.ir import Dim


def _recurrent(ctx: Context) -> Outputs:
    """Y [seq, directions, batch, hidden], Y_h and (LSTM) Y_c [directions, batch, hidden]."""
    shape, recurrence = ctx.shape(0), ctx.shape(2)
    hidden: Dim = ctx.int_attr("hidden_size") or (recurrence[-1] if recurrence else None)
    directions = 2 if ctx.str_attr("direction", "forward") == "bidirectional" else 1
    if shape is not None and len(shape) != 3:
        raise ModelError(f"{ctx.node.op} of a tensor of rank {len(shape)}, not 3")
    first, second = shape[:2] if shape is not None else (None, None)
    whole: Shape
    last: Shape
    if ctx.int_attr("layout"):
        whole = (first, second, directions, hidden)
        last = (first, directions, hidden)
    else:
        whole = (first, directions, second, hidden)
        last = (directions, second, hidden)
    dtype = ctx.dtype(0)
    return [typed(dtype, whole), typed(dtype, last), typed(dtype, last)]


def _dynamic_quantize(ctx: Context) -> Outputs:
    """The same with 8-bit W and R, whose scales are operands 8 and 10."""
    if not all(ctx.has(i) for i in (0, 1, 2, 8, 10)):
        raise ModelError(f"{ctx.node.key} needs X, W, R and the scales of W and R")
    return _recurrent(ctx)


RULES: dict[str, Rule] = {
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "lepton.DynamicQuantizeLSTM": _dynamic_quantize,
    "lepton.DynamicQuantizeGRU": _dynamic_quantize,
    "lepton.DynamicQuantizeRNN": _dynamic_quantize,
}
