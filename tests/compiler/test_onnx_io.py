"""ONNX import and export against ONNX Runtime and the onnx package's own recorded results."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compiler.onnx_models import Array, make_model, normal, ort_run
from lepton_rt import ModelError, UnsupportedError, export_onnx, import_onnx, save_onnx
from lepton_rt.graph.ir import OPSET, Graph
from sample_models import LIGHT_NAMES, light_model

node = helper.make_node
DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
RECORDED = sorted(
    str(path.parent.relative_to(DATA))
    for folder in ("pytorch-converted", "pytorch-operator", "simple")
    for path in (DATA / folder).glob("*/model.onnx")
    if "gradient" not in str(path) and "strnorm" not in str(path) and "sequence" not in str(path)
)


def assert_same(got: list[Array], want: list[Array], tolerance: float = 1e-5) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def recorded(path: Path) -> Array:
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return np.asarray(numpy_helper.to_array(tensor))


# Import, export, compare -----------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_models_round_trip(name: str) -> None:
    """Models of opsets 6 to 12 give their recorded results after import and export."""
    folder = DATA / name
    graph = import_onnx(folder / "model.onnx")
    session = onnxruntime.InferenceSession(export_onnx(graph).SerializeToString())
    for data in sorted(folder.glob("test_data_set_*")):
        inputs = [recorded(path) for path in sorted(data.glob("input_*.pb"))]
        outputs = [recorded(path) for path in sorted(data.glob("output_*.pb"))]
        got = session.run(None, dict(zip(graph.inputs, inputs)))
        assert_same([np.asarray(a) for a in got], outputs, 1e-3)


@pytest.mark.parametrize("name", LIGHT_NAMES)
def test_light_models_import(name: str) -> None:
    graph = import_onnx(DATA / "light" / f"{name}.onnx")
    assert graph.opsets[""] == OPSET
    for each in graph.nodes:
        for output in each.outputs:
            value = graph.value(output)
            assert value is not None
            assert value.is_static


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet", "light_inception_v2"])
def test_light_models_round_trip(name: str) -> None:
    model = light_model(name)
    feeds = {model.graph.input[0].name: normal(1, 3, 224, 224)}
    got = ort_run(export_onnx(import_onnx(model)), feeds)
    assert_same(got, ort_run(model, feeds), 1e-4)


def test_expanded_operators_know_their_default_attributes() -> None:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in "ab"]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
    graph = helper.make_graph([node("SwiGLU", ["a", "b"], ["y"])], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 28)])
    a, b = normal(2, 4), normal(2, 4)
    got = ReferenceEvaluator(export_onnx(import_onnx(model), 17)).run(None, {"a": a, "b": b})
    np.testing.assert_allclose(got[0], a / (1 + np.exp(-a)) * b, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [OPSET, 17])
def test_operator_conformance_cases_round_trip(opset: int) -> None:
    """The onnx package's operator tests, through import and export, in its own evaluator."""
    from onnx.backend.test.case.node import collect_testcases

    ran, failures = 0, []
    for case in collect_testcases(None):  # type: ignore[arg-type]
        inputs, outputs = case.data_sets[0]
        if not all(
            isinstance(a, np.ndarray) and a.dtype.kind in "biuf" for a in (*inputs, *outputs)
        ):
            continue
        if "bernoulli" in case.name or "training" in case.name:
            continue
        try:
            model = export_onnx(import_onnx(case.model), opset)
        except (ModelError, UnsupportedError):
            continue
        try:
            feeds = dict(zip([i.name for i in case.model.graph.input], inputs))
            got = ReferenceEvaluator(model).run(None, feeds)
            assert_same([np.asarray(a) for a in got], [np.asarray(a) for a in outputs], 1e-3)
        except RuntimeError as error:
            if "No implementation" not in str(error):
                failures.append((case.name, error))
        except AssertionError as error:
            want = ReferenceEvaluator(case.model).run(None, feeds)
            if all(np.shape(a) == np.shape(b) for a, b in zip(want, outputs)):
                failures.append((case.name, error))
        ran += 1
    assert not failures, failures[:5]
    assert ran > (1200 if opset == OPSET else 900)


