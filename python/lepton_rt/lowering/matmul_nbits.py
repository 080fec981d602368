"""lepton.MatMulNBits: weights packed at their 4 or 8 bits in panels of the kernel's columns."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from lepton_rt import _core
from lepton_rt.graph.codebooks import table_unit
from lepton_rt.graph.ir import Array, Node, static_dims
from lepton_rt.lower import LowerContext, Rule
from lepton_rt.plan import Step, StepAttr

from .epilogue import clamp

__all__ = ["RULES", "codebook_step", "group_parts", "pack_groups", "pack_nbits"]

_CACHE_LINE = 64
# Rows of a group whose sums stay in int32 (kMaxGroupS8U4 of csrc/ops/gemm_s8u4.h).
_MAX_GROUP = 1024
# Register tiles of rows up to which gemm_f32lut4 is faster than the same weights as floats,
# measured: docs/performance.md.
_FEW_TILES = 3
# Row of a chunk of eight that bits 4s … 4s + 3 of a word hold (csrc/ops/gemm_nbits.h).
_SLOTS = (0, 4, 2, 6, 1, 5, 3, 7)


def pack_nbits(
    values: Array, scale: Array, zero: Array | None, size: int, width: int, depth: int
) -> tuple[Array, bool]:
    """Packed bytes of values [k, n] (int4, uint4, int8, uint8) with scale and zero [groups, n].

    Also whether zero points are among them: without zero those of signed values are 0, and left
    out. The layout is that of csrc/ops/gemm_nbits_kernels.h for groups of `size` rows and a kernel
    of `width` columns whose groups are padded to a multiple of `depth` rows.
    """
    bits = 4 if values.dtype.name in ("int4", "uint4") else 8
    # Values are moved into the signed range together with their zero points.
    offset = 1 << (bits - 1) if values.dtype.name.startswith("u") else 0
    q = values.astype(np.int16) - offset
    points = None if zero is None else zero.astype(np.int16) - offset
    if zero is None and offset:
        points = np.full(scale.shape, -offset, np.int16)
    if points is not None and not points.any():
        points = None
    stored = (q + 8).astype(np.uint8) if bits == 4 else q.astype(np.int8).view(np.uint8)
    packed = pack_groups(stored, scale, points, bits, size, width, depth)
    return packed, points is not None


def pack_groups(
    stored: Array, scale: Array, points: Array | None, bits: int, size: int, width: int, depth: int
) -> Array:
    """The same of the stored bytes [k, n]: 4-bit indices, or 8-bit values."""
    size = min(size, len(stored))
    rows = _records(_panels(stored, width), size, depth, bits)
    scales = _panels(scale.astype(np.float32), width)
    count, groups = scales.shape[:2]
    parts = []
    if points is not None:
        zeros = _panels(points.astype(np.int8), width).view(np.uint8).reshape(count, -1)
        parts.append(np.pad(zeros, ((0, 0), (0, -zeros.shape[1] % _CACHE_LINE))))
    for group in range(groups):
        parts.append(np.ascontiguousarray(scales[:, group]).view(np.uint8))
        parts.append(rows[group])
    panels = np.concatenate(parts, axis=1)
    return np.pad(panels, ((0, 0), (0, -panels.shape[1] % _CACHE_LINE))).reshape(-1)


def _panels(array: Array, width: int) -> Array:
    """[rows, n] as [panels, rows, width], padded with zeros."""
    rows, n = array.shape
    padded = np.pad(array, ((0, 0), (0, -n % width)))
    return np.ascontiguousarray(padded.reshape(rows, -1, width).transpose(1, 0, 2))


def _records(panels: Array, size: int, depth: int, bits: int) -> list[Array]:
    """Bytes [panels, ...] of every group of panels [panels, k, width]."""
    made = []
    for start in range(0, panels.shape[1], size):
        rows = panels[:, start : start + size]
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % depth), (0, 0)))
        made.append((_words(rows) if bits == 4 else rows).reshape(len(rows), -1))
    return made


def _words(rows: Array) -> Array:
    """Eight 4-bit indices of a column as one little-endian word."""
    count, k, width = rows.shape
    slots = rows.reshape(count, k // 8, 8, width)[:, :, _SLOTS]
    halves = slots[:, :, 0::2] | (slots[:, :, 1::2] << 4)
    return np.ascontiguousarray(halves.transpose(0, 1, 3, 2))


def _kernel(context: LowerContext, family: str) -> tuple[str, int, int]:
    """Name, columns and depth of the kernel of a family."""
    name = context.select(family)
    line = next(cast(Any, line) for line in _core.kernels() if line["name"] == name)
    return name, int(line["nr"]), int(line["kr"])


def _matmul_nbits(node: Node, context: LowerContext) -> Step | None:
    a, b_name, scale_name, zero_name, bias, residual = [*node.inputs, *[""] * 6][:6]
    values, scale = context.constant(b_name), context.constant(scale_name)
    zero = context.constant(zero_name)
    if values is None or scale is None or (zero_name and zero is None):
        return None
    bits = 4 if values.dtype.name in ("int4", "uint4") else 8
    size = min(cast(int, node.attrs.get("block_size", 0)), values.shape[0])
    attrs: dict[str, StepAttr] = {"k": values.shape[0], "n": values.shape[1], "bits": bits}
    family, parts = "gemm_f32s8", 1
    if bits == 4:
        parts = group_parts(size, values.shape[0])
        family = "gemm_s8u4" if parts else "gemm_f32lut4"
    if parts > 1:
        size = -(-size // (8 * parts)) * 8
        groups = -(-values.shape[0] // size)
        scale = np.repeat(scale, parts, axis=0)[:groups]
        zero = None if zero is None else np.repeat(zero, parts, axis=0)[:groups]
    note = ""
    if family == "gemm_s8u4":
        digits = 1 if node.attrs.get("accuracy_level") == 4 else 3
        attrs["digits"] = digits
        note = "8-bit activations" if digits == 1 else "24-bit fixed-point activations"
    kernel, width, depth = _kernel(context, family)
    packed, has_zero_points = pack_nbits(values, scale, zero, size, width, depth)
    attrs |= {"block_size": size, "zero_points": int(has_zero_points), **clamp(node)}
    operands = [a, context.add_constant(packed, f"{b_name}.packed"), bias, residual]
    return Step(node.key, operands, list(node.outputs), attrs, kernel, note=note)


def group_parts(size: int, k: int) -> int:
    """Into how many equal groups of at most 1024 rows a group of `size` is cut; 0: none will do.

    A single group of all k rows may leave a short one at its end.
    """
    parts = -(-size // _MAX_GROUP)
    if size >= k or parts <= 1:
        return parts
    return next((p for p in range(parts, size // 8 + 1) if size % (8 * p) == 0), 0)


def codebook_step(node: Node, context: LowerContext) -> Step | None:
    """MatMul by a matrix that is 4-bit indices into a table of bfloat16 values, kept so.

    Sums are integers when the values are 8-bit integers times a power of two and the machine has
    a kernel for that. None for other operands, and where floats are faster: never than integers.
    """
    constant = context.graph.constants.get(node.inputs[1])
    if constant is None or constant.encoding != "codebook" or len(constant.shape) != 2:
        return None
    indices, table = constant.parts["indices"], constant.parts["table"]
    if table.size > 16 or table.dtype != np.float32 or indices.size == 0:
        return None
    if not np.isfinite(table).all() or (table.view(np.uint32) & 0xFFFF).any():
        return None
    unit = table_unit(table)
    whole = not (table / unit % 1).any() and np.abs(table / unit).max() < 128
    fast = context.select("gemm_s8lut4")
    integer = whole and not fast.endswith("_scalar")
    kernel, width, depth = _kernel(context, "gemm_s8lut4" if integer else "gemm_f32lut4")
    if not integer and _has_many_rows(node, context, kernel):
        return None
    k, n = constant.shape
    attrs: dict[str, StepAttr] = {"k": k, "n": n, "bits": 4, "block_size": k, **clamp(node)}
    if integer:
        table = table / unit
        attrs |= {"block_size": min(k, _MAX_GROUP), "digits": 3}
    size = cast(int, attrs["block_size"])
    scale = np.full((-(-k // size), n), unit if integer else 1, np.float32)
    packed = pack_groups(indices.astype(np.uint8), scale, None, 4, size, width, depth)
    attrs["table"] = np.pad(table, (0, 16 - table.size))
    name = context.add_constant(packed, f"{node.inputs[1]}.packed")
    operands = [node.inputs[0], name, *node.inputs[2:]]
    note = f"4-bit indices into a table of {table.size}"
    return Step("lepton.MatMulNBits", operands, list(node.outputs), attrs, kernel, note=note)


def _has_many_rows(node: Node, context: LowerContext, kernel: str) -> bool:
    tile = next(int(cast(Any, line)["mr"]) for line in _core.kernels() if line["name"] == kernel)
    shape = static_dims(context.value(node.inputs[0]).shape)
    return shape is not None and int(np.prod(shape[:-1])) > _FEW_TILES * tile


RULES: dict[str, Rule] = {"lepton.MatMulNBits": _matmul_nbits}
