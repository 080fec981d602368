"""The .lepton file: what goes in comes out, it is valid safetensors, and lies are refused."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from compiler.onnx_models import normal
from lepton_rt import ModelError, UnsupportedError, import_onnx, load_lepton, save_lepton
from lepton_rt.graph.ir import LEPTON_DOMAIN, OLDEST_OPSET, OPSET, Constant, Graph, Node, Value
from sample_models import LIGHT_FOLDER

F = np.dtype(np.float32)
TYPES = "float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64"
NARROW = (
    "bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu int4 uint4 "
    "float4_e2m1fn int2 uint2"
)


def same_graph(a: Graph, b: Graph) -> None:
    assert (a.name, a.inputs, a.outputs, a.opsets) == (b.name, b.inputs, b.outputs, b.opsets)
    assert a.metadata == b.metadata
    assert list(a.constants) == list(b.constants)
    for name, constant in a.constants.items():
        other = b.constants[name]
        assert (constant.dtype, constant.shape, constant.encoding, constant.meta) == (
            other.dtype, other.shape, other.encoding, other.meta,
        )  # fmt: skip
        assert constant.dense().tobytes() == other.dense().tobytes()
    for x, y in zip(a.nodes, b.nodes, strict=True):
        assert (x.key, x.name, x.inputs, x.outputs) == (y.key, y.name, y.inputs, y.outputs)
        assert x.attrs.keys() == y.attrs.keys()
        for key, value in x.attrs.items():
            other = y.attrs[key]
            assert type(value) is type(other)
            if isinstance(value, Graph):
                same_graph(value, other)
            else:
                np.testing.assert_array_equal(value, other)


def sample() -> Graph:
    """Every kind of attribute, a subgraph, a lepton operator, metadata."""
    branch = Graph(
        name="branch",
        outputs={"t": Value(F, ("n", 4))},
        nodes=[Node("Mul", ["x", "k"], ["t"])],
        constants={"k": Constant.of(np.array(2, F))},
    )
    attrs: dict[str, Any] = {
        "i": -3,
        "f": 0.1,
        "inf": float("inf"),
        "nan": float("nan"),
        "s": "text ☃",
        "is": [1, 2],
        "fs": [0.5, float("-inf")],
        "ss": ["a", ""],
        "t": np.arange(3, dtype=np.int16),
        "none": [],
    }
    return Graph(
        name="sample",
        inputs={"x": Value(F, ("n", 4)), "c": Value(np.dtype(bool), ())},
        outputs={"y": Value(F, ("n", 4)), "z": Value(F, ("n", 4))},
        nodes=[
            Node("If", ["c"], ["y"], {"then_branch": branch, "else_branch": branch}, "", "choice"),
            Node("MatMul", ["x", "w", "", ""], ["m"], attrs, LEPTON_DOMAIN),
            Node("Relu", ["m"], ["z"]),
        ],
        constants={"w": Constant.of(normal(4, 4))},
        values={"m": Value(F, ("n", 4))},
        metadata={"author": "someone"},
    )


def test_round_trip(tmp_path: Path) -> None:
    graph = sample()
    path = tmp_path / "sample.lepton"
    save_lepton(graph, path)
    same_graph(graph, load_lepton(path))
    same_graph(graph, load_lepton(path.read_bytes()))
    assert [p.name for p in tmp_path.iterdir()] == ["sample.lepton"]


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet"])
def test_imported_models_round_trip(name: str, tmp_path: Path) -> None:
    graph = import_onnx(LIGHT_FOLDER / f"{name}.onnx")
    save_lepton(graph, tmp_path / "m.lepton")
    again = load_lepton(tmp_path / "m.lepton")
    same_graph(graph, again)
    assert again.values == graph.values


def test_it_is_a_safetensors_file(tmp_path: Path) -> None:
    save_lepton(sample(), tmp_path / "m.lepton")
    tensors = safetensors.numpy.load_file(tmp_path / "m.lepton")
    np.testing.assert_array_equal(tensors["w"], normal(4, 4))


@pytest.mark.parametrize("name", [*TYPES.split(), *NARROW.split()])
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 2)])
def test_element_types(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    dtype = np.dtype(name) if name in TYPES.split() else np.dtype(getattr(ml_dtypes, name))
    array = np.random.default_rng(0).integers(-1 if name == "int2" else 0, 2, shape).astype(dtype)
    if dtype.name == "int4" and shape:
        array = np.resize(np.arange(-8, 8), shape).astype(dtype)
    graph = Graph(
        outputs={"y": Value(dtype, shape)},
        nodes=[Node("Identity", ["w"], ["y"])],
        constants={"w": Constant.of(array)},
    )
    save_lepton(graph, tmp_path / "m.lepton")
    loaded = load_lepton(tmp_path / "m.lepton").constants["w"].dense()
    assert loaded.dtype == dtype
    assert loaded.shape == shape
    np.testing.assert_array_equal(loaded.astype(np.complex128), array.astype(np.complex128))


def test_four_bit_weights_take_half_a_byte(tmp_path: Path) -> None:
    array = np.zeros(1 << 16, ml_dtypes.int4)
    graph = Graph(
        outputs={"y": Value(array.dtype, array.shape)},
        nodes=[Node("Identity", ["w"], ["y"])],
        constants={"w": Constant.of(array)},
    )
    save_lepton(graph, tmp_path / "m.lepton")
    assert (tmp_path / "m.lepton").stat().st_size < (1 << 15) + 2000


def test_strings(tmp_path: Path) -> None:
    array = np.array([["a", "snow ☃"]], object)
    graph = Graph(
        outputs={"y": Value(array.dtype, (1, 2))},
        nodes=[Node("Identity", ["w"], ["y"])],
        constants={"w": Constant.of(array)},
    )
    save_lepton(graph, tmp_path / "m.lepton")
    assert load_lepton(tmp_path / "m.lepton").constants["w"].dense().tolist() == array.tolist()


def test_weights_are_mapped(tmp_path: Path) -> None:
    save_lepton(sample(), tmp_path / "m.lepton")
    weight = load_lepton(tmp_path / "m.lepton").constants["w"].dense()
    assert not weight.flags.owndata
    assert not weight.flags.writeable
    assert weight.flags.aligned


def test_saving_over_the_file_a_graph_came_from(tmp_path: Path) -> None:
    path = tmp_path / "m.lepton"
    save_lepton(sample(), path)
    save_lepton(load_lepton(path), path)
    same_graph(sample(), load_lepton(path))


def test_loading_needs_neither_onnx_nor_torch(tmp_path: Path) -> None:
    save_lepton(sample(), tmp_path / "m.lepton")
    code = (
        "import sys, lepton_rt; lepton_rt.load_lepton(sys.argv[1]); "
        "print([m for m in ('onnx', 'torch', 'google.protobuf') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.lepton")], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_foreign_operators_are_not_saved(tmp_path: Path) -> None:
    graph = sample()
    graph.opsets["com.example"] = 1
    with pytest.raises(UnsupportedError, match="example"):
        save_lepton(graph, tmp_path / "m.lepton")


# Files that lie --------------------------------------------------------------------------------


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def split(path: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["lepton"]), raw[8 + length :]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_lepton(sample(), tmp_path / "m.lepton")
    return tmp_path / "m.lepton"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        file_of(b"nonsense"),
        file_of(b"\xff\xfe"),
        file_of([]),
        file_of({}),
        file_of({"__metadata__": 3}),
        file_of({"__metadata__": {"lepton": 3}}),
        file_of({"__metadata__": {"lepton": "{}"}}),
        file_of({"__metadata__": {"lepton": "[" * 100_000}}),
        file_of(b"[" * 1_000_000),
        file_of({"__metadata__": {"lepton": "{}"}}, b"left over"),
    ],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        load_lepton(data)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F33"},
        {"dtype": 7},
        {"shape": [4, -4]},
        {"shape": [2**62, 2**62]},
        {"shape": [4, 5]},
        {"shape": 16},
        {"shape": [True, 16]},
        {"shape": [1] * 100},
        {"data_offsets": [0, 10**9]},
        {"data_offsets": [8, 4]},
        {"data_offsets": [-4, 60]},
        {"data_offsets": [0]},
        {"data_offsets": None},
    ],
)
def test_tensor_entries_that_lie_are_refused(saved: Path, entry: dict[str, Any]) -> None:
    header, _, data = split(saved)
    header["w"].update(entry)
    with pytest.raises(ModelError):
        load_lepton(file_of(header, data))


def test_overlapping_tensors_are_refused() -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    with pytest.raises(ModelError, match="overlap"):
        load_lepton(file_of({"a": entry, "b": entry}, bytes(8)))


def change(document: dict[str, Any], path: str, value: Any) -> None:
    target: Any = document
    *steps, final = [int(p) if p.isdigit() else p for p in path.split("/")]
    for step in steps:
        target = target[step]
    target[final] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", "1"),
        ("version", 0),
        ("opsets", {"": 1}),
        ("opsets", []),
        ("graph", []),
        ("graph/name", 3),
        ("graph/nodes", 3),
        ("graph/nodes/1/op", None),
        ("graph/nodes/1/op", "Mystery"),
        ("graph/nodes/1/domain", "com.example"),
        ("graph/nodes/1/inputs", ["x", 3]),
        ("graph/nodes/1/inputs", ["x", "nowhere"]),
        ("graph/nodes/1/inputs", ["z", "w"]),
        ("graph/nodes/1/inputs", ["x"]),
        ("graph/nodes/1/outputs", []),
        ("graph/nodes/1/outputs", ["x"]),
        ("graph/nodes/1/attrs/i", {"int": 2**70}),
        ("graph/nodes/1/attrs/i", {"float": "one"}),
        ("graph/nodes/1/attrs/i", {"mystery": 1}),
        ("graph/nodes/1/attrs/i", 3),
        ("graph/nodes/1/attrs/t/tensor/tensor", "nowhere"),
        ("graph/nodes/1/attrs/t/tensor/shape", [4]),
        ("graph/constants/w/dtype", "float64"),
        ("graph/constants/w/dtype", "float99"),
        ("graph/constants/w/shape", [4, 5]),
        ("graph/constants/w/shape", [-1, 4]),
        ("graph/constants/w/encoding", "mystery"),
        ("graph/constants/w/parts", {}),
        ("graph/constants/w/parts/data/dtype", "int32"),
        ("graph/constants/w/parts/data/tensor", 3),
        ("graph/inputs/0", ["x", "float32", [-4]]),
        ("graph/inputs/0", ["x", "float32", [2**63]]),
        ("graph/inputs/0", ["w", "float32", [4, 4]]),
        ("graph/inputs/0", ["x"]),
        ("graph/inputs/1", ["x", "float32", [4]]),
        ("graph/outputs/0", ["nowhere", "float32", None]),
        ("graph/outputs/0", ["y", "int8", None]),
        ("graph/metadata", {"a": 1}),
    ],
)
def test_graphs_that_lie_are_refused(saved: Path, path: str, value: Any) -> None:
    header, document, data = split(saved)
    change(document, path, value)
    header["__metadata__"]["lepton"] = json.dumps(document)
    with pytest.raises(ModelError):
        load_lepton(file_of(header, data))


@pytest.mark.parametrize(
    ("path", "value"), [("version", 2), ("opsets/", OPSET + 1), ("opsets/lepton", 2)]
)
def test_newer_files_say_so(saved: Path, path: str, value: int) -> None:
    header, document, data = split(saved)
    change(document, path, value)
    header["__metadata__"]["lepton"] = json.dumps(document)
    with pytest.raises(ModelError, match="newer version"):
        load_lepton(file_of(header, data))


def test_deep_graphs_are_refused(saved: Path) -> None:
    header, document, data = split(saved)
    inner = document["graph"]
    for _ in range(60):
        outer = json.loads(json.dumps(document["graph"]))
        outer["nodes"][0]["attrs"]["then_branch"] = {"graph": inner}
        inner = outer
    document["graph"] = inner
    header["__metadata__"]["lepton"] = json.dumps(document)
    with pytest.raises(ModelError, match="deep"):
        load_lepton(file_of(header, data))


def test_every_truncation_is_refused(saved: Path) -> None:
    data = saved.read_bytes()
    for end in range(0, len(data), 7):
        with pytest.raises(ModelError):
            load_lepton(data[:end])


def test_files_of_an_older_opset_are_read(tmp_path: Path) -> None:
    graph = Graph(
        inputs={"x": Value(np.dtype(np.float32), (2,))},
        outputs={"y": Value(np.dtype(np.float32), (2,))},
        nodes=[Node("Relu", ["x"], ["y"])],
    )
    graph.opsets[""] = OLDEST_OPSET
    save_lepton(graph, tmp_path / "old.lepton")
    assert load_lepton(tmp_path / "old.lepton").opsets[""] == OPSET
    graph.opsets[""] = OLDEST_OPSET - 1
    save_lepton(graph, tmp_path / "ancient.lepton")
    with pytest.raises(ModelError, match="unknown version"):
        load_lepton(tmp_path / "ancient.lepton")
