"""Quantisation that needs no calibration: of weights alone, or with ranges found at run time.

Both take matrix products by constant matrices (MatMul, and Gemm as MatMul and Add).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_rt.compress.input_moments import Moments
from lepton_rt.compress.qparams import quantize_weight
from lepton_rt.compress.recurrent import quantize_rnn_weights
from lepton_rt.compress.weight_rounding import round_weight
from lepton_rt.dtypes import dtype_from_name
from lepton_rt.errors import ModelError
from lepton_rt.graph.ir import LEPTON_DOMAIN, Array, Attr, Constant, Graph, Node, Value, node_reads

FLOAT_CODE = 1
FLOAT32 = np.dtype(np.float32)
GROUP_SIZES = (32, 64, 128)
_CLIPS = np.linspace(1.0, 0.5, 21)
"""Shares of a group's range that the search for the smallest squared error tries."""

FloatArray = npt.NDArray[np.float32]


def quantize_dynamic(
    graph: Graph,
    excluded: Collection[str],
    per_channel: bool,
    bits: int = 8,
    per_row: bool = True,
    moments: Mapping[str, Moments] | None = None,
) -> Graph:
    """Every product with int8 weights and activations that are quantised at run time.

    As lepton.DynamicQuantizeMatMul over the range of every row; without per_row as ONNX spells it,
    DynamicQuantizeLinear → MatMulInteger → Cast → Mul. bits: of the weights, 8 or 7.

    moments: of the products' inputs, by the name of the weight, which is rounded to them.

    Recurrent layers become lepton.DynamicQuantizeLSTM and its like. graph: a prepared float graph.
    excluded: outputs of nodes to leave. Raises ModelError when neither is left.
    """
    recurrent = quantize_rnn_weights(graph, excluded, bits)
    found = any(n.key.startswith(f"{LEPTON_DOMAIN}.DynamicQuantize") for n in recurrent.nodes)
    product = (_DynamicRows if per_row else _Dynamic)(per_channel, bits, moments or {})
    return _Writer(recurrent, excluded, product).write(found)


def quantize_weights(
    graph: Graph,
    excluded: Collection[str],
    bits: int,
    group_size: int,
    symmetric: bool,
    optimise_clip: bool,
) -> Graph:
    """Weights of every product as DequantizeLinear of 8 or 4 bits in groups along their rows.

    Raises ModelError when no product is left.
    """
    return _Writer(graph, excluded, _Grouped(bits, group_size, symmetric, optimise_clip)).write()


def products(graph: Graph, excluded: Collection[str]) -> list[Node]:
    """The nodes whose weights quantize_dynamic and quantize_weights take."""
    left_alone = set(excluded)
    nodes = (node for node in graph.nodes if left_alone.isdisjoint(node.outputs))
    return [node for node in nodes if _weight(graph, node) is not None]


def _weight(graph: Graph, node: Node) -> FloatArray | None:
    """[k, n] of a product that can be rewritten."""
    if node.key not in ("MatMul", "Gemm"):
        return None
    attrs = node.attrs
    if attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0 or attrs.get("transA"):
        return None
    array, x = graph.array(node.inputs[1]), graph.value(node.inputs[0])
    if array is None or array.ndim != 2 or array.dtype != FLOAT32 or array.size == 0:
        return None
    if x is None or x.dtype != FLOAT32 or node.inputs[0] in graph.constants:
        return None
    if not np.isfinite(array).all():
        raise ModelError(f"constant {node.inputs[1]!r} holds NaN or infinity")
    return np.ascontiguousarray(array.T) if attrs.get("transB") else array


