"""Graphs for the pass tests: a terse way to write them, and ONNX Runtime as their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, NotImplemented

from lepton_rt.graph.ir import Graph
from lepton_rt.graph.lepton_ops import expand_graph
from lepton_rt.graph.onnx_io import export_onnx, import_onnx

Array = npt.NDArray[Any]
OPSET = 21


class Model:
    """Collects ONNX nodes; operands are tensor names or arrays, which become initializers."""

    def __init__(self, **inputs: tuple[str, Sequence[int | str | None]]) -> None:
        self.inputs = [
            helper.make_tensor_value_info(n, getattr(TensorProto, dtype), shape)
            for n, (dtype, shape) in inputs.items()
        ]
        self.nodes: list[Any] = []
        self.constants: list[TensorProto] = []
        self.count = 0

    def constant(self, array: Array) -> str:
        self.count += 1
        name = f"c{self.count}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def __call__(self, op: str, *operands: str | Array, outputs: int = 1, **attrs: Any) -> Any:
        names = [o if isinstance(o, str) else self.constant(o) for o in operands]
        made = []
        for _ in range(outputs):
            self.count += 1
            made.append(f"t{self.count}")
        self.nodes.append(helper.make_node(op, names, made, **attrs))
        return made[0] if outputs == 1 else made

    def proto(self, *outputs: str) -> ModelProto:
        info = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in outputs]
        for value in info:
            value.ClearField("type")
        graph = helper.make_graph(self.nodes, "g", self.inputs, info, self.constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10
        )

    def graph(self, *outputs: str) -> Graph:
        return import_onnx(self.proto(*outputs))


def quantize(model: Model, x: str, scale: float, zero: int, dtype: Any = np.uint8) -> str:
    """QuantizeLinear per tensor."""
    return str(model("QuantizeLinear", x, np.float32(scale), np.array(zero, dtype)))


def dequantize(model: Model, x: str | Array, scale: Any, zero: Any, **attrs: Any) -> str:
    """DequantizeLinear; `zero` is an array of the integers' dtype."""
    return str(model("DequantizeLinear", x, np.asarray(scale, np.float32), zero, **attrs))


def fake(model: Model, x: str, scale: float, zero: int, dtype: Any = np.uint8) -> str:
    """QuantizeLinear and DequantizeLinear."""
    q = quantize(model, x, scale, zero, dtype)
    return dequantize(model, q, scale, np.array(zero, dtype))


def meaning(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    """What a graph computes: its standard operators in ONNX Runtime, without its rewriting.

    Type combinations that ONNX Runtime lacks go through the reference evaluator. Without rewriting,
    ONNX Runtime's products of uint8 and int8 saturate: weights must stay within 63.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = export_onnx(expand_graph(graph), OPSET)
    names = list(graph.outputs)
    data = model.SerializeToString()
    try:
        session = ort.InferenceSession(data, options, ["CPUExecutionProvider"])
        return dict(zip(names, session.run(names, feeds)))
    except (Fail, NotImplemented):
        return dict(zip(names, ReferenceEvaluator(model).run(names, feeds)))


def assert_same_meaning(
    before: Graph, after: Graph, feeds: dict[str, Array], tolerance: float = 1e-5
) -> None:
    """Equal outputs: integers exactly, floats within tolerance of their spread."""
    want, got = meaning(before, feeds), meaning(after, feeds)
    assert list(want) == list(got)
    for name in want:
        a, b = np.asarray(want[name]), np.asarray(got[name])
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.dtype.kind == "f":
            spread = float(np.std(a)) or 1.0
            np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * spread)
        else:
            np.testing.assert_array_equal(b, a)


def keys(graph: Graph) -> list[str]:
    """Operator keys in order."""
    return [node.key for node in graph.nodes]
