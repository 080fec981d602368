"""Type inference against onnx's own, and against what operators really give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compiler.onnx_models import make_model, normal
from lepton_rt import ModelError, import_onnx
from lepton_rt.graph.ir import LEPTON_DOMAIN, Constant, Dim, Graph, Node, Value
from lepton_rt.graph.types import UNKNOWN_DTYPE, infer_types
from sample_models import LIGHT_FOLDER, LIGHT_NAMES

F = np.dtype(np.float32)
U8 = np.dtype(np.uint8)
I64 = np.dtype(np.int64)
node = helper.make_node


def inferred(graph: Graph) -> Graph:
    """Inference that starts from the inputs alone."""
    bare = graph.copy()
    bare.values = {}
    bare.outputs = {name: Value(UNKNOWN_DTYPE) for name in bare.outputs}
    return infer_types(bare)


def infer(
    nodes: list[Node],
    inputs: dict[str, tuple[Any, tuple[Dim, ...] | None]],
    constants: dict[str, Any] | None = None,
) -> Graph:
    outputs = [name for each in nodes for name in each.outputs if name]
    return inferred(
        Graph(
            inputs={name: Value(np.dtype(d), s) for name, (d, s) in inputs.items()},
            outputs=dict.fromkeys(outputs, Value(UNKNOWN_DTYPE)),
            nodes=nodes,
            constants={n: Constant.of(np.asarray(a)) for n, a in (constants or {}).items()},
        )
    )


@pytest.mark.parametrize("name", LIGHT_NAMES)
def test_agrees_with_onnx_shape_inference(name: str) -> None:
    """Every tensor of the networks has the type the onnx package infers."""
    model = onnx.load(LIGHT_FOLDER / f"{name}.onnx")
    reference = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = inferred(import_onnx(model))
    compared = 0
    for info in reference.graph.value_info:
        value = graph.value(info.name)
        if value is None:
            continue
        tensor = info.type.tensor_type
        assert value.dtype == helper.tensor_dtype_to_np_dtype(tensor.elem_type), info.name
        if tensor.HasField("shape"):
            dims = tuple(dim.dim_value for dim in tensor.shape.dim)
            assert value.shape == dims, info.name
            compared += 1
    assert compared > 20


DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
RECORDED = sorted(
    str(path.parent.relative_to(DATA))
    for folder in ("pytorch-converted", "pytorch-operator")
    for path in (DATA / folder).glob("*/model.onnx")
)


@pytest.mark.parametrize("name", RECORDED)
def test_predicts_recorded_results(name: str) -> None:
    graph = inferred(import_onnx(DATA / name / "model.onnx"))
    files = sorted((DATA / name).glob("test_data_set_0/output_*.pb"))
    for value, file in zip(graph.outputs.values(), files, strict=True):
        tensor = onnx.TensorProto()
        tensor.ParseFromString(file.read_bytes())
        array = np.asarray(numpy_helper.to_array(tensor))
        assert value.dtype == array.dtype
        assert value.shape == array.shape


@pytest.mark.slow
def test_predicts_operator_conformance_cases() -> None:
    """On the onnx package's operator tests: the right dtype and rank, no wrong dimension."""
    from onnx.backend.test.case.node import collect_testcases

    known = static = 0
    for case in collect_testcases(None):  # type: ignore[arg-type]
        try:
            graph = inferred(import_onnx(case.model))
        except (ModelError, NotImplementedError):
            continue
        for value, array in zip(graph.outputs.values(), case.data_sets[0][1]):
            if not isinstance(array, np.ndarray) or value.dtype == UNKNOWN_DTYPE:
                continue
            assert value.dtype == array.dtype, case.name
            if value.shape is None:
                continue
            known += 1
            assert len(value.shape) == array.ndim, case.name
            pairs = zip(value.shape, array.shape, strict=True)
            assert all(a == b for a, b in pairs if isinstance(a, int)), case.name
            static += value.is_static
    assert known > 1400
    assert static > 1200


