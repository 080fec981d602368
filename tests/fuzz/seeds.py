"""Small valid models that between them use most of the importer, and that mutation starts from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

F32, U8, I8, I64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT64
Arrays = dict[str, npt.NDArray[np.generic]]


def build(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Arrays,
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(a, name) for name, a in constants.items()]
    graph = helper.make_graph(nodes, "seed", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def f32(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.float32]:
    return (rng.standard_normal(shape) * 0.5).astype(np.float32)


def cnn() -> onnx.ModelProto:
    """Convolutions with a residual, batch norm, depthwise, pooling, classifier."""
    rng = np.random.default_rng(1)
    node = helper.make_node
    return build(
        [
            node("Conv", ["x", "w0", "b0"], ["c0"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("BatchNormalization", ["c0", "g", "be", "mu", "var"], ["n0"]),
            node("Relu", ["n0"], ["r0"]),
            node("Conv", ["r0", "wd"], ["c1"], group=8, pads=[1, 1, 1, 1], strides=[1, 1]),
            node("Clip", ["c1", "lo", "hi"], ["r1"]),
            node("Add", ["r1", "r0"], ["s"]),
            node("MaxPool", ["s"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("ConvTranspose", ["p", "wt"], ["t"], strides=[2, 2]),
            node("AveragePool", ["t"], ["a"], kernel_shape=[3, 3], count_include_pad=1),
            node("GlobalAveragePool", ["a"], ["ga"]),
            node("Flatten", ["ga"], ["fl"]),
            node("Gemm", ["fl", "wg", "bg"], ["lg"], transB=1),
            node("Softmax", ["lg"], ["y"], axis=-1),
        ],
        [helper.make_tensor_value_info("x", F32, ["n", 3, 12, 12])],
        [helper.make_tensor_value_info("y", F32, ["n", 5])],
        {
            "w0": f32(rng, 8, 3, 3, 3), "b0": f32(rng, 8), "g": f32(rng, 8), "be": f32(rng, 8),
            "mu": f32(rng, 8), "var": np.abs(f32(rng, 8)), "wd": f32(rng, 8, 1, 3, 3),
            "lo": np.float32(0).reshape(()), "hi": np.float32(6).reshape(()),
            "wt": f32(rng, 8, 4, 2, 2), "wg": f32(rng, 5, 4), "bg": f32(rng, 5),
        },
    )  # fmt: skip


def qdq_cnn() -> onnx.ModelProto:
    """An int8 network in QDQ form: conv, residual add, average pool, gemm as MatMul."""
    rng = np.random.default_rng(2)
    nodes: list[onnx.NodeProto] = []

    def link(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def fake_quantize(name: str) -> str:
        q = link("QuantizeLinear", [name, "s", "z"], f"{name}_q")
        return link("DequantizeLinear", [q, "s", "z"], f"{name}_d")

    x = fake_quantize("x")
    w = link("DequantizeLinear", ["w_q", "w_s", "w_z"], "w", axis=0)
    b = link("DequantizeLinear", ["b_q", "b_s"], "b", axis=0)
    c = fake_quantize(link("Conv", [x, w, b], "c", pads=[1, 1, 1, 1]))
    r = fake_quantize(link("Relu", [c], "r"))
    s = fake_quantize(link("Add", [c, r], "a"))
    p = fake_quantize(link("GlobalAveragePool", [s], "p"))
    k = link("Reshape", [p, "shape"], "k")
    v = link("DequantizeLinear", ["v_q", "v_s"], "v")
    link("MatMul", [k, v], "y")
    return build(
        nodes,
        [helper.make_tensor_value_info("x", F32, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", F32, [1, 6])],
        {
            "s": np.float32(0.02).reshape(()), "z": np.uint8(120).reshape(()),
            "w_q": rng.integers(-127, 128, (8, 4, 3, 3), dtype=np.int8),
            "w_s": rng.uniform(0.001, 0.01, 8).astype(np.float32), "w_z": np.zeros(8, np.int8),
            "b_q": rng.integers(-500, 500, 8, dtype=np.int32),
            "b_s": np.full(8, 1e-4, np.float32), "shape": np.array([-1, 8], np.int64),
            "v_q": rng.integers(-127, 128, (8, 6), dtype=np.int8),
            "v_s": np.float32(0.01).reshape(()),
        },
    )  # fmt: skip


def qoperator() -> onnx.ModelProto:
    """The operators that carry their quantisation with them."""
    rng = np.random.default_rng(3)
    node = helper.make_node
    q = ["s", "z"]
    return build(
        [
            node("QuantizeLinear", ["x", *q], ["xq"]),
            node("QLinearConv", ["xq", *q, "w", "s", "wz", *q, "b"], ["c"], pads=[1, 1]),
            node("Transpose", ["c"], ["t"], perm=[0, 2, 1]),
            node("QLinearMatMul", ["t", *q, "m", "s", "wz", *q], ["mm"]),
            node("MatMulInteger", ["t", "m", "z"], ["mi"]),
            node("Cast", ["mi"], ["mf"], to=F32),
            node("DequantizeLinear", ["mm", *q], ["d"]),
            node("Add", ["mf", "d"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", F32, ["n", 2, 9])],
        [helper.make_tensor_value_info("y", F32, ["n", 9, 3])],
        {
            "s": np.float32(0.05).reshape(()), "z": np.uint8(128).reshape(()),
            "w": rng.integers(-128, 128, (4, 2, 3), dtype=np.int8), "wz": np.int8(0).reshape(()),
            "b": rng.integers(-99, 99, 4, dtype=np.int32),
            "m": rng.integers(-128, 128, (4, 3), dtype=np.int8),
        },
    )  # fmt: skip


def shapes() -> onnx.ModelProto:
    """Shape arithmetic, data movement, and outputs whose shape depends on data."""
    rng = np.random.default_rng(4)
    node = helper.make_node
    return build(
        [
            node("Shape", ["x"], ["sh"]),
            node("Slice", ["sh", "i0", "i1"], ["n"]),
            node("Concat", ["n", "tail"], ["to"], axis=0),
            node("Reshape", ["x", "to"], ["r"]),
            node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
            node("Split", ["t", "halves"], ["a", "b"], axis=2),
            node("Pad", ["a", "pads"], ["p"], mode="reflect"),
            node("Gather", ["p", "ids"], ["g"], axis=2),
            node("Expand", ["b", "wide"], ["e"]),
            node("Tile", ["g", "reps"], ["ti"]),
            node("Unsqueeze", ["ti", "i0"], ["u"]),
            node("Resize", ["u", "", "scales"], ["z"], mode="linear"),
            node("ReduceMean", ["z", "axes"], ["m"], keepdims=1),
            node("Squeeze", ["m"], ["sq"]),
            node("NonZero", ["sq"], ["nz"]),
            node("ReduceSum", ["e", "axes1"], ["y"], keepdims=0),
        ],
        [helper.make_tensor_value_info("x", F32, ["n", 4, 6])],
        [
            helper.make_tensor_value_info("y", F32, [2, "n", 4]),
            helper.make_tensor_value_info("nz", I64, [1, "k"]),
        ],
        {
            "i0": np.array([0], np.int64), "i1": np.array([1], np.int64),
            "tail": np.array([6, 4], np.int64), "halves": np.array([4, 2], np.int64),
            "pads": np.array([0, 1, 0, 0, 2, 1], np.int64),
            "ids": rng.integers(0, 4, (3,)).astype(np.int64),
            "wide": np.array([2, 1, 1, 1], np.int64), "reps": np.array([1, 2, 1], np.int64),
            "scales": np.array([1, 1, 2, 1.5], np.float32), "axes": np.array([2, 3], np.int64),
            "axes1": np.array([-1], np.int64),
        },
    )  # fmt: skip


def attention() -> onnx.ModelProto:
    """One transformer block written out, with an If and a local function beside it."""
    rng = np.random.default_rng(5)
    node = helper.make_node
    branch = helper.make_tensor_value_info("branch", F32, ["n", "t", 8])
    then = helper.make_graph([node("Relu", ["o"], ["branch"])], "then", [], [branch])
    other = helper.make_graph([node("Neg", ["o"], ["branch"])], "else", [], [branch])
    return build(
        [
            node("Gather", ["table", "ids"], ["h"]),
            node("LayerNormalization", ["h", "g", "b"], ["ln"], axis=-1),
            node("MatMul", ["ln", "wq"], ["q"]),
            node("MatMul", ["ln", "wk"], ["k"]),
            node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
            node("MatMul", ["q", "kt"], ["qk"]),
            node("Mul", ["qk", "scale"], ["sc"]),
            node("Softmax", ["sc"], ["pr"], axis=-1),
            node("MatMul", ["pr", "ln"], ["o"]),
            node("If", ["flag"], ["f"], then_branch=then, else_branch=other),
            node("Erf", ["f"], ["er"]),
            node("Add", ["er", "h"], ["y"]),
        ],
        [helper.make_tensor_value_info("ids", I64, ["n", "t"])],
        [helper.make_tensor_value_info("y", F32, ["n", "t", 8])],
        {
            "table": f32(rng, 20, 8), "g": f32(rng, 8), "b": f32(rng, 8), "wq": f32(rng, 8, 8),
            "wk": f32(rng, 8, 8), "scale": np.float32(0.35).reshape(()),
            "flag": np.array(True).reshape(()),
        },
    )  # fmt: skip


def objects() -> onnx.ModelProto:
    """Strings and a sequence between host steps, with native steps around them."""
    node = helper.make_node
    return build(
        [
            node("Relu", ["x"], ["r"]),
            node("SplitToSequence", ["r"], ["s"], axis=1, keepdims=0),
            node("SequenceInsert", ["s", "v"], ["longer"]),
            node("SequenceAt", ["longer", "i"], ["first"]),
            node("SequenceLength", ["longer"], ["count"]),
            node("ConcatFromSequence", ["s"], ["joined"], axis=0),
            node("StringConcat", ["words", "text"], ["both"]),
            node("Equal", ["both", "words"], ["same"]),
            node("Cast", ["same"], ["flags"], to=F32),
            node("Mul", ["first", "flags"], ["y"]),
        ],
        [
            helper.make_tensor_value_info("x", F32, [2, 3]),
            helper.make_tensor_value_info("words", TensorProto.STRING, [2]),
        ],
        [
            helper.make_tensor_value_info("y", F32, [2]),
            helper.make_tensor_value_info("count", I64, []),
            helper.make_tensor_value_info("joined", F32, [6]),
        ],
        {
            "v": np.ones(2, np.float32), "i": np.int64(0).reshape(()),
            "text": np.array(["b", "a"], object),
        },
    )  # fmt: skip


def loops() -> onnx.ModelProto:
    """A Scan inside of a Loop, weights around both; the number of rounds follows from a shape."""
    rng = np.random.default_rng(6)
    node, info = helper.make_node, helper.make_tensor_value_info
    inner = helper.make_graph(
        [node("MatMul", ["h", "u"], ["p"]), node("Add", ["p", "v"], ["q"])],
        "inner",
        [info("h", F32, [2, 3]), info("v", F32, [2, 3])],
        [info("q", F32, [2, 3]), info("p", F32, [2, 3])],
    )
    body = helper.make_graph(
        [
            node("Scan", ["s", "x"], ["s2", "o"], body=inner, num_scan_inputs=1),
            node("ReduceMean", ["o", "axes"], ["m"], keepdims=0),
            node("Less", ["i", "n"], ["d"]),
        ],
        "body",
        [info("i", I64, []), info("c", TensorProto.BOOL, []), info("s", F32, [2, 3])],
        [info("d", TensorProto.BOOL, []), info("s2", F32, [2, 3]), info("m", F32, [3])],
    )
    return build(
        [
            node("Shape", ["x"], ["sizes"]),
            node("ReduceMin", ["sizes"], ["n"], keepdims=0),
            node("Loop", ["n", "go", "zero"], ["y", "means"], body=body),
        ],
        [info("x", F32, [4, 2, 3])],
        [info("y", F32, [2, 3]), info("means", F32, ["k", 3])],
        {
            "u": f32(rng, 3, 3), "zero": np.zeros((2, 3), np.float32),
            "go": np.array(True), "axes": np.array([0, 1]),
        },
    )  # fmt: skip


def all_seeds() -> dict[str, onnx.ModelProto]:
    return {f.__name__: f() for f in (cnn, qdq_cnn, qoperator, shapes, attention, objects, loops)}
