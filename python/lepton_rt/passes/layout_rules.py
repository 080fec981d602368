"""How each operator meets channels-last tensors: the rules of `choose_layout`.

A rule returns True when it has dealt with the node, and False, nothing done, when the node has to
run on channels-first tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from lepton_rt.graph.ir import LEPTON_DOMAIN, Attr, Dim, Node

from .attributes import int_attr, ints_attr
from .vocabulary import ELEMENTWISE, REDUCTIONS

if TYPE_CHECKING:
    from .choose_layout import LayoutWalk

__all__ = ["RULES", "SPATIAL", "Shape", "permuted", "to_channels_first", "to_channels_last"]

Shape = tuple[Union[int, str, None], ...]
Rule = Callable[["LayoutWalk", Node], bool]

FEW_CHANNELS = 4
"""A convolution of at most so many input channels reads channels-first tensors as they are."""


def to_channels_last(rank: int) -> list[int]:
    """Transpose permutation N, C, spatial… → N, spatial…, C."""
    return [0, *range(2, rank), 1]


def to_channels_first(rank: int) -> list[int]:
    """Transpose permutation N, spatial…, C → N, C, spatial…."""
    return [0, rank - 1, *range(1, rank - 1)]


def permuted(items: Sequence[Any], perm: list[int]) -> tuple[Any, ...]:
    """Items in the order of a Transpose permutation."""
    return tuple(items[axis] for axis in perm)


def last_axis(axis: int, rank: int) -> int:
    """Where a channels-first axis lies in the channels-last form."""
    return to_channels_last(rank).index(axis % rank)


def _rank(walk: LayoutWalk, node: Node) -> int | None:
    """Rank of the first operand, from its type or from the weights."""
    shape = walk.shape(node.inputs[0])
    if shape is None and node.op in {"Conv", "ConvTranspose"}:
        shape = walk.shape(node.inputs[1])
    return None if shape is None else len(shape)


# Spatial operators: they always change form.


def _convolution(walk: LayoutWalk, node: Node) -> bool:
    x, weights = node.inputs[0], node.inputs[3 if node.op == "QLinearConv" else 1]
    shape = walk.shape(weights) or walk.shape(x)
    if shape is None or len(shape) < 3:
        return False
    rank = len(shape)
    channels = (walk.shape(x) or (None, None))[1]
    direct = node.op != "ConvTranspose" and walk.lazy(x) is None
    direct = direct and isinstance(channels, int) and channels <= FEW_CHANNELS
    source = walk.first(x) if direct else walk.last(x, rank)
    rest = [walk.first(name) for name in node.inputs[1:]]
    attrs = {**node.attrs, "channels_last": 0 if direct else 1}
    out = walk.new_twin(node.outputs[0])
    _note_rank(walk, node.outputs[0], rank)
    walk.emit(node, node.op, [source, *rest], [out], attrs, LEPTON_DOMAIN)
    return True


def _note_rank(walk: LayoutWalk, name: str, rank: int) -> None:
    """A tensor of unknown shape still needs its rank for the transpose back."""
    value = walk.graph.value(name)
    if value is not None and value.shape is None:
        walk.graph.values[name] = type(value)(value.dtype, (None,) * rank)


def _window(walk: LayoutWalk, node: Node) -> bool:
    rank = _rank(walk, node)
    if rank is None or rank < 3 or any(node.outputs[1:]):
        return False
    source = walk.last(node.inputs[0], rank)
    attrs = {**node.attrs, "channels_last": 1}
    attrs.pop("storage_order", None)
    out = walk.new_twin(node.outputs[0])
    walk.emit(node, node.op, [source], [out], attrs, LEPTON_DOMAIN)
    return True


SPATIAL: dict[str, Rule] = {
    "Conv": _convolution,
    "QLinearConv": _convolution,
    "ConvTranspose": _convolution,
    "MaxPool": _window,
    "AveragePool": _window,
    "LpPool": _window,
    "LRN": _window,
}


# Operators that take either layout.


def _twin_rank(walk: LayoutWalk, node: Node) -> int | None:
    """The common rank of all channels-last operands."""
    ranks = set()
    for name in node.inputs:
        twin = walk.lazy(name) if name else None
        if twin is not None:
            shape = walk.shape(twin)
            ranks.add(None if shape is None else len(shape))
    return ranks.pop() if len(ranks) == 1 else None


def _operand_cost(walk: LayoutWalk, name: str, rank: int) -> int | None:
    """Transposes needed to read an operand channels-last; None when it cannot be."""
    if not name or walk.lazy(name) is not None:
        return 0
    array = walk.array(name)
    if array is not None:
        return 0 if array.ndim <= rank else None
    shape = walk.shape(name)
    if shape is None or len(shape) > rank:
        return None
    if all(dim == 1 for dim in shape):
        return 0
    if len(shape) < rank:
        return None
    return 0 if all(dim == 1 for dim in shape[2:]) else 1


def _operand(walk: LayoutWalk, name: str, rank: int) -> str:
    twin = walk.lazy(name) if name else None
    if not name or twin is not None:
        return twin or ""
    array = walk.array(name)
    if array is not None:
        if array.size == 1:
            return name
        aligned = array.reshape((1,) * (rank - array.ndim) + array.shape)
        return walk.constant(aligned.transpose(to_channels_last(rank)), name)
    shape = walk.shape(name)
    if shape is not None and all(dim == 1 for dim in shape):
        return name
    return walk.last(name, rank)


def _affordable(walk: LayoutWalk, names: Sequence[str], rank: int) -> bool:
    """Whether reading all operands channels-last costs no more transposes than not doing so."""
    costs = [_operand_cost(walk, name, rank) for name in names]
    twins = {name for name in names if name and walk.lazy(name) is not None}
    if any(cost is None for cost in costs):
        return False
    extra = sum(cost for cost in costs if cost)
    return extra == 0 or (rank > 3 and extra <= len(twins))


def _elementwise(walk: LayoutWalk, node: Node) -> bool:
    rank = _twin_rank(walk, node)
    if rank is None or not _affordable(walk, node.inputs, rank):
        return False
    inputs = [_operand(walk, name, rank) for name in node.inputs]
    walk.emit(node, node.op, inputs, [walk.new_twin(node.outputs[0])], node.attrs, node.domain)
    return True


def _quantize(walk: LayoutWalk, node: Node) -> bool:
    """QuantizeLinear and DequantizeLinear, per tensor or along an axis."""
    rank = _twin_rank(walk, node)
    scale = walk.shape(node.inputs[1])
    if rank is None or scale is None or len(scale) > 1 or node.attrs.get("block_size", 0):
        return False
    attrs = dict(node.attrs)
    if len(scale) == 1:
        attrs["axis"] = last_axis(int_attr(node, "axis", 1), rank)
    twin = walk.lazy(node.inputs[0])
    if twin is None:
        return False
    out = walk.new_twin(node.outputs[0])
    walk.emit(node, node.op, [twin, *node.inputs[1:]], [out], attrs, node.domain)
    return True


def _concat(walk: LayoutWalk, node: Node) -> bool:
    rank = _twin_rank(walk, node)
    if rank is None or not _affordable(walk, node.inputs, rank):
        return False
    for name in node.inputs:
        shape = walk.shape(name)
        if walk.lazy(name) is None and (shape is None or len(shape) != rank):
            return False
    inputs = []
    for name in node.inputs:
        array = walk.array(name)
        if array is not None:
            inputs.append(walk.constant(array.transpose(to_channels_last(rank)), name))
        else:
            inputs.append(walk.last(name, rank))
    attrs = {**node.attrs, "axis": last_axis(int_attr(node, "axis", 0), rank)}
    walk.emit(node, node.op, inputs, [walk.new_twin(node.outputs[0])], attrs)
    return True


def _along_axis(default: int) -> Rule:
    """Operators with one `axis` attribute that keep the rank: Split, Softmax, …."""

    def rule(walk: LayoutWalk, node: Node) -> bool:
        twin = walk.lazy(node.inputs[0])
        rank = _twin_rank(walk, node)
        if twin is None or rank is None:
            return False
        axis = last_axis(int_attr(node, "axis", default), rank)
        outputs = [walk.new_twin(name) if name else "" for name in node.outputs]
        attrs = {**node.attrs, "axis": axis}
        walk.emit(node, node.op, [twin, *node.inputs[1:]], outputs, attrs)
        return True

    return rule


def _axes_operand(walk: LayoutWalk, node: Node, index: int, count: int | None) -> list[int] | None:
    """Constant axes operand; the default 0 … count−1 when it is absent; None when unknown."""
    if index < len(node.inputs) and node.inputs[index]:
        axes = walk.array(node.inputs[index])
        return None if axes is None else [int(a) for a in axes.reshape(-1)]
    return None if count is None else list(range(count))


def _with_axes(walk: LayoutWalk, inputs: list[str], index: int, axes: list[int]) -> list[str]:
    inputs = inputs + [""] * (index + 1 - len(inputs))
    inputs[index] = walk.constant(np.array(axes, np.int64), "axes")
    return inputs


def _sliding(index: int) -> Rule:
    """Pad and Slice: an axes operand at `index`; without it the leading axes are meant."""

    def rule(walk: LayoutWalk, node: Node) -> bool:
        twin = walk.lazy(node.inputs[0])
        rank = _twin_rank(walk, node)
        extent = walk.shape(node.inputs[1])
        if twin is None or rank is None:
            return False
        count = extent[0] if extent else None
        if not isinstance(count, int):
            return False
        count = count // 2 if node.op == "Pad" else count
        axes = _axes_operand(walk, node, index, count)
        if axes is None or any(walk.lazy(name) for name in node.inputs[1:] if name):
            return False
        moved = [last_axis(axis, rank) for axis in axes]
        inputs = _with_axes(walk, [twin, *node.inputs[1:]], index, moved)
        walk.emit(node, node.op, inputs, [walk.new_twin(node.outputs[0])], node.attrs)
        return True

    return rule


def _reduce(walk: LayoutWalk, node: Node) -> bool:
    twin = walk.lazy(node.inputs[0])
    rank = _twin_rank(walk, node)
    if twin is None or rank is None:
        return False
    axes = _axes_operand(walk, node, 1, rank)
    if axes is None or (not axes and node.attrs.get("noop_with_empty_axes", 0)):
        return False
    moved = sorted(last_axis(axis, rank) for axis in axes or range(rank))
    inputs = _with_axes(walk, [twin], 1, moved)
    return _reduced(walk, node, inputs, moved, rank, node.attrs)


def _arg_reduce(walk: LayoutWalk, node: Node) -> bool:
    twin = walk.lazy(node.inputs[0])
    rank = _twin_rank(walk, node)
    if twin is None or rank is None:
        return False
    axis = last_axis(int_attr(node, "axis", 0), rank)
    return _reduced(walk, node, [twin], [axis], rank, {**node.attrs, "axis": axis})


def _reduced(
    walk: LayoutWalk,
    node: Node,
    inputs: list[str],
    axes: list[int],
    rank: int,
    attrs: dict[str, Any],
) -> bool:
    """Emits a reduction of a channels-last tensor, where what remains keeps its order."""
    if attrs.get("keepdims", 1):
        out = walk.new_twin(node.outputs[0])
    else:
        left = [axis for axis in to_channels_first(rank) if axis not in axes]
        if left != sorted(left):
            return False
        out = node.outputs[0]
    walk.emit(node, node.op, inputs, [out], attrs)
    return True


def _resize(walk: LayoutWalk, node: Node) -> bool:
    twin = walk.lazy(node.inputs[0])
    rank = _twin_rank(walk, node)
    mode = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    if twin is None or rank is None or mode == "tf_crop_and_resize":
        return False
    attrs, inputs = dict(node.attrs), [twin, "", *node.inputs[2:]]
    if "axes" in attrs:
        attrs["axes"] = [last_axis(axis, rank) for axis in ints_attr(node, "axes", [])]
    else:
        for index in range(2, len(inputs)):
            if inputs[index]:
                inputs[index] = _shuffled(walk, node, inputs[index], to_channels_last(rank))
    walk.emit(node, node.op, inputs, [walk.new_twin(node.outputs[0])], attrs)
    return True


def _shuffled(walk: LayoutWalk, node: Node, name: str, perm: list[int]) -> str:
    """A vector with one entry per axis, reordered: as a constant, or by a Gather."""
    array = walk.array(name)
    if array is not None:
        return name if array.size == 0 else walk.constant(array[perm], name)
    out = walk.fresh(f"{name}_nhwc")
    value = walk.graph.value(name)
    if value is not None:
        walk.graph.values[out] = value
    indices = walk.constant(np.array(perm, np.int64), "perm")
    walk.emit(node, "Gather", [walk.first(name), indices], [out], {"axis": 0})
    return out


def _shape_of(walk: LayoutWalk, node: Node) -> bool:
    twin = walk.lazy(node.inputs[0])
    rank = _twin_rank(walk, node)
    if twin is None or rank is None:
        return False
    first, end = int_attr(node, "start", 0), int_attr(node, "end", rank)
    perm = to_channels_first(rank)[first:end]
    whole = walk.fresh(f"{node.outputs[0]}_nhwc")
    walk.graph.values[whole] = _int64_vector(rank)
    walk.emit(node, "Shape", [twin], [whole])
    indices = walk.constant(np.array(perm, np.int64), "perm")
    walk.emit(node, "Gather", [whole, indices], list(node.outputs), {"axis": 0})
    return True


def _int64_vector(size: Dim) -> Any:
    from ..graph.ir import Value

    return Value(np.dtype(np.int64), (size,))


def _size_of(walk: LayoutWalk, node: Node) -> bool:
    twin = walk.lazy(node.inputs[0])
    if twin is None:
        return False
    walk.emit(node, "Size", [twin], list(node.outputs))
    return True


def _gather(walk: LayoutWalk, node: Node) -> bool:
    """Gather of constant indices along one axis."""
    twin = walk.lazy(node.inputs[0])
    rank = _twin_rank(walk, node)
    indices = walk.array(node.inputs[1])
    if twin is None or rank is None or indices is None or indices.ndim != 1:
        return False
    attrs: dict[str, Attr] = {"axis": last_axis(int_attr(node, "axis", 0), rank)}
    out = walk.new_twin(node.outputs[0])
    walk.emit(node, "Gather", [twin, node.inputs[1]], [out], attrs)
    return True


def _transpose(walk: LayoutWalk, node: Node) -> bool:
    shape = walk.shape(node.inputs[0])
    if shape is None or len(shape) < 3:
        return False
    rank = len(shape)
    perm = ints_attr(node, "perm", list(range(rank))[::-1])
    twin = walk.lazy(node.inputs[0])
    if twin is None:
        if perm != to_channels_first(rank):
            return False
        walk.twin[node.outputs[0]] = node.inputs[0]
        return True
    total = [to_channels_first(rank)[axis] for axis in perm]
    if total == list(range(rank)):
        walk.emit(node, "Identity", [twin], list(node.outputs))
    elif total == to_channels_first(rank):
        walk.twin[node.outputs[0]] = twin
    else:
        walk.emit(node, "Transpose", [twin], list(node.outputs), {"perm": total})
    return True


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(REDUCTIONS, _reduce),
    "ArgMax": _arg_reduce,
    "ArgMin": _arg_reduce,
    "Concat": _concat,
    "Gather": _gather,
    "DequantizeLinear": _quantize,
    "QuantizeLinear": _quantize,
    "lepton.Lookup": _elementwise,
    "LogSoftmax": _along_axis(-1),
    "Softmax": _along_axis(-1),
    "Split": _along_axis(0),
    "Pad": _sliding(3),
    "Slice": _sliding(3),
    "Resize": _resize,
    "Shape": _shape_of,
    "Size": _size_of,
    "Transpose": _transpose,
}
