"""Rewrites operators that only say in one word what standard ones say in several.

Quantised graphs have one spelling in the house, Q/DQ around float operators. The QOperator forms
(QLinearConv, QLinearMatMul) and ONNX Runtime's own operators of domain "com.microsoft" mean the
same, and are spelled so on import; the compiler's passes fuse them again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lepton_rt.dtypes import dtype_from_name
from lepton_rt.errors import ModelError, UnsupportedError
from lepton_rt.graph.ir import LEPTON_DOMAIN, Array, Attr, Node
from lepton_rt.graph.onnx_site import Rule, Site

MICROSOFT = "com.microsoft"
FLOAT = np.dtype(np.float32)


class _Spelling:
    """The standard nodes that replace one node."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.nodes: list[Node] = []

    def input(self, i: int) -> str:
        inputs = self.site.node.inputs
        return inputs[i] if i < len(inputs) else ""

    def needed(self, i: int) -> str:
        name = self.input(i)
        if not name:
            raise ModelError(f"input {i} is missing")
        return name

    def add(self, op: str, *inputs: str, **attrs: Attr) -> str:
        operands = list(inputs)
        while operands and not operands[-1]:
            operands.pop()
        out = self.site.fresh(op)
        self.nodes.append(Node(op, operands, [out], attrs, "", self.site.node.name))
        return out

    def dequantized(self, i: int, axis: int = 1) -> str:
        """Inputs i, i + 1, i + 2 (quantised, scale, zero-point) as a float tensor."""
        operands = (self.needed(i), self.needed(i + 1), self.input(i + 2))
        value = self.site.value(i + 1)
        per_axis = value is not None and value.rank == 1 and value.shape != (1,)
        return self.add("DequantizeLinear", *operands, **({"axis": axis} if per_axis else {}))

    def bias(self, i: int, x_scale: int, w_scale: int) -> str:
        """int32 input i, whose scale is the product of two others."""
        if not self.input(i):
            return ""
        left, right = self.site.array(x_scale), self.site.array(w_scale)
        if left is None or right is None:
            scale = self.add("Mul", self.needed(x_scale), self.needed(w_scale))
        else:
            product = np.asarray(left, FLOAT).reshape(-1) * np.asarray(right, FLOAT).reshape(-1)
            scalar = product.reshape(()) if product.size == 1 else product
            scale = self.site.constant(scalar, FLOAT, "bias_scale")
        return self.add("DequantizeLinear", self.input(i), scale, axis=0)

    def quantized(self, x: str, scale: int) -> list[Node]:
        """Quantises x to the node's output, with inputs scale and scale + 1."""
        self.add("QuantizeLinear", x, self.needed(scale), self.input(scale + 1))
        return self.finished()

    def own(self, op: str, operands: list[str], attrs: dict[str, Attr]) -> list[Node]:
        """The node as one lepton operator."""
        while not operands[-1]:
            operands.pop()
        node, out = self.site.node, self.site.node.outputs[:1]
        return [Node(op, operands, list(out), attrs, LEPTON_DOMAIN, node.name)]

    def finished(self) -> list[Node]:
        self.nodes[-1].outputs = list(self.site.node.outputs[:1])
        return self.nodes

    def attrs(self, *without: str) -> dict[str, Attr]:
        return {k: v for k, v in self.site.node.attrs.items() if k not in without}


def _no_channels_last(site: Site) -> None:
    if site.node.attrs.get("channels_last", 0):
        raise UnsupportedError(f"{site.node.op} with channels_last is not supported")


def _conv(site: Site) -> list[Node]:
    _no_channels_last(site)
    spell = _Spelling(site)
    x, w = spell.dequantized(0), spell.dequantized(3, axis=0)
    y = spell.add("Conv", x, w, spell.bias(8, 1, 4), **spell.attrs("channels_last"))
    return spell.quantized(y, 6)


def _matmul(site: Site) -> list[Node]:
    spell = _Spelling(site)
    a_rank, b_rank = site.rank(0), site.rank(3)
    a = spell.dequantized(0, axis=-2 if a_rank is None else a_rank - 2)
    b = spell.dequantized(3, axis=-1 if b_rank is None else b_rank - 1)
    return spell.quantized(spell.add("MatMul", a, b), 6)


def _gemm(site: Site) -> list[Node]:
    spell = _Spelling(site)
    if site.node.attrs.get("alpha", 1.0) != 1.0:
        raise UnsupportedError("QGemm with alpha is not supported")
    a = spell.dequantized(0)
    b = spell.dequantized(3, axis=0 if site.node.attrs.get("transB", 0) else 1)
    y = spell.add("Gemm", a, b, spell.bias(6, 1, 4), **spell.attrs("alpha"))
    return spell.quantized(y, 7) if spell.input(7) else spell.finished()


