"""One spelling for what ONNX can say in several ways, so that later passes match one form."""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.inference.windows import same_pads, split_pads
from lepton_rt.graph.ir import Graph, Node, static_dims

from .attributes import float_attr
from .editor import Editor

__all__ = ["normalise"]

_WINDOWED = {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "ConvInteger"}
_GLOBAL_POOLS = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}


def normalise(graph: Graph) -> Graph:
    """Explicit pads, global pools as reductions, Gemm with constants as `lepton.MatMul`."""
    editor = Editor(graph)
    for node in editor.nodes():
        if node.domain:
            continue
        if node.op in _WINDOWED:
            _explicit_pads(editor, node)
        elif node.op in _GLOBAL_POOLS:
            _global_pool(editor, node)
        elif node.op == "Gemm":
            _constant_gemm(editor, node)
        elif node.op in {"Sum", "Min", "Max", "Mean", "Concat"} and len(node.inputs) == 1:
            editor.replace(node, "Identity", node.inputs, node.outputs)
        elif node.op == "Dropout":
            _inference_dropout(editor, node)
        elif node.op == "Sum" and len(node.inputs) == 2:
            editor.replace(node, "Add", node.inputs, node.outputs)
    return editor.finish()


def _ints(node: Node, name: str, default: list[int]) -> list[int]:
    value = node.attrs.get(name)
    return [int(v) for v in value] if isinstance(value, list) else default


def _kernel(editor: Editor, node: Node) -> list[int] | None:
    """Spatial size of the window, from the attribute or from the weights."""
    if "kernel_shape" in node.attrs:
        return _ints(node, "kernel_shape", [])
    weights = editor.shape(node.inputs[1]) if len(node.inputs) > 1 else None
    dims = static_dims(weights)
    return None if dims is None else list(dims[2:])


def _explicit_pads(editor: Editor, node: Node) -> None:
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        node.attrs.pop("auto_pad", None)
        return
    kernel = _kernel(editor, node)
    if kernel is None or (node.op == "ConvTranspose" and "output_shape" in node.attrs):
        return
    rank = len(kernel)
    if auto == "VALID":
        pads: list[int] | None = [0] * (2 * rank)
    else:
        pads = _same_pads(editor, node, kernel, lower=auto == "SAME_LOWER")
    if pads is not None:
        del node.attrs["auto_pad"]
        node.attrs["pads"] = list(pads)


def _same_pads(editor: Editor, node: Node, kernel: list[int], lower: bool) -> list[int] | None:
    shape = editor.shape(node.inputs[0])
    spatial = static_dims(shape[2:]) if shape is not None else None
    ones = [1] * len(kernel)
    strides = _ints(node, "strides", ones)
    dilations = _ints(node, "dilations", ones)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    if node.op == "ConvTranspose":
        extra = _ints(node, "output_padding", [0] * len(kernel))
        return split_pads([e + r - s for e, r, s in zip(extra, reach, strides)], lower)
    if all(s == 1 for s in strides):
        return split_pads([r - 1 for r in reach], lower)
    return None if spatial is None else same_pads(spatial, reach, strides, lower)


def _global_pool(editor: Editor, node: Node) -> None:
    shape = editor.shape(node.inputs[0])
    if shape is None or len(shape) < 3:
        return
    axes = editor.constant(np.arange(2, len(shape), dtype=np.int64), "axes")
    op = _GLOBAL_POOLS[node.op]
    editor.replace(node, op, [node.inputs[0], axes], node.outputs, {"keepdims": 1})


def _inference_dropout(editor: Editor, node: Node) -> None:
    """Outside training a Dropout hands its operand through."""
    training = node.inputs[2] if len(node.inputs) > 2 else ""
    mask = node.outputs[1] if len(node.outputs) > 1 else ""
    if mask and (editor.readers(mask) or editor.pinned(mask)):
        return
    if training and editor.scalar(training) != 0:
        return
    if editor.redirect(node.outputs[0], node.inputs[0]):
        editor.remove(node)
    else:
        editor.replace(node, "Identity", node.inputs[:1], node.outputs[:1])


def _constant_gemm(editor: Editor, node: Node) -> None:
    """Gemm(A, B, C) with constant B and a C that is one value per column."""
    weights = editor.array(node.inputs[1])
    if weights is None or weights.dtype != np.float32 or node.attrs.get("transA", 0):
        return
    columns = weights.shape[0] if node.attrs.get("transB", 0) else weights.shape[1]
    inputs = [node.inputs[0], node.inputs[1]]
    if len(node.inputs) > 2 and node.inputs[2]:
        offset = editor.array(node.inputs[2])
        if offset is None or offset.size not in (1, columns) or offset.shape[:-1] not in ((), (1,)):
            return
        beta = np.float32(float_attr(node, "beta", 1.0))
        if beta != 1 or offset.shape != (columns,):
            flat = np.broadcast_to((offset * beta).astype(np.float32).reshape(-1), (columns,))
            inputs.append(editor.constant(np.ascontiguousarray(flat), node.inputs[2]))
        else:
            inputs.append(node.inputs[2])
    alpha = np.float32(float_attr(node, "alpha", 1.0))
    if alpha != 1 or node.attrs.get("transB", 0):
        matrix = weights.T if node.attrs.get("transB", 0) else weights
        matrix = matrix if alpha == 1 else matrix * alpha
        inputs[1] = editor.constant(np.ascontiguousarray(matrix, np.float32), node.inputs[1])
    editor.replace(node, "MatMul", inputs, node.outputs, lepton=True)
