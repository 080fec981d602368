"""Small float networks for the tests of compression, made from seeds with onnx.helper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


class Builder:
    """Collects nodes and weights; the caller gives the names, so that tests can refer to them."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, array: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def normal(self, name: str, *shape: int, scale: float = 1.0) -> str:
        return self.constant(name, self.rng.normal(0, scale, shape).astype(np.float32))

    def node(self, op: str, inputs: Sequence[str], *outputs: str, **attrs: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, outputs, name=f"node_{outputs[0]}", **attrs))
        return outputs[0]

    def conv(
        self, x: str, out: str, c: int, m: int, k: int = 3, bias: bool = True, **attrs: Any
    ) -> str:
        group = attrs.get("group", 1)
        fan_in = c // group * k * k
        inputs = [x, self.normal(f"{out}_w", m, c // group, k, k, scale=(2 / fan_in) ** 0.5)]
        if bias:
            inputs.append(self.normal(f"{out}_b", m, scale=0.3))
        attrs.setdefault("pads", [k // 2] * 4)
        return self.node("Conv", inputs, out, **attrs)

    def batch_norm(self, x: str, out: str, c: int) -> str:
        inputs = [
            self.constant(f"{out}_scale", self.rng.uniform(0.5, 1.5, c).astype(np.float32)),
            self.normal(f"{out}_shift", c, scale=0.3),
            self.normal(f"{out}_mean", c, scale=0.3),
            self.constant(f"{out}_var", self.rng.uniform(0.5, 1.5, c).astype(np.float32)),
        ]
        return self.node("BatchNormalization", [x, *inputs], out)

    def model(
        self, inputs: dict[str, Sequence[Any]], outputs: dict[str, Sequence[Any]]
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            self.weights,
        )
        opset = helper.make_opsetid("", 21)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model


def cnn(seed: int = 0) -> onnx.ModelProto:
    """One of everything that an int8 CNN holds: x [n, 3, 16, 16] → scores [n, 10]."""
    b = Builder(seed)
    b.conv("x", "c1", 3, 8, bias=False, strides=[2, 2])
    b.batch_norm("c1", "n1", 8)
    b.node(
        "Clip", ["n1", b.constant("zero", np.float32(0)), b.constant("six", np.float32(6))], "a1"
    )
    b.conv("a1", "c2", 8, 8, group=8)
    b.node("HardSwish", ["c2"], "a2")
    b.conv("a2", "c3", 8, 8)
    b.node("Add", ["c3", "a1"], "sum")
    b.node("Relu", ["sum"], "a3")
    b.node("MaxPool", ["a3"], "p1", kernel_shape=[2, 2], strides=[2, 2])
    b.node("AveragePool", ["a3"], "p2", kernel_shape=[2, 2], strides=[2, 2])
    b.node("Concat", ["p1", "p2"], "cat", axis=1)
    b.node("GlobalAveragePool", ["cat"], "mean")
    b.conv("mean", "se1", 16, 4, k=1)
    b.node("Relu", ["se1"], "se2")
    b.conv("se2", "se3", 4, 16, k=1)
    b.node("Sigmoid", ["se3"], "gate")
    b.node("Mul", ["cat", "gate"], "gated")
    scales = b.constant("scales", np.array([1, 1, 2, 2], np.float32))
    b.node(
        "Resize",
        ["gated", "", scales],
        "up",
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )
    b.conv("up", "c4", 16, 12, strides=[2, 2])
    b.node("Relu", ["c4"], "a4")
    b.node("GlobalAveragePool", ["a4"], "pooled")
    b.node("Flatten", ["pooled"], "flat")
    b.node("Gemm", ["flat", b.normal("fc_w", 10, 12), b.normal("fc_b", 10)], "logits", transB=1)
    b.node("Softmax", ["logits"], "scores", axis=-1)
    return b.model({"x": ["n", 3, 16, 16]}, {"scores": ["n", 10]})


def batches(seed: int = 1, count: int = 3, shape: Sequence[int] = (8, 3, 16, 16)) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(count)]


def run_onnx(model: onnx.ModelProto, feed: dict[str, Array], *tensors: str) -> list[Array]:
    """ONNX Runtime's value of some tensors, with exact integers; outputs by default."""
    import onnxruntime as ort

    wanted = onnx.ModelProto()
    wanted.CopyFrom(model)
    known = {o.name for o in wanted.graph.output}
    wanted.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in known)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(wanted.SerializeToString(), options)
    result: list[Array] = session.run(list(tensors) or None, feed)
    return result
