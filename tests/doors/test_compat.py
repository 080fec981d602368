"""The same code runs on ONNX Runtime and on lepton_rt.compat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper

from lepton_rt import InputError, compat


def model() -> Any:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 4)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Relu", ["product"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["best"], axis=-1, keepdims=0),
        helper.make_node("And", ["flag", "flag"], ["same"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [info("x", TensorProto.FLOAT, ["rows", 6]), info("flag", TensorProto.BOOL, [2, None])],
        [
            info("y", TensorProto.FLOAT, ["rows", 4]),
            info("best", TensorProto.INT64, ["rows"]),
            info("same", TensorProto.BOOL, [2, None]),
        ],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, {"labels": "a,b"})
    return proto


def use(runtime: Any, source: Any, folder: Path) -> dict[str, Any]:
    """Code as people write it against ONNX Runtime; everything it learns."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "trace")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    feeds = {
        "x": rng.standard_normal((5, 6)).astype(np.float32),
        "flag": rng.integers(0, 2, (2, 3)).astype(bool),
    }
    values = {n: runtime.OrtValue.ortvalue_from_numpy(a) for n, a in feeds.items()}
    by_value = session.run_with_ort_values(["y"], values)[0]
    learnt = {
        "inputs": [(i.name, i.type, i.shape) for i in session.get_inputs()],
        "outputs": [(o.name, o.type, o.shape) for o in session.get_outputs()],
        "providers": session.get_providers(),
        "meta": session.get_modelmeta().custom_metadata_map,
        "graph": session.get_modelmeta().graph_name,
        "entry": session.get_session_options().get_session_config_entry(
            "session.intra_op.allow_spinning"
        ),
        "all": session.run(None, feeds),
        "empty": session.run([], feeds, runtime.RunOptions()),
        "some": session.run(["best", "y"], feeds, run_options=None),
        "value": (by_value.numpy(), by_value.shape(), by_value.data_type()),
    }
    trace = json.loads(Path(session.end_profiling()).read_text())
    learnt["runs"] = sum(e["name"] == "model_run" and e["dur"] >= 0 for e in trace)
    return learnt


def same(got: Any, want: Any) -> None:
    assert type(got) is type(want)
    if isinstance(want, np.ndarray):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    elif isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for g, w in zip(got, want):
            same(g, w)
    else:
        assert got == want


@pytest.mark.parametrize("form", ["bytes", "path", "Path"])
def test_one_import_changes(form: str, tmp_path: Path) -> None:
    source: Any = model().SerializeToString()
    if form != "bytes":
        path = tmp_path / "model.onnx"
        path.write_bytes(source)
        source = str(path) if form == "path" else path
    got, want = use(compat, source, tmp_path), use(ort, source, tmp_path)
    assert got.keys() == want.keys()
    for key in want:
        same(got[key], want[key])


def test_levels_and_errors() -> None:
    options = compat.SessionOptions()
    options.graph_optimization_level = compat.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = compat.InferenceSession(model().SerializeToString(), sess_options=options)
    quick = compat.InferenceSession(model().SerializeToString())
    assert " product " in str(plain.session.explain())
    assert " product " not in str(quick.session.explain())
    feeds = {"x": np.zeros((1, 6), np.float32), "flag": np.zeros((2, 1), bool)}
    with pytest.raises(InputError, match="no output z"):
        quick.run(["z"], feeds)
    with pytest.raises(InputError, match="missing: flag"):
        quick.run(None, {"x": feeds["x"]})
    with pytest.raises(InputError, match="'cuda'"):
        compat.OrtValue.ortvalue_from_numpy(feeds["x"], "cuda", 0)


def test_types_are_spelt_alike() -> None:
    kinds = ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "UINT8", "INT16",
                         "UINT16", "INT32", "UINT32", "INT64", "UINT64", "BOOL"]  # fmt: skip
    info = helper.make_tensor_value_info
    codes = {name.lower(): getattr(TensorProto, name) for name in kinds}
    graph = helper.make_graph(
        [helper.make_node("Identity", [n], [f"{n}_out"]) for n in codes],
        "identities",
        [info(n, code, [1]) for n, code in codes.items()],
        [info(f"{n}_out", code, [1]) for n, code in codes.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = proto.SerializeToString()
    got = [i.type for i in compat.InferenceSession(data).get_inputs()]
    assert got == [i.type for i in ort.InferenceSession(data).get_inputs()]
