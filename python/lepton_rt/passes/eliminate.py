"""Removes what changes nothing: no-op operators, dead code, constants that say the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from lepton_rt.graph.inference.context import element_dtype
from lepton_rt.graph.ir import (
    LEPTON_DOMAIN,
    Graph,
    Node,
    Value,
    node_reads,
    static_dims,
    subgraphs,
)

from .attributes import int_attr, ints_attr

__all__ = ["eliminate"]

# Larger constants are not compared: hashing a model's weights would cost more than it saves.
_SHARED_BYTES = 4096


def eliminate(graph: Graph) -> Graph:
    """The graph without operators that hand their input on, dead nodes and repeated constants.

    Inputs and outputs keep their names, also where an output was made by a removed operator.
    """
    result = graph.copy()
    _drop_unread_outputs(result)
    names = _pass_through(result)
    names.update(_shared_constants(result))
    _rename(result, names)
    _drop_dead(result)
    return result


# Optional outputs ------------------------------------------------------------------------------

# Operators whose outputs after the first may be left out.
_OPTIONAL_OUTPUTS = {
    "Attention",
    "BatchNormalization",
    "Dropout",
    "DynamicQuantizeGRU",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeRNN",
    "GRU",
    "LSTM",
    "LayerNormalization",
    "MaxPool",
    "RNN",
}


def _drop_unread_outputs(graph: Graph) -> None:
    reads = _reads(graph)
    for node in graph.nodes:
        if node.op in _OPTIONAL_OUTPUTS and node.domain in ("", LEPTON_DOMAIN):
            while len(node.outputs) > 1 and node.outputs[-1] not in reads:
                node.outputs.pop()


# No-op operators -------------------------------------------------------------------------------


def _pass_through(graph: Graph) -> dict[str, str]:
    """Drops no-op nodes; returns the tensor that stands for each output of theirs."""
    names: dict[str, str] = {}
    producers = graph.producers()
    captured = {name for node in graph.nodes for g in subgraphs(node) for name in _reads(g)}
    kept: list[Node] = []
    for node in graph.nodes:
        if not _is_noop(node, graph):
            kept.append(node)
            continue
        source, target = node.inputs[0], node.outputs[0]
        source = names.get(source, source)
        if target not in graph.outputs:
            names[target] = source
        elif source in producers and source not in graph.outputs and source not in captured:
            # The output's name is part of the model: its maker takes it over.
            maker = producers[source]
            maker.outputs = [target if name == source else name for name in maker.outputs]
            producers[target] = maker
            names[source] = target
            names.update({k: target for k, v in names.items() if v == source})
        else:
            kept.append(node)
    graph.nodes = kept
    return names


def _reads(graph: Graph) -> set[str]:
    reads = {name for node in graph.nodes for name in node_reads(node)}
    return reads | set(graph.outputs)


def _is_noop(node: Node, graph: Graph) -> bool:
    test = _NOOPS.get(node.op) if not node.domain else None
    if test is None or not node.inputs or not node.inputs[0] or any(node.outputs[1:]):
        return False
    x, y = graph.value(node.inputs[0]), graph.value(node.outputs[0])
    return x is not None and (y is None or y.dtype == x.dtype) and test(node, graph, x)


def _always(_: Node, __: Graph, ___: Value) -> bool:
    return True


def _dropout(node: Node, graph: Graph, _: Value) -> bool:
    if len(node.inputs) < 3 or not node.inputs[2]:
        return True
    training = graph.array(node.inputs[2])
    return training is not None and not training.any()


def _cast(node: Node, _: Graph, x: Value) -> bool:
    return element_dtype(int_attr(node, "to", 0)) == x.dtype


def _transpose(node: Node, _: Graph, x: Value) -> bool:
    if x.rank is None:
        return False
    identity = list(range(x.rank))
    return ints_attr(node, "perm", identity[::-1]) == identity


def _same_shape(node: Node, graph: Graph, x: Value) -> bool:
    y = graph.value(node.outputs[0])
    dims = static_dims(x.shape)
    return dims is not None and y is not None and static_dims(y.shape) == dims


def _alone(node: Node, _: Graph, __: Value) -> bool:
    return len(node.inputs) == 1


def _no_padding(node: Node, graph: Graph, _: Value) -> bool:
    pads = graph.array(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    return pads is not None and not pads.any()


_NOOPS: dict[str, Callable[[Node, Graph, Value], bool]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "Transpose": _transpose,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Expand": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Concat": _alone,
    "Sum": _alone,
    "Mean": _alone,
    "Max": _alone,
    "Min": _alone,
    "Pad": _no_padding,
}


# Constants and dead code -----------------------------------------------------------------------


def _shared_constants(graph: Graph) -> dict[str, str]:
    """Small constants that repeat an earlier one, and which one."""
    names: dict[str, str] = {}
    first: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    for name, constant in graph.constants.items():
        small = constant.nbytes <= _SHARED_BYTES and not constant.dtype.hasobject
        if constant.encoding != "dense" or not small or name in graph.outputs:
            continue
        data = np.ascontiguousarray(constant.dense()).tobytes()
        key = (constant.dtype.name, constant.shape, hashlib.sha256(data).digest())
        if first.setdefault(key, name) != name:
            names[name] = first[key]
    return names


def _rename(graph: Graph, names: dict[str, str]) -> None:
    """Makes every reader read the new names, in subgraphs too."""
    if not names:
        return
    for node in graph.nodes:
        node.inputs = [names.get(name, name) for name in node.inputs]
        if any(True for _ in subgraphs(node)):
            node.attrs = {
                key: _renamed_subgraph(value, names) if isinstance(value, Graph) else value
                for key, value in node.attrs.items()
            }


def _renamed_subgraph(graph: Graph, names: dict[str, str]) -> Graph:
    result = graph.copy()
    own = set(result.inputs) | set(result.constants)
    own.update(name for node in result.nodes for name in node.outputs)
    visible = {old: new for old, new in names.items() if old not in own}
    _rename(result, visible)
    for name in [name for name in result.outputs if name in visible]:
        # An output that is a captured tensor keeps its name through an Identity.
        result.nodes.append(Node("Identity", [visible[name]], [name]))
    return result


def _drop_dead(graph: Graph) -> None:
    live = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(name in live for name in node.outputs):
            live.update(node_reads(node))
            kept.append(node)
    graph.nodes = kept[::-1]
    made = {name for node in graph.nodes for name in node.outputs}
    graph.constants = {name: c for name, c in graph.constants.items() if name in live}
    graph.values = {name: v for name, v in graph.values.items() if name in made}
