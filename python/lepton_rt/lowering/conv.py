"""Convolution: the kernel is chosen from the weights, which are packed for it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from lepton_rt import _core
from lepton_rt.graph.ir import Array, Node
from lepton_rt.lower import LowerContext, Rule
from lepton_rt.plan import Step, StepAttr

from . import winograd, winograd_s8
from .epilogue import clamp, requantisation
from .rhs import PackedRhs, pack_float_rhs, pack_rhs
from .sparse import try_sparse_f32

__all__ = ["RULES"]

_GEOMETRY = ("strides", "dilations", "pads", "auto_pad", "channels_last")


def _geometry(node: Node, weights: Array) -> dict[str, StepAttr]:
    group = _group(node)
    attrs: dict[str, StepAttr] = {
        name: cast(StepAttr, node.attrs[name]) for name in _GEOMETRY if name in node.attrs
    }
    attrs["kernel_shape"] = [int(size) for size in weights.shape[2:]]
    attrs["group"] = group
    attrs["in_channels"] = int(weights.shape[1]) * group
    attrs["out_channels"] = int(weights.shape[0])
    return attrs


def _group(node: Node) -> int:
    return int(cast(Any, node.attrs.get("group", 1)))


def _is_depthwise(weights: Array, group: int) -> bool:
    return group > 1 and weights.shape[0] == group and weights.shape[1] == 1


def _tap_major(weights: Array, group: int) -> Array:
    """[M, C/g, k…] → [g, taps · C/g, M/g]: the right-hand sides of the groups' products."""
    out_channels, in_per_group, *kernel = weights.shape
    split = weights.reshape(group, out_channels // group, in_per_group, -1)
    return np.ascontiguousarray(split.transpose(0, 3, 2, 1)).reshape(
        group, int(np.prod(kernel)) * in_per_group, out_channels // group
    )


def _is_valid(weights: Array | None, group: int) -> bool:
    return (
        weights is not None
        and 3 <= weights.ndim <= 5
        and weights.size > 0
        and group > 0
        and weights.shape[0] % group == 0
    )


def _float_conv(node: Node, context: LowerContext) -> Step | None:
    weights, group = context.constant(node.inputs[1]), _group(node)
    if weights is None or weights.dtype != np.float32 or not _is_valid(weights, group):
        return None
    attrs, note = {**_geometry(node, weights), **clamp(node)}, ""
    if _is_depthwise(weights, group):
        kernel = context.select("depthwise_f32")
        packed = np.ascontiguousarray(weights.reshape(group, -1).T)
    else:
        rhs, transformed = _float_weights(node, context, weights)
        kernel, packed, note = rhs.kernel, rhs.data, rhs.note
        if transformed:
            attrs["winograd"] = winograd.tile_of(weights)
    operands = list(node.inputs)
    operands[1] = context.add_constant(packed, f"{node.inputs[1]}.packed")
    return Step("lepton.Conv", operands, list(node.outputs), attrs, kernel, note=note)


def _float_weights(node: Node, context: LowerContext, weights: Array) -> tuple[PackedRhs, bool]:
    """The packed weights, and whether they are transformed for Winograd."""
    group, taps = _group(node), _tap_major(weights, _group(node))
    fast = context.choice.get("conv") != "direct" and winograd.pays(
        node, weights, context.value(node.inputs[0]).shape
    )
    notes = []
    if group == 1:
        sparse = try_sparse_f32(context, taps[0], fast)
        if sparse.packed is not None:
            return PackedRhs(sparse.kernel, sparse.packed, sparse.note), False
        notes.append(sparse.note)
    if not fast:
        return pack_float_rhs(context, taps, "; ".join(filter(None, notes))), False
    tile, taps_wide = winograd.tile_of(weights), weights.shape[2]
    notes.append(f"Winograd F({tile}x{tile}, {taps_wide}x{taps_wide})")
    kernel = context.select("gemm_f32")
    packed = _core.pack_gemm_f32(kernel, winograd.transform_weights(weights))
    return PackedRhs(kernel, packed, "; ".join(filter(None, notes))), True


def _integer_conv(node: Node, context: LowerContext) -> Step | None:
    operands = [*node.inputs, *[""] * (14 - len(node.inputs))]
    weights, group = context.constant(operands[3]), _group(node)
    result = requantisation(node, context)
    if result is None or weights is None or not _is_valid(weights, group):
        return None
    zero = context.constant(operands[5])
    zeros = np.zeros(1, weights.dtype) if zero is None else zero.reshape(-1)
    note, products = "", None
    attrs = {**_geometry(node, weights), **result.attrs}
    if _is_depthwise(weights, group):
        kernel = context.select("depthwise_s8")
        wide = weights.reshape(group, -1).T.astype(np.int16) - zeros.astype(np.int16)
        packed = _core.pack_depthwise_s8(np.ascontiguousarray(wide))
    else:
        rhs = pack_rhs(context, _tap_major(weights, group), zeros)
        kernel, packed, note = rhs.kernel, rhs.data, rhs.note
        if _reads_planes(node, weights, kernel):
            packed = _core.pack_gemm_s8(kernel, _planar(weights, zeros), zeros)
            attrs["planar"], note = 1, "planes read as they lie"
        products = _winograd_kernel(node, context, rhs, weights, zeros)
        if products is not None:
            kernel, packed = products, winograd_s8.pack_weights(products, weights, zeros)
            note = "exact Winograd F(2x2, 3x3)"
    channels = int(weights.shape[0])
    scale = np.ascontiguousarray(np.broadcast_to(result.scale, (channels,)))
    if products is not None:
        attrs["winograd"] = winograd_s8.TILE
    x_zero = context.constant(operands[2])
    if x_zero is not None:
        attrs["x_zero_point"] = int(x_zero.reshape(-1)[0])
    names = [
        operands[0],
        context.add_constant(packed, f"{operands[3]}.packed"),
        operands[8],
        context.add_constant(scale, f"{node.outputs[0]}.scale"),
        operands[9],
    ]
    return Step("lepton.QLinearConv", names, list(node.outputs), attrs, kernel, note=note)


# Products by zeros that reading planes may cost: 8 taps for 7, 4 for 3.
_MOST_PADDING = 1.5


def _reads_planes(node: Node, weights: Array, kernel: str) -> bool:
    """Whether the first layer's product reads channels-first images as they lie (conv.cc)."""
    lines = _core.kernels()
    chosen = next(line for line in lines if line["name"] == kernel)
    twins = {(line["isa"], line["nr"]) for line in lines if line["family"] == "gemm_s8_windows"}
    if chosen.get("form") != "u8" or (chosen["isa"], chosen["nr"]) not in twins:
        return False
    attrs, size = _geometry(node, weights), weights.shape[2:]
    if attrs.get("channels_last", 1) or attrs["group"] != 1 or len(size) != 2 or size == (1, 1):
        return False
    steps = cast("list[int]", attrs.get("strides", [1, 1]))
    dense = all(d == 1 for d in cast("list[int]", attrs.get("dilations", [1, 1])))
    return (
        dense
        and all(step <= extent for step, extent in zip(steps, size, strict=True))
        and _up_to_quads(size[1]) <= _MOST_PADDING * size[1]
    )


def _up_to_quads(columns: int) -> int:
    return -(-columns // 4) * 4


def _planar(weights: Array, zeros: Array) -> Array:
    """[M, C, rows, columns] to [rows * C * columns up to whole quads, M]; the rest is w's zero."""
    channels, _, _, columns = weights.shape
    missing = [(0, 0), (0, 0), (0, 0), (0, _up_to_quads(columns) - columns)]
    wide = np.pad(weights, missing)
    wide[..., columns:] = np.broadcast_to(zeros, (channels,))[:, None, None, None]
    return np.ascontiguousarray(wide.transpose(2, 1, 3, 0)).reshape(-1, channels)


def _winograd_kernel(
    node: Node, context: LowerContext, direct: PackedRhs, weights: Array, zeros: Array
) -> str | None:
    """The kernel for integer Winograd's products; None where the direct product is better."""
    shape = context.value(node.inputs[0]).shape
    if context.choice.get("conv") == "direct" or shape is None:
        return None
    if not winograd_s8.pays(node.attrs, weights, zeros, tuple(shape)):
        return None
    return winograd_s8.product_kernel(direct.kernel, direct.visited)


def _transposed(node: Node, context: LowerContext) -> Step | None:
    """lepton.ConvTranspose: one product per group makes the contributions of every tap."""
    weights, group = context.constant(node.inputs[1]), _group(node)
    if weights is None or weights.dtype != np.float32 or not 3 <= weights.ndim <= 5:
        return None
    in_channels, out_per_group = weights.shape[:2]
    if group < 1 or in_channels % group or weights.size == 0:
        return None
    split = weights.reshape(group, in_channels // group, out_per_group, -1)
    rhs = np.ascontiguousarray(split.transpose(0, 1, 3, 2))
    kernel = context.select("gemm_f32")
    packed = _core.pack_gemm_f32(kernel, rhs.reshape(group, in_channels // group, -1))
    operands = list(node.inputs)
    operands[1] = context.add_constant(packed, f"{node.inputs[1]}.packed")
    attrs = {**_geometry(node, weights), **clamp(node)}
    for name in ("output_padding", "output_shape"):
        if name in node.attrs:
            attrs[name] = cast(StepAttr, node.attrs[name])
    attrs.update(in_channels=in_channels, out_channels=out_per_group * group)
    return Step("lepton.ConvTranspose", operands, list(node.outputs), attrs, kernel)


def _plain_integer(node: Node, context: LowerContext) -> list[Step] | None:
    """ConvInteger: exact int32 sums, channels-last, and a Transpose back to NCHW."""
    operands = [*node.inputs, *[""] * (4 - len(node.inputs))]
    weights, group = context.constant(operands[1]), _group(node)
    zero = context.constant(operands[3])
    if weights is None or not _is_valid(weights, group) or (zero is None and operands[3]):
        return None
    zeros = np.zeros(1, weights.dtype) if zero is None else zero.reshape(-1)
    rhs = pack_rhs(context, _tap_major(weights, group), zeros)
    name = context.add_constant(rhs.data, f"{operands[1]}.packed")
    sums = context.fresh(f"{node.outputs[0]}.channels_last", np.int32)
    attrs = {**_geometry(node, weights), "channels_last": 0}
    inputs = [operands[0], name, "", "", "", operands[2]]
    perm = [0, weights.ndim - 1, *range(1, weights.ndim - 1)]
    return [
        Step("lepton.QLinearConv", inputs, [sums], attrs, rhs.kernel, note=rhs.note),
        Step("Transpose", [sums], list(node.outputs), {"perm": perm}),
    ]


RULES: dict[str, Rule] = {
    "ConvInteger": _plain_integer,
    "lepton.Conv": _float_conv,
    "lepton.ConvTranspose": _transposed,
    "lepton.QLinearConv": _integer_conv,
}