def _scaled(spell: _Spelling, sums: str, scales: tuple[str, str], bias: str) -> list[Node]:
    """int32 sums · (product of two scales) + bias, in float32."""
    real = spell.add("Cast", sums, to=1)
    y = spell.add("Mul", real, spell.add("Mul", *scales))
    if bias:
        spell.add("Add", y, bias)
    return spell.finished()


def _dynamic_matmul(site: Site) -> list[Node]:
    """DynamicQuantizeMatMul: A, B, b_scale, b_zero_point, bias."""
    spell = _Spelling(site)
    a = [site.fresh(f"dynamic_{part}") for part in ("y", "scale", "zero_point")]
    spell.nodes.append(Node("DynamicQuantizeLinear", [spell.needed(0)], a, {}, "", site.node.name))
    sums = spell.add("MatMulInteger", a[0], spell.needed(1), a[2], spell.input(3))
    return _scaled(spell, sums, (a[1], spell.needed(2)), spell.input(4))


def _matmul_to_float(site: Site) -> list[Node]:
    """MatMulIntegerToFloat: A, B, a_scale, b_scale, a_zero_point, b_zero_point, bias."""
    spell = _Spelling(site)
    operands = (spell.needed(0), spell.needed(1), spell.input(4), spell.input(5))
    sums = spell.add("MatMulInteger", *operands)
    return _scaled(spell, sums, (spell.needed(2), spell.needed(3)), spell.input(6))