# Symbols ---------------------------------------------------------------------------------------


def test_symbols_pass_through_layers() -> None:
    graph = infer(
        [
            Node("Conv", ["x", "w"], ["c"], {"pads": [1, 1, 1, 1]}),
            Node("MaxPool", ["c"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
            Node("Flatten", ["p"], ["f"]),
            Node("Gemm", ["f", "g"], ["y"]),
        ],
        {"x": (F, ("n", 3, 8, "w"))},
        {"w": normal(4, 3, 3, 3), "g": normal(16, 5)},
    )
    assert graph.outputs["c"] == Value(F, ("n", 4, 8, "w"))
    assert graph.outputs["p"] == Value(F, ("n", 4, 4, None))
    assert graph.outputs["f"].shape == ("n", None)
    assert graph.outputs["y"].shape == ("n", 5)


def test_shapes_computed_from_shapes() -> None:
    """The way exporters write view(x.shape[0], -1, 2 * x.shape[1])."""
    graph = infer(
        [
            Node("Shape", ["x"], ["s"]),
            Node("Gather", ["s", "zero"], ["n"]),
            Node("Unsqueeze", ["n", "axes"], ["n1"]),
            Node("Slice", ["s", "one", "two", "axes"], ["c"]),
            Node("Mul", ["c", "factor"], ["c2"]),
            Node("Concat", ["n1", "free", "c2"], ["target"], {"axis": 0}),
            Node("Reshape", ["x", "target"], ["y"]),
            Node("Shape", ["x"], ["tail"], {"start": -1}),
            Node("Expand", ["zero_f", "tail"], ["e"]),
            Node("ConstantOfShape", ["n1"], ["zeros"]),
        ],
        {"x": (F, ("n", 3, 8))},
        {
            "zero": 0,
            "axes": [0],
            "one": [1],
            "two": [2],
            "factor": 2,
            "free": [-1],
            "zero_f": np.float32(0),
        },
    )
    assert graph.outputs["target"] == Value(I64, (3,))
    assert graph.outputs["y"] == Value(F, ("n", 4, 6))
    assert graph.outputs["e"] == Value(F, (8,))
    assert graph.outputs["zeros"] == Value(F, ("n",))


@pytest.mark.parametrize(
    ("source", "target", "allowzero", "want"),
    [
        ((2, 3, 4), [0, -1], 0, (2, 12)),
        (("n", 3, 4), [-1, 12], 0, ("n", 12)),
        (("n", 3, 4), [0, 0, 2, 2], 0, ("n", 3, 2, 2)),
        (("n", "m"), [-1], 0, (None,)),
        ((0, 3), [3, 0], 1, (3, 0)),
        (None, [2, -1], 0, (2, None)),
    ],
)
def test_reshape(source: Any, target: list[int], allowzero: int, want: tuple[Dim, ...]) -> None:
    nodes = [Node("Reshape", ["x", "t"], ["y"], {"allowzero": allowzero})]
    graph = infer(nodes, {"x": (F, source)}, {"t": np.array(target, np.int64)})
    assert graph.outputs["y"].shape == want


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        (("n", 1, 4), (3, 1), ("n", 3, 4)),
        (("n",), ("n",), ("n",)),
        (("n",), ("m",), (None,)),
        (("n",), (5,), (5,)),
        ((2, 3), None, None),
        ((), (2,), (2,)),
    ],
)
def test_broadcasting(a: Any, b: Any, want: Any) -> None:
    graph = infer([Node("Add", ["a", "b"], ["y"])], {"a": (F, a), "b": (F, b)})
    assert graph.outputs["y"] == Value(F, want)


def test_said_values_fill_what_rules_leave_open() -> None:
    graph = Graph(
        inputs={"x": Value(F, ("n", 4))},
        outputs={"y": Value(F, ("k", 4))},
        nodes=[Node("Compress", ["x", "c"], ["p"], {"axis": 0}), Node("Relu", ["p"], ["y"])],
        constants={"c": Constant.of(np.array([True]))},
        values={"p": Value(F, ("k", 9))},
    )
    result = infer_types(graph)
    # The rule's 4 beats the 9 that was said; its unknown gives way to "k".
    assert result.values["p"].shape == ("k", 4)
    assert graph.values["p"].shape == ("k", 9)


