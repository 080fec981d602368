"""Post-training quantisation: static to 8-bit integers in ONNX's QDQ form, dynamic, weight-only."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lepton_rt.compress.attention import quantize_attention
from lepton_rt.compress.batches import first_batch, first_batches
from lepton_rt.compress.calibrate import Calibration, calibrate
from lepton_rt.compress.compare import compare_tensors
from lepton_rt.compress.dynamic_rows import DYNAMIC_BELOW, choose_dynamic_rows, quantize_rows
from lepton_rt.compress.exclude import excluded_outputs
from lepton_rt.compress.input_moments import InputMoments
from lepton_rt.compress.insert_qdq import TensorParameters, insert_qdq
from lepton_rt.compress.observers import METHODS, widen
from lepton_rt.compress.placement import Placement, place
from lepton_rt.compress.prepare import prepare
from lepton_rt.compress.product_inputs import BATCHES, observe_product_inputs
from lepton_rt.compress.qparams import affine_parameters
from lepton_rt.compress.report import DynamicReport, Report, TensorReport
from lepton_rt.compress.smoothing import Smoothing, find_smoothing
from lepton_rt.compress.weights import (
    GROUP_SIZES,
    products,
    quantize_dynamic,
    quantize_weights,
)
from lepton_rt.errors import ModelError
from lepton_rt.graph.ir import Graph, Node
from lepton_rt.loading import load_graph, save_graph
from lepton_rt.torch_export import is_torch_model

ACTIVATIONS: dict[str, np.dtype[Any]] = {
    "uint8": np.dtype(np.uint8),
    "int8": np.dtype(np.int8),
}
ROUNDINGS = ("gptq", "nearest")
MODES = ("static", "dynamic", "weight_only")
_BOUNDED = {"Clip", "HardSigmoid", "Sigmoid", "Softmax", "Softsign", "Tanh"}


@dataclass
class QuantizedModel:
    """A graph with QuantizeLinear/DequantizeLinear pairs, and the report of how it came about."""

    graph: Graph
    report: Report
    float_graph: Graph = field(repr=False)
    """The float graph it was made from, batch norms folded; for comparisons."""

    def save(self, path: str | os.PathLike[str], opset: int = 21) -> None:
        """Writes the model as `.lepton` or, in QDQ form at an ONNX opset, as `.onnx`.

        Raises InputError for another suffix.
        """
        save_graph(self.graph, path, opset)


def quantize(
    model: Any,
    batches: Iterable[Any] | Any = None,
    *,
    method: str = "minmax",
    per_channel: bool = True,
    exclude: Collection[str] = (),
    activation: str = "uint8",
    percentile: float = 99.99,
    progress: bool = True,
    mode: str = "static",
    bits: int = 8,
    group_size: int = 128,
    symmetric: bool = True,
    optimise_clip: bool = False,
    per_row: bool = True,
    rounding: str = "gptq",
    smooth: bool = True,
    dynamic_below: float | None = DYNAMIC_BELOW,
) -> QuantizedModel:
    """Quantises a float model to 8 bits with ranges learnt from calibration data, or without any.

    mode: "static" uses `batches`. "dynamic" quantises the weights of matrix products and recurrent
    layers to int8, and their activations at run time: `per_row` (each token) over a range of its
    own, or else with one range for the whole tensor, which costs accuracy but is spelled in ONNX
    operators that other runtimes have fast code for. "weight_only" stores weights of products with
    `bits` (8 or 4) in groups of `group_size` rows (32, 64 or 128), `symmetric` or with zero points,
    the ranges shrunk to the smallest squared error with `optimise_clip`; activations stay float.

    bits: of the weights. In the modes "static" and "dynamic" 8, or 7, which leaves the highest bit
    of the int8 weights unused (-63 … 63): on processors without VNNI products then run faster, at
    some cost in accuracy, and runtimes whose sums saturate at 16 bits give the exact result too.

    model: path, bytes, ModelProto, Graph, or a PyTorch module, which is exported on the first batch
    with a free batch size. batches: an iterable, read once, of arrays, tuples in input order, or
    dicts by input name. method: "minmax", "percentile", "mse" or "entropy"; ranges that are known
    from few values (below 100,000) of a tensor inside the model are widened, by half at most.
    per_channel: one weight scale per output channel, else one per tensor. exclude: node names,
    tensor names or operator types to leave in float. activation: "uint8" (asymmetric) or "int8".

    rounding: of the weights in the mode "static", and of matrix products in "dynamic" given
    `batches`. "gptq" rounds each so that it makes up for the errors of those before it, for inputs
    like those of the calibration, and (static) moves the mean of what is left into the bias: a more
    accurate model for some seconds of work. "nearest" does neither.

    smooth: in the mode "static", where the rounding of a product's input costs most, as with a few
    channels far larger than the rest in Transformers, its channels are divided by powers of two
    and the weights multiplied by them, if the first 16 batches show that this is more exact
    (SmoothQuant: `compress/smoothing.py`). The float model computes the same.

    dynamic_below: dB. In the mode "static" products whose input comes from float operators or Gelu
    and, rounded over one range, leaves them a lower signal-to-noise ratio in the rows of the first
    16 batches, round each row over its own as "dynamic" does, if that is clearly more exact
    (`compress/dynamic_rows.py`; `report.dynamic` names them). None: none do.

    Weights become symmetric int8, biases int32. Everything between the first and the last layer
    runs on integers where every operator on the way can; a layer that only an Add of a residual
    reads is rounded with it, once. In the modes "static" and "dynamic"
    attention becomes lepton.DynamicQuantizeAttention, which rounds its operands to 8 bits as it
    runs (queries and keys by row, values by column, exponentials before they are divided by their
    sum); exclude "Softmax" or "Attention" to leave it in float.

    Raises InputError for calibration data that is missing, does not fit, or makes a tensor NaN or
    infinite; ValueError for an unknown option or missing batches; ModelError when the model has
    nothing to quantise.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; choose one of {MODES}")
    if mode != "weight_only" and bits not in (7, 8):
        raise ValueError(f"bits must be 7 or 8 in mode {mode!r}, not {bits}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {ROUNDINGS}, not {rounding!r}")
    if mode != "static":
        options = _WeightOptions(
            mode, per_channel, bits, group_size, symmetric, optimise_clip, per_row
        )
        seen = batches if rounding == "gptq" and mode == "dynamic" else None
        return _quantize_weights(model, exclude, options, seen, progress)
    if batches is None:
        raise ValueError("static quantisation needs calibration batches")
    if method not in METHODS:
        raise ValueError(f"unknown calibration method {method!r}; choose one of {METHODS}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, not {activation!r}")
    names = [exclude] if isinstance(exclude, str) else exclude
    original, batches = _load(model, batches)
    graph = prepare(original)
    excluded = excluded_outputs(original, graph, names)
    placement = place(graph, excluded)
    if not placement.units:
        raise ModelError("the model has no convolution or matrix product left to quantise")
    _check_operands(graph, placement)
    rows: list[DynamicReport] = []
    if smooth or dynamic_below is not None:
        some, batches = first_batches(batches, BATCHES)
        inputs = observe_product_inputs(graph, placement, some)
        smoothing = find_smoothing(inputs, bits, per_channel) if smooth else Smoothing()
        rows = choose_dynamic_rows(graph, inputs, smoothing, dynamic_below)
        graph, divided = smoothing.without(row.tensor for row in rows).apply(graph)
        excluded |= divided
    by_rows = {name for row in rows for name in row.products}
    placement = place(graph, excluded | by_rows)
    computed = [name for name in placement.observed if name not in graph.constants]
    layers = [unit.head for unit in placement.units if unit.is_layer]
    layers += [node for node in graph.nodes if not by_rows.isdisjoint(node.outputs)]
    moments = InputMoments(graph, layers) if rounding == "gptq" else None
    calibration = calibrate(
        graph,
        computed,
        batches,
        method=method,
        percentile=percentile,
        progress=progress,
        moments=moments,
    )
    ranges = _ranges(graph, placement, calibration)
    parameters = {name: _parameters(extent, activation) for name, extent in ranges.items()}
    found = moments.found if moments else {}
    quantized = insert_qdq(graph, placement, parameters, per_channel, bits, found)
    quantized = quantize_rows(quantized, by_rows, per_channel, bits, found)
    quantized = quantize_attention(quantized, excluded)
    report = _report(method, graph, quantized, parameters, calibration, ranges)
    report = replace(report, dynamic=rows)
    return QuantizedModel(quantized, report, graph)


