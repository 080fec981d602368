"""Type rules of operators that move elements."""

from __future__ import annotations

import numpy as np

from lepton_rt.errors import ModelError
from lepton_rt.graph.inference.context import (
    INT64,
    Context,
    Outputs,
    Rule,
    Shape,
    add,
    merge_dim,
    normal_axis,
    one,
    typed,
)
from lepton_rt.graph.ir import Dim


def _transpose(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    if shape is None:
        return one(ctx.dtype(0), None)
    perm = ctx.ints_attr("perm") or list(range(len(shape)))[::-1]
    if sorted(perm) != list(range(len(shape))):
        raise ModelError(f"Transpose permutation {perm} does not fit rank {len(shape)}")
    return one(ctx.dtype(0), [shape[p] for p in perm])


def _concat(ctx: Context) -> Outputs:
    shapes = [ctx.shape(i) for i in range(len(ctx.inputs))]
    dtype = next((v.dtype for v in ctx.inputs if v is not None), None)
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return one(dtype, None)
    rank = len(known[0])
    axis = normal_axis(ctx.int_attr("axis"), rank)
    dims: list[Dim] = list(known[0])
    for shape in known[1:]:
        if len(shape) != rank:
            raise ModelError("Concat of tensors of different ranks")
        dims = [
            _same(a, b) if i != axis else None
            for i, (a, b) in enumerate(zip(dims, shape, strict=True))
        ]
    total: Dim = 0
    for each in shapes:
        total = None if each is None or total is None else add(total, each[axis])
    dims[axis] = total
    return one(dtype, dims)


def _same(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise ModelError(f"Concat of tensors with different dimensions {a} and {b}")
    return merge_dim(a, b)


def _split(ctx: Context) -> Outputs:
    shape, count = ctx.shape(0), len(ctx.node.outputs)
    if shape is None:
        return [typed(ctx.dtype(0), None)] * count
    axis = normal_axis(ctx.int_attr("axis"), len(shape))
    sizes: list[Dim] = [None] * count
    given, length = ctx.ints(1), shape[axis]
    if given is not None:
        if len(given) != count or any(s < 0 for s in given):
            raise ModelError(f"Split sizes {given} do not fit {count} outputs")
        if isinstance(length, int) and sum(given) != length:
            raise ModelError(f"Split sizes {given} do not add up to {length}")
        sizes = list(given)
    elif not ctx.has(1) and isinstance(length, int):
        chunk = -(-length // count)
        sizes = [max(0, min(chunk, length - i * chunk)) for i in range(count)]
    return [typed(ctx.dtype(0), (*shape[:axis], s, *shape[axis + 1 :])) for s in sizes]


def _slice(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    if shape is None:
        return one(ctx.dtype(0), None)
    starts, ends = ctx.dims(1), ctx.dims(2)
    axes = ctx.ints(3) if ctx.has(3) else (None if starts is None else list(range(len(starts))))
    steps = ctx.ints(4) if ctx.has(4) else (None if axes is None else [1] * len(axes))
    if axes is None:
        return one(ctx.dtype(0), (None,) * len(shape))
    dims: list[Dim] = list(shape)
    for i, axis in enumerate(axes):
        place = normal_axis(axis, len(shape))
        start = starts[i] if starts is not None else None
        end = ends[i] if ends is not None else None
        dims[place] = _sliced(shape[place], start, end, steps[i] if steps is not None else None)
    return one(ctx.dtype(0), dims)


def _sliced(dim: Dim, start: Dim, end: Dim, step: int | None) -> Dim:
    if step == 0:
        raise ModelError("Slice with a step of 0")
    if start == 0 and step == 1 and isinstance(end, int) and end >= 2**31 - 1:
        return dim
    if start == 0 and step == 1 and end == dim and dim is not None:
        return dim
    ints = isinstance(start, int) and isinstance(end, int)
    if not ints or not isinstance(dim, int) or step is None:
        return None
    return sliced_length(dim, start, end, step)  # type: ignore[arg-type]


def sliced_length(dim: int, start: int, end: int, step: int) -> int:
    """Number of elements ONNX Slice takes from a dimension."""
    start += dim if start < 0 else 0
    end += dim if end < 0 else 0
    if step > 0:
        start, end = min(max(start, 0), dim), min(max(end, 0), dim)
        return max(0, -((start - end) // step))
    start, end = min(max(start, 0), dim - 1), min(max(end, -1), dim - 1)
    return max(0, -((end - start) // -step))


def _gather(ctx: Context) -> Outputs:
    data, indices = ctx.shape(0), ctx.shape(1)
    if data is None or indices is None:
        return one(ctx.dtype(0), None)
    axis = normal_axis(ctx.int_attr("axis"), len(data))
    return one(ctx.dtype(0), (*data[:axis], *indices, *data[axis + 1 :]))


def _gather_nd(ctx: Context) -> Outputs:
    data, indices = ctx.shape(0), ctx.shape(1)
    batch = ctx.int_attr("batch_dims")
    if data is None or not indices or not isinstance(indices[-1], int):
        return one(ctx.dtype(0), None)
    if batch < 0 or batch + indices[-1] > len(data):
        raise ModelError("GatherND indexes more dimensions than its data has")
    return one(ctx.dtype(0), (*indices[:-1], *data[batch + indices[-1] :]))


def _pad(ctx: Context) -> Outputs:
    shape, pads = ctx.shape(0), ctx.dims(1)
    if shape is None:
        return one(ctx.dtype(0), None)
    axes = ctx.ints(3) if ctx.has(3) else list(range(len(shape)))
    if pads is None or axes is None:
        return one(ctx.dtype(0), (None,) * len(shape))
    if len(pads) != 2 * len(axes):
        raise ModelError(f"Pad has {len(pads)} pads for {len(axes)} axes")
    dims: list[Dim] = list(shape)
    for i, axis in enumerate(axes):
        place = normal_axis(axis, len(shape))
        dims[place] = add(add(dims[place], pads[i]), pads[i + len(axes)])
        if isinstance(dims[place], int) and dims[place] < 0:  # type: ignore[operator]
            raise ModelError("Pad removes more than there is")
    return one(ctx.dtype(0), dims)


def _resize(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    if shape is None:
        return one(ctx.dtype(0), None)
    axes = ctx.ints_attr("axes") or list(range(len(shape)))
    axes = [normal_axis(a, len(shape)) for a in axes]
    dims: list[Dim] = list(shape)
    stretch = ctx.str_attr("keep_aspect_ratio_policy", "stretch") == "stretch"
    sizes = ctx.dims(3) if stretch else None
    scales = None if ctx.has(3) else ctx.contents[2] if len(ctx.contents) > 2 else None
    for i, axis in enumerate(axes):
        if sizes is not None and i < len(sizes):
            dims[axis] = sizes[i]
        elif scales is not None and i < scales.size:
            dims[axis] = _scaled(shape[axis], scales.reshape(-1)[i])
        else:
            dims[axis] = None
    return one(ctx.dtype(0), dims)


def _scaled(dim: Dim, scale: float) -> Dim:
    if scale == 1:
        return dim
    if not isinstance(dim, int):
        return None
    size = np.floor(np.float32(dim) * np.float32(scale))
    if not np.isfinite(size) or size < 0 or size >= 2**62:
        raise ModelError(f"Resize by the impossible scale {scale}")
    return int(size)


def _depth_to_space(ctx: Context) -> Outputs:
    return _blocks(ctx, lambda d, b: _divided(d, b * b), lambda d, b: _times(d, b))


def _space_to_depth(ctx: Context) -> Outputs:
    return _blocks(ctx, lambda d, b: _times(d, b * b), lambda d, b: _divided(d, b))


def _blocks(ctx: Context, channels, spatial) -> Outputs:  # type: ignore[no-untyped-def]
    shape, block = ctx.shape(0), ctx.int_attr("blocksize")
    if block <= 0:
        raise ModelError(f"{ctx.node.op} with blocksize {block}")
    if shape is None:
        return one(ctx.dtype(0), (None,) * 4)
    if len(shape) != 4:
        raise ModelError(f"{ctx.node.op} of a tensor of rank {len(shape)}")
    n, c, h, w = shape
    return one(ctx.dtype(0), (n, channels(c, block), spatial(h, block), spatial(w, block)))


def _times(dim: Dim, factor: int) -> Dim:
    return dim * factor if isinstance(dim, int) else None


def _divided(dim: Dim, factor: int) -> Dim:
    if not isinstance(dim, int):
        return None
    if dim % factor:
        raise ModelError(f"dimension {dim} is not a multiple of {factor}")
    return dim // factor


def _compress(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    if "axis" not in ctx.node.attrs:
        return one(ctx.dtype(0), (None,))
    if shape is None:
        return one(ctx.dtype(0), None)
    axis = normal_axis(ctx.int_attr("axis"), len(shape))
    return one(ctx.dtype(0), (*shape[:axis], None, *shape[axis + 1 :]))


def _top_k(ctx: Context) -> Outputs:
    shape, k = ctx.shape(0), ctx.dims(1)
    out: Shape | None = None
    if shape is not None:
        axis = normal_axis(ctx.int_attr("axis", -1), len(shape))
        out = (*shape[:axis], k[0] if k else None, *shape[axis + 1 :])
    return [typed(ctx.dtype(0), out), typed(INT64, out)]


def _center_crop_pad(ctx: Context) -> Outputs:
    shape, target = ctx.shape(0), ctx.dims(1)
    if shape is None:
        return one(ctx.dtype(0), None)
    axes = ctx.ints_attr("axes") or list(range(len(shape)))
    dims: list[Dim] = list(shape)
    for i, axis in enumerate(axes):
        dims[normal_axis(axis, len(shape))] = target[i] if target else None
    return one(ctx.dtype(0), dims)


RULES: dict[str, Rule] = {
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Pad": _pad,
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Compress": _compress,
    "TopK": _top_k,
    "CenterCropPad": _center_crop_pad,
}
