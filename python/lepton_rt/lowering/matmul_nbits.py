"""lepton.MatMulNBits: weights packed at their 4 or 8 bits in panels of the kernel's columns."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from lepton_rt import _core
from lepton_rt.graph.ir import Array, Node
from lepton_rt.lower import LowerContext, Rule
from lepton_rt.plan import Step, StepAttr

from .epilogue import clamp

__all__ = ["RULES", "pack_nbits"]

_CACHE_LINE = 64
_WIDEST = 16  # columns of a panel that the dequantising kernels write


def pack_nbits(values: Array, scale: Array, zero: Array | None, width: int) -> Array:
    """Bytes of values [k, n] (int4, uint4, int8, uint8) with scale and zero [groups, n].

    Panels of `width` columns, one after another, in whole cache lines: scales and zero points of
    every group as float32, then the rows. Values are stored unsigned; a byte of 4-bit values holds
    column j in its low half and column j + width/2 in its high half.
    """
    bits = 4 if values.dtype.name in ("int4", "uint4") else 8
    offset = 0 if values.dtype.name.startswith("u") else 1 << (bits - 1)
    points = np.zeros(scale.shape) if zero is None else zero.astype(np.float32)
    stored: Array = _panels(values.astype(np.int16) + offset, width).astype(np.uint8)
    if bits == 4:
        half = width // 2
        stored = stored[..., :half] | (stored[..., half:] << 4)
    parts = [
        _panels(scale.astype(np.float32), width),
        _panels((points + offset).astype(np.float32), width),
        stored,
    ]
    count = stored.shape[0]
    flat = [np.ascontiguousarray(part).view(np.uint8).reshape(count, -1) for part in parts]
    size = sum(part.shape[1] for part in flat)
    flat.append(np.zeros((count, -size % _CACHE_LINE), np.uint8))
    return np.concatenate(flat, axis=1).reshape(-1)


def _panels(array: Array, width: int) -> Array:
    """[rows, n] as [panels, rows, width], padded with zeros."""
    rows, n = array.shape
    padded = np.pad(array, ((0, 0), (0, -n % width)))
    panels: Array = padded.reshape(rows, -1, width).transpose(1, 0, 2)
    return panels


def _columns(kernel: str) -> int:
    return next(int(cast(Any, line)["nr"]) for line in _core.kernels() if line["name"] == kernel)


def _matmul_nbits(node: Node, context: LowerContext) -> Step | None:
    a, b_name, scale_name, zero_name, bias, residual = [*node.inputs, *[""] * 6][:6]
    values, scale = context.constant(b_name), context.constant(scale_name)
    zero = context.constant(zero_name)
    if values is None or scale is None or (zero_name and zero is None):
        return None
    kernel = context.select("gemm_f32")
    if _columns(kernel) > _WIDEST:
        kernel = _core.select_kernel("gemm_f32", "avx2")
    packed = pack_nbits(values, scale, zero, _columns(kernel))
    attrs: dict[str, StepAttr] = {
        "k": values.shape[0],
        "n": values.shape[1],
        "bits": 4 if values.dtype.name in ("int4", "uint4") else 8,
        "block_size": cast(int, node.attrs.get("block_size", 0)),
        **clamp(node),
    }
    operands = [a, context.add_constant(packed, f"{b_name}.packed"), bias, residual]
    return Step(node.key, operands, list(node.outputs), attrs, kernel)


RULES: dict[str, Rule] = {"lepton.MatMulNBits": _matmul_nbits}