def _load(model: Any, batches: Any) -> tuple[Graph, Any]:
    """The graph, and the batches from the first; a PyTorch module is exported on the first one."""
    if batches is None or not is_torch_model(model):
        return load_graph(model), batches
    example, batches = first_batch(batches)
    return load_graph(model, example, dynamic=True), batches


@dataclass(frozen=True)
class _WeightOptions:
    """The modes without calibration, and their options."""

    mode: str
    per_channel: bool
    bits: int
    group_size: int
    symmetric: bool
    optimise_clip: bool
    per_row: bool

    def __post_init__(self) -> None:
        if self.mode == "weight_only" and self.bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, not {self.bits}")
        if self.group_size not in GROUP_SIZES:
            raise ValueError(f"group_size must be one of {GROUP_SIZES}, not {self.group_size}")


def _quantize_weights(
    model: Any, exclude: Collection[str], options: _WeightOptions, batches: Any, progress: bool
) -> QuantizedModel:
    names = [exclude] if isinstance(exclude, str) else exclude
    original, batches = _load(model, batches)
    graph = prepare(original)
    excluded = excluded_outputs(original, graph, names)
    method = options.mode
    if options.mode == "dynamic":
        moments = InputMoments(graph, products(graph, excluded) if batches is not None else ())
        if moments.tensors:
            calibrate(graph, (), batches, progress=progress, moments=moments)
        quantized = quantize_dynamic(
            graph, excluded, options.per_channel, options.bits, options.per_row, moments.found
        )
        quantized = quantize_attention(quantized, excluded)
    else:
        method = f"weight_only, {options.bits} bits in groups of {options.group_size}"
        quantized = quantize_weights(
            graph,
            excluded,
            options.bits,
            options.group_size,
            options.symmetric,
            options.optimise_clip,
        )
    report = Report(method, [], _constant_bytes(graph), _constant_bytes(quantized))
    return QuantizedModel(quantized, report, graph)


