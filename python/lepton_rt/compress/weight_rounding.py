"""Rounds weights so that the errors of a layer's products cancel for the inputs it really sees.

Of a column w of weights and its integers q only the error in the products matters,
eᵀ H e with e = w - scale · q and H the second moments of the inputs. With H = L Lᵀ it is
‖Lᵀ e‖², and since Lᵀ is triangular its entries can be made small one after the other, from the last
to the first: each weight is rounded after it has taken over what earlier errors left in its entry.
This is GPTQ (Frantar et al., 2022) without its inverse, in the form of Babai's nearest plane
(Chen et al., 2025). Weights whose inputs are largest come first, as nothing is left to correct the
last ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lepton_rt.compress.input_moments import Moments
from lepton_rt.compress.qparams import QuantizedWeight
from lepton_rt.graph.ir import Array, Node

Doubles = npt.NDArray[np.float64]

_DAMPING = 0.1  # of the mean power of the inputs: few samples leave H singular
_BLOCK = 64  # weights whose errors are handed on at once
_COLUMNS = 256  # rounded at a time: what a block hands on stays in cache


def round_weight(
    node: Node,
    weight: npt.NDArray[np.float32],
    quantized: QuantizedWeight,
    largest: int,
    moments: Doubles,
) -> npt.NDArray[np.int8]:
    """The weight of a Conv, Gemm or MatMul in the scale of `quantized`, rounded to its inputs."""
    columns = _columns(node, weight.astype(np.float64))
    blocks = columns.reshape(len(moments), moments.shape[1], -1)
    per_group = len(columns) if quantized.axis is not None else 1
    scale = quantized.scale.astype(np.float64).reshape(per_group, 1, -1)
    scale = np.broadcast_to(scale, (len(blocks), 1, blocks.shape[2]))
    levels = round_to_inputs(blocks, scale, largest, moments).reshape(columns.shape)
    values: npt.NDArray[np.int8] = _weight_of(node, levels, weight.shape).astype(np.int8)
    return values


def mean_shift(
    node: Node, weight: npt.NDArray[np.float32], quantized: QuantizedWeight, moments: Moments
) -> npt.NDArray[np.float32]:
    """What rounding the weights takes off the mean of each output channel."""
    shape = [1] * weight.ndim
    if quantized.axis is not None:
        shape[quantized.axis] = -1
    lost = weight.astype(np.float64) - quantized.values * quantized.scale.reshape(shape)
    columns = _columns(node, lost)
    mean = moments.mean().reshape(len(columns), 1, -1)
    shift: npt.NDArray[np.float32] = np.matmul(mean, columns).reshape(-1).astype(np.float32)
    return shift


def _columns(node: Node, weight: Array) -> Array:
    """[groups, k, n / groups]: one column for each output channel."""
    if node.op != "Conv":
        return np.asarray(weight.T if node.attrs.get("transB", 0) else weight)[None]
    groups = int(node.attrs.get("group", 1))  # type: ignore[arg-type]
    columns: Array = weight.reshape(groups, len(weight) // groups, -1).transpose(0, 2, 1)
    return columns


def _weight_of(node: Node, columns: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `_columns`."""
    if node.op == "Conv":
        return np.asarray(columns.transpose(0, 2, 1).reshape(shape))
    return np.asarray(columns[0].T if node.attrs.get("transB", 0) else columns[0])


def round_to_inputs(weight: Doubles, scale: Doubles, largest: int, moments: Doubles) -> Doubles:
    """Integers, -largest … largest, of weight [blocks, k, n], as floats. Zeros stay zeros.

    scale: [blocks, 1, n]. moments: [blocks, k, k], symmetric, positive semidefinite.
    """
    power = np.diagonal(moments, axis1=1, axis2=2)
    damping = np.maximum(_DAMPING * power.mean(axis=1), 1e-30)
    order = np.argsort(power, axis=1, kind="stable")[:, :, None]
    rows = np.take_along_axis(moments, order, 1)
    damped = np.take_along_axis(rows, order.transpose(0, 2, 1), 2)
    damped += damping[:, None, None] * np.eye(power.shape[1])
    root = np.linalg.cholesky(damped)
    factor: Doubles = root / np.diagonal(root, axis1=1, axis2=2)[:, None, :]
    result = np.empty_like(weight)
    for start in range(0, weight.shape[2], _COLUMNS):
        part = np.s_[..., start : start + _COLUMNS]
        sorted_weight = np.take_along_axis(weight[part], order, 1)
        levels = _nearest_plane(sorted_weight, scale[part][:, 0], largest, factor)
        np.put_along_axis(result[part], order, levels, 1)
    return result


def _nearest_plane(weight: Doubles, scale: Doubles, largest: int, factor: Doubles) -> Doubles:
    """factor: L with unit diagonal, [blocks, k, k]: what an error adds to the weights before it."""
    levels = np.empty_like(weight)
    wanted = weight.copy()
    for stop in range(weight.shape[1], 0, -_BLOCK):
        start = max(stop - _BLOCK, 0)
        errors = np.empty_like(weight[:, start:stop])
        for i in range(stop - 1, start - 1, -1):
            nearest = np.clip(np.rint(wanted[:, i] / scale), -largest, largest)
            levels[:, i] = np.where(weight[:, i] == 0, 0.0, nearest)
            error = errors[:, i - start] = weight[:, i] - levels[:, i] * scale
            wanted[:, start:i] += factor[:, i, start:i, None] * error[:, None, :]
        wanted[:, :start] += np.matmul(factor[:, start:stop, :start].transpose(0, 2, 1), errors)
    return levels
