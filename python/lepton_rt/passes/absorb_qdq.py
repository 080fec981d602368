"""DequantizeLinear → layer → QuantizeLinear becomes the layer's integer operator.

Convolution, matrix products and averaging pools take their quantised operands directly. A Relu or
Clip between the layer and its QuantizeLinear becomes a clamp of the integers: rounding is monotone,
so Quantize(max(x, 0)) is max(Quantize(x), zero point). What remains (element-wise chains) is left
to `fuse_elementwise`; what only moves data to `move_dequantize`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lepton_rt.graph.ir import Array, Attr, Graph, Node

from .activation import fusable_activation
from .attributes import int_attr
from .editor import Editor
from .quantised import Quantised, dequantised, quantising_reader

__all__ = ["absorb_qdq"]


def absorb_qdq(graph: Graph) -> Graph:
    """Replaces quantised layers by `lepton.QLinear…` operators."""
    editor = Editor(graph)
    for node in editor.nodes():
        rule = _RULES.get(node.key)
        if rule is not None:
            rule(editor, node)
    return editor.finish()


@dataclass
class _Ending:
    """What follows a layer up to its QuantizeLinear, and the tensor all of it makes."""

    nodes: list[Node]
    output: str
    scale: str
    zero_point: str
    attrs: dict[str, Attr]


def _ending(editor: Editor, node: Node) -> _Ending:
    """The QuantizeLinear after the layer, past an activation; without one the result is float."""
    output = node.outputs[0]
    plain = _Ending([], output, "", "", {})
    following = fusable_activation(editor, output)
    nodes: list[Node] = []
    attrs: dict[str, Attr] = {}
    quantised = quantising_reader(editor, output)
    if quantised is None and following is not None:
        quantised = quantising_reader(editor, following.node.outputs[0])
        nodes, attrs = [following.node], following.attrs
    if quantised is None or not (quantised.per_tensor and quantised.is_8_bit):
        return plain
    nodes.append(quantised.node)
    return _Ending(nodes, quantised.data, quantised.scale, quantised.zero_point, attrs)


def _activation_operand(editor: Editor, name: str) -> Quantised | None:
    found = dequantised(editor, name)
    return found if found is not None and found.per_tensor and found.is_8_bit else None


def _bias(editor: Editor, name: str, scales: Array, count: int) -> tuple[str, str] | None:
    """Names of the bias as int32 in units of `scales`, and of a float bias that is not exactly so.

    None when the bias cannot be used.
    """
    if not name:
        return "", ""
    found = dequantised(editor, name)
    if found is not None and found.dtype == np.int32 and not np.any(found.zero_points):
        exact = np.allclose(found.scales.reshape(-1), scales.reshape(-1), rtol=1e-5, atol=0)
        shape = editor.shape(found.data)
        if exact and shape == (count,) and editor.array(found.data) is not None:
            return found.data, ""
    array = editor.array(name)
    if array is None or array.dtype != np.float32 or array.shape != (count,):
        return None
    steps = np.rint(array.astype(np.float64) / scales.reshape(-1))
    fits = np.all(np.abs(steps) < 2**31)
    if fits and np.array_equal((steps * scales.reshape(-1)).astype(np.float32), array):
        return editor.constant(steps.astype(np.int32), name), ""
    return "", name


def _convolution(editor: Editor, node: Node) -> None:
    x = dequantised(editor, node.inputs[0])
    w = dequantised(editor, node.inputs[1])
    if x is None or w is None or not (x.is_8_bit and w.is_8_bit) or any(node.inputs[3:]):
        return
    weights = editor.array(w.data)
    if weights is None or not (w.per_tensor or w.axis % weights.ndim == 0):
        return
    if not x.per_tensor:
        moved = _scales_to_weights(editor, node, x, w, weights)
        if moved is None:
            return
        x, w = moved
    _replace_layer(editor, node, x, w, weights.shape[0])


def _scales_to_weights(
    editor: Editor, node: Node, x: Quantised, w: Quantised, weights: Array
) -> tuple[Quantised, Quantised] | None:
    """The scales that the channels of a depthwise operand have, as a part of its weights' scales.

    Each result is made of one channel, so the product of both scales stays what it was.
    """
    shape = editor.shape(x.data)
    channels, zero = x.scales.size, x.zero_points.reshape(-1)[:1]
    if shape is None or channels < 2 or int_attr(node, "group", 1) != channels:
        return None
    axis = len(shape) - 1 if int_attr(node, "channels_last", 0) else 1
    if x.axis % len(shape) != axis or np.any(x.zero_points != zero):
        return None
    of_outputs = np.repeat(x.scales.reshape(-1), weights.shape[0] // channels)
    scales = (w.scales.reshape(-1) * of_outputs).astype(np.float32)
    zeros = np.ascontiguousarray(np.broadcast_to(w.zero_points.reshape(-1), scales.shape))
    one = np.ones((), np.float32)
    plain = replace(
        x,
        scale=editor.constant(one, x.scale),
        zero_point=editor.constant(zero.reshape(()), x.zero_point),
        scales=one,
        zero_points=zero.reshape(()),
    )
    names = editor.constant(scales, w.scale), editor.constant(zeros, w.zero_point)
    taken = replace(
        w, scale=names[0], zero_point=names[1], scales=scales, zero_points=zeros, axis=0
    )
    return plain, taken


def _matmul(editor: Editor, node: Node) -> None:
    x = _activation_operand(editor, node.inputs[0])
    w = dequantised(editor, node.inputs[1]) or _behind_transpose(editor, node.inputs[1])
    if x is None or w is None or not w.is_8_bit or any(node.inputs[3:]):
        return
    node = _with_added_bias(editor, node)
    weights = editor.array(w.data)
    if weights is None:
        if w.per_tensor and len(node.inputs) < 3 and node.op == "MatMul":
            _replace_layer(editor, node, x, w, 0)
        return
    if node.op == "Gemm":
        gemm = _plain_gemm(editor, node, w, weights)
        if gemm is None:
            return
        w, weights = gemm
    columns_last = w.axis % weights.ndim == weights.ndim - 1
    if weights.ndim != 2 or not (w.per_tensor or columns_last):
        return
    _replace_layer(editor, node, x, w, weights.shape[1])


def _with_added_bias(editor: Editor, node: Node) -> Node:
    """A MatMul whose only reader adds a dequantised int32 vector takes that in as its bias."""
    add = editor.only_reader(node.outputs[0])
    if node.key != "MatMul" or add is None or add.key != "Add":
        return node
    bias = add.inputs[1 - add.inputs.index(node.outputs[0])]
    found = dequantised(editor, bias)
    if found is None or found.dtype != np.int32 or len(editor.shape(found.data) or ()) != 1:
        return node
    inputs = [*node.inputs, bias]
    return editor.replace([node, add], "MatMul", inputs, add.outputs, node.attrs, lepton=True)


def _plain_gemm(
    editor: Editor, node: Node, w: Quantised, weights: Array
) -> tuple[Quantised, Array] | None:
    """The weights of A·B + C, transposed where the node asks for it."""
    has_bias = len(node.inputs) > 2 and bool(node.inputs[2])
    plain = node.attrs.get("alpha", 1.0) == 1.0 and not node.attrs.get("transA", 0)
    if not plain or (has_bias and node.attrs.get("beta", 1.0) != 1.0):
        return None
    if not node.attrs.get("transB", 0):
        return w, weights
    return _turned(editor, w, weights)


def _turned(editor: Editor, w: Quantised, weights: Array) -> tuple[Quantised, Array]:
    turned = np.ascontiguousarray(weights.T)
    return replace(w, data=editor.constant(turned, w.data), axis=1 - w.axis % 2), turned


def _behind_transpose(editor: Editor, name: str) -> Quantised | None:
    """Constant weights [n, k] that a Transpose makes [k, n], as PyTorch's linear layers have."""
    node = editor.producer(name)
    if node is None or node.key != "Transpose":
        return None
    w = dequantised(editor, node.inputs[0])
    weights = editor.array(w.data) if w is not None else None
    if w is None or weights is None or weights.ndim != 2 or node.attrs.get("perm") == [0, 1]:
        return None
    return _turned(editor, w, weights)[0]


