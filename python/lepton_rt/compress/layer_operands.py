"""Weights and biases of quantised layers: int8 weights, int32 biases, and their dequantisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lepton_rt.compress.input_moments import Moments
from lepton_rt.compress.placement import Unit
from lepton_rt.compress.qdq_builder import QdqBuilder
from lepton_rt.compress.qparams import (
    QuantizedWeight,
    bias_scale_floor,
    quantize_bias,
    quantize_weight,
)
from lepton_rt.compress.weight_rounding import mean_shift, round_weight
from lepton_rt.graph.ir import Array, Node

FloatArray = npt.NDArray[np.float32]


class LayerOperands:
    """Quantises the constant operands of layers; a weight shared by several is stored once.

    moments: of the inputs of layers, by the name of the weight. Those weights are rounded to them,
    and the bias takes over the mean of what the rounding changes; others are rounded to nearest.
    """

    def __init__(
        self, builder: QdqBuilder, per_channel: bool, bits: int, moments: Mapping[str, Moments]
    ) -> None:
        self.builder = builder
        self.per_channel = per_channel
        self.bits = bits
        self.moments = moments
        self._twins: dict[tuple[str, int | None, bytes], tuple[str, QuantizedWeight]] = {}

    def quantize(self, node: Node, unit: Unit, x_scale: np.float32) -> str:
        """Makes the node of a layer read dequantised operands.

        Returns the dequantised bias of a MatMul, for the Add that follows it; otherwise "".
        """
        name = node.inputs[1]
        weight = self._array(name)
        alpha = float(node.attrs.pop("alpha", 1.0))  # type: ignore[arg-type]
        if alpha != 1.0:
            weight = np.multiply(weight, np.float32(alpha), dtype=np.float32)
        bias = self._bias(node, unit, weight)
        quantized = self._quantize_weight(node, name, weight, bias, x_scale)
        if bias is None:
            return ""
        if name in self.moments:
            bias = bias + mean_shift(node, weight, quantized, self.moments[name])
        twin = self._quantize_bias(f"{name}_bias", bias, x_scale, quantized.scale)
        if node.op == "MatMul":
            return twin
        node.inputs[2:] = [twin]
        return ""

    def _array(self, name: str) -> FloatArray:
        return self.builder.source.constants[name].dense()

    def _channel_axis(self, node: Node, weight: Array) -> int | None:
        if not self.per_channel:
            return None
        if node.op == "Conv":
            return 0
        if node.op == "Gemm":
            return 0 if node.attrs.get("transB", 0) else 1
        return 1 if node.op == "ConvTranspose" else weight.ndim - 1

    def _bias(self, node: Node, unit: Unit, weight: Array) -> FloatArray | None:
        """The bias as one value per output channel; None without one."""
        constants = self.builder.source.constants
        if node.op == "MatMul":
            following = unit.nodes[1:2]
            added = [n for tail in following if tail.op == "Add" for n in tail.inputs]
            name = next((n for n in added if n in constants), "")
        else:
            name = node.inputs[2] if len(node.inputs) > 2 else ""
        if not name:
            return None
        bias = self._array(name).reshape(-1)
        if node.op == "Gemm":
            beta = float(node.attrs.pop("beta", 1.0))  # type: ignore[arg-type]
            bias = np.multiply(bias, np.float32(beta), dtype=np.float32)
        columns = weight.shape[0 if node.attrs.get("transB", 0) else -1]
        if node.op in {"Gemm", "MatMul"}:
            bias = np.broadcast_to(bias, (columns,))
        return np.ascontiguousarray(bias, np.float32)

    def _quantize_weight(
        self,
        node: Node,
        name: str,
        weight: FloatArray,
        bias: FloatArray | None,
        x_scale: np.float32,
    ) -> QuantizedWeight:
        """Makes node.inputs[1] the dequantised weight."""
        axis = self._channel_axis(node, weight)
        floor: Array | float = 0.0
        if bias is not None:
            floor = bias_scale_floor(bias, x_scale)
            if axis is None:
                floor = floor.max(initial=0.0)
            elif floor.size != weight.shape[axis]:  # ConvTranspose with groups
                floor = floor.reshape(-1, weight.shape[axis]).max(axis=0)
        quantized = quantize_weight(name, weight, axis, floor, self.bits)
        key = (name, axis, quantized.scale.tobytes())
        if key not in self._twins:
            if name in self.moments:
                moments, largest = self.moments[name], 2 ** (self.bits - 1) - 1
                power = moments.second() if bias is None else moments.covariance()
                values = round_weight(node, weight, quantized, largest, power)
                quantized = replace(quantized, values=values)
            scale = self.builder.constant(quantized.scale, f"{name}_scale")
            zeros = np.zeros(quantized.scale.shape, np.int8)
            zero_point = self.builder.constant(zeros, f"{name}_zero_point")
            twin = self.builder.dequantized_constant(
                quantized.values, scale, zero_point, name, axis
            )
            self._twins[key] = twin, quantized
        node.inputs[1], quantized = self._twins[key]
        return quantized

    def _quantize_bias(
        self, hint: str, bias: FloatArray, x_scale: np.float32, w_scale: FloatArray
    ) -> str:
        scale = np.asarray(x_scale * w_scale, np.float32)
        if scale.ndim and scale.size != bias.size:  # ConvTranspose with groups
            scale = np.tile(scale, bias.size // scale.size)
        return self.builder.dequantized_constant(
            quantize_bias(bias, scale),
            self.builder.constant(scale, f"{hint}_scale"),
            "",
            hint,
            0 if scale.ndim else None,
        )
