"""Type rules of convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lepton_rt.errors import ModelError
from lepton_rt.graph.inference.context import INT32, INT64, Context, Outputs, Rule, one, typed
from lepton_rt.graph.ir import Dim


@dataclass(frozen=True)
class Window:
    """A sliding window: one entry per spatial dimension; pads are begins, then ends."""

    kernel: list[Dim]
    strides: list[int]
    dilations: list[int]
    pads: list[int]
    auto_pad: str
    ceil_mode: bool

    @classmethod
    def of(cls, ctx: Context, rank: int, kernel: list[Dim] | None) -> Window:
        """Reads the window attributes for `rank` spatial dimensions, checking their lengths."""
        given = ctx.ints_attr("kernel_shape")
        if given is not None:
            kernel = list(given)
        if kernel is None:
            raise ModelError(f"{ctx.node.op} has no kernel_shape")
        window = cls(
            kernel,
            _ints(ctx, "strides", rank, 1),
            _ints(ctx, "dilations", rank, 1),
            _ints(ctx, "pads", 2 * rank, 0),
            ctx.str_attr("auto_pad", "NOTSET"),
            bool(ctx.int_attr("ceil_mode")),
        )
        if len(kernel) != rank:
            raise ModelError(f"kernel_shape {kernel} does not fit {rank} spatial dimensions")
        positive = [*window.strides, *window.dilations, *(k for k in kernel if isinstance(k, int))]
        if min(positive, default=1) < 1:
            raise ModelError("strides, dilations and kernel_shape must be positive")
        return window

    def output(self, i: int, size: Dim) -> Dim:
        """Output length along spatial dimension i for an input of `size`."""
        kernel, stride = self.kernel[i], self.strides[i]
        if self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            return -(-size // stride) if isinstance(size, int) else None
        if not isinstance(size, int) or not isinstance(kernel, int):
            return size if self._keeps(i) else None
        valid = self.auto_pad == "VALID"
        begin = 0 if valid else self.pads[i]
        end = 0 if valid else self.pads[i + len(self.kernel)]
        room = size + begin + end - (self.dilations[i] * (kernel - 1) + 1)
        if self.ceil_mode and -stride < room < 0:
            return 1  # one window that reaches beyond the end
        if room < 0:
            raise ModelError(f"a window of {kernel} does not fit {size} elements")
        if not self.ceil_mode:
            return room // stride + 1
        count = -(-room // stride) + 1
        # A window that would start in the end padding is dropped.
        return count - 1 if (count - 1) * stride >= size + begin else count

    def _keeps(self, i: int) -> bool:
        kernel = self.kernel[i]
        if not isinstance(kernel, int) or self.strides[i] != 1:
            return False
        padded = 0 if self.auto_pad == "VALID" else self.pads[i] + self.pads[i + len(self.kernel)]
        return padded == self.dilations[i] * (kernel - 1)


def same_pads(
    sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int], lower: bool
) -> list[int]:
    """The pads of SAME_UPPER or SAME_LOWER (`lower`): all begins, then all ends.

    reach: how many elements a window spans, dilation included.
    """
    totals = [(-(-n // s) - 1) * s + r - n for n, r, s in zip(sizes, reach, strides)]
    return split_pads(totals, lower)


def split_pads(totals: Sequence[int], lower: bool) -> list[int]:
    """All begins, then all ends; the larger half lies at the end, or where `lower` at the begin."""
    small = [max(0, total) // 2 for total in totals]
    large = [max(0, total) - half for total, half in zip(totals, small)]
    return large + small if lower else small + large


def _ints(ctx: Context, name: str, length: int, default: int) -> list[int]:
    values = ctx.ints_attr(name) or [default] * length
    if len(values) != length:
        raise ModelError(f"{name} {values} of {ctx.node.op} does not have {length} entries")
    return values


def conv_dims(ctx: Context, x: int, w: int, channels_last: bool = False) -> list[Dim] | None:
    """[N, C_out, spatial…] of a convolution of input x by weights w."""
    shape, weights = ctx.shape(x), ctx.shape(w)
    if shape is None:
        return None if weights is None else [None] * len(weights)
    spatial = list(shape[1:-1] if channels_last else shape[2:])
    if len(shape) < 3 or (weights is not None and len(weights) != len(shape)):
        raise ModelError(f"{ctx.node.op} of tensors of shape {list(shape)} and {weights}")
    _check_channels(ctx, shape[-1] if channels_last else shape[1], weights)
    kernel = None if weights is None else list(weights[2:])
    if kernel is None and ctx.ints_attr("kernel_shape") is None:
        return [shape[0], *[None] * (len(spatial) + 1)]
    window = Window.of(ctx, len(spatial), kernel)
    out = [window.output(i, size) for i, size in enumerate(spatial)]
    return [shape[0], None if weights is None else weights[0], *out]


def _check_channels(ctx: Context, channels: Dim, weights: tuple[Dim, ...] | None) -> None:
    group = ctx.int_attr("group", 1)
    if group < 1:
        raise ModelError(f"{ctx.node.op} with group {group}")
    if weights is None:
        return
    if isinstance(weights[0], int) and weights[0] % group:
        raise ModelError(f"{weights[0]} output channels do not form {group} groups")
    per_group = weights[1]
    if isinstance(channels, int) and isinstance(per_group, int) and channels != per_group * group:
        raise ModelError(
            f"{ctx.node.op} has {channels} input channels, its weights need {per_group * group}"
        )


def _check_bias(ctx: Context, i: int, dims: list[Dim] | None) -> None:
    bias = ctx.shape(i)
    if bias is None or dims is None:
        return
    both = len(bias) == 1 and isinstance(bias[0], int) and isinstance(dims[1], int)
    if len(bias) != 1 or (both and bias[0] != dims[1]):
        raise ModelError(f"a bias of shape {list(bias)} for {dims[1]} channels")


def _conv(ctx: Context) -> Outputs:
    if ctx.node.op == "Conv":
        _check_bias(ctx, 2, conv_dims(ctx, 0, 1))
    return one(ctx.dtype(0), conv_dims(ctx, 0, 1))


def _conv_integer(ctx: Context) -> Outputs:
    return one(INT32, conv_dims(ctx, 0, 1))


def _qlinear_conv(ctx: Context) -> Outputs:
    return one(ctx.dtype(7), conv_dims(ctx, 0, 3))


def conv_transpose_dims(ctx: Context, channels_last: bool = False) -> list[Dim] | None:
    """[N, C_out, spatial…] of a transposed convolution of input 0 by weights 1."""
    shape, weights = ctx.shape(0), ctx.shape(1)
    if shape is None:
        return None if weights is None else [None] * len(weights)
    spatial = list(shape[1:-1] if channels_last else shape[2:])
    rank, group = len(spatial), ctx.int_attr("group", 1)
    if len(shape) < 3 or (weights is not None and len(weights) != len(shape)) or group < 1:
        raise ModelError(f"ConvTranspose of tensors of shape {list(shape)} and {weights}")
    channels = weights[1] if weights is not None else None
    channels = channels * group if isinstance(channels, int) else None
    sizes = ctx.ints_attr("output_shape")
    if sizes is not None:
        return [shape[0], channels, *sizes[-rank:]]
    if weights is None and ctx.ints_attr("kernel_shape") is None:
        return [shape[0], channels, *[None] * rank]
    window = Window.of(ctx, rank, None if weights is None else list(weights[2:]))
    extra = _ints(ctx, "output_padding", rank, 0)
    return [shape[0], channels, *(_grown(window, i, s, extra[i]) for i, s in enumerate(spatial))]


def _grown(window: Window, i: int, size: Dim, extra: int) -> Dim:
    kernel = window.kernel[i]
    if not isinstance(size, int) or not isinstance(kernel, int):
        return None
    if window.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return size * window.strides[i]
    pads = window.pads[i] + window.pads[i + len(window.kernel)]
    pads = 0 if window.auto_pad == "VALID" else pads
    out = window.strides[i] * (size - 1) + extra + window.dilations[i] * (kernel - 1) + 1 - pads
    if out < 0:
        raise ModelError("ConvTranspose pads away more than its whole output")
    return out


def _conv_transpose(ctx: Context) -> Outputs:
    _check_bias(ctx, 2, conv_transpose_dims(ctx))
    return one(ctx.dtype(0), conv_transpose_dims(ctx))


def pool_dims(ctx: Context, channels_last: bool = False) -> list[Dim] | None:
    """[N, C, spatial…] after pooling input 0."""
    shape = ctx.shape(0)
    if shape is None:
        kernel = ctx.ints_attr("kernel_shape")
        return None if kernel is None else [None] * (len(kernel) + 2)
    if len(shape) < 3:
        raise ModelError(f"{ctx.node.op} of a tensor of rank {len(shape)}")
    spatial = shape[1:-1] if channels_last else shape[2:]
    window = Window.of(ctx, len(spatial), None)
    channels = shape[-1] if channels_last else shape[1]
    return [shape[0], channels, *(window.output(i, size) for i, size in enumerate(spatial))]


def _pool(ctx: Context) -> Outputs:
    return one(ctx.dtype(0), pool_dims(ctx))


def _max_pool(ctx: Context) -> Outputs:
    dims = pool_dims(ctx)
    return [typed(ctx.dtype(0), dims), typed(INT64, dims)]


def _global_pool(ctx: Context) -> Outputs:
    shape = ctx.shape(0)
    if shape is None:
        return one(ctx.dtype(0), None)
    return one(ctx.dtype(0), (*shape[:2], *([1] * (len(shape) - 2))))


def _max_unpool(ctx: Context) -> Outputs:
    shape, target = ctx.shape(0), ctx.dims(2)
    if target is not None:
        return one(ctx.dtype(0), target)
    return one(ctx.dtype(0), None if shape is None else (*shape[:2], *[None] * (len(shape) - 2)))


def _roi_align(ctx: Context) -> Outputs:
    shape, rois = ctx.shape(0), ctx.shape(1)
    return one(
        ctx.dtype(0),
        (
            rois[0] if rois else None,
            shape[1] if shape is not None and len(shape) > 1 else None,
            ctx.int_attr("output_height", 1),
            ctx.int_attr("output_width", 1),
        ),
    )


def _max_roi_pool(ctx: Context) -> Outputs:
    shape, rois = ctx.shape(0), ctx.shape(1)
    pooled = ctx.ints_attr("pooled_shape")
    if pooled is None or len(pooled) != 2:
        raise ModelError("MaxRoiPool has no pooled_shape of two entries")
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    return one(ctx.dtype(0), (rois[0] if rois else None, channels, *pooled))


def _grid_sample(ctx: Context) -> Outputs:
    shape, grid = ctx.shape(0), ctx.shape(1)
    if shape is None or grid is None:
        return one(ctx.dtype(0), None)
    return one(ctx.dtype(0), (*shape[:2], *grid[1:-1]))


def _affine_grid(ctx: Context) -> Outputs:
    size = ctx.dims(1)
    if size is None or len(size) < 4:
        return one(ctx.dtype(0), None)
    return one(ctx.dtype(0), (size[0], *size[2:], len(size) - 2))


RULES: dict[str, Rule] = {
    "Conv": _conv,
    "DeformConv": _conv,
    "ConvInteger": _conv_integer,
    "QLinearConv": _qlinear_conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "GlobalLpPool": _global_pool,
    "MaxUnpool": _max_unpool,
    "RoiAlign": _roi_align,
    "MaxRoiPool": _max_roi_pool,
    "GridSample": _grid_sample,
    "AffineGrid": _affine_grid,
}