def _check_operands(graph: Graph, placement: Placement) -> None:
    """Raises ModelError when an operand that is to be quantised holds NaN or infinity."""
    for unit in placement.units:
        for node in unit.nodes:
            for name in node.inputs:
                array = graph.array(name)
                if array is None or array.dtype.kind != "f" or node.op == "Clip":
                    continue  # the bounds of a Clip may be infinite
                if not np.isfinite(array).all():
                    raise ModelError(f"constant {name!r} holds NaN or infinity")


def _ranges(
    graph: Graph, placement: Placement, calibration: Calibration
) -> dict[str, tuple[float, float]]:
    """Tensor → range to quantise; constants use their own extent.

    What calibration saw few values of is given room, unless its operator bounds it or it is an
    input, which the caller knows the range of.
    """
    ranges = {}
    producers = graph.producers()
    for name in placement.observed:
        if name in graph.constants:
            array = graph.constants[name].dense()
            ranges[name] = (float(array.min(initial=0.0)), float(array.max(initial=0.0)))
        else:
            observer = calibration.observers[name]
            ranges[name] = observer.range()
            if name in producers and producers[name].op not in _BOUNDED:
                ranges[name] = widen(*ranges[name], observer.count)
    return ranges


def _parameters(extent: tuple[float, float], activation: str) -> TensorParameters:
    dtype = ACTIVATIONS[activation]
    info = np.iinfo(dtype)
    scale, zero_point = affine_parameters(*extent, int(info.min), int(info.max))
    return TensorParameters(scale, zero_point, dtype)


def _report(
    method: str,
    graph: Graph,
    quantized: Graph,
    parameters: Mapping[str, TensorParameters],
    calibration: Calibration,
    ranges: Mapping[str, tuple[float, float]],
) -> Report:
    """Compares the two graphs on the sample and gathers what is known of each tensor."""
    names = list(calibration.observers)
    ratios = {
        row.tensor: row.snr_db
        for row in compare_tensors(graph, quantized, calibration.sample, names)
    }
    producers: dict[str, Node] = graph.producers()
    rows = []
    for name, observer in calibration.observers.items():
        chosen = parameters[name]
        info = np.iinfo(chosen.dtype)
        low, high = (
            float(chosen.scale) * (end - chosen.zero_point) for end in (info.min, info.max)
        )
        rows.append(
            TensorReport(
                tensor=name,
                op=producers[name].op if name in producers else "input",
                low=ranges[name][0],
                high=ranges[name][1],
                scale=float(chosen.scale),
                zero_point=chosen.zero_point,
                clipped=observer.share_clipped(
                    low - float(chosen.scale) / 2, high + float(chosen.scale) / 2
                ),
                snr_db=ratios[name],
            )
        )
    return Report(method, rows, _constant_bytes(graph), _constant_bytes(quantized))


def _constant_bytes(graph: Graph) -> int:
    """Bytes as stored: two 4-bit integers share one."""
    total = 0
    for constant in graph.constants.values():
        small = constant.dtype.name in ("int4", "uint4")
        total += (constant.nbytes + 1) // 2 if small else constant.nbytes
    return total
