"""Rewrites nodes of older ONNX opsets into the house opset.

This happens node by node while types are inferred, so a rule can ask for ranks, and works on the
graph with its real constants: no serialisation, no size limit. What changed only by accepting
more types needs no rule.
"""

from __future__ import annotations

import numpy as np

from lepton_rt.errors import ModelError, UnsupportedError
from lepton_rt.graph.inference.context import ELEMENT_TYPES
from lepton_rt.graph.ir import OPSET, Attr, Graph, Node, Value
from lepton_rt.graph.onnx_qoperators import SPELLINGS
from lepton_rt.graph.onnx_site import Rule, Site, Surroundings
from lepton_rt.graph.types import UNKNOWN_DTYPE


class Upgrader:
    """Brings each node to the house opset. versions: output name → opset, where not the default."""

    def __init__(self, opset: int, versions: dict[str, int], taken: set[str]) -> None:
        self._opset = opset
        self._versions = versions
        self._taken = taken

    def __call__(self, node: Node, around: Surroundings) -> list[Node]:
        spelling = SPELLINGS.get(node.key)
        if spelling is not None:
            return spelling(Site(node, around, self._taken)) or [node]
        if node.domain:
            return [node]
        first = next((name for name in node.outputs if name), "")
        version = self._versions.get(first, self._opset)
        if version < 6:
            node.attrs.pop("consumed_inputs", None)
        for before, rule in RULES.get(node.op, ()):
            if version < before:
                nodes = rule(Site(node, around, self._taken, self._versions))
                if nodes is not None:
                    return nodes
        return [node]


# Broadcasting before opset 7 ---------------------------------------------------------------------


def _legacy_broadcast(site: Site) -> list[Node] | None:
    axis = site.pop("axis")
    if not site.pop("broadcast", 0) or axis is None:
        return None
    left, right = site.rank(0), site.rank(1)
    if left is None or right is None:
        raise UnsupportedError(f"{site.node.op} broadcasts along an axis of a tensor of any rank")
    axis = axis + left if axis < 0 else axis
    trailing = left - axis - right
    if trailing <= 0:
        return None
    return [*site.unsqueeze(1, list(range(right, right + trailing))), site.node]


def _prelu_slope(site: Site) -> list[Node] | None:
    left, slope = site.rank(0), site.value(1)
    if left is None or slope is None or slope.rank != 1 or slope.shape == (1,) or left < 3:
        return None
    return [*site.unsqueeze(1, list(range(1, left - 1))), site.node]


def _drop(*names: str) -> Rule:
    def rule(site: Site) -> None:
        for name in names:
            site.pop(name)

    return rule


# Attributes that became inputs -------------------------------------------------------------------


def _to_input(attr: str, place: int = 1) -> Rule:
    def rule(site: Site) -> None:
        site.input_from(attr, place)

    return rule


def _clip(site: Site) -> None:
    for place, name in enumerate(("min", "max"), 1):
        site.input_from(name, place, site.dtype(0))


def _pad_name(site: Site) -> None:
    if "paddings" in site.node.attrs:
        site.node.attrs["pads"] = site.pop("paddings")


def _pad(site: Site) -> None:
    site.input_from("pads", 1)
    site.input_from("value", 2, site.dtype(0))


def _slice(site: Site) -> None:
    for place, name in enumerate(("starts", "ends", "axes"), 1):
        site.input_from(name, place)


def _split_equally(site: Site) -> None:
    if len(site.node.inputs) < 2 or not site.node.inputs[1]:
        site.node.attrs["num_outputs"] = len(site.node.outputs)


def _top_k(site: Site) -> None:
    site.node.attrs["k"] = [site.pop("k", 0)]
    site.input_from("k", 1)


def _dft_axis(site: Site) -> None:
    site.node.attrs.setdefault("axis", 1)
    site.input_from("axis", 2)


def _tile(site: Site) -> None:
    tiles, axis, rank = site.array(1), site.array(2), site.rank(0)
    if tiles is None or axis is None or rank is None or tiles.size != 1 or axis.size != 1:
        raise UnsupportedError("Tile of opset 1 with computed operands")
    repeats = [1] * rank
    place = int(axis.reshape(-1)[0])
    if not -rank <= place < rank:
        raise ModelError(f"Tile along axis {place} of a tensor of rank {rank}")
    repeats[place] = int(tiles.reshape(-1)[0])
    site.node.inputs = [site.node.inputs[0], site.constant(repeats, hint="repeats")]