def _matmul_nbits(site: Site) -> list[Node]:
    """MatMulNBits: A, B [N, groups, bytes], scales, zero_points, g_idx, bias; groups along K."""
    spell = _Spelling(site)
    if spell.input(4):
        raise UnsupportedError("MatMulNBits with g_idx is not supported")
    sizes = [site.node.attrs.get(name, 0) for name in ("K", "N", "block_size")]
    k, n, size = (value if isinstance(value, int) else 0 for value in sizes)
    bits = site.node.attrs.get("bits", 4)
    b, scales, zero = site.array(1), site.array(2), site.array(3) if spell.input(3) else None
    if b is None or scales is None or (spell.input(3) and zero is None):
        raise UnsupportedError("MatMulNBits with computed weights is not supported")
    if bits not in (4, 8) or (zero is not None and zero.dtype != np.uint8):
        raise UnsupportedError("MatMulNBits of this kind is not supported")
    groups = -(-k // size) if k > 0 and n > 0 and size > 0 else 0
    if groups == 0 or b.dtype != np.uint8 or scales.size != n * groups:
        raise ModelError("MatMulNBits has impossible sizes")
    wide = bits == 8
    values = _unpacked(b, n, groups * size, wide)[:, :k]
    if zero is None:
        points = np.full((n, groups), 128 if wide else 8, np.uint8)
    else:
        points = _unpacked(zero, n, groups, wide)
    stored = dtype_from_name("uint8" if wide else "uint4")
    names = [
        site.constant(values.T, stored, "weight"),
        site.constant(scales.reshape(n, groups).T, scales.dtype, "scale"),
        site.constant(points.T, stored, "zero_point"),
    ]
    if site.node.attrs.get("accuracy_level") == 4 and scales.dtype == FLOAT:
        # The model allows activations of 8 bits, which standard operators cannot say.
        operands = [spell.needed(0), *names, spell.input(5)]
        attrs: dict[str, Attr] = {"block_size": size, "accuracy_level": 4}
        return spell.own("MatMulNBits", operands, attrs)
    weight = spell.add("DequantizeLinear", *names, axis=0, block_size=size)
    y = spell.add("MatMul", spell.needed(0), weight)
    if spell.input(5):
        spell.add("Add", y, spell.input(5))
    return spell.finished()


def _unpacked(packed: Array, rows: int, columns: int, wide: bool) -> Array:
    """uint8 [rows, columns] of 8- or 4-bit integers, the low half of a byte first."""
    width = columns if wide else -(-columns // 2)
    if packed.size != rows * width:
        raise ModelError("MatMulNBits holds another number of bytes than its sizes say")
    flat = packed.reshape(rows, width)
    if wide:
        return flat
    return np.stack([flat & 15, flat >> 4], axis=-1).reshape(rows, -1)[:, :columns]


def _binary(op: str) -> Rule:
    def rule(site: Site) -> list[Node]:
        spell = _Spelling(site)
        return spell.quantized(spell.add(op, spell.dequantized(0), spell.dequantized(3)), 6)

    return rule


def _unary(op: str, *dropped: str) -> Rule:
    def rule(site: Site) -> list[Node]:
        _no_channels_last(site)
        spell = _Spelling(site)
        y = spell.add(op, spell.dequantized(0), **spell.attrs("channels_last", *dropped))
        return spell.quantized(y, 3)

    return rule


def _reduce_mean(site: Site) -> list[Node]:
    spell = _Spelling(site)
    axes = site.constant(site.node.attrs.get("axes", []), hint="axes")
    y = spell.add("ReduceMean", spell.dequantized(0), axes, **spell.attrs("axes"))
    return spell.quantized(y, 3)


def _softmax(site: Site) -> list[Node]:
    # Its attribute `opset` says which meaning of axis it has.
    rank, axis = site.rank(0), site.node.attrs.get("axis", -1)
    if site.node.attrs.get("opset", 13) != 13 and (rank is None or axis not in (-1, rank - 1)):
        raise UnsupportedError("QLinearSoftmax of an opset before 13 is not supported")
    return _unary("Softmax", "opset")(site) or []


def _concat(site: Site) -> list[Node]:
    spell = _Spelling(site)
    parts = [spell.dequantized(i) for i in range(2, len(site.node.inputs), 3)]
    return spell.quantized(spell.add("Concat", *parts, **spell.attrs()), 0)


def _where(site: Site) -> list[Node]:
    spell = _Spelling(site)
    x, y = spell.dequantized(1), spell.dequantized(4)
    return spell.quantized(spell.add("Where", spell.needed(0), x, y), 7)


def _standard(site: Site) -> None:
    site.node.domain = ""


def _bias_gelu(approximate: str) -> Callable[[Site], list[Node]]:
    def rule(site: Site) -> list[Node]:
        spell = _Spelling(site)
        x = spell.needed(0)
        if spell.input(1):
            x = spell.add("Add", x, spell.input(1))
        spell.add("Gelu", x, approximate=approximate)
        return spell.finished()

    return rule


def _quick_gelu(site: Site) -> list[Node]:
    spell = _Spelling(site)
    alpha = site.constant(site.node.attrs.get("alpha", 1.702), site.dtype(0), "alpha")
    gate = spell.add("Sigmoid", spell.add("Mul", spell.needed(0), alpha))
    spell.add("Mul", spell.needed(0), gate)
    return spell.finished()


def _dynamic_quantize_lstm(site: Site) -> list[Node]:
    """ONNX Runtime keeps W and R transposed, [directions, k, columns]."""
    node, nodes = site.node, []
    if len(node.inputs) < 11:
        raise ModelError("DynamicQuantizeLSTM has no scales")
    for i in (1, 2):
        weights = site.array(i)
        if weights is not None and weights.ndim == 3:
            turned = np.ascontiguousarray(weights.swapaxes(1, 2))
            node.inputs[i] = site.constant(turned, turned.dtype, "turned")
        else:
            out = site.fresh("turned")
            nodes.append(Node("Transpose", [node.inputs[i]], [out], {"perm": [0, 2, 1]}))
            node.inputs[i] = out
    node.domain = LEPTON_DOMAIN
    return [*nodes, node]


SPELLINGS: dict[str, Rule] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    f"{MICROSOFT}.QLinearConv": _conv,
    f"{MICROSOFT}.QGemm": _gemm,
    f"{MICROSOFT}.DynamicQuantizeMatMul": _dynamic_matmul,
    f"{MICROSOFT}.MatMulIntegerToFloat": _matmul_to_float,
    f"{MICROSOFT}.MatMulNBits": _matmul_nbits,
    f"{MICROSOFT}.QLinearAdd": _binary("Add"),
    f"{MICROSOFT}.QLinearMul": _binary("Mul"),
    f"{MICROSOFT}.QLinearSigmoid": _unary("Sigmoid"),
    f"{MICROSOFT}.QLinearLeakyRelu": _unary("LeakyRelu"),
    f"{MICROSOFT}.QLinearSoftmax": _softmax,
    f"{MICROSOFT}.QLinearAveragePool": _unary("AveragePool"),
    f"{MICROSOFT}.QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    f"{MICROSOFT}.QLinearReduceMean": _reduce_mean,
    f"{MICROSOFT}.QLinearConcat": _concat,
    f"{MICROSOFT}.QLinearWhere": _where,
    f"{MICROSOFT}.QuantizeLinear": _standard,
    f"{MICROSOFT}.DequantizeLinear": _standard,
    f"{MICROSOFT}.Gelu": _standard,
    f"{MICROSOFT}.BiasGelu": _bias_gelu("none"),
    f"{MICROSOFT}.FastGelu": _bias_gelu("tanh"),
    f"{MICROSOFT}.QuickGelu": _quick_gelu,
    f"{MICROSOFT}.DynamicQuantizeLSTM": _dynamic_quantize_lstm,
}
"""Node key → rule. Every rule but the last leaves only standard operators."""