def _replace_layer(editor: Editor, node: Node, x: Quantised, w: Quantised, count: int) -> None:
    scales = x.scales.astype(np.float32).reshape(-1) * w.scales.astype(np.float32).reshape(-1)
    bias_name = node.inputs[2] if len(node.inputs) > 2 else ""
    bias = _bias(editor, bias_name, np.broadcast_to(scales, (count,)) if count else scales, count)
    if bias is None:
        return
    integer_bias, float_bias = bias
    end = _ending(editor, node) if not float_bias else _Ending([], node.outputs[0], "", "", {})
    output = end.output
    if float_bias:
        output = editor.fresh(f"{output}_product", editor.value(output))
    inputs = [x.data, x.scale, x.zero_point, w.data, w.scale, w.zero_point]
    inputs += [end.scale, end.zero_point, integer_bias]
    attrs = {k: v for k, v in node.attrs.items() if k not in {"alpha", "beta", "transA", "transB"}}
    op = "QLinearConv" if node.op == "Conv" else "QLinearMatMul"
    sources = [editor.producer(name) for name in node.inputs if name]
    if float_bias:
        editor.add(node, "Add", [output, float_bias], node.outputs)
    editor.replace([node, *end.nodes], op, inputs, [output], {**attrs, **end.attrs}, lepton=True)
    editor.drop_unread(*sources)


def _average(editor: Editor, node: Node) -> None:
    """AveragePool and ReduceMean between a DequantizeLinear and a QuantizeLinear."""
    x = _activation_operand(editor, node.inputs[0])
    y = quantising_reader(editor, node.outputs[0])
    if x is None or y is None or not (y.per_tensor and y.is_8_bit) or y.dtype != x.dtype:
        return
    attrs = dict(node.attrs)
    if node.op == "ReduceMean":
        axes = _neighbouring_axes(editor, node)
        if axes is None:
            return
        attrs = {"axes": axes, "keepdims": int_attr(node, "keepdims", 1)}
    inputs = [x.data, x.scale, x.zero_point, y.scale, y.zero_point]
    editor.replace([node, y.node], f"QLinear{node.op}", inputs, [y.data], attrs, lepton=True)
    editor.drop_unread(x.node)


def _neighbouring_axes(editor: Editor, node: Node) -> list[int] | None:
    """The axes of a ReduceMean, when constant and adjacent to each other."""
    found = editor.array(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    shape = editor.shape(node.inputs[0])
    if found is None or found.size == 0 or shape is None:
        return None
    axes = sorted(int(axis) % len(shape) for axis in found.reshape(-1))
    return axes if axes == list(range(axes[0], axes[0] + len(axes))) else None


_RULES: dict[str, Callable[[Editor, Node], None]] = {
    "lepton.Conv": _convolution,
    "MatMul": _matmul,
    "Gemm": _matmul,
    "lepton.MatMul": _matmul,
    "lepton.AveragePool": _average,
    "ReduceMean": _average,
}