# Rules that the corpora above do not reach -----------------------------------------------------


def lepton(op: str, inputs: list[str], **attrs: Any) -> Node:
    return Node(op, inputs, ["y"], attrs, LEPTON_DOMAIN)


@pytest.mark.parametrize(
    ("made", "want"),
    [
        (lepton("Conv", ["x", "w"], channels_last=0), Value(F, ("n", 6, 6, 4))),
        (lepton("Conv", ["l", "w"], channels_last=1), Value(F, ("n", 6, 6, 4))),
        (
            lepton("MaxPool", ["l"], channels_last=1, kernel_shape=[2, 2], strides=[2, 2]),
            Value(F, ("n", 4, 4, 3)),
        ),
        (lepton("QLinearConv", ["q", "s", "z", "v", "s", "t"]), Value(F, ("n", 6, 6, 4))),
        (
            lepton("QLinearConv", ["q", "s", "z", "v", "s", "t", "s", "z"]),
            Value(U8, ("n", 6, 6, 4)),
        ),
        (lepton("MatMul", ["m", "k"]), Value(F, ("n", 8))),
        (
            lepton("QLinearReduceMean", ["q", "s", "z", "s", "z"], axes=[2, 3]),
            Value(U8, ("n", 3, 1, 1)),
        ),
        (
            lepton("Lookup", ["q"], table=np.zeros(256, np.int8)),
            Value(np.dtype("i1"), ("n", 3, 8, 8)),
        ),
    ],
)
def test_lepton_operators(made: Node, want: Value) -> None:
    graph = infer(
        [made],
        {
            "x": (F, ("n", 3, 8, 8)),
            "l": (F, ("n", 8, 8, 3)),
            "q": (U8, ("n", 3, 8, 8)),
            "m": (F, ("n", 5)),
        },
        {
            "w": normal(4, 3, 3, 3),
            "v": np.zeros((4, 3, 3, 3), np.int8),
            "k": normal(5, 8),
            "s": np.float32(0.1),
            "z": np.uint8(3),
            "t": np.int8(0),
        },
    )
    assert graph.outputs["y"] == want


def test_dtype_of_elementwise_programs_is_what_the_graph_says() -> None:
    graph = Graph(
        inputs={"x": Value(F, (3, 4))},
        outputs={"y": Value(U8)},
        nodes=[lepton("Elementwise", ["x"], program=["Relu r0"])],
    )
    assert infer_types(graph).outputs["y"] == Value(U8, (3, 4))


def test_branches_agree_on_what_they_share() -> None:
    def branch(shape: list[int]) -> onnx.GraphProto:
        return helper.make_graph(
            [node("ConstantOfShape", ["s"], ["t"])],
            "b",
            [],
            [helper.make_tensor_value_info("t", 1, None)],
            [numpy_helper.from_array(np.array(shape, np.int64), "s")],
        )

    nodes = [node("If", ["c"], ["y"], then_branch=branch([2, 3]), else_branch=branch([2, 5]))]
    graph = inferred(import_onnx(make_model(nodes, {"c": np.array(True)}, ["y"])))
    assert graph.outputs["y"] == Value(F, (2, None))


def test_scan() -> None:
    body = helper.make_graph(
        [node("Add", ["s", "e"], ["o"]), node("Mul", ["o", "o"], ["p"])],
        "body",
        [helper.make_tensor_value_info("s", 1, [4]), helper.make_tensor_value_info("e", 1, [4])],
        [helper.make_tensor_value_info("o", 1, [4]), helper.make_tensor_value_info("p", 1, [4])],
    )
    nodes = [node("Scan", ["x", "xs"], ["y", "ys"], body=body, num_scan_inputs=1)]
    model = make_model(nodes, {"x": normal(4), "xs": normal(7, 4)}, ["y", "ys"])
    graph = inferred(import_onnx(model))
    assert graph.outputs["y"].shape == (4,)
    assert graph.outputs["ys"].shape == (7, 4)


