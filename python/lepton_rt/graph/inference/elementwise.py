"""Type rules of elementwise and same-shape operators."""

from __future__ import annotations

from lepton_rt.graph.inference.context import BOOL, Context, Outputs, Rule, broadcast, one, typed
from lepton_rt.graph.ir import Value

# The output has the type and shape of the first input.
_LIKE_FIRST = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "BitwiseNot",
    "PRelu",
    "CumSum",
    "CumProd",
    "Trilu",
    "LRN",
    "LpNormalization",
    "MeanVarianceNormalization",
    "RMSNormalization",
    "ScatterElements",
    "ScatterND",
    "TensorScatter",
    "ReverseSequence",
    "RotaryEmbedding",
]
_BINARY = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Mod",
    "Pow",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
]
_COMPARE = ["And", "Or", "Xor", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"]
_VARIADIC = ["Min", "Max", "Sum", "Mean"]


def _like_first(ctx: Context) -> Outputs:
    return [ctx.value(0)]


def _binary(ctx: Context) -> Outputs:
    dtype = ctx.dtype(0)
    # Pow may have operands of two types, and takes the first; everything else has one.
    if dtype is None and ctx.node.op not in ("Pow",):
        dtype = ctx.dtype(1)
    return one(dtype, broadcast(ctx.shape(0), ctx.shape(1)))


def _compare(ctx: Context) -> Outputs:
    return one(BOOL, broadcast(ctx.shape(0), ctx.shape(1)))


def _variadic(ctx: Context) -> Outputs:
    dtypes = [value.dtype for value in ctx.inputs if value is not None]
    shapes = [ctx.shape(i) for i in range(len(ctx.inputs))]
    return one(dtypes[0] if dtypes else None, broadcast(*shapes))


def _where(ctx: Context) -> Outputs:
    dtype = ctx.dtype(1, ctx.dtype(2))
    return one(dtype, broadcast(ctx.shape(0), ctx.shape(1), ctx.shape(2)))


def _predicate(ctx: Context) -> Outputs:
    return one(BOOL, ctx.shape(0))


def _cast(ctx: Context) -> Outputs:
    return one(ctx.attr_dtype("to"), ctx.shape(0))


def _cast_like(ctx: Context) -> Outputs:
    return one(ctx.dtype(1), ctx.shape(0))


def _bit_cast(ctx: Context) -> Outputs:
    return one(ctx.attr_dtype("to"), ctx.shape(0))


def _dropout(ctx: Context) -> Outputs:
    return [ctx.value(0), Value(BOOL, ctx.shape(0))]


def _like_with_dtype(ctx: Context) -> Outputs:
    return one(ctx.attr_dtype("dtype") or ctx.dtype(0), ctx.shape(0))


def _gather_like_index(ctx: Context) -> Outputs:
    return [typed(ctx.dtype(0), ctx.shape(1))]


RULES: dict[str, Rule] = {
    **dict.fromkeys(_LIKE_FIRST, _like_first),
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_COMPARE, _compare),
    **dict.fromkeys(_VARIADIC, _variadic),
    "Where": _where,
    "IsInf": _predicate,
    "IsNaN": _predicate,
    "Cast": _cast,
    "CastLike": _cast_like,
    "BitCast": _bit_cast,
    "Dropout": _dropout,
    "EyeLike": _like_with_dtype,
    "Bernoulli": _like_with_dtype,
    "RandomNormalLike": _like_with_dtype,
    "RandomUniformLike": _like_with_dtype,
    "GatherElements": _gather_like_index,
}