# Operators that meant something else -------------------------------------------------------------


def _softmax(site: Site) -> list[Node] | None:
    """Before opset 13: over all dimensions from `axis` on, taken as one."""
    node, value = site.node, site.value(0)
    axis = site.pop("axis", 1)
    shape = None if value is None else value.shape
    if shape is not None:
        if not -len(shape) <= axis <= len(shape):
            raise ModelError(f"{node.op} along axis {axis} of a tensor of rank {len(shape)}")
        axis += len(shape) if axis < 0 else 0
        if axis < len(shape) and all(d == 1 for d in shape[axis + 1 :]):
            node.attrs["axis"] = axis if axis < len(shape) - 1 else -1
            return None
    flat, soft, target = site.fresh("flat"), site.fresh("rows"), site.fresh("shape")
    return [
        Node("Shape", [node.inputs[0]], [target]),
        Node("Flatten", [node.inputs[0]], [flat], {"axis": axis}),
        Node(node.op, [flat], [soft], {"axis": -1}, "", node.name),
        Node("Reshape", [soft, target], list(node.outputs)),
    ]


def _batch_normalization_inference(site: Site) -> None:
    site.pop("is_test")


def _batch_normalization_spatial(site: Site) -> None:
    if not site.pop("spatial", 1):
        raise UnsupportedError("BatchNormalization with spatial=0 is not supported")


def _batch_normalization_outputs(site: Site) -> None:
    # The others were statistics for training.
    del site.node.outputs[1:]


def _upsample_sizes(site: Site) -> None:
    height, width = site.pop("height_scale", 1.0), site.pop("width_scale", 1.0)
    site.node.attrs["scales"] = [1.0, 1.0, height, width]


def _upsample(site: Site) -> None:
    site.input_from("scales", 1, np.dtype(np.float32))
    _resize_without_roi(site)


def _resize_without_roi(site: Site) -> None:
    if len(site.node.inputs) < 2:
        raise ModelError(f"{site.node.op} has no scales")
    site.node.op = "Resize"
    site.node.inputs = [site.node.inputs[0], "", site.node.inputs[1]]
    mode = site.pop("mode", "nearest")
    site.node.attrs["mode"] = "linear" if mode == "bilinear" else mode
    site.node.attrs["coordinate_transformation_mode"] = "asymmetric"
    site.node.attrs["nearest_mode"] = "floor"


def _resize_modes(site: Site) -> None:
    if site.node.attrs.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        raise UnsupportedError("Resize with tf_half_pixel_for_nn, which ONNX has abandoned")


def _cast_by_name(site: Site) -> None:
    to = site.node.attrs.get("to")
    if isinstance(to, str):
        names = {"FLOAT": "float32", "DOUBLE": "float64", "STRING": "object"}
        wanted = names.get(to, to.lower())
        codes = [code for code, name in ELEMENT_TYPES.items() if name == wanted]
        if not codes:
            raise ModelError(f"Cast to the unknown type {to!r}")
        site.node.attrs["to"] = codes[0]


def _concat_axis(site: Site) -> None:
    site.node.attrs.setdefault("axis", 1)


def _rename(op: str) -> Rule:
    def rule(site: Site) -> None:
        site.node.op = op

    return rule


def _integer_p(site: Site) -> None:
    site.node.attrs["p"] = int(site.pop("p", 2))


def _selu_constants(site: Site) -> None:
    site.node.attrs.setdefault("alpha", 1.6732)
    site.node.attrs.setdefault("gamma", 1.0507)


def _mean_variance_axes(site: Site) -> None:
    if not site.pop("normalize_variance", 1):
        raise UnsupportedError("MeanVarianceNormalization without variance is not supported")
    site.node.attrs["axes"] = [0, 1, 2, 3] if site.pop("across_channels", 0) else [0, 2, 3]


def _grid_sample_modes(site: Site) -> None:
    mode = site.node.attrs.get("mode", "bilinear")
    site.node.attrs["mode"] = {"bilinear": "linear", "bicubic": "cubic"}.get(str(mode), mode)


def _roi_align_mode(site: Site) -> None:
    site.node.attrs.setdefault("coordinate_transformation_mode", "output_half_pixel")