def test_loop_that_grows_its_state() -> None:
    body = helper.make_graph(
        [node("Concat", ["s", "s"], ["o"], axis=0), node("Identity", ["c"], ["go"])],
        "body",
        [
            helper.make_tensor_value_info("i", 7, []),
            helper.make_tensor_value_info("c", 9, []),
            helper.make_tensor_value_info("s", 1, None),
        ],
        [helper.make_tensor_value_info("go", 9, []), helper.make_tensor_value_info("o", 1, None)],
    )
    nodes = [node("Loop", ["n", "", "x"], ["y"], body=body)]
    model = make_model(nodes, {"x": normal(2, 3)}, ["y"], {"n": np.array(3, np.int64)})
    assert inferred(import_onnx(model)).outputs["y"] == Value(F, (None, 3))


# What cannot be --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        Node("MatMul", ["x", "x"], ["y"]),
        Node("Add", ["x", "w"], ["y"]),
        Node("Transpose", ["x"], ["y"], {"perm": [0, 0, 1]}),
        Node("Transpose", ["x"], ["y"], {"perm": "odd"}),
        Node("Concat", ["x", "w"], ["y"], {"axis": 0}),
        Node("Concat", ["x", "x"], ["y"], {"axis": 7}),
        Node("Reshape", ["x", "bad"], ["y"]),
        Node("Reshape", ["x", "bad2"], ["y"]),
        Node("Squeeze", ["x", "one"], ["y"]),
        Node("Conv", ["x", "x"], ["y"], {"strides": [0]}),
        Node("Conv", ["x", "w"], ["y"], {"group": 0}),
        Node("MaxPool", ["x"], ["y"]),
        Node("MaxPool", ["x"], ["y"], {"kernel_shape": [9]}),
        Node("MaxPool", ["x"], ["y"], {"kernel_shape": [2, 2]}),
        Node("Split", ["x", "bad"], ["y", "z"], {"axis": 1}),
        Node("Gather", ["x", "one"], ["y"], {"axis": -4}),
        Node("Cast", ["x"], ["y"], {"to": 99}),
        Node("DepthToSpace", ["x"], ["y"], {"blocksize": 0}),
        Node("Pad", ["x", "one"], ["y"]),
        Node("Einsum", ["x", "x"], ["y"], {"equation": "ab,bc->ad"}),
        Node("DequantizeLinear", ["q", "s5", ""], ["y"], {"axis": 1}),
        Node("DequantizeLinear", ["q", "s5", "z4"], ["y"], {"axis": 0}),
        Node("Conv", ["x", "w", "s5b"], ["y"]),
        Node("BatchNormalization", ["x", "s5", "s5", "s5", "s5"], ["y"]),
        Node("InstanceNormalization", ["x", "s5", "s5"], ["y"]),
        Node("Gemm", ["q2", "q2", "x"], ["y"], {"transB": 1}),
        Node("If", ["x"], ["y"]),
        Node("Loop", [], ["y"]),
        Node("Range", ["zero", "zero", "zero"], ["y"]),
        Node("Slice", ["x", "one", "one", "one", "zeros"], ["y"]),
    ],
)
def test_impossible_operands_are_refused(made: Node) -> None:
    with pytest.raises(ModelError, match=made.op):
        infer(
            [made],
            {
                "x": (F, (2, 3, 4)),
                "w": (F, (5, 3, 3)),
                "q": (U8, (4, 6)),
                "q2": (F, (3, 4)),
            },
            {
                "bad": [5, 5],
                "bad2": [-1, -1],
                "one": [1],
                "zero": 0,
                "zeros": [0],
                "s5": np.ones(5, np.float32),
                "s5b": np.ones(4, np.float32),
                "z4": np.zeros(4, np.uint8),
            },
        )
