"""Recurrent layers: constant W and R are packed for the chosen kernel, piece by piece."""

from __future__ import annotations

import numpy as np

from lepton_rt import _core
from lepton_rt.graph.ir import Array, Node
from lepton_rt.lower import LowerContext, Rule, pass_through
from lepton_rt.plan import Step

from .rhs import pack_all

__all__ = ["RULES"]


def _pieces(node: Node, weights: Array, recurrent: bool) -> list[Array]:
    """Column ranges [directions, columns, k] that the operator multiplies at different times.

    A GRU that resets its state before the product needs the gates z and r before that of h.
    """
    split = node.op.endswith("GRU") and recurrent and not node.attrs.get("linear_before_reset", 0)
    gates = 2 * weights.shape[1] // 3
    return [weights[:, :gates], weights[:, gates:]] if split else [weights]


def _pack_f32(kernel: str, node: Node, weights: Array, recurrent: bool) -> Array:
    packed = [
        _core.pack_gemm_f32(kernel, np.ascontiguousarray(piece[d].T, np.float32))
        for d in range(len(weights))
        for piece in _pieces(node, weights, recurrent)
    ]
    return np.concatenate(packed)


def _consistent(node: Node, w: Array, r: Array) -> bool:
    """Whether the shapes are those the attributes ask for; otherwise the runtime complains."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[node.op.removeprefix("DynamicQuantize")]
    directions = 2 if node.attrs.get("direction", "forward") == "bidirectional" else 1
    if w.ndim != 3 or r.ndim != 3 or w.size == 0 or r.size == 0:
        return False
    hidden = r.shape[2]
    columns = (directions, gates * hidden)
    return (
        w.shape[:2] == columns
        and r.shape[:2] == columns
        and node.attrs.get("hidden_size", hidden) == hidden
    )


def _recurrent(node: Node, context: LowerContext) -> Step | None:
    """LSTM, GRU and RNN in float32."""
    w, r = context.constant(node.inputs[1]), context.constant(node.inputs[2])
    if w is None or r is None or not _consistent(node, w, r):
        return None
    if w.dtype != np.float32 or r.dtype != np.float32:
        return None
    step = pass_through(node)
    step.kernel = kernel = context.select("gemm_f32")
    for i, weights in ((1, w), (2, r)):
        packed = _pack_f32(kernel, node, weights, recurrent=i == 2)
        step.inputs[i] = context.add_constant(packed, f"{node.inputs[i]}.packed")
    step.attrs.update(packed=1, hidden_size=r.shape[2], input_size=w.shape[2])
    return step


def _matrices(
    node: Node, weights: Array, zero_point: Array | None, recurrent: bool
) -> list[tuple[Array, Array]]:
    """Right-hand sides [k, columns] with their zero points, in the order they are packed in."""
    points = np.zeros((), weights.dtype) if zero_point is None else zero_point
    points = points.reshape(points.shape + (1,) * (2 - points.ndim))  # [directions, columns]
    points = np.broadcast_to(points, weights.shape[:2])
    pieces, zeros = (_pieces(node, x, recurrent) for x in (weights, points))
    return [
        (np.ascontiguousarray(piece[d].T), np.ascontiguousarray(zero[d]))
        for d in range(len(weights))
        for piece, zero in zip(pieces, zeros, strict=True)
    ]


def _is_plain_lstm(node: Node) -> bool:
    """Whether the equations are those of `lstm_step.h`."""
    usual = ["Sigmoid", "Tanh", "Tanh"]
    is_usual = node.attrs.get("activations", usual) in (usual, usual * 2)
    changes = node.attrs.get("clip", 0) or node.attrs.get("input_forget", 0)
    has_peepholes = len(node.inputs) > 7 and node.inputs[7] != ""
    return node.op == "DynamicQuantizeLSTM" and is_usual and not changes and not has_peepholes


def _interleave_gates(matrix: tuple[Array, Array], units: int) -> tuple[Array, Array]:
    """Columns in the order [units of a panel, gate, unit] instead of [gate, unit]."""
    order = np.arange(matrix[0].shape[-1]).reshape(4, -1, units).swapaxes(0, 1).ravel()
    return np.ascontiguousarray(matrix[0][:, order]), matrix[1][order]


def _dynamic_quantize(node: Node, context: LowerContext) -> Step | None:
    """lepton.DynamicQuantizeLSTM, …GRU, …RNN."""
    operands = [*node.inputs, *[""] * (12 - len(node.inputs))]
    w, r = context.constant(operands[1]), context.constant(operands[2])
    if w is None or r is None or not _consistent(node, w, r):
        return None
    points = [context.constant(operands[i]) for i in (9, 11)]
    if any(points[k] is None and operands[i] for k, i in enumerate((9, 11))):
        return None
    for weights, zero in zip((w, r), points):
        shapes = {(), (1,), weights.shape[:1], weights.shape[:2]}
        if zero is not None and (zero.shape not in shapes or zero.dtype != weights.dtype):
            return None
    step = pass_through(node)
    step.inputs = operands
    matrices = {
        i: _matrices(node, weights, zero, recurrent=i == 2)
        for i, weights, zero in ((1, w, points[0]), (2, r, points[1]))
    }
    (rhs_w,) = pack_all(context, [matrices[1]])
    (rhs_r,) = pack_all(context, [matrices[2]], few_rows=True)
    units = _core.lstm_step_units(rhs_r.kernel, context.isa) if _is_plain_lstm(node) else 0
    interleaved = units > 0 and r.shape[2] % units == 0
    if interleaved:
        gates = [_interleave_gates(matrix, units) for matrix in matrices[2]]
        (rhs_r,) = pack_all(context, [gates], few_rows=True)
    step.kernel, step.note = rhs_w.kernel, rhs_w.note
    if rhs_r.kernel != rhs_w.kernel:
        step.attrs["recurrent_kernel"] = rhs_r.kernel
        step.note = "; ".join(filter(None, [rhs_w.note, f"R by {rhs_r.kernel}", rhs_r.note]))
    for i, rhs in ((1, rhs_w), (2, rhs_r)):
        step.inputs[i] = context.add_constant(rhs.data, f"{node.inputs[i]}.packed")
    step.inputs[9] = step.inputs[11] = ""
    step.attrs.update(packed=1, hidden_size=r.shape[2], input_size=w.shape[2])
    if interleaved:
        step.attrs["interleaved"] = 1
    return step


RULES: dict[str, Rule] = {
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "lepton.DynamicQuantizeLSTM": _dynamic_quantize,
    "lepton.DynamicQuantizeGRU": _dynamic_quantize,
    "lepton.DynamicQuantizeRNN": _dynamic_quantize,
}