def _group_normalization(site: Site) -> list[Node]:
    """Before opset 21 scale and bias were per group, now they are per channel."""
    value, groups = site.value(0), site.node.attrs.get("num_groups")
    channels = value.shape[1] if value is not None and value.shape and value.rank != 1 else None
    if not isinstance(channels, int) or not isinstance(groups, int) or groups < 1:
        raise UnsupportedError("GroupNormalization of opset 18 over an unknown number of channels")
    nodes: list[Node] = []
    for i in (1, 2):
        column, wide, flat = (site.fresh(hint) for hint in ("column", "wide", "channels"))
        shape = site.constant([groups, channels // groups], hint="shape")
        nodes += [
            Node("Unsqueeze", [site.node.inputs[i], site.constant([1], hint="axes")], [column]),
            Node("Expand", [column, shape], [wide]),
            Node("Reshape", [wide, site.constant([-1], hint="shape")], [flat]),
        ]
        site.node.inputs[i] = flat
    return [*nodes, site.node]


def _batched_scan(site: Site) -> list[Node]:
    """Scan of opset 8 goes over a batch of sequences: a Scan over the batch of Scans."""
    node = site.node
    if not node.inputs or node.inputs[0]:
        raise UnsupportedError("Scan of opset 8 with sequences of different lengths")
    inputs = {name: site.fresh("sample") for name in node.inputs[1:]}
    outputs = {name: site.fresh("scanned") for name in node.outputs if name}
    attrs: dict[str, Attr] = {"body": node.attrs["body"]}
    attrs["num_scan_inputs"] = node.attrs["num_scan_inputs"]
    directions = site.pop("directions")
    if directions:
        attrs["scan_input_directions"] = directions
    made = [outputs.get(name, "") for name in node.outputs]
    inner = Node("Scan", list(inputs.values()), made, attrs, "", node.name)
    site.versions.update(dict.fromkeys(outputs.values(), OPSET))
    unknown = Value(UNKNOWN_DTYPE)
    body = Graph(
        "batch",
        dict.fromkeys(inputs.values(), unknown),
        dict.fromkeys(outputs.values(), unknown),
        [inner],
    )
    sizes: dict[str, Attr] = {"body": body, "num_scan_inputs": len(inputs)}
    return [Node("Scan", list(inputs), list(outputs), sizes, "", node.name)]


_ALWAYS = 1 << 30
_BINARY = ["Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less"]
_REDUCE = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"]

RULES: dict[str, list[tuple[int, Rule]]] = {
    **{op: [(7, _legacy_broadcast)] for op in _BINARY},
    **{f"Reduce{name}": [(18, _to_input("axes"))] for name in _REDUCE},
    **{op: [(13, _softmax)] for op in ("Softmax", "LogSoftmax", "Hardmax")},
    **{op: [(7, _drop("output_sequence"))] for op in ("LSTM", "GRU", "RNN")},
    "PRelu": [(7, _prelu_slope)],
    "Gemm": [(7, _drop("broadcast"))],
    "ReduceSum": [(13, _to_input("axes"))],
    "Squeeze": [(13, _to_input("axes"))],
    "Unsqueeze": [(13, _to_input("axes"))],
    "Reshape": [(5, _to_input("shape"))],
    "Clip": [(11, _clip)],
    "Pad": [(2, _pad_name), (11, _pad)],
    "Slice": [(10, _slice)],
    "Split": [(13, _to_input("split")), (18, _split_equally)],
    "TopK": [(10, _top_k)],
    "Tile": [(6, _tile)],
    "Dropout": [(12, _drop("is_test", "ratio"))],
    "BatchNormalization": [
        (7, _batch_normalization_inference),
        (9, _batch_normalization_spatial),
        (14, _batch_normalization_outputs),
    ],
    "Upsample": [(7, _upsample_sizes), (_ALWAYS, _upsample)],
    "Resize": [(11, _resize_without_roi), (13, _resize_modes)],
    "Scatter": [(_ALWAYS, _rename("ScatterElements"))],
    "Cast": [(6, _cast_by_name)],
    "Concat": [(4, _concat_axis)],
    "LpPool": [(2, _integer_p)],
    "GlobalLpPool": [(2, _integer_p)],
    "Selu": [(6, _selu_constants)],
    "MeanVarianceNormalization": [(9, _mean_variance_axes)],
    "GridSample": [(20, _grid_sample_modes)],
    "RoiAlign": [(16, _roi_align_mode)],
    "GroupNormalization": [(21, _group_normalization)],
    "DFT": [(20, _dft_axis)],
    "Scan": [(9, _batched_scan)],
}
"""Operator → [(applies to nodes written before this opset, rule)], oldest first."""
