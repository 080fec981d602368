"""Matrix products: constant right-hand sides are packed for the chosen kernel."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from lepton_rt.graph.ir import Array, Node
from lepton_rt.lower import LowerContext, Rule
from lepton_rt.plan import Step, StepAttr

from .epilogue import clamp, requantisation
from .matmul_nbits import codebook_step
from .rhs import PackedRhs, pack_float_rhs, pack_rhs
from .sparse import try_sparse_f32

__all__ = ["RULES"]


def _is_float(context: LowerContext, names: list[str]) -> bool:
    return all(context.value(name).dtype == np.float32 for name in names if name)


def _packed(b: Array) -> dict[str, StepAttr]:
    """Attributes that describe a packed operand."""
    attrs: dict[str, StepAttr] = {"packed": 1, "k": b.shape[-2], "n": b.shape[-1]}
    if b.ndim > 2:
        attrs["batch"] = [int(size) for size in b.shape[:-2]]
    return attrs


def _float_step(
    node: Node,
    context: LowerContext,
    operands: list[str],
    b: Array,
    attrs: dict[str, StepAttr],
) -> Step:
    b = np.ascontiguousarray(b, np.float32)
    sparse = try_sparse_f32(context, b) if b.ndim == 2 else None
    if sparse is not None and sparse.packed is not None:
        rhs = PackedRhs(sparse.kernel, sparse.packed, sparse.note)
    else:
        rhs = pack_float_rhs(context, b, "" if sparse is None else sparse.note)
    operands[1] = context.add_constant(rhs.data, f"{node.inputs[1]}.packed")
    attrs = {**_packed(b), **attrs}
    return Step("lepton.MatMul", operands, list(node.outputs), attrs, rhs.kernel, note=rhs.note)


def _matmul(node: Node, context: LowerContext) -> Step | None:
    """MatMul and lepton.MatMul."""
    if not _is_float(context, node.inputs):
        return None
    step = codebook_step(node, context)
    if step is not None:
        return step
    b = context.constant(node.inputs[1])
    if b is None or b.ndim < 2 or b.size == 0:
        key = "lepton.MatMul" if node.domain else node.op
        return Step(key, list(node.inputs), list(node.outputs), clamp(node))
    return _float_step(node, context, list(node.inputs), b, clamp(node))


def _gemm(node: Node, context: LowerContext) -> Step | None:
    b = context.constant(node.inputs[1])
    if b is None or b.size == 0 or not _is_float(context, node.inputs):
        return None
    alpha, beta = (np.float32(cast(Any, node.attrs.get(k, 1.0))) for k in ("alpha", "beta"))
    b = b.T if node.attrs.get("transB", 0) else b
    b = b if alpha == 1 else b * alpha
    attrs: dict[str, StepAttr] = {}
    if node.attrs.get("transA", 0):
        attrs["transA"] = 1
    offset = node.inputs[2] if len(node.inputs) > 2 else ""
    operands = [node.inputs[0], node.inputs[1]]
    if offset and beta == 1 and context.value(offset).shape == (b.shape[1],):
        operands.append(offset)
    elif offset:
        operands += ["", offset]
        attrs["beta"] = float(beta)
    return _float_step(node, context, operands, b, attrs)


def _integer(node: Node, context: LowerContext) -> Step | None:
    """lepton.QLinearMatMul."""
    result = requantisation(node, context)
    if result is None:
        return None
    operands = [*node.inputs, *[""] * (14 - len(node.inputs))]
    attrs = result.attrs
    a_zero = context.constant(operands[2])
    if a_zero is not None:
        attrs["a_zero_point"] = int(a_zero.reshape(-1)[0])
    scale = context.add_constant(result.scale, f"{node.outputs[0]}.scale")
    b, b_zero = context.constant(operands[3]), context.constant(operands[5])
    if b is None or b.ndim < 2 or b.size == 0:
        plain = [operands[0], operands[3], scale, operands[8], operands[9], operands[5]]
        return Step(node.key, plain, list(node.outputs), attrs)
    rhs = pack_rhs(context, b, b_zero)
    name = context.add_constant(rhs.data, f"{operands[3]}.packed")
    attrs.update(_packed(b))
    inputs = [operands[0], name, scale, operands[8], operands[9]]
    return Step(node.key, inputs, list(node.outputs), attrs, rhs.kernel, note=rhs.note)


def _dynamic(node: Node, context: LowerContext) -> Step | None:
    """lepton.DynamicQuantizeMatMul."""
    a, b_name, scale, b_zero_name, bias, residual = [*node.inputs, *[""] * 6][:6]
    b, b_zero = context.constant(b_name), context.constant(b_zero_name)
    if b is None or b.ndim != 2 or b.size == 0 or (b_zero_name and b_zero is None):
        return None
    rhs = pack_rhs(context, b, None if b_zero is None else b_zero.reshape(-1))
    operands = [a, context.add_constant(rhs.data, f"{b_name}.packed"), scale, bias, residual]
    attrs = {**_packed(b), **clamp(node)}
    if node.attrs.get("per_row"):
        attrs["per_row"] = 1
    return Step(node.key, operands, list(node.outputs), attrs, rhs.kernel, note=rhs.note)


RULES: dict[str, Rule] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "lepton.MatMul": _matmul,
    "lepton.DynamicQuantizeMatMul": _dynamic,
    "lepton.QLinearMatMul": _integer,
}