class _Writer:
    """Copies a graph, handing each product to a rewriter."""

    def __init__(self, graph: Graph, excluded: Collection[str], product: _Product) -> None:
        self.source = graph
        self.excluded = set(excluded)
        self.graph = graph.copy()
        self.graph.nodes = []
        self.product = product
        self.ranges: dict[str, list[str]] = {}  # activation → its dynamic quantisation
        self.constants: dict[str, list[str]] = {}  # weight, transposed or not → its quantisation
        self._taken = graph.tensor_names()

    def write(self, found: bool = False) -> Graph:
        """found: something else was quantised already, so that no product need be left."""
        for node in self.source.nodes:
            taken = self.excluded.isdisjoint(node.outputs)
            weight = _weight(self.source, node) if taken else None
            if weight is None:
                self.graph.nodes.append(node)
                continue
            found = True
            output = node.outputs[0]
            bias = node.inputs[2] if len(node.inputs) > 2 else ""
            product = self.fresh(f"{output}_product", FLOAT32) if bias else output
            self.product.write(self, node, weight, product)
            if bias:
                self.add("Add", [product, bias], [output])
        if not found:
            raise ModelError("the model has no matrix product by a constant left to quantise")
        self._drop_unread()
        return self.graph

    def add(self, op: str, inputs: list[str], outputs: list[str], **attrs: Attr) -> None:
        self.graph.nodes.append(Node(op, inputs, outputs, attrs, "", outputs[0]))

    def fresh(self, hint: str, dtype: Any = None) -> str:
        name, serial = hint, 0
        while name in self._taken:
            serial += 1
            name = f"{hint}_{serial}"
        self._taken.add(name)
        if dtype is not None:
            self.graph.values[name] = Value(np.dtype(dtype))
        return name

    def constant(self, array: Array, hint: str) -> str:
        name = self.fresh(hint)
        self.graph.constants[name] = Constant.of(array)
        return name

    def _drop_unread(self) -> None:
        read = {name for node in self.graph.nodes for name in node_reads(node)}
        read.update(self.graph.outputs)
        self.graph.constants = {k: v for k, v in self.graph.constants.items() if k in read}


class _Product:
    """Writes one product under another form."""

    def write(self, writer: _Writer, node: Node, weight: FloatArray, output: str) -> None:
        raise NotImplementedError


class _DynamicRows(_Product):
    """Rows quantised one by one: lepton.DynamicQuantizeMatMul."""

    def __init__(self, per_channel: bool, bits: int, moments: Mapping[str, Moments]) -> None:
        self.per_channel = per_channel
        self.bits = bits
        self.moments = moments

    def write(self, writer: _Writer, node: Node, weight: FloatArray, output: str) -> None:
        inputs = [node.inputs[0], *self.weights(writer, node, weight)]
        op = "DynamicQuantizeMatMul"
        writer.graph.nodes.append(Node(op, inputs, [output], {"per_row": 1}, LEPTON_DOMAIN, output))

    def weights(self, writer: _Writer, node: Node, weight: FloatArray) -> list[str]:
        """Names of the int8 weights and of their scale."""
        name = node.inputs[1]
        key = f"{name} {node.attrs.get('transB', 0)}"
        if key not in writer.constants:
            axis = 1 if self.per_channel else None
            made = quantize_weight(name, weight, axis, bits=self.bits)
            values = made.values
            if name in self.moments:
                matrix = Node("MatMul", ["", name], [""])
                second = self.moments[name].second()
                values = round_weight(matrix, weight, made, 2 ** (self.bits - 1) - 1, second)
            writer.constants[key] = [
                writer.constant(values, f"{name}_quantized"),
                writer.constant(made.scale, f"{name}_scale"),
            ]
        return writer.constants[key]


class _Dynamic(_DynamicRows):
    """One range for the whole tensor, in ONNX's operators."""

    def write(self, writer: _Writer, node: Node, weight: FloatArray, output: str) -> None:
        x = node.inputs[0]
        if x not in writer.ranges:
            writer.ranges[x] = [
                writer.fresh(f"{x}_quantized", np.uint8),
                writer.fresh(f"{x}_scale", np.float32),
                writer.fresh(f"{x}_zero_point", np.uint8),
            ]
            writer.add("DynamicQuantizeLinear", [x], writer.ranges[x])
        q, x_scale, x_zero = writer.ranges[x]
        values, w_scale = self.weights(writer, node, weight)
        sums = writer.fresh(f"{output}_sums", np.int32)
        real = writer.fresh(f"{output}_cast", np.float32)
        scale = writer.fresh(f"{output}_scale", np.float32)
        writer.add("MatMulInteger", [q, values, x_zero], [sums])
        writer.add("Cast", [sums], [real], to=FLOAT_CODE)
        writer.add("Mul", [x_scale, w_scale], [scale])
        writer.add("Mul", [real, scale], [output])