OLD = {
    "softmax_flattens": (11, [node("Softmax", ["x"], ["y"], axis=1)], (2, 3, 4), {}),
    "softmax_negative_axis": (11, [node("Softmax", ["x"], ["y"], axis=-2)], (2, 3, 4), {}),
    "log_softmax_default": (12, [node("LogSoftmax", ["x"], ["y"])], (2, 3, 4), {}),
    "softmax_of_one": (9, [node("Softmax", ["x"], ["y"])], (2, 5, 1, 1), {}),
    "upsample_attribute": (
        8,
        [node("Upsample", ["x"], ["y"], mode="nearest", scales=[1.0, 1.0, 2.0, 3.0])],
        (1, 2, 3, 4),
        {},
    ),
    "upsample_linear": (
        9,
        [node("Upsample", ["x", "s"], ["y"], mode="linear")],
        (1, 2, 3, 4),
        {"s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "resize_10": (
        10,
        [node("Resize", ["x", "s"], ["y"], mode="linear")],
        (1, 2, 3, 4),
        {"s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "clip": (7, [node("Clip", ["x"], ["y"], min=-0.5, max=0.25)], (3, 4), {}),
    "clip_one_side": (9, [node("Clip", ["x"], ["y"], max=0.25)], (3, 4), {}),
    "pad": (8, [node("Pad", ["x"], ["y"], pads=[0, 1, 2, 0], value=3.0)], (3, 4), {}),
    "slice": (9, [node("Slice", ["x"], ["y"], axes=[1], starts=[-3], ends=[-1])], (3, 5), {}),
    "split": (11, [node("Split", ["x"], ["y", "z"], axis=1, split=[1, 3])], (2, 4), {}),
    "split_equal": (13, [node("Split", ["x"], ["y", "z"], axis=-1)], (2, 4), {}),
    "squeeze": (11, [node("Squeeze", ["x"], ["y"], axes=[0, -1])], (1, 3, 1), {}),
    "unsqueeze": (9, [node("Unsqueeze", ["x"], ["y"], axes=[0, 3])], (3, 2), {}),
    "reduce_mean": (11, [node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)], (2, 3, 4), {}),
    "reduce_sum": (11, [node("ReduceSum", ["x"], ["y"], axes=[-1])], (2, 3, 4), {}),
    "top_k": (9, [node("TopK", ["x"], ["y", "i"], k=2, axis=1)], (3, 5), {}),
    "dropout": (8, [node("Dropout", ["x"], ["y"], ratio=0.4)], (3, 5), {}),
    "batch_norm": (
        8,
        [node("BatchNormalization", ["x", "a", "b", "m", "v"], ["y"], epsilon=1e-3)],
        (2, 3, 4, 4),
        {"a": normal(3), "b": normal(3, seed=1), "m": normal(3), "v": abs(normal(3))},
    ),
    "group_norm": (
        18,
        [node("GroupNormalization", ["x", "a", "b"], ["y"], num_groups=2)],
        (2, 6, 4),
        {"a": normal(2), "b": normal(2, seed=1)},
    ),
    "grid_sample": (
        16,
        [node("GridSample", ["x", "g"], ["y"], mode="bilinear")],
        (1, 2, 5, 5),
        {"g": np.clip(normal(1, 3, 3, 2), -1, 1)},
    ),
    "scatter": (
        10,
        [node("Scatter", ["x", "i", "u"], ["y"], axis=1)],
        (2, 4),
        {"i": np.array([[1], [3]]), "u": normal(2, 1)},
    ),
    "quantize_per_tensor": (
        10,
        [
            node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        (3, 4),
        {"s": np.array(0.02, np.float32), "z": np.array(7, np.uint8)},
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_old_operators_keep_their_meaning(name: str) -> None:
    opset, nodes, shape, constants = OLD[name]
    feeds = {"x": normal(*shape)}
    outputs = [n for n in ("y", "z") if any(n in each.output for each in nodes)]
    model = make_model(nodes, feeds, outputs, constants, opset)
    assert_same(ort_run(export_onnx(import_onnx(model)), feeds), ort_run(model, feeds))


def test_broadcast_along_an_axis_before_opset_7() -> None:
    x, b = normal(2, 3, 4, 5), normal(3, 4, seed=1)
    nodes = [node("Add", ["x", "b"], ["y"], broadcast=1, axis=1)]
    graph = import_onnx(make_model(nodes, {"x": x}, ["y"], {"b": b}, 6))
    (got,) = ort_run(export_onnx(graph), {"x": x})
    np.testing.assert_allclose(got, x + b[:, :, None])


def test_prelu_slope_per_channel_before_opset_7() -> None:
    x, slope = normal(2, 3, 4, 5), normal(3, seed=1)
    nodes = [node("PRelu", ["x", "s"], ["y"])]
    graph = import_onnx(make_model(nodes, {"x": x}, ["y"], {"s": slope}, 6))
    (got,) = ort_run(export_onnx(graph), {"x": x})
    np.testing.assert_allclose(got, np.where(x < 0, x * slope[:, None, None], x))


def test_reshape_and_cast_of_opset_1() -> None:
    x = normal(2, 6)
    nodes = [
        node("Reshape", ["x"], ["r"], shape=[3, -1], consumed_inputs=[0]),
        node("Cast", ["r"], ["y"], to="DOUBLE"),
    ]
    graph = import_onnx(make_model(nodes, {"x": x}, ["y"], {}, 1, {"y": np.float64}))
    (got,) = ort_run(export_onnx(graph), {"x": x})
    np.testing.assert_array_equal(got, x.reshape(3, 4).astype(np.float64))


def test_newer_operator_becomes_older_ones() -> None:
    x = normal(3, 4)
    model = make_model([node("Swish", ["x"], ["y"], alpha=1.5)], {"x": x}, ["y"], {}, 24)
    (got,) = ort_run(export_onnx(import_onnx(model)), {"x": x})
    np.testing.assert_allclose(got, x / (1 + np.exp(-1.5 * x)), rtol=1e-5)


# Structure -------------------------------------------------------------------------------------


def test_functions_are_inlined() -> None:
    """Nested functions, attribute references with and without defaults, a capture in a body."""
    scale = helper.make_function(
        "local",
        "Scale",
        ["a"],
        ["out"],
        [
            onnx.parser.parse_node("c = Constant<value_float: float = @factor>()"),
            node("Mul", ["a", "c"], ["out"]),
        ],
        [helper.make_opsetid("", 21)],
        attributes=["factor"],
    )
    twice = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["out", "same"],
        [
            onnx.parser.parse_node("b = local.Scale<factor: float = @factor>(a)"),
            node("Scale", ["b"], ["out"], domain="local", factor=3.0),
            node("Identity", ["a"], ["same"]),
        ],
        [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)],
        attribute_protos=[helper.make_attribute("factor", 2.0)],
    )
    x = normal(2, 3)
    model = make_model(
        [
            node("Twice", ["x"], ["p", ""], domain="local"),
            node("Twice", ["p"], ["y", "z"], domain="local", factor=0.5),
        ],
        {"x": x},
        ["y", "z"],
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("local", 1)],
        functions=[scale, twice],
    )
    graph = import_onnx(model)
    assert {each.domain for each in graph.nodes} == {""}
    y, z = ort_run(export_onnx(graph), {"x": x})
    np.testing.assert_allclose(z, x * 6, rtol=1e-6)
    np.testing.assert_allclose(y, x * 6 * 1.5, rtol=1e-6)


def test_function_of_another_opset_is_upgraded() -> None:
    old = helper.make_function(
        "local",
        "Old",
        ["a"],
        ["out"],
        [node("ReduceMean", ["a"], ["out"], axes=[1], keepdims=0)],
        [helper.make_opsetid("", 13)],
    )
    x = normal(2, 3)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    nodes = [node("Old", ["x"], ["y"], domain="local")]
    model = make_model(nodes, {"x": x}, ["y"], opset_imports=opsets, functions=[old])
    (got,) = ort_run(export_onnx(import_onnx(model)), {"x": x})
    np.testing.assert_allclose(got, x.mean(1), rtol=1e-6)


def test_subgraphs_become_graphs() -> None:
    x = normal(2, 3)
    then = helper.make_graph(
        [node("Mul", ["x", "k"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", 1, None)],
        [numpy_helper.from_array(np.array(2, np.float32), "k")],
    )
    other = helper.make_graph(
        [node("ReduceMean", ["x"], ["e"], axes=[0], keepdims=1)],
        "else",
        [],
        [helper.make_tensor_value_info("e", 1, None)],
    )
    model = make_model(
        [node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
        {"x": x, "c": np.array(True)},
        ["y"],
        opset=17,
    )
    graph = import_onnx(model)
    assert isinstance(graph.nodes[0].attrs["then_branch"], Graph)
    for flag, want in ((True, x * 2), (False, x.mean(0, keepdims=True))):
        (got,) = ort_run(export_onnx(graph), {"x": x, "c": np.array(flag)})
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_loop_round_trips() -> None:
    body = helper.make_graph(
        [
            node("Add", ["state", "step"], ["next"]),
            node("Identity", ["cond"], ["go"]),
            node("Mul", ["next", "next"], ["square"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", 7, []),
            helper.make_tensor_value_info("cond", 9, []),
            onnx.ValueInfoProto(name="state"),
        ],
        [
            helper.make_tensor_value_info("go", 9, []),
            helper.make_tensor_value_info("next", 1, None),
            helper.make_tensor_value_info("square", 1, None),
        ],
    )
    feeds = {"x": normal(2), "step": normal(2, seed=1)}
    model = make_model(
        [node("Loop", ["n", "on", "x"], ["y", "ys"], body=body)],
        feeds,
        ["y", "ys"],
        {"n": np.array(3, np.int64), "on": np.array(True)},
    )
    graph = import_onnx(model)
    assert graph.outputs["ys"].shape == (None, 2)
    got = ReferenceEvaluator(export_onnx(graph)).run(None, feeds)
    states = [feeds["x"] + feeds["step"] * k for k in (1, 2, 3)]
    np.testing.assert_allclose(got[0], states[-1], rtol=1e-6)
    np.testing.assert_allclose(got[1], np.square(states), rtol=1e-5)


def test_all_forms_of_constants() -> None:
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([5, 7], np.float32), "sp"),
        numpy_helper.from_array(np.array([[0, 1], [1, 2]], np.int64), "spi"),
        [2, 3],
    )
    model = make_model(
        [
            node("Constant", [], ["t"], value=numpy_helper.from_array(normal(2, 3))),
            node("Constant", [], ["s"], sparse_value=sparse),
            node("Constant", [], ["i"], value_int=3),
            node("Constant", [], ["is"], value_ints=[1, 2]),
            node("Constant", [], ["f"], value_float=0.5),
            node("Constant", [], ["fs"], value_floats=[0.5, 2.0]),
            node("Constant", [], ["w"], value_strings=["a", "b"]),
            node("Add", ["t", "s"], ["y"]),
        ],
        {"x": normal(1)},
        ["y"],
    )
    constants = import_onnx(model).constants
    dense = np.array([[0, 5, 0], [0, 0, 7]], np.float32)
    np.testing.assert_array_equal(constants["s"].dense(), dense)
    assert constants["i"].dense() == 3
    assert constants["i"].dtype == np.int64
    assert constants["is"].dense().tolist() == [1, 2]
    assert constants["f"].dtype == np.float32
    assert constants["fs"].dense().tolist() == [0.5, 2.0]
    assert constants["w"].dense().tolist() == ["a", "b"]


@pytest.mark.parametrize(
    "name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4", "float4_e2m1fn"]
)
def test_narrow_types_survive(name: str, tmp_path: Path) -> None:
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, name))
    array = np.array([[0, 1, 2], [3, 4, -1 if "uint" not in name else 5]], np.float32).astype(dtype)
    model = make_model(
        [node("Cast", ["w"], ["y"], to=1)], {"x": normal(1)}, ["y"], {"w": array}, 23
    )
    graph = import_onnx(model)
    assert graph.constants["w"].dtype == dtype
    path = tmp_path / "narrow.onnx"
    for external in (False, True):
        big = Graph(
            outputs=graph.outputs,
            nodes=graph.nodes,
            constants={"w": type(graph.constants["w"]).of(np.tile(array, (1000, 1)))},
        )
        save_onnx(big, path, OPSET, external_data=external)
        again = import_onnx(path).constants["w"]
        assert again.dtype == dtype
        assert (
            again.dense().astype(np.float32).tobytes()
            == np.tile(array.astype(np.float32), (1000, 1)).tobytes()
        )


def test_initialisers_that_are_inputs_are_constants() -> None:
    model = make_model(
        [node("Add", ["x", "b"], ["y"])], {"x": normal(2)}, ["y"], {"b": normal(2)}, 8
    )
    assert "b" in {info.name for info in model.graph.input}
    graph = import_onnx(model)
    assert list(graph.inputs) == ["x"]
    assert "b" in graph.constants


def test_unsorted_nodes_are_sorted() -> None:
    nodes = [node("Relu", ["a"], ["y"]), node("Neg", ["x"], ["a"])]
    graph = import_onnx(make_model(nodes, {"x": normal(2)}, ["y"]))
    assert [each.op for each in graph.nodes] == ["Neg", "Relu"]


# External data ---------------------------------------------------------------------------------


def external_model(tmp_path: Path, **fields: str) -> Path:
    """A model whose weight of 4 × 256 floats lies in weights.bin, described by fields."""
    (tmp_path / "weights.bin").write_bytes(normal(4, 256).tobytes())
    model = make_model([node("MatMul", ["x", "w"], ["y"])], {"x": normal(2, 4)}, ["y"])
    tensor = onnx.TensorProto(name="w", dims=[4, 256], data_type=1)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", **fields}.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_mapped(tmp_path: Path) -> None:
    graph = import_onnx(external_model(tmp_path, offset="0", length="4096"))
    weight = graph.constants["w"].dense()
    np.testing.assert_array_equal(weight, normal(4, 256))
    assert not weight.flags.owndata
    assert not weight.flags.writeable


def test_external_data_beside_a_linked_model(tmp_path: Path) -> None:
    """Download caches keep both files under other names and link to them."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots"
    blobs.mkdir()
    snapshot.mkdir()
    external_model(blobs)
    (blobs / "model.onnx").rename(blobs / "0a1b")
    (blobs / "weights.bin").rename(blobs / "2c3d")
    (snapshot / "model.onnx").symlink_to(blobs / "0a1b")
    (snapshot / "weights.bin").symlink_to(blobs / "2c3d")
    assert import_onnx(snapshot / "model.onnx").constants["w"].shape == (4, 256)


@pytest.mark.parametrize(
    "fields",
    [
        {"location": "../weights.bin"},
        {"location": "a/../../weights.bin"},
        {"location": "/etc/passwd"},
        {"location": "C:\\weights.bin"},
        {"location": "..\\weights.bin"},
        {"location": ""},
        {"location": "missing.bin"},
        {"location": "weights.bin\0"},
        {"offset": "8"},
        {"offset": "-8"},
        {"offset": "99999999999999999999999"},
        {"length": "4095"},
        {"length": "nonsense"},
        {"location": "link.bin"},
        {"location": "pipe"},
        {"location": "."},
    ],
)
def test_external_data_that_lies_is_refused(tmp_path: Path, fields: dict[str, str]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(4096))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelError):
        import_onnx(external_model(folder, **fields))


def test_external_data_of_bytes_needs_a_folder(tmp_path: Path) -> None:
    data = external_model(tmp_path).read_bytes()
    with pytest.raises(ModelError, match="base_dir"):
        import_onnx(data)
    assert import_onnx(data, base_dir=tmp_path).constants["w"].shape == (4, 256)


def test_save_external_and_overwrite_in_place(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    x = normal(2, 4)
    model = make_model([node("MatMul", ["x", "w"], ["y"])], {"x": x}, ["y"], {"w": normal(4, 512)})
    save_onnx(import_onnx(model), path, external_data=True)
    assert path.stat().st_size < 1000
    # The graph's weights are a view of the very file that is being replaced.
    save_onnx(import_onnx(path), path, external_data=True)
    session = onnxruntime.InferenceSession(path)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ normal(4, 512), rtol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


def test_more_than_two_gigabytes(tmp_path: Path) -> None:
    """A weight of 3 GB, in a file with a hole: nothing may read, copy or serialise it."""
    import resource

    rows = 3 * 2**30 // (4 * 1024)
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(rows * 1024 * 4)
    path = tmp_path / "model.onnx"
    model = make_model([node("Gather", ["w", "i"], ["y"])], {"i": np.array([0])}, ["y"])
    tensor = onnx.TensorProto(name="w", dims=[rows, 1024], data_type=1)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    graph = import_onnx(path)
    assert graph.constants["w"].nbytes > 3 * 10**9
    assert graph.outputs["y"].shape == (1, 1024)

    from lepton_rt.graph.onnx_export import build_model

    def stub(name: str, constant: object) -> onnx.TensorProto:
        return onnx.TensorProto(name=name, data_location=onnx.TensorProto.EXTERNAL)

    assert len(build_model(graph, 17, stub).graph.initializer) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


# Broken models ---------------------------------------------------------------------------------


def broken(change: str) -> onnx.ModelProto:
    model = make_model(
        [node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]), node("Relu", ["c"], ["y"])],
        {"x": normal(1, 2, 8, 8)},
        ["y"],
        {"w": normal(4, 2, 3, 3)},
    )
    graph = model.graph
    weight = graph.initializer[0]
    changes = {
        "cycle": lambda: graph.node[0].input.__setitem__(0, "y"),
        "duplicate": lambda: graph.node[1].output.__setitem__(0, "c"),
        "duplicate input": lambda: graph.input.append(graph.input[0]),
        "duplicate constant": lambda: graph.initializer.append(weight),
        "missing": lambda: graph.node[0].input.__setitem__(0, "nowhere"),
        "missing output": lambda: graph.output[0].__setattr__("name", "nowhere"),
        "huge dim": lambda: weight.dims.__setitem__(0, 2**40),
        "overflowing dims": lambda: weight.dims.extend([2**62, 2**62]),
        "negative dim": lambda: weight.dims.__setitem__(0, -4),
        "short data": lambda: setattr(weight, "raw_data", weight.raw_data[:-1]),
        "type": lambda: setattr(weight, "data_type", 99),
        "channels": lambda: (
            graph.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_value", 3)
        ),
        "negative input": lambda: (
            graph.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_value", -3)
        ),
        "attribute": lambda: graph.node[0].attribute.append(helper.make_attribute("colour", 1)),
        "attribute type": lambda: setattr(graph.node[0].attribute[0], "type", 1),
        "strides": lambda: graph.node[0].attribute.append(helper.make_attribute("strides", [0, 0])),
        "operator": lambda: setattr(graph.node[1], "op_type", "Relux"),
        "domain": lambda: setattr(graph.node[1], "domain", "com.example"),
        "too many inputs": lambda: graph.node[1].input.extend(["x", "x"]),
        "opset": lambda: setattr(model.opset_import[0], "version", 9999),
        "zero opset": lambda: setattr(model.opset_import[0], "version", 0),
        "output type": lambda: setattr(graph.output[0].type.tensor_type, "elem_type", 7),
        "no graph": lambda: model.ClearField("graph"),
        "segment": lambda: setattr(weight.segment, "end", 4),
    }
    changes[change]()
    return model


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("cycle", "cycle"),
        ("duplicate", "twice"),
        ("duplicate input", "twice"),
        ("duplicate constant", "twice"),
        ("missing", "'nowhere'"),
        ("missing output", "'nowhere'"),
        ("huge dim", "bytes of data"),
        ("overflowing dims", "bytes of data"),
        ("negative dim", "negative"),
        ("short data", "bytes of data"),
        ("type", "element type 99"),
        ("channels", "input channels"),
        ("negative input", "negative"),
        ("attribute", "colour"),
        ("attribute type", "kernel_shape"),
        ("strides", "positive"),
        ("operator", "Relux"),
        ("domain", "com.example"),
        ("too many inputs", "Relu"),
        ("opset", "9999"),
        ("zero opset", "opset"),
        ("output type", "declared"),
        ("no graph", "no ONNX graph"),
        ("segment", "segment"),
    ],
)
def test_broken_models_are_refused(change: str, says: str) -> None:
    with pytest.raises((ModelError, UnsupportedError), match=says):
        import_onnx(broken(change))


def test_recursive_function_is_refused() -> None:
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    body = [node("F", ["a"], ["out"], domain="local")]
    function = helper.make_function("local", "F", ["a"], ["out"], body, opsets)
    model = make_model(
        [node("F", ["x"], ["y"], domain="local")],
        {"x": normal(1)},
        ["y"],
        opset_imports=opsets,
        functions=[function],
    )
    with pytest.raises(ModelError, match="calls itself"):
        import_onnx(model)


def test_functions_that_explode_are_refused() -> None:
    """Thirty functions, each calling the one before twice: a billion operators."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function("local", "F0", ["a"], ["out"], [node("Neg", ["a"], ["out"])], opsets)
    ]
    for i in range(1, 31):
        calls = [
            node(f"F{i - 1}", ["a"], ["b"], domain="local"),
            node(f"F{i - 1}", ["b"], ["out"], domain="local"),
        ]
        functions.append(helper.make_function("local", f"F{i}", ["a"], ["out"], calls, opsets))
    model = make_model(
        [node("F30", ["x"], ["y"], domain="local")],
        {"x": normal(1)},
        ["y"],
        opset_imports=opsets,
        functions=functions,
    )
    with pytest.raises(ModelError, match="operators"):
        import_onnx(model)


def test_sparse_bomb_is_refused() -> None:
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), "s"),
        numpy_helper.from_array(np.zeros(1, np.int64), "i"),
        [2**20, 2**20],
    )
    model = make_model([node("Neg", ["x"], ["y"])], {"x": normal(1)}, ["y"])
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelError, match="larger than its contents"):
        import_onnx(model)


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"\x89PNG\r\n\x1a\n" + b"x" * 100, b"{}"])
def test_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        import_onnx(path)


