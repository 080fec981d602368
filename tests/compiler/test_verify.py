"""verify(): each rule, broken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from lepton_rt import ModelError
from lepton_rt.graph.ir import LEPTON_DOMAIN, OPSET, Constant, Graph, Node, Value
from lepton_rt.graph.operators import operators
from lepton_rt.graph.verify import verify

F = np.dtype(np.float32)


def good() -> Graph:
    inner = Graph(outputs={"t": Value(F)}, nodes=[Node("Neg", ["b"], ["t"])])
    return Graph(
        inputs={"x": Value(F, ("n", 4)), "c": Value(np.dtype(bool), ())},
        outputs={"y": Value(F, ("n", 4))},
        nodes=[
            Node("Add", ["x", "k"], ["a"]),
            Node("Relu", ["a"], ["b"]),
            Node("If", ["c"], ["y"], {"then_branch": inner, "else_branch": inner}),
        ],
        constants={"k": Constant.of(np.ones(4, F))},
        values={"a": Value(F, ("n", 4))},
    )


def test_good_graph_passes() -> None:
    verify(good())


def nested(depth: int) -> Graph:
    plain = graph = Graph(outputs={"x": Value(F)}, nodes=[])
    for _ in range(depth):
        attrs = {"then_branch": graph, "else_branch": plain}
        graph = Graph(outputs={"o": Value(F)}, nodes=[Node("If", ["c"], ["o"], dict(attrs))])
    return graph


def deep(graph: Graph) -> None:
    graph.nodes[2].attrs["then_branch"] = nested(40)


BREAKS: dict[str, tuple[Callable[[Graph], object], str]] = {
    "order": (lambda g: g.nodes.reverse(), "before anything makes it"),
    "unknown input": (lambda g: g.nodes[0].inputs.__setitem__(0, "q"), "'q'"),
    "two producers": (lambda g: g.nodes[1].outputs.__setitem__(0, "a"), "twice"),
    "overwrites constant": (lambda g: g.nodes[1].outputs.__setitem__(0, "k"), "twice"),
    "overwrites input": (lambda g: g.nodes[1].outputs.__setitem__(0, "x"), "twice"),
    "input is constant": (
        lambda g: g.inputs.__setitem__("k", Value(F, (4,))),
        "both an input and a constant",
    ),
    "missing output": (lambda g: g.outputs.__setitem__("q", Value(F)), "'q'"),
    "domain": (lambda g: setattr(g.nodes[0], "domain", "other"), "'other'"),
    "lepton operator": (lambda g: setattr(g.nodes[0], "domain", LEPTON_DOMAIN), "lepton.Add"),
    "no outputs": (lambda g: setattr(g.nodes[0], "outputs", [""]), "no outputs"),
    "no operator": (lambda g: setattr(g.nodes[0], "op", ""), "malformed"),
    "attribute": (lambda g: g.nodes[0].attrs.__setitem__("a", {"b": 1}), "'a'"),  # type: ignore[call-overload]
    "mixed list": (lambda g: g.nodes[0].attrs.__setitem__("a", [1, "b"]), "'a'"),  # type: ignore[call-overload]
    "constant dtype": (lambda g: setattr(g.constants["k"], "dtype", np.dtype("i8")), "'k'"),
    "constant shape": (lambda g: setattr(g.constants["k"], "shape", (5,)), "'k'"),
    "negative shape": (lambda g: setattr(g.constants["k"], "shape", (-4,)), "impossible"),
    "huge shape": (lambda g: setattr(g.constants["k"], "shape", (2**40, 2**40)), "'k'"),
    "encoding": (lambda g: setattr(g.constants["k"], "encoding", "odd"), "'odd'"),
    "parts": (lambda g: g.constants["k"].parts.clear(), "'k'"),
    "value shape": (lambda g: g.values.__setitem__("a", Value(F, (-3,))), "impossible"),
    "subgraph capture": (
        lambda g: g.nodes[2].attrs["then_branch"].nodes[0].inputs.__setitem__(0, "q"),  # type: ignore[union-attr]
        "'q'",
    ),
    "depth": (deep, "deep"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_graphs_are_refused(name: str) -> None:
    change, says = BREAKS[name]
    graph = good()
    change(graph)
    with pytest.raises(ModelError, match=says):
        verify(graph)


def test_the_table_of_operators_is_onnx_own() -> None:
    names = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    letters = {"Single": "r", "Optional": "o", "Variadic": "v"}
    kinds = {"INT": "i", "FLOAT": "f", "STRING": "s", "TENSOR": "t", "GRAPH": "g"}
    kinds.update({f"{name}S": kind.upper() for name, kind in kinds.items()})
    kinds["TYPE_PROTO"] = "s"  # as text
    seen = set()
    for name in names:
        if not onnx.defs.has(name, OPSET, ""):
            continue
        schema = onnx.defs.get_schema(name, OPSET, "")
        if schema.deprecated:
            continue
        seen.add(name)
        operator = operators()[name]
        for own, theirs in ((operator.inputs, schema.inputs), (operator.outputs, schema.outputs)):
            assert own.replace("w", "v") == "".join(letters[p.option.name] for p in theirs), name
        assert (operator.inputs[-1:] == "w") == (
            operator.inputs[-1:] in ("v", "w") and schema.min_input < len(schema.inputs)
        ), name
        want = {a: kinds.get(v.type.name, "?") for a, v in schema.attributes.items()}
        assert operator.attrs == want, name
    assert operators().keys() == seen


@pytest.mark.parametrize(
    "made",
    [
        Node("Mystery", ["x"], ["o"]),
        Node("Conv", ["x"], ["o"]),
        Node("Conv", ["x", ""], ["o"]),
        Node("Relu", ["x", "x"], ["o"]),
        Node("Concat", [], ["o"], {"axis": 0}),
        Node("Relu", ["x"], ["o", "p"]),
        Node("Softmax", ["x"], ["o"], {"axis": "last"}),
        Node("Softmax", ["x"], ["o"], {"axes": 1}),
        Node("MaxPool", ["x"], ["o"], {"kernel_shape": 3}),
        Node("MaxPool", ["x"], ["o"], {"kernel_shape": [1.5]}),
    ],
)
def test_standard_operators_are_held_to_their_schema(made: Node) -> None:
    graph = good()
    graph.nodes.append(made)
    with pytest.raises(ModelError, match=made.op):
        verify(graph)
