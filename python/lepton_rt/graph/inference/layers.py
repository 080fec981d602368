"""Type rules of matrix products, normalisations, attention and other layers."""

from __future__ import annotations

from lepton_rt.errors import ModelError
from lepton_rt.graph.inference.context import (
    FLOAT,
    INT32,
    INT64,
    Context,
    Outputs,
    Rule,
    Shape,
    broadcast,
    element_dtype,
    normal_axis,
    one,
    typed,
)
from lepton_rt.graph.ir import Dim


def matmul_shape(a: Shape | None, b: Shape | None) -> Shape | None:
    """numpy.matmul's shape rule."""
    if a is None or b is None:
        return None
    if not a or not b:
        raise ModelError("a matrix product of a scalar")
    left, right = a if len(a) > 1 else (1, *a), b if len(b) > 1 else (*b, 1)
    inner, other = left[-1], right[-2]
    if isinstance(inner, int) and isinstance(other, int) and inner != other:
        raise ModelError(f"a matrix product of shapes {list(a)} and {list(b)}")
    batch = broadcast(left[:-2], right[:-2]) or ()
    rows = (left[-2],) if len(a) > 1 else ()
    columns = (right[-1],) if len(b) > 1 else ()
    return (*batch, *rows, *columns)


def _matmul(ctx: Context) -> Outputs:
    return one(ctx.dtype(0, ctx.dtype(1)), matmul_shape(ctx.shape(0), ctx.shape(1)))


def _matmul_integer(ctx: Context) -> Outputs:
    return one(INT32, matmul_shape(ctx.shape(0), ctx.shape(1)))


def _qlinear_matmul(ctx: Context) -> Outputs:
    return one(ctx.dtype(7), matmul_shape(ctx.shape(0), ctx.shape(3)))


def _gemm(ctx: Context) -> Outputs:
    a, b = ctx.shape(0), ctx.shape(1)
    for shape in (a, b):
        if shape is not None and len(shape) != 2:
            raise ModelError(f"Gemm of a tensor of shape {list(shape)}")
    a = a[::-1] if a and ctx.int_attr("transA") else a
    b = b[::-1] if b and ctx.int_attr("transB") else b
    if a and b and isinstance(a[1], int) and isinstance(b[0], int) and a[1] != b[0]:
        raise ModelError(f"Gemm of shapes {list(a)} and {list(b)}")
    out = (a[0] if a else None, b[1] if b else None)
    addend = ctx.shape(2)
    if addend is not None and len(broadcast(out, addend) or ()) > 2:
        raise ModelError(f"Gemm adds a tensor of shape {list(addend)} to one of {list(out)}")
    return one(ctx.dtype(0, ctx.dtype(1)), out)


def _einsum(ctx: Context) -> Outputs:
    equation = ctx.str_attr("equation").replace(" ", "")
    dtype = ctx.dtype(0)
    if "." in equation:
        return one(dtype, None)
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ctx.inputs):
        raise ModelError(f"Einsum equation {equation!r} does not fit {len(ctx.inputs)} inputs")
    if not arrow:
        right = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    sizes: dict[str, Dim] = {}
    for i, term in enumerate(terms):
        shape = ctx.shape(i)
        if shape is not None and len(shape) != len(term):
            raise ModelError(f"Einsum term {term!r} does not fit rank {len(shape)}")
        for letter, dim in zip(term, shape or (None,) * len(term), strict=True):
            known = sizes.get(letter)
            sizes[letter] = dim if known is None or known == 1 else known
    if any(letter not in sizes for letter in right):
        raise ModelError(f"Einsum equation {equation!r} invents a dimension")
    return one(dtype, tuple(sizes[letter] for letter in right))


def check_vector(ctx: Context, i: int, size: Dim) -> None:
    """Input i, if given, must be a vector of `size` elements."""
    shape = ctx.shape(i)
    if shape is None:
        return
    wrong = isinstance(size, int) and len(shape) == 1 and isinstance(shape[0], int)
    if len(shape) != 1 or (wrong and shape[0] != size):
        raise ModelError(f"input {i} of shape {list(shape)} should be a vector of {size}")


