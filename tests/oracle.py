"""ONNX Runtime as the oracle. Its default int8 kernels saturate on AVX2; exact mode does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

import lepton_rt
from sample_models import submodel

Array = npt.NDArray[Any]


def ort_run(
    model: onnx.ModelProto, feeds: dict[str, Array], optimise: bool = True
) -> dict[str, Array]:
    """All outputs of a model by name, integers exact; or node by node as the graph says."""
    options = ort.SessionOptions()
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [out.name for out in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def quantized_tensors(model: onnx.ModelProto) -> list[str]:
    """Outputs of QuantizeLinear nodes, in order."""
    return [n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]


def assert_close(got: Array, want: Array, tolerance: float = 1e-3) -> None:
    """Largest error at most `tolerance` of the reference's standard deviation."""
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    spread = float(np.std(want))
    assert spread > 0, "a constant reference proves nothing"
    error = float(np.max(np.abs(got.astype(np.float64) - want)))
    assert error <= tolerance * spread, f"error {error:.3g}, standard deviation {spread:.3g}"


def step_shares(got: Array, want: Array) -> tuple[float, float]:
    """(share of equal elements, share within one quantisation step)."""
    difference = np.abs(got.astype(np.int32) - want.astype(np.int32))
    return float(np.mean(difference == 0)), float(np.mean(difference <= 1))


def core_operators(model: onnx.ModelProto, also: Sequence[str] = ()) -> set[str]:
    """Operator types of a model but for quantisation."""
    skip = {"QuantizeLinear", "DequantizeLinear", *also}
    return {node.op_type for node in model.graph.node} - skip


@dataclass
class Layer:
    """One tensor computed from the oracle's own inputs, so that a difference names its layer."""

    tensor: str
    model: onnx.ModelProto
    """The part of the whole model that makes the tensor."""
    got: Array
    want: Array


def by_layer(
    model: onnx.ModelProto,
    feeds: dict[str, Array],
    tensors: list[str],
    run: Callable[[onnx.ModelProto, dict[str, Array]], dict[str, Array]],
) -> Iterator[Layer]:
    """Each of the tensors by lepton_rt, from those before it as `run` gives them."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    present = {out.name for out in model.graph.output}
    tapped.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in present)
    frontier = {**feeds, **run(tapped, feeds)}
    for tensor in tensors:
        layer = submodel(model, tensor, frontier)
        inputs = {i.name: frontier[i.name] for i in layer.graph.input}
        if inputs:
            yield Layer(tensor, layer, lepton_rt.Session(layer).run(inputs), frontier[tensor])
