"""Batch normalisation, and any per-channel scale or offset, folded into the layer before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lepton_rt.graph.ir import Array, Graph, Node

from .attributes import float_attr, int_attr
from .editor import Editor

__all__ = ["fuse_batch_norm"]


@dataclass
class _Affine:
    """y = x · scale + offset, one entry per channel or a single one; `data` is the operand x."""

    data: str
    scale: Array
    offset: Array


def fuse_batch_norm(graph: Graph) -> Graph:
    """Folds Conv, ConvTranspose or MatMul followed by a per-channel affine into weights and bias.

    A BatchNormalization that follows no such layer becomes a Mul and an Add.
    """
    editor = Editor(graph)
    for node in editor.nodes():
        affine = _affine(editor, node)
        if affine is not None and not _fold(editor, node, affine):
            if node.op == "BatchNormalization":
                _expand(editor, node, affine)
    return editor.finish()


def _affine(editor: Editor, node: Node) -> _Affine | None:
    if node.domain:
        return None
    if node.op == "BatchNormalization":
        return _batch_norm(editor, node)
    if node.op in {"Mul", "Add", "Sub", "Div"} and len(node.inputs) == 2:
        return _scale_or_offset(editor, node)
    return None


def _batch_norm(editor: Editor, node: Node) -> _Affine | None:
    if node.attrs.get("training_mode", 0) or any(node.outputs[1:]):
        return None
    found = [editor.array(name) for name in node.inputs[1:5]]
    if any(a is None or a.dtype != np.float32 for a in found):
        return None
    gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in found)
    epsilon = float_attr(node, "epsilon", 1e-5)
    scale = gamma / np.sqrt(variance + epsilon)
    return _Affine(node.inputs[0], scale, beta - mean * scale)


def _scale_or_offset(editor: Editor, node: Node) -> _Affine | None:
    """Mul, Add, Sub or Div by a constant that varies along the channel axis only."""
    side = 1 if editor.array(node.inputs[1]) is not None else 0
    constant = editor.array(node.inputs[side])
    data = node.inputs[1 - side]
    producer = editor.producer(data)
    if constant is None or constant.dtype != np.float32 or producer is None:
        return None
    if side == 0 and node.op in {"Sub", "Div"}:
        return None
    shape = editor.shape(data)
    entries = None if shape is None else _per_channel(constant, len(shape), _channel_axis(producer))
    if entries is None:
        return None
    one, zero = np.ones(1), np.zeros(1)
    if node.op == "Mul":
        return _Affine(data, entries, zero)
    if node.op == "Div":
        return _Affine(data, 1.0 / entries, zero) if np.all(entries != 0) else None
    return _Affine(data, one, entries if node.op == "Add" else -entries)


def _channel_axis(producer: Node) -> int:
    return 1 if producer.op in {"Conv", "ConvTranspose"} else -1


def _per_channel(constant: Array, rank: int, axis: int) -> Array | None:
    """The constant as a vector over the channels, when it broadcasts along every other axis."""
    if constant.ndim > rank:
        return None
    dims = (1,) * (rank - constant.ndim) + constant.shape
    if any(d != 1 for i, d in enumerate(dims) if i != axis % rank):
        return None
    return constant.reshape(-1).astype(np.float64)


def _fold(editor: Editor, node: Node, affine: _Affine) -> bool:
    layer = editor.producer(affine.data)
    if layer is None or editor.only_reader(affine.data) is not node:
        return False
    if layer.key not in {"Conv", "ConvTranspose", "MatMul", "lepton.MatMul"}:
        return False
    weights = editor.array(layer.inputs[1])
    if weights is None or weights.dtype != np.float32 or any(layer.inputs[3:]):
        return False
    channels = _output_channels(layer, weights)
    if channels is None or affine.scale.size not in (1, channels):
        return False
    if affine.offset.size not in (1, channels):
        return False
    bias_name = layer.inputs[2] if len(layer.inputs) > 2 else ""
    bias = editor.array(bias_name) if bias_name else np.zeros(channels, np.float32)
    if bias is None or bias.shape != (channels,):
        return False
    scale = np.broadcast_to(affine.scale, (channels,))
    inputs = list(layer.inputs[:2])
    if np.any(scale != 1):
        scaled = _scale_weights(layer, weights, scale)
        inputs[1] = editor.constant(scaled, layer.inputs[1])
    offset = bias.astype(np.float64) * scale + affine.offset
    if bias_name or np.any(offset != 0):
        inputs.append(editor.constant(offset.astype(np.float32), bias_name or "bias"))
    fused = layer.op != "MatMul"
    editor.replace([layer, node], layer.op, inputs, node.outputs[:1], layer.attrs, lepton=not fused)
    return True


def _output_channels(layer: Node, weights: Array) -> int | None:
    if layer.op == "Conv":
        return int(weights.shape[0])
    if layer.op == "ConvTranspose":
        return int(weights.shape[1]) * int_attr(layer, "group", 1)
    return int(weights.shape[1]) if weights.ndim == 2 else None


def _scale_weights(layer: Node, weights: Array, scale: Array) -> Array:
    """Weights with every output channel multiplied by its scale."""
    if layer.op == "Conv":
        factor = scale.reshape(-1, *[1] * (weights.ndim - 1))
    elif layer.op == "ConvTranspose":
        # [C, M/group, ...]: output channel g·M/group + j belongs to the inputs of group g.
        groups = int_attr(layer, "group", 1)
        rows = np.repeat(scale.reshape(groups, -1), weights.shape[0] // groups, axis=0)
        factor = rows.reshape(*weights.shape[:2], *[1] * (weights.ndim - 2))
    else:
        factor = scale.reshape(1, -1)
    return (weights.astype(np.float64) * factor).astype(np.float32)


def _expand(editor: Editor, node: Node, affine: _Affine) -> None:
    shape = editor.shape(affine.data)
    if shape is None or len(shape) < 2:
        return
    dims = (-1,) + (1,) * (len(shape) - 2)
    scale = editor.constant(affine.scale.astype(np.float32).reshape(dims), "scale")
    offset = editor.constant(affine.offset.astype(np.float32).reshape(dims), "offset")
    product = editor.fresh(f"{node.outputs[0]}_scaled", editor.value(node.outputs[0]))
    editor.replace(node, "Add", [product, offset], node.outputs[:1])
    editor.add(node, "Mul", [affine.data, scale], [product])