def _channels(ctx: Context) -> Dim:
    shape = ctx.shape(0)
    if shape is not None and len(shape) < 2:
        raise ModelError(f"{ctx.node.op} of a tensor of rank {len(shape)}")
    return None if shape is None else shape[1]


def _batch_normalization(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    channels = 1 if shape is not None and len(shape) == 1 else _channels(ctx)
    for i in range(1, 5):
        check_vector(ctx, i, channels)
    x, mean = ctx.value(0), ctx.value(3)
    return [x, mean, mean]


def _per_channel_normalization(ctx: Context) -> Outputs:
    channels = _channels(ctx)
    check_vector(ctx, 1, channels)
    check_vector(ctx, 2, channels)
    return [ctx.value(0)]


def _layer_normalization(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    stash = element_dtype(ctx.int_attr("stash_type", 1))
    if shape is None:
        return [ctx.value(0), typed(stash, None), typed(stash, None)]
    axis = normal_axis(ctx.int_attr("axis", -1), len(shape))
    stats = (*shape[:axis], *([1] * (len(shape) - axis)))
    return [ctx.value(0), typed(stash, stats), typed(stash, stats)]


def _attention(ctx: Context) -> Outputs:
    query, key, value = ctx.shape(0), ctx.shape(1), ctx.shape(2)
    past = ctx.shape(4) if ctx.has(4) else None
    dtype = ctx.dtype(0)
    if query is None or key is None or value is None or {*map(len, (query, key, value))} - {3, 4}:
        return [typed(dtype, None)] * 4
    heads, kv_heads = ctx.int_attr("q_num_heads"), ctx.int_attr("kv_num_heads")
    q_heads: Dim = query[1] if len(query) == 4 else heads
    k_heads: Dim = key[1] if len(key) == 4 else kv_heads
    v_size = value[3] if len(value) == 4 else _head(value[2], kv_heads)
    k_size = key[3] if len(key) == 4 else _head(key[2], kv_heads)
    rows = query[-2]
    total = _joined(past, key[-2]) if ctx.has(4) else key[-2]
    if len(query) == 4:
        out: Shape = (query[0], q_heads, rows, v_size)
    else:
        out = (query[0], rows, v_size * heads if isinstance(v_size, int) else None)
    return [
        typed(dtype, out),
        typed(ctx.dtype(1), (query[0], k_heads, total, k_size)),
        typed(ctx.dtype(2), (query[0], k_heads, total, v_size)),
        typed(dtype, (query[0], q_heads, rows, total)),
    ]


def _head(size: Dim, heads: int) -> Dim:
    return size // heads if isinstance(size, int) and heads > 0 else None


def _joined(past: Shape | None, new: Dim) -> Dim:
    old = past[2] if past is not None and len(past) == 4 else None
    return old + new if isinstance(old, int) and isinstance(new, int) else None


def _non_max_suppression(_: Context) -> Outputs:
    return one(INT64, (None, 3))


def _det(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    return one(ctx.dtype(0), None if shape is None else shape[:-2])


def _multinomial(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    dtype = element_dtype(ctx.int_attr("dtype", 6))
    return one(dtype, (shape[0] if shape else None, ctx.int_attr("sample_size", 1)))


def _window_function(ctx: Context) -> Outputs:
    size = ctx.ints(0)
    return one(ctx.attr_dtype("output_datatype") or FLOAT, (size[0] if size else None,))


RULES: dict[str, Rule] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul_integer,
    "QLinearMatMul": _qlinear_matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "BatchNormalization": _batch_normalization,
    "InstanceNormalization": _per_channel_normalization,
    "GroupNormalization": _per_channel_normalization,
    "LayerNormalization": _layer_normalization,
    "Attention": _attention,
    "NonMaxSuppression": _non_max_suppression,
    "Det": _det,
    "Multinomial": _multinomial,
    "HannWindow": _window_function,
    "HammingWindow": _window_function,
    "BlackmanWindow": _window_function,
}
