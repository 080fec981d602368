"""Small ONNX models for the compiler's tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
IR_VERSIONS = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 18: 8, 19: 9, 20: 9, 21: 10, 23: 11}


def tensor_info(name: str, dtype: Any, shape: list[Any] | None) -> onnx.ValueInfoProto:
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, code, shape)


def make_model(
    nodes: list[NodeProto],
    inputs: dict[str, Array],
    outputs: list[str],
    constants: dict[str, Array] | None = None,
    opset: int = 21,
    dtypes: dict[str, Any] | None = None,
    **extra: Any,
) -> ModelProto:
    """A model whose inputs have the dtypes and shapes of the given arrays."""
    graph = helper.make_graph(
        nodes,
        "model",
        [tensor_info(name, a.dtype, list(a.shape)) for name, a in inputs.items()],
        [tensor_info(name, (dtypes or {}).get(name, np.float32), None) for name in outputs],
        [numpy_helper.from_array(a, name) for name, a in (constants or {}).items()],
    )
    opsets = extra.pop("opset_imports", [helper.make_opsetid("", opset)])
    model = helper.make_model(graph, opset_imports=opsets, **extra)
    model.ir_version = min(IR_VERSIONS.get(opset, 10 if opset < 23 else 11), 11)
    if model.ir_version < 4:
        for name, array in (constants or {}).items():
            graph_input = tensor_info(name, array.dtype, list(array.shape))
            model.graph.input.append(graph_input)
    return model


def ort_run(model: ModelProto, feeds: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [np.asarray(a) for a in session.run(None, feeds)]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


__all__ = ["Array", "NodeProto", "TensorProto", "make_model", "normal", "ort_run", "tensor_info"]
