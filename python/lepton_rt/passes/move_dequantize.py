"""DequantizeLinear moved down past operators that only move or select elements.

They then run on integers, a quarter of the bytes; and where a QuantizeLinear with the same
parameters follows, both are gone.
"""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Graph, Node, Value

from .editor import Editor
from .quantised import Quantised, dequantised, quantising_reader, same_grid

__all__ = ["move_dequantize"]

_MOVES = frozenset(
    [
        "CenterCropPad",
        "Compress",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "MaxPool",
        "ReduceMax",
        "ReduceMin",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "lepton.MaxPool",
    ]
)
"""Every output element is one element of operand 0."""


def move_dequantize(graph: Graph) -> Graph:
    """Moves DequantizeLinear down, merges it over Concat, and cancels identical pairs."""
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key in _MOVES or _is_nearest(node) or _zero_padded(editor, node):
            _move(editor, node)
        elif node.key == "Concat":
            _concat(editor, node)
        elif node.key == "QuantizeLinear":
            _cancel(editor, node)
    return editor.finish()


def _is_nearest(node: Node) -> bool:
    mode = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    nearest = node.attrs.get("mode", "nearest") == "nearest"
    return node.key == "Resize" and nearest and mode != "tf_crop_and_resize"


def _zero_padded(editor: Editor, node: Node) -> bool:
    """Pad whose new elements are zeros or copies."""
    if node.key != "Pad":
        return False
    if node.attrs.get("mode", "constant") != "constant":
        return True
    return len(node.inputs) < 3 or not node.inputs[2] or editor.scalar(node.inputs[2]) == 0


def _movable(editor: Editor, name: str) -> Quantised | None:
    found = dequantised(editor, name)
    return found if found is not None and found.per_tensor and found.is_8_bit else None


def _move(editor: Editor, node: Node) -> None:
    x = _movable(editor, node.inputs[0])
    if x is None or (node.op == "MaxPool" and any(node.outputs[1:])):
        return
    inputs = [x.data, *node.inputs[1:]]
    if node.key == "Pad" and node.attrs.get("mode", "constant") == "constant":
        inputs += [""] * (3 - len(inputs))
        inputs[2] = editor.constant(x.zero_points.reshape(()), "pad_value")
    outputs = [_integer(editor, name, x) if name else "" for name in node.outputs]
    lepton = bool(node.domain)
    moved = editor.replace(node, node.op, inputs, outputs, node.attrs, lepton)
    for integer, output in zip(outputs, node.outputs):
        if output and (editor.readers(output) or editor.pinned(output)):
            _dequantize(editor, moved, integer, output, x)
    editor.drop_unread(x.node)


def _integer(editor: Editor, name: str, like: Quantised) -> str:
    value = editor.value(name)
    shape = None if value is None else value.shape
    return editor.fresh(f"{name}_quantized", Value(like.dtype, shape))


def _dequantize(editor: Editor, at: Node, integer: str, output: str, like: Quantised) -> None:
    operands = [integer, like.scale, like.zero_point]
    editor.add(at, "DequantizeLinear", operands, [output])


def _concat(editor: Editor, node: Node) -> None:
    operands = [_movable(editor, name) for name in node.inputs]
    found = [x for x in operands if x is not None]
    if len(found) < len(operands) or len({x.dtype for x in found}) > 1:
        return
    target = quantising_reader(editor, node.outputs[0])
    if all(same_grid(found[0], x) for x in found):
        target = found[0]
    elif target is None or not (target.per_tensor and target.is_8_bit):
        return
    inputs = [_on_grid(editor, node, x, target) for x in found]
    output = _integer(editor, node.outputs[0], target)
    moved = editor.replace(node, "Concat", inputs, [output], node.attrs)
    _dequantize(editor, moved, output, node.outputs[0], target)
    editor.drop_unread(*[x.node for x in found])


def _on_grid(editor: Editor, at: Node, x: Quantised, target: Quantised) -> str:
    """The integers of `x` in the quantisation of `target`."""
    if same_grid(x, target):
        return x.data
    real = editor.fresh(f"{x.data}_real", Value(np.dtype(np.float32), editor.shape(x.data)))
    moved = editor.fresh(f"{x.data}_requantized", Value(target.dtype, editor.shape(x.data)))
    editor.add(at, "DequantizeLinear", [x.data, x.scale, x.zero_point], [real])
    editor.add(at, "QuantizeLinear", [real, target.scale, target.zero_point], [moved])
    return moved


def _cancel(editor: Editor, node: Node) -> None:
    """QuantizeLinear of a DequantizeLinear with the same parameters."""
    x = _movable(editor, node.inputs[0])
    if x is None:
        return
    dtype = editor.dtype(node.outputs[0])
    zero = editor.array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    scale = editor.array(node.inputs[1])
    if dtype != x.dtype or scale is None or scale.size != 1:
        return
    zero_point = 0 if zero is None else int(zero.reshape(-1)[0])
    if float(scale.reshape(-1)[0]) != float(x.scales.reshape(-1)[0]):
        return
    if zero_point != int(x.zero_points.reshape(-1)[0]):
        return
    if editor.redirect(node.outputs[0], x.data):
        editor.remove(node)
    else:
        editor.replace(node, "Identity", [x.data], node.outputs)
    editor.drop_unread(x.node)
