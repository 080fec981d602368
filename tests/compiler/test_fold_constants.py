"""Folding and elimination: same results, fewer nodes, budgets kept."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from compiler.onnx_models import Array, make_model, normal, ort_run
from lepton_rt import export_onnx, import_onnx
from lepton_rt.graph.ir import Graph
from lepton_rt.graph.verify import verify
from lepton_rt.passes.eliminate import eliminate
from lepton_rt.passes.fold_constants import fold_constants

node = helper.make_node
I = np.array([[1, -2, 3], [4, 5, -6]], np.int64)  # noqa: E741
X = normal(2, 3)


def ops(graph: Graph) -> list[str]:
    return [each.op for each in graph.nodes]


# One operator on constants, against the onnx package's evaluator --------------------------------

CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "abs": ("Abs", [X], {}),
    "add": ("Add", [X, normal(3)], {}),
    "sub": ("Sub", [I, I[:, :1]], {}),
    "mul": ("Mul", [X, X], {}),
    "div": ("Div", [X, X + 1], {}),
    "div_int": ("Div", [I, np.array(-4)], {}),
    "neg": ("Neg", [X], {}),
    "sqrt": ("Sqrt", [abs(X)], {}),
    "reciprocal": ("Reciprocal", [X], {}),
    "floor": ("Floor", [X * 3], {}),
    "ceil": ("Ceil", [X * 3], {}),
    "not": ("Not", [X > 0], {}),
    "and": ("And", [X > 0, X < 1], {}),
    "or": ("Or", [X > 0, X < -1], {}),
    "equal": ("Equal", [I, np.array(3)], {}),
    "less": ("Less", [X, normal(3)], {}),
    "less_equal": ("LessOrEqual", [I, I], {}),
    "greater": ("Greater", [X, normal(3)], {}),
    "greater_equal": ("GreaterOrEqual", [I, I], {}),
    "where": ("Where", [X > 0, X, np.float32(7)], {}),
    "tile": ("Tile", [X, np.array([2, 1])], {}),
    "size": ("Size", [X], {}),
    "shape": ("Shape", [X], {"start": 1}),
    "cast": ("Cast", [X * 9], {"to": 6}),
    "cast_half": ("Cast", [X], {"to": 10}),
    "cast_bool": ("Cast", [I], {"to": 9}),
    "cast_bfloat": ("Cast", [X], {"to": 16}),
    "concat": ("Concat", [X, X * 2], {"axis": -1}),
    "gather": ("Gather", [X, np.array([[0, -1]])], {"axis": 1}),
    "slice": ("Slice", [X, np.array([-1]), np.array([-99]), np.array([1]), np.array([-2])], {}),
    "slice_all": ("Slice", [X, np.array([0, 1]), np.array([99, 2])], {}),
    "squeeze": ("Squeeze", [X[None], np.array([0])], {}),
    "squeeze_all": ("Squeeze", [X[None]], {}),
    "unsqueeze": ("Unsqueeze", [X, np.array([0, -1])], {}),
    "reshape": ("Reshape", [X, np.array([0, -1, 1])], {}),
    "flatten": ("Flatten", [X[None]], {"axis": -1}),
    "transpose": ("Transpose", [X[None]], {"perm": [2, 0, 1]}),
    "constant_of_shape": ("ConstantOfShape", [np.array([2, 3])], {}),
    "range": ("Range", [np.array(7), np.array(-2), np.array(-3)], {}),
    "range_float": ("Range", [np.float32(0), np.float32(1), np.float32(0.3)], {}),
    "expand": ("Expand", [X, np.array([4, 1, 3])], {}),
    "reduce_sum": ("ReduceSum", [X, np.array([1])], {"keepdims": 0}),
    "reduce_prod": ("ReduceProd", [I], {}),
    "reduce_max": ("ReduceMax", [X, np.array([0])], {}),
    "reduce_min": ("ReduceMin", [X, np.array([], np.int64)], {"noop_with_empty_axes": 1}),
    "quantize": ("QuantizeLinear", [X, np.float32(0.02), np.uint8(128)], {}),
    "quantize_axis": (
        "QuantizeLinear",
        [X, np.array([0.01, 0.02, 0.5], np.float32), np.array([1, -2, 0], np.int8)],
        {"axis": -1},
    ),
    "identity": ("Identity", [X], {}),
    "erf_by_reference": ("Erf", [X], {}),
    "conv_by_reference": ("Conv", [normal(1, 2, 5), normal(3, 2, 3)], {}),
    "nonzero_by_reference": ("NonZero", [X > 0], {}),
    "one_hot_by_reference": ("OneHot", [I % 4, np.array(4), np.array([0.0, 1.0])], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_folds_to_what_the_operator_gives(name: str) -> None:
    op, operands, attrs = CASES[name]
    constants = {f"c{i}": np.asarray(a) for i, a in enumerate(operands)}
    model = make_model([node(op, list(constants), ["y"], **attrs)], {"x": X}, ["y"], constants)
    model.graph.output[0].type.Clear()
    graph = fold_constants(import_onnx(model))
    assert graph.nodes == []
    verify(graph)
    got = graph.constants["y"].dense()
    model.graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(got.dtype)
    (want,) = ReferenceEvaluator(model).run(None, {"x": X})
    assert got.dtype == np.asarray(want).dtype
    assert got.shape == np.shape(want)
    np.testing.assert_allclose(np.asarray(got, np.float64), np.asarray(want, np.float64), rtol=1e-6)


def test_split_folds() -> None:
    constants = {"c": normal(2, 7)}
    nodes = [node("Split", ["c"], ["y", "z"], axis=1, num_outputs=2)]
    graph = fold_constants(import_onnx(make_model(nodes, {"x": X}, ["y", "z"], constants)))
    assert graph.nodes == []
    np.testing.assert_array_equal(graph.constants["y"].dense(), constants["c"][:, :4])
    np.testing.assert_array_equal(graph.constants["z"].dense(), constants["c"][:, 4:])


def test_shapes_of_inputs_fold() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "i"], ["d"]),
        node("Mul", ["d", "two"], ["t"]),
        node("Reshape", ["x", "t"], ["y"]),
    ]
    constants = {"i": np.array([1]), "two": np.array(2)}
    graph = eliminate(fold_constants(import_onnx(make_model(nodes, {"x": X}, ["y"], constants))))
    assert ops(graph) == ["Reshape"]
    assert graph.constants["t"].dense().tolist() == [6]


def test_symbolic_shapes_stay() -> None:
    model = make_model([node("Shape", ["x"], ["y"])], {"x": X}, ["y"], dtypes={"y": np.int64})
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    assert ops(fold_constants(import_onnx(model))) == ["Shape"]


# What must stay --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        node("RandomNormal", [], ["y"], shape=[2, 3]),
        node("RandomNormalLike", ["c"], ["y"]),
        node("Bernoulli", ["p"], ["y"]),
        node("Multinomial", ["p"], ["y"], dtype=6),
        node("DequantizeLinear", ["q", "s"], ["y"]),
        node("Add", ["c", "x"], ["y"]),
    ],
)
def test_what_must_not_be_folded_stays(made: Any) -> None:
    constants = {"c": X, "p": abs(X) / 9, "q": np.zeros((2, 3), np.int8), "s": np.float32(1)}
    constants = {name: np.asarray(a) for name, a in constants.items()}
    model = make_model([made], {"x": X}, ["y"], constants)
    model.graph.output[0].type.Clear()
    assert ops(fold_constants(import_onnx(model))) == [made.op_type]


def test_constant_outputs_can_be_written() -> None:
    model = make_model([node("Neg", ["c"], ["y"])], {"x": X}, ["y"], {"c": X})
    graph = fold_constants(import_onnx(model))
    (got,) = ort_run(export_onnx(graph), {"x": X})
    np.testing.assert_array_equal(got, -X)
    large = make_model([node("Neg", ["c"], ["y"])], {"x": X}, ["y"], {"c": normal(999)})
    (got,) = ort_run(export_onnx(fold_constants(import_onnx(large))), {"x": X})
    np.testing.assert_array_equal(got, -normal(999))


def test_byte_budget() -> None:
    nodes = [
        node("ConstantOfShape", ["s"], ["a"]),
        node("ConstantOfShape", ["s"], ["b"]),
        node("Add", ["a", "x"], ["t"]),
        node("Add", ["t", "b"], ["y"]),
    ]
    shape = np.array([1000, 1000])
    model = make_model(nodes, {"x": normal(1, 1)}, ["y"], {"s": shape})
    graph = import_onnx(model)
    assert ops(fold_constants(graph, max_bytes=5_000_000)) == ["ConstantOfShape", "Add", "Add"]
    assert ops(fold_constants(graph, max_bytes=3_000_000)).count("ConstantOfShape") == 2
    assert ops(fold_constants(graph)) == ["Add", "Add"]


def test_claims_are_not_allocated() -> None:
    """A terabyte asked for in a hundred bytes stays an operator, at once."""
    nodes = [
        node("ConstantOfShape", ["s"], ["a"]),
        node("Expand", ["c", "s"], ["b"]),
        node("Tile", ["c", "s2"], ["t"]),
        node("Range", ["zero", "far", "step"], ["r"]),
        node("ReduceMax", ["a"], ["y"], keepdims=0),
    ]
    constants: dict[str, Array] = {
        "s": np.array([2**20, 2**20]),
        "s2": np.array([2**40]),
        "c": normal(1),
        "zero": np.array(0),
        "far": np.array(2**50),
        "step": np.array(1),
    }
    model = make_model(nodes, {"x": X}, ["y", "b", "t", "r"], constants, dtypes={"r": np.int64})
    start = time.monotonic()
    graph = fold_constants(import_onnx(model))
    assert time.monotonic() - start < 2
    assert sorted(ops(graph)) == ["ConstantOfShape", "Expand", "Range", "ReduceMax", "Tile"]


def test_time_budget() -> None:
    nodes = [node("Neg", ["c"], ["a"]), node("Add", ["a", "x"], ["y"])]
    graph = import_onnx(make_model(nodes, {"x": X}, ["y"], {"c": X}))
    assert ops(fold_constants(graph, max_seconds=-1.0)) == ["Neg", "Add"]
    assert ops(fold_constants(graph)) == ["Add"]


def test_division_by_zero_is_left_to_the_run() -> None:
    nodes = [node("Div", ["c", "z"], ["a"]), node("Add", ["a", "x"], ["y"])]
    constants = {"c": np.array([1]), "z": np.array([0])}
    model = make_model(nodes, {"x": I}, ["y"], constants, dtypes={"y": np.int64})
    assert ops(fold_constants(import_onnx(model))) == ["Div", "Add"]


def test_folding_leaves_the_graph_alone() -> None:
    nodes = [node("Neg", ["c"], ["a"]), node("Add", ["a", "x"], ["y"])]
    graph = import_onnx(make_model(nodes, {"x": X}, ["y"], {"c": X}))
    before = ops(graph), list(graph.constants)
    eliminate(fold_constants(graph))
    assert (ops(graph), list(graph.constants)) == before


def test_subgraphs_fold() -> None:
    branch = helper.make_graph(
        [node("Constant", [], ["k"], value_float=2.0), node("Neg", ["k"], ["t"]),
         node("Mul", ["x", "t"], ["o"])],
        "b",
        [],
        [helper.make_tensor_value_info("o", 1, None)],
    )  # fmt: skip
    nodes = [node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    feeds = {"x": X, "c": np.array(True)}
    graph = fold_constants(import_onnx(make_model(nodes, feeds, ["y"])))
    held = graph.nodes[0].attrs["then_branch"]
    assert isinstance(held, Graph)
    assert ops(held) == ["Mul"]
    (got,) = ort_run(export_onnx(graph), feeds)
    np.testing.assert_allclose(got, X * -2)


# Elimination -----------------------------------------------------------------------------------


def check(
    nodes: list[Any], outputs: list[str], left: list[str], constants: dict[str, Array] | None = None
) -> Graph:
    model = make_model(nodes, {"x": X}, outputs, constants)
    graph = eliminate(import_onnx(model))
    verify(graph)
    assert ops(graph) == left
    assert list(graph.outputs) == outputs
    for got, want in zip(ort_run(export_onnx(graph), {"x": X}), ort_run(model, {"x": X})):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    return graph


@pytest.mark.parametrize(
    "made",
    [
        node("Identity", ["a"], ["b"]),
        node("Dropout", ["a"], ["b", "mask"]),
        node("Dropout", ["a", "ratio", "off"], ["b"]),
        node("Cast", ["a"], ["b"], to=1),
        node("Transpose", ["a"], ["b"], perm=[0, 1]),
        node("Reshape", ["a", "shape"], ["b"]),
        node("Expand", ["a", "shape"], ["b"]),
        node("Flatten", ["a"], ["b"]),
        node("Concat", ["a"], ["b"], axis=0),
        node("Sum", ["a"], ["b"]),
        node("Pad", ["a", "pads"], ["b"]),
        node("Squeeze", ["a"], ["b"]),
    ],
)
def test_no_ops_go(made: Any) -> None:
    constants = {
        "ratio": np.array(0.5, np.float32),
        "off": np.array(False),
        "shape": np.array([2, 3]),
        "pads": np.zeros(4, np.int64),
    }
    nodes = [node("Neg", ["x"], ["a"]), made, node("Abs", ["b"], ["y"])]
    graph = check(nodes, ["y"], ["Neg", "Abs"], constants)
    assert not graph.constants


@pytest.mark.parametrize(
    "made",
    [
        node("Transpose", ["a"], ["b"]),
        node("Cast", ["a"], ["b"], to=11),
        node("Reshape", ["a", "shape"], ["b"]),
    ],
)
def test_what_does_something_stays(made: Any) -> None:
    nodes = [
        node("Neg", ["x"], ["a"]),
        made,
        node("Abs", ["b"], ["c"]),
        node("Cast", ["c"], ["y"], to=1),
    ]
    left = ["Neg", made.op_type, "Abs"] + (["Cast"] if made.op_type == "Cast" else [])
    check(nodes, ["y"], left, {"shape": np.array([3, 2])})


def test_outputs_keep_their_names() -> None:
    check([node("Neg", ["x"], ["a"]), node("Identity", ["a"], ["y"])], ["y"], ["Neg"])
    check([node("Identity", ["x"], ["y"])], ["y"], ["Identity"])
    nodes = [
        node("Neg", ["x"], ["a"]),
        node("Identity", ["a"], ["y"]),
        node("Identity", ["a"], ["z"]),
        node("Abs", ["a"], ["w"]),
    ]
    check(nodes, ["y", "z", "w"], ["Neg", "Identity", "Abs"])
    nodes = [node("Neg", ["x"], ["y"]), node("Identity", ["y"], ["z"])]
    check(nodes, ["y", "z"], ["Neg", "Identity"])


def test_chains_of_no_ops() -> None:
    nodes = [
        node("Neg", ["x"], ["a"]),
        node("Identity", ["a"], ["b"]),
        node("Cast", ["b"], ["c"], to=1),
        node("Identity", ["c"], ["y"]),
        node("Add", ["b", "c"], ["z"]),
    ]
    check(nodes, ["y", "z"], ["Neg", "Add"])


def test_dead_code_goes() -> None:
    nodes = [
        node("Neg", ["x"], ["a"]),
        node("Add", ["a", "k"], ["dead"]),
        node("Abs", ["dead"], ["deader"]),
        node("MaxPool", ["img"], ["p", "indices"], kernel_shape=[1, 1]),
        node("Unsqueeze", ["x", "axes"], ["img"]),
        node("Add", ["a", "p"], ["y"]),
    ]
    constants = {"k": normal(3), "axes": np.array([0, 1])}
    graph = check(nodes, ["y"], ["Neg", "Unsqueeze", "MaxPool", "Add"], constants)
    assert list(graph.constants) == ["axes"]
    assert graph.nodes[2].outputs == ["p"]


def test_repeated_constants_merge() -> None:
    nodes = [
        node("Add", ["x", "a"], ["t"]),
        node("Mul", ["t", "b"], ["u"]),
        node("Add", ["u", "c"], ["y"]),
    ]
    constants = {"a": normal(3), "b": normal(3), "c": normal(1, 3)}
    graph = check(nodes, ["y"], ["Add", "Mul", "Add"], constants)
    assert list(graph.constants) == ["a", "c"]


def test_subgraphs_follow_renamed_tensors() -> None:
    branch = helper.make_graph(
        [node("Abs", ["b"], ["o"])], "b", [], [helper.make_tensor_value_info("o", 1, None)]
    )
    plain = helper.make_graph(
        [node("Identity", ["b"], ["p"])], "c", [], [helper.make_tensor_value_info("p", 1, None)]
    )
    nodes = [
        node("Neg", ["x"], ["a"]),
        node("Identity", ["a"], ["b"]),
        node("If", ["c"], ["y"], then_branch=branch, else_branch=plain),
    ]
    feeds = {"x": X, "c": np.array(False)}
    graph = eliminate(import_onnx(make_model(nodes, feeds, ["y"])))
    verify(graph)
    assert ops(graph) == ["Neg", "If"]
    (got,) = ReferenceEvaluator(export_onnx(graph)).run(None, feeds)
    np.testing.assert_allclose(got, -X)
