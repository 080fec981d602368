"""Models with tensors that only Python holds: strings, sequences, optionals, maps."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lepton_rt
from lepton_rt.errors import InputError, ModelError, UnsupportedError
from lepton_rt.graph.onnx_kinds import kind_of, type_of

pytestmark = pytest.mark.filterwarnings("ignore:.*no native kernel:RuntimeWarning")

node = helper.make_node
tensor = helper.make_tensor_value_info
sequence = helper.make_tensor_sequence_value_info
F32, STRING, I64 = TensorProto.FLOAT, TensorProto.STRING, TensorProto.INT64


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray] | None = None,
    **domains: int,
) -> onnx.ModelProto:
    initializers = [onnx.numpy_helper.from_array(a, n) for n, a in (constants or {}).items()]
    imports = [helper.make_opsetid("", 21)]
    imports += [helper.make_opsetid(d.replace("_", "."), v) for d, v in domains.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def concat_words() -> onnx.ModelProto:
    """Strings in and out, a constant among them, and a native step beside."""
    return model(
        [node("StringConcat", ["a", "suffix"], ["b"]), node("Relu", ["x"], ["y"])],
        [tensor("a", STRING, ["n"]), tensor("x", F32, [2])],
        [tensor("b", STRING, ["n"]), tensor("y", F32, [2])],
        {"suffix": np.array(["!"], object)},
    )


def test_strings_go_in_and_out() -> None:
    session = lepton_rt.Session(concat_words())
    x = np.array([-1, 2], np.float32)
    words, y = session.run(["one", "zwei"], x)
    assert words.tolist() == ["one!", "zwei!"]
    assert words.dtype == object
    np.testing.assert_array_equal(y, [0, 2])
    assert [step.is_host for step in session.explain()] == [True, False]
    assert "string" in session.explain()[0].dtypes
    assert str(session.inputs[0]) == "a: object [n]"


@pytest.mark.parametrize("given", [[1, 2], np.zeros(2, np.float32), [["a"]], [object()], [None]])
def test_what_is_no_vector_of_strings_is_refused(given: object) -> None:
    session = lepton_rt.Session(concat_words())
    with pytest.raises(InputError, match='"a"'):
        session.run(given, np.zeros(2, np.float32))


def test_out_is_for_numbers() -> None:
    session = lepton_rt.Session(concat_words())
    x, y = np.ones(2, np.float32), np.zeros(2, np.float32)
    session.run(["a"], x, out=[None, y])
    np.testing.assert_array_equal(y, x)
    with pytest.raises(InputError, match="numbers only"):
        session.run(["a"], x, out=[np.array(["a"], object), None])


def sequence_model() -> onnx.ModelProto:
    """A sequence in, a longer one out, and one of its tensors through a native step."""
    return model(
        [
            node("SequenceInsert", ["s", "x"], ["t"]),
            node("SequenceAt", ["t", "i"], ["a"]),
            node("Mul", ["a", "x"], ["y"]),
        ],
        [sequence("s", F32, None), tensor("x", F32, [2])],
        [sequence("t", F32, None), tensor("y", F32, [2])],
        {"i": np.int64(0).reshape(())},
    )


@pytest.mark.parametrize("optimise", [True, False])
def test_sequences_go_in_and_out(optimise: bool) -> None:
    session = lepton_rt.Session(sequence_model(), optimise=optimise)
    assert session.inputs[0].kind == "seq(tensor(float))"
    assert str(session.inputs[0]) == "s: seq(tensor(float))"
    given = [np.array([3, 4], np.float32), np.zeros(5, np.float32)]
    x = np.array([2, 5], np.float32)
    longer, y = session.run(given, x)
    assert [a.tolist() for a in longer] == [[3, 4], [0] * 5, [2, 5]]
    assert len(given) == 2
    np.testing.assert_array_equal(y, [6, 20])
    for wrong in (x, None, {"a": 1}, [None]):
        with pytest.raises(InputError, match='"s" expects'):
            session.run(wrong, x)


def test_threads_do_not_mix_their_objects() -> None:
    session = lepton_rt.Session(sequence_model())
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(50):
            x = np.full(2, number, np.float32)
            longer, _ = session.run([x + 1], x)
            if longer[0][0] != number + 1 or longer[1][0] != number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_optionals_may_be_missing() -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(F32, ["n"]))
    has = model(
        [node("OptionalHasElement", ["o"], ["h"])],
        [helper.make_value_info("o", kind)],
        [tensor("h", TensorProto.BOOL, [])],
    )
    session = lepton_rt.Session(has)
    assert session.run({"o": None}) == False  # noqa: E712 - a 0-d array
    assert session.run(np.ones(3, np.float32)) == True  # noqa: E712


def test_a_constant_of_strings_can_be_an_output() -> None:
    both = model(
        [node("Relu", ["x"], ["y"])],
        [tensor("x", F32, [1])],
        [tensor("y", F32, [1]), tensor("names", STRING, [2])],
        {"names": np.array(["cat", "dog"], object)},
    )
    assert lepton_rt.Session(both).run(np.ones(1, np.float32))[1].tolist() == ["cat", "dog"]


def test_a_classifier_with_labels_runs(tmp_path: Path) -> None:
    """The machine-learning domain: labels by name after native arithmetic; saved and read again."""
    labels = model(
        [
            node("ArgMax", ["x"], ["k"], axis=1, keepdims=0),
            node(
                "LabelEncoder", ["k"], ["name"], domain="ai.onnx.ml",
                keys_int64s=[0, 1, 2], values_strings=["cat", "dog", "eel"],
            ),
        ],
        [tensor("x", F32, ["n", 3])],
        [tensor("name", STRING, ["n"])],
        ai_onnx_ml=4,
    )  # fmt: skip
    x = np.array([[0, 5, 1], [9, 0, 0]], np.float32)
    graph = lepton_rt.import_onnx(labels)
    assert graph.opsets["ai.onnx.ml"] == 4
    lepton_rt.save_lepton(graph, tmp_path / "m.lepton")
    for source in (labels, tmp_path / "m.lepton", lepton_rt.export_onnx(graph)):
        assert lepton_rt.Session(source).run(x).tolist() == ["dog", "cat"]


def test_sequences_survive_files(tmp_path: Path) -> None:
    graph = lepton_rt.import_onnx(sequence_model())
    lepton_rt.save_lepton(graph, tmp_path / "m.lepton")
    again = lepton_rt.load_lepton(tmp_path / "m.lepton")
    assert again.inputs == graph.inputs
    x = np.ones(2, np.float32)
    for source in (tmp_path / "m.lepton", lepton_rt.export_onnx(graph)):
        assert len(lepton_rt.Session(source).run([x], x)[0]) == 2


def test_an_unknown_operator_of_a_known_domain_is_named() -> None:
    unknown = model(
        [node("Oracle", ["x"], ["y"], domain="ai.onnx.ml")],
        [tensor("x", F32, [1])],
        [tensor("y", F32, [1])],
        ai_onnx_ml=4,
    )
    with pytest.raises(ModelError, match=r"'Oracle' of domain 'ai\.onnx\.ml'"):
        lepton_rt.Session(unknown)


@pytest.mark.parametrize(
    "kind",
    [
        "tensor(float)",
        "seq(tensor(string))",
        "optional(seq(tensor(int64)))",
        "seq(map(int64,tensor(float)))",
        "map(string,seq(tensor(double)))",
    ],
)
def test_types_as_text(kind: str) -> None:
    assert kind_of(type_of(kind), "it") == kind


@pytest.mark.parametrize("kind", ["", "tensor()", "tensor(flot)", "seq(tensor(float)", "map(a)"])
def test_what_is_no_type_is_refused(kind: str) -> None:
    with pytest.raises(ModelError):
        type_of(kind)


def test_incomplete_and_deep_types_are_refused() -> None:
    proto = onnx.TypeProto()
    proto.sequence_type.SetInParent()
    with pytest.raises(ModelError, match="incomplete"):
        kind_of(proto, "it")
    inner = proto
    for _ in range(12):
        inner = inner.sequence_type.elem_type
    inner.tensor_type.elem_type = F32
    with pytest.raises(ModelError, match="deep"):
        kind_of(proto, "it")
    proto.sparse_tensor_type.elem_type = F32
    with pytest.raises(UnsupportedError, match="sparse_tensor"):
        kind_of(proto, "it")
