"""Convolution in NumPy, tap by tap, in any dtype; and the operands of the native steps."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_rt import _core

Array = npt.NDArray[Any]


def convolve(
    x: Array,
    w: Array,
    *,
    strides: list[int] | None = None,
    pads: list[int] | None = None,
    dilations: list[int] | None = None,
    group: int = 1,
) -> Array:
    """x [N, C, spatial...], w [M, C/group, kernel...] to [N, M, out...]; pads: begins then ends."""
    rank = x.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    pads = pads or [0] * (2 * rank)
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    extents = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    out = [(n - e) // s + 1 for n, e, s in zip(x.shape[2:], extents, strides, strict=True)]
    filters = w.reshape(group, w.shape[0] // group, *w.shape[1:])
    y = np.zeros((x.shape[0], group, w.shape[0] // group, *out), x.dtype)
    for tap in product(*map(range, w.shape[2:])):
        window = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip(tap, dilations, out, strides, strict=True)
        )
        part = x[(slice(None), slice(None), *window)]
        part = part.reshape(x.shape[0], group, x.shape[1] // group, *out)
        y += np.einsum("ngc...,gmc->ngm...", part, filters[(slice(None),) * 3 + tap])
    return y.reshape(x.shape[0], w.shape[0], *out)


def tap_major(w: Array, group: int) -> Array:
    """[M, C/g, kernel...] to [g, taps * C/g, M/g]."""
    filters = w.reshape(group, w.shape[0] // group, w.shape[1], -1)
    return np.ascontiguousarray(filters.transpose(0, 3, 2, 1)).reshape(
        group, -1, w.shape[0] // group
    )


def conv_attrs(w: Array, group: int, attrs: dict[str, Any]) -> dict[str, Any]:
    return {
        "kernel_shape": list(w.shape[2:]),
        "group": group,
        "in_channels": w.shape[1] * group,
        "out_channels": w.shape[0],
        **attrs,
    }


def pack_f32(w: Array, group: int, isa: str, *, depthwise: bool = False) -> tuple[Array, str]:
    """Packed weights and the kernel they are for."""
    kernel = _core.select_kernel("depthwise_f32" if depthwise else "gemm_f32", isa)
    if depthwise:
        return np.ascontiguousarray(w.reshape(w.shape[0], -1).T), kernel
    return _core.pack_gemm_f32(kernel, tap_major(w, group)), kernel


def pack_s8(
    w: Array, w_zero_point: Array, group: int, isa: str, *, depthwise: bool = False
) -> tuple[Array, str]:
    """The same for 8-bit weights with one zero point per output channel."""
    if depthwise:
        kernel = _core.select_kernel("depthwise_s8", isa)
        centred = w.reshape(w.shape[0], -1).T.astype(np.int16) - w_zero_point.astype(np.int16)
        return _core.pack_depthwise_s8(np.ascontiguousarray(centred)), kernel
    rhs = tap_major(w, group)
    kernel = _core.choose_gemm_s8(isa, rhs, w_zero_point)
    return _core.pack_gemm_s8(kernel, rhs, w_zero_point), kernel


def requantize(acc: Array, scale: Array, zero_point: int, lo: int, hi: int) -> Array:
    """acc int64 [..., M] wrapped to int32, then the definition in epilogue.h; int64."""
    wrapped = acc.astype(np.int32).astype(np.float32)
    q = np.rint(wrapped * scale.astype(np.float32))
    return np.clip(q, lo - zero_point, hi - zero_point).astype(np.int64) + zero_point