def test_missing_file_is_named() -> None:
    with pytest.raises(ModelError, match="no model file"):
        import_onnx("nowhere/model.onnx")


# Export ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [18, 21, 23])
def test_newer_operators_are_spelled_out(opset: int) -> None:
    x, scale = normal(2, 3, 8), normal(8, seed=1)
    model = make_model(
        [
            node("RMSNormalization", ["x", "s"], ["r"]),
            node("Gelu", ["r"], ["g"]),
            node("LayerNormalization", ["g", "s"], ["n"]),
            node("ReduceMean", ["n", "axes"], ["m"], keepdims=0),
            node("HardSwish", ["m"], ["y"]),
        ],
        {"x": x},
        ["y"],
        {"s": scale, "axes": np.array([1])},
        23,
    )
    exported = export_onnx(import_onnx(model), opset)
    assert exported.opset_import[0].version == opset
    onnx.checker.check_model(exported, full_check=True)
    want = ReferenceEvaluator(model).run(None, {"x": x})
    got = ReferenceEvaluator(exported).run(None, {"x": x})
    np.testing.assert_allclose(got[0], want[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [13, 17])
def test_inputs_become_attributes_again(opset: int) -> None:
    x = normal(2, 3, 8)
    nodes = [
        node("Split", ["x"], ["a", "b"], axis=2, num_outputs=2),
        node("ReduceMean", ["a", "axes"], ["m"], keepdims=0),
        node("ReduceMax", ["b"], ["n"]),
        node("Add", ["m", "n"], ["s"]),
        node("HardSwish", ["s"], ["h"]),
        node("Reshape", ["h", "flat"], ["y"], allowzero=1),
    ]
    constants = {"axes": np.array([1]), "flat": np.array([-1])}
    model = make_model(nodes, {"x": x}, ["y"], constants)
    exported = export_onnx(import_onnx(model), opset)
    onnx.checker.check_model(exported, full_check=True)
    assert_same(ort_run(exported, {"x": x}), ort_run(model, {"x": x}))


def test_what_an_opset_cannot_say_is_named() -> None:
    model = make_model(
        [node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])],
        {"x": normal(1, 1, 8, 8)},
        ["y"],
    )
    graph = import_onnx(model)
    with pytest.raises(UnsupportedError, match="dilations"):
        export_onnx(graph, 17)
    with pytest.raises(UnsupportedError, match="opset"):
        export_onnx(graph, 5)


def test_export_leaves_the_graph_alone() -> None:
    model = make_model([node("Add", ["x", "b"], ["y"])], {"x": normal(2)}, ["y"], {"b": normal(2)})
    graph = import_onnx(model)
    before = (list(graph.nodes), dict(graph.constants), dict(graph.values))
    export_onnx(graph, 13)
    assert before == (list(graph.nodes), dict(graph.constants), dict(graph.values))
