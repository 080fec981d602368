"""ONNX Runtime as the oracle. Its default int8 kernels saturate on AVX2; exact mode does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

Array = npt.NDArray[Any]


def ort_run(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """All outputs of a model by name, integers exact."""
    options = ort.SessionOptions()
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