class _Grouped(_Product):
    def __init__(self, bits: int, group_size: int, symmetric: bool, optimise_clip: bool) -> None:
        self.bits = bits
        self.group_size = group_size
        self.symmetric = symmetric
        self.optimise_clip = optimise_clip

    def write(self, writer: _Writer, node: Node, weight: FloatArray, output: str) -> None:
        x, name = node.inputs[:2]
        key = f"{name} {node.attrs.get('transB', 0)}"
        if key not in writer.constants:
            parts = group_quantize(
                weight, self.bits, self.group_size, self.symmetric, self.optimise_clip
            )
            hints = ("quantized", "scale", "zero_point")
            writer.constants[key] = [
                writer.constant(part, f"{name}_{hint}") for part, hint in zip(parts, hints)
            ]
        real = writer.fresh(f"{output}_weight", np.float32)
        inputs = writer.constants[key]
        writer.add("DequantizeLinear", inputs, [real], axis=0, block_size=self.group_size)
        writer.add("MatMul", [x, real], [output])


def group_quantize(
    weight: FloatArray, bits: int, group_size: int, symmetric: bool, optimise_clip: bool
) -> tuple[Array, FloatArray, Array]:
    """(values [k, n], scale [groups, n], zero point [groups, n]) of weight [k, n].

    Groups are group_size consecutive rows, the last may be shorter. Symmetric values are signed
    and their zero points 0 (stated, as ONNX Runtime wants them), others unsigned. optimise_clip:
    the range of each group is shrunk to where the squared error is smallest.
    """
    k, n = weight.shape
    groups = -(-k // group_size)
    padded = np.zeros((groups * group_size, n), np.float32)
    padded[:k] = weight
    cut = padded.reshape(groups, group_size, n)
    best = _round_groups(cut, bits, symmetric, 1.0)
    if optimise_clip:
        error = _error(cut, best)
        for clip in _CLIPS[1:]:
            tried = _round_groups(cut, bits, symmetric, float(clip))
            other = _error(cut, tried)
            better = (other < error)[:, None, :]
            best = tuple(np.where(better, b, a) for a, b in zip(best, tried))  # type: ignore[assignment]
            error = np.minimum(error, other)
    values, scale, zero = best
    dtype = _dtype(bits, symmetric)
    stored = values.reshape(-1, n)[:k].astype(np.int32).astype(dtype)
    points = zero[:, 0].astype(np.int32).astype(dtype)
    return stored, np.ascontiguousarray(scale[:, 0]), points


def _round_groups(
    cut: FloatArray, bits: int, symmetric: bool, clip: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Levels, scales and zero points of [groups, group_size, n], as float32."""
    if symmetric:
        lo, hi = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        peak = np.abs(cut).max(axis=1, keepdims=True) * np.float32(clip)
        scale = np.where(peak > 0, peak / np.float32(hi), 1).astype(np.float32)
        zero = np.zeros_like(scale)
    else:
        lo, hi = 0, 2**bits - 1
        low = np.minimum(cut.min(axis=1, keepdims=True), 0) * np.float32(clip)
        high = np.maximum(cut.max(axis=1, keepdims=True), 0) * np.float32(clip)
        scale = np.where(high > low, (high - low) / np.float32(hi), 1).astype(np.float32)
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        zero = np.clip(np.rint(-low / scale), lo, hi).astype(np.float32)
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    levels = np.clip(np.rint(cut / scale) + zero, lo, hi).astype(np.float32)
    return levels, scale, zero


def _error(cut: FloatArray, made: tuple[FloatArray, FloatArray, FloatArray]) -> Array:
    values, scale, zero = made
    difference = ((values - zero) * scale - cut).astype(np.float64)
    error: Array = np.sum(np.square(difference), axis=1)
    return error


def _dtype(bits: int, symmetric: bool) -> np.dtype[Any]:
    return dtype_from_name(f"{'' if symmetric else 'u'}int{bits}")
