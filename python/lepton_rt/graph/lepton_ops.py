"""What the lepton operators mean: each expands into standard ONNX operators.

Verification, tests and export all use these bodies. See docs/architecture.md for the operands.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lepton_rt.errors import ModelError, UnsupportedError
from lepton_rt.graph.ir import LEPTON_DOMAIN, Graph, Node, subgraphs
from lepton_rt.graph.lepton_body import Body
from lepton_rt.graph.lepton_programs import expand_elementwise, expand_lookup

INT32 = np.dtype(np.int32)
INT64 = np.dtype(np.int64)
FLOAT = np.dtype(np.float32)


def expand(node: Node, graph: Graph, taken: set[str] | None = None) -> list[Node]:
    """Standard nodes that compute what a lepton node computes, under the same output name.

    Constants they need are added to graph. taken: tensor names in use, when the caller keeps
    them. Raises UnsupportedError for an unknown operator, ModelError for a malformed one.
    """
    body = _BODIES.get(node.op) if node.domain == LEPTON_DOMAIN else None
    if body is None:
        raise UnsupportedError(f"operator {node.key!r} has no ONNX meaning")
    return body(Body(node, graph, graph.tensor_names() if taken is None else taken))


def expand_graph(graph: Graph) -> Graph:
    """The graph with every lepton node, also in subgraphs, replaced by its body."""
    result = graph.copy()
    taken = result.tensor_names()
    nodes: list[Node] = []
    for node in result.nodes:
        if any(True for _ in subgraphs(node)):
            expanded = {k: expand_graph(v) for k, v in node.attrs.items() if isinstance(v, Graph)}
            node.attrs = {**node.attrs, **expanded}
        if node.domain == LEPTON_DOMAIN:
            nodes.extend(expand(node, result, taken))
        else:
            nodes.append(node)
    result.nodes = nodes
    return result


# Layout and activation -------------------------------------------------------------------------


def _channels_first(body: Body, x: str, rank: int) -> str:
    return body("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)])


def _channels_last(body: Body, x: str, rank: int) -> str:
    return body("Transpose", x, perm=[0, *range(2, rank), 1])


def _bounds(body: Body) -> tuple[float | None, float | None]:
    """Range the activation clamps to."""
    kind = body.node.attrs.get("activation", "")
    if kind == "":
        return None, None
    if kind == "Relu":
        return 0.0, None
    params = body.node.attrs.get("activation_params")
    if kind != "Clip" or not isinstance(params, list) or len(params) != 2:
        raise ModelError(f"{body.node.key} has the unknown activation {kind!r}")
    low, high = (float(p) for p in params)
    return low, high


def _activate(body: Body, x: str, dtype: np.dtype[np.generic] = FLOAT) -> str:
    low, high = _bounds(body)
    if low is None:
        return x
    if high is None:
        return body("Relu", x)
    limits = [body.constant(np.array(v, dtype), "limit") for v in (low, high)]
    return body("Clip", x, *limits)


# Floating-point layers -------------------------------------------------------------------------


def _conv(body: Body) -> list[Node]:
    x, w = body.input(0), body.input(1)
    rank, dtype = body.rank(w, x), body.dtype(x)
    if body.flag("channels_last"):
        x = _channels_first(body, x, rank)
    y = _channels_last(body, body("Conv", x, w, body.input(2), **body.attrs()), rank)
    if body.input(3):
        y = body("Add", y, body.input(3))
    return body.finish(_activate(body, y, dtype))


def _conv_transpose(body: Body) -> list[Node]:
    x, w = body.input(0), body.input(1)
    rank, dtype = body.rank(w, x), body.dtype(x)
    if body.flag("channels_last"):
        x = _channels_first(body, x, rank)
    y = body("ConvTranspose", x, w, body.input(2), **body.attrs())
    return body.finish(_activate(body, _channels_last(body, y, rank), dtype))


def _matmul(body: Body) -> list[Node]:
    y = body("MatMul", body.input(0), body.input(1))
    for i in (2, 3):
        if body.input(i):
            y = body("Add", y, body.input(i))
    return body.finish(_activate(body, y, body.dtype(body.input(0))))


def _around(op: str) -> Callable[[Body], list[Node]]:
    """A standard channels-first operator between the transposes that `channels_last` asks for."""

    def expand_around(body: Body) -> list[Node]:
        x = body.input(0)
        if not body.flag("channels_last"):
            return body.finish(body(op, x, **body.attrs()))
        rank = body.rank(x, body.node.outputs[0])
        y = body(op, _channels_first(body, x, rank), **body.attrs())
        return body.finish(_channels_last(body, y, rank))

    return expand_around


# Order of an operand's dimensions → permutation to batch, heads, rows, depth, and back.
_LAYOUTS = {
    "BHSD": ([0, 1, 2, 3], [0, 1, 2, 3]),
    "BSHD": ([0, 2, 1, 3], [0, 2, 1, 3]),
    "SBHD": ([1, 2, 0, 3], [2, 0, 1, 3]),
}


def _attention(body: Body) -> list[Node]:
    names = ("q_layout", "k_layout", "v_layout", "y_layout")
    layouts = [str(body.node.attrs.get(name, "BHSD")) for name in names]
    if any(layout not in _LAYOUTS for layout in layouts):
        raise ModelError(f"{body.node.key} has the unknown layouts {layouts}")
    if body.flag("bottom_right") or any(body.node.outputs[1:]):
        raise UnsupportedError(f"{body.node.key} with a state has no ONNX meaning")
    operands = [body.input(i) for i in range(len(body.node.inputs))]
    for i in range(3):
        if layouts[i] != "BHSD":
            operands[i] = body("Transpose", operands[i], perm=_LAYOUTS[layouts[i]][0])
    y = body("Attention", *operands, **body.attrs(*names))
    if layouts[3] != "BHSD":
        y = body("Transpose", y, perm=_LAYOUTS[layouts[3]][1])
    return body.finish(y)


# Quantised layers ------------------------------------------------------------------------------


def _zero_point(body: Body, name: str, like: str) -> str:
    return name or body.constant(np.zeros((), body.dtype(like)), "zero_point")


def _clamp_quantized(body: Body, q: str, scale: str, zero_point: str) -> str:
    """The activation as a clamp on integers: its bounds, quantised."""
    low, high = _bounds(body)
    if low is None:
        return q
    bounds = [
        body("QuantizeLinear", body.constant(np.array(v, np.float32), "limit"), scale, zero_point)
        for v in (low, high)
        if v is not None
    ]
    q = body("Max", q, bounds[0])
    return body("Min", q, bounds[1]) if len(bounds) > 1 else q


def _finish_quantized(body: Body, result: str, y: int, r: int) -> list[Node]:
    """Activation, residual and requantisation after a quantised layer.

    `result` is quantised when operand y (y_scale) is given, else float; r is the index of R.
    """
    y_scale, o_scale = body.input(y), body.input(r + 3)
    if not body.input(r):
        if not y_scale:
            return body.finish(_activate(body, result))
        clamped = _clamp_quantized(body, result, y_scale, body.input(y + 1))
        return body.finish(clamped)
    if y_scale:
        result = body("DequantizeLinear", result, y_scale, body.input(y + 1))
    residual = body.input(r)
    if body.input(r + 1):
        residual = body("DequantizeLinear", residual, body.input(r + 1), body.input(r + 2))
    total = _activate(body, body("Add", result, residual))
    if o_scale:
        total = body("QuantizeLinear", total, o_scale, body.input(r + 4))
    return body.finish(total)


def _qlinear_conv(body: Body) -> list[Node]:
    x, w = body.input(0), body.input(3)
    rank = body.rank(w, x)
    x_zero = _zero_point(body, body.input(2), x)
    w_zero = _zero_point(body, body.input(5), w)
    if body.flag("channels_last"):
        x = _channels_first(body, x, rank)
    x_scale, w_scale, bias = body.input(1), body.input(4), body.input(8)
    if body.input(6):
        y_zero = body.input(7) or body.constant(np.zeros((), np.uint8), "zero_point")
        scales = (body.input(6), y_zero)
        operands = (x, x_scale, x_zero, w, w_scale, w_zero, *scales, bias)
        y = _channels_last(body, body("QLinearConv", *operands, **body.attrs()), rank)
    else:
        y = body("ConvInteger", x, w, x_zero, w_zero, **body.attrs())
        y = _accumulator_to_float(body, _channels_last(body, y, rank), bias, (x_scale, w_scale))
    return _finish_quantized(body, y, 6, 9)


def _accumulator_to_float(body: Body, y: str, bias: str, scales: tuple[str, str]) -> str:
    if bias:
        y = body("Add", y, bias)
    return body("Mul", body.cast(y, FLOAT), body("Mul", *scales))


def _qlinear_matmul(body: Body) -> list[Node]:
    a, b = body.input(0), body.input(3)
    a_zero = _zero_point(body, body.input(2), a)
    b_zero = _zero_point(body, body.input(5), b)
    a_scale, b_scale, bias = body.input(1), body.input(4), body.input(8)
    acc = body("MatMulInteger", a, b, a_zero, b_zero)
    if not body.input(6):
        y = _accumulator_to_float(body, acc, bias, (a_scale, b_scale))
        return _finish_quantized(body, y, 6, 9)
    # One multiplier, as QLinearMatMul requantises; the scale of 1 leaves just rint and clamp.
    acc = body("Add", acc, bias) if bias else acc
    multiplier = body("Div", body("Mul", a_scale, b_scale), body.input(6))
    scaled = body("Mul", body.cast(acc, FLOAT), multiplier)
    unit = body.constant(np.ones((), np.float32), "unit")
    y = body("QuantizeLinear", scaled, unit, body.input(7))
    return _finish_quantized(body, y, 6, 9)


def _dynamic_matmul(body: Body) -> list[Node]:
    if body.flag("per_row"):
        a, a_scale, a_zero = _quantized_rows(body, body.input(0))
        sums = body("MatMulInteger", a, body.input(1), "", body.input(3))
        off = body("Mul", body.cast(a_zero, INT32), _column_sums(body))
        scaled = body("Mul", body.cast(body("Sub", sums, off), FLOAT), body.input(2))
        y = body("Mul", scaled, a_scale)
    else:
        a, a_scale, a_zero = body.dynamically_quantized(body.input(0))
        sums = body("MatMulInteger", a, body.input(1), a_zero, body.input(3))
        y = body("Mul", body.cast(sums, FLOAT), body("Mul", a_scale, body.input(2)))
    for i in (4, 5):
        if body.input(i):
            y = body("Add", y, body.input(i))
    return body.finish(_activate(body, y))


def _quantized_rows(body: Body, x: str) -> tuple[str, str, str]:
    """DynamicQuantizeLinear of every row: uint8, scale and zero point [..., 1], both floats."""
    axes = body.constant(np.array([-1], INT64), "axes")
    zero, one, top = (body.constant(np.array(v, np.float32), "level") for v in (0, 1, 255))
    low = body("Min", body("ReduceMin", x, axes, keepdims=1), zero)
    high = body("Max", body("ReduceMax", x, axes, keepdims=1), zero)
    width = body("Sub", body("Div", high, top), body("Div", low, top))
    scale = body("Where", body("Greater", width, zero), width, one)
    point = body("Min", body("Round", body("Div", body("Neg", low), scale)), top)
    level = body("Add", body("Round", body("Div", x, scale)), point)
    return body.cast(body("Clip", level, zero, top), np.dtype(np.uint8)), scale, point


def _column_sums(body: Body) -> str:
    """Sums of the columns of B, less its zero points: int32 [n]."""
    b = body.graph.array(body.input(1))
    zero = body.graph.array(body.input(3)) if body.input(3) else None
    if b is None or b.ndim != 2 or (body.input(3) and zero is None):
        raise ModelError(f"{body.node.key} with rows of their own needs constant weights")
    wide = b.astype(np.int32) - (0 if zero is None else zero.astype(np.int32))
    return body.constant(wide.sum(axis=0, dtype=np.int32), "column_sums")


def _matmul_nbits(body: Body) -> list[Node]:
    attrs = body.attrs("accuracy_level")
    b = body("DequantizeLinear", *map(body.input, (1, 2, 3)), axis=0, **attrs)
    y = body("MatMul", body.input(0), b)
    for i in (4, 5):
        if body.input(i):
            y = body("Add", y, body.input(i))
    return body.finish(_activate(body, y))


def _qlinear_average_pool(body: Body) -> list[Node]:
    x, last = body.input(0), body.flag("channels_last")
    rank = body.rank(x, body.node.outputs[0]) if last else 0
    x = body("DequantizeLinear", x, body.input(1), body.input(2))
    x = _channels_first(body, x, rank) if last else x
    y = body("AveragePool", x, **body.attrs())
    y = _channels_last(body, y, rank) if last else y
    return body.finish(body("QuantizeLinear", y, body.input(3), body.input(4)))


def _qlinear_reduce_mean(body: Body) -> list[Node]:
    x = body("DequantizeLinear", body.input(0), body.input(1), body.input(2))
    axes = body.constant(np.array(body.node.attrs.get("axes", []), INT64), "axes")
    y = body("ReduceMean", x, axes, **body.attrs("axes"))
    return body.finish(body("QuantizeLinear", y, body.input(3), body.input(4)))


def _dynamic_quantize_recurrent(body: Body) -> list[Node]:
    """The layer with dequantised weights; that X and H are quantised too is left out."""
    op = body.node.op.removeprefix("DynamicQuantize")
    operands = [body.input(i) for i in range(6 if op != "LSTM" else 8)]
    for i, scale, zero in ((1, 8, 9), (2, 10, 11)):
        operands[i] = _dequantized_gates(body, operands[i], body.input(scale), body.input(zero))
    while not operands[-1]:
        operands.pop()
    target = body.node.outputs
    return [*body.nodes, Node(op, operands, list(target), body.attrs(), "", target[0])]


def _dequantized_gates(body: Body, weights: str, scale: str, zero_point: str) -> str:
    """weights [directions, columns, k]; the others scalar, [directions] or [.., columns]."""

    def along_columns(name: str) -> str:
        axes = {0: [], 1: [1, 2], 2: [2]}.get(body.rank(name))
        if axes is None:
            raise ModelError(f"{body.node.key} has a scale or zero point of another form")
        return (
            body("Unsqueeze", name, body.constant(np.array(axes, INT64), "axes")) if axes else name
        )

    y = body.cast(weights, FLOAT)
    if zero_point:
        y = body("Sub", y, body.cast(along_columns(zero_point), FLOAT))
    return body("Mul", y, along_columns(scale))


_BODIES: dict[str, Callable[[Body], list[Node]]] = {
    "Attention": _attention,
    "DynamicQuantizeAttention": _attention,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MaxPool": _around("MaxPool"),
    "AveragePool": _around("AveragePool"),
    "LpPool": _around("LpPool"),
    "LRN": _around("LRN"),
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulNBits": _matmul_nbits,
    "QLinearAveragePool": _qlinear_average_pool,
    "QLinearReduceMean": _qlinear_reduce_mean,
    "DynamicQuantizeLSTM": _dynamic_quantize_recurrent,
    "DynamicQuantizeGRU": _dynamic_quantize_recurrent,
    "DynamicQuantizeRNN": _dynamic_quantize_recurrent,
    "Elementwise": expand_elementwise,
    "Lookup": expand_lookup,
}
