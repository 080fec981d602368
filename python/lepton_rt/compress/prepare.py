"""A float graph made ready for quantisation: constants folded, batch norms gone, Gelu whole."""

from __future__ import annotations

from lepton_rt.graph.ir import LEPTON_DOMAIN, Graph, Node
from lepton_rt.graph.types import infer_types
from lepton_rt.passes.eliminate import eliminate
from lepton_rt.passes.fold_constants import fold_constants
from lepton_rt.passes.fuse_batch_norm import fuse_batch_norm
from lepton_rt.passes.recognise_gelu import recognise_gelu
from lepton_rt.passes.recognise_shuffle import recognise_shuffle


def prepare(graph: Graph) -> Graph:
    """Folds constants, batch norms, channel shuffles and Gelu; only ONNX operators remain.

    Tensors that are still computed keep their names. What a Gelu is spelt out in would otherwise be
    rounded to 8 bits after each operator.
    """
    plain = recognise_shuffle(eliminate(fold_constants(infer_types(graph))))
    plain = recognise_gelu(plain)
    return _without_fused_bias(graph, fuse_batch_norm(plain))


def _without_fused_bias(original: Graph, graph: Graph) -> Graph:
    """Writes a matrix product with bias as ONNX does: MatMul, then Add."""
    producers = original.producers()
    result = graph.copy()
    result.nodes = []
    for node in graph.nodes:
        if node.key != f"{LEPTON_DOMAIN}.MatMul":
            result.nodes.append(node)
            continue
        if not any(node.inputs[2:]):
            plain = Node("MatMul", node.inputs[:2], list(node.outputs), name=node.name)
            result.nodes.append(plain)
            continue
        hint = _product_name(original, producers, node.outputs[0])
        product = hint if hint not in graph.tensor_names() else result.fresh_name(f"{hint}_product")
        value = graph.value(node.outputs[0])
        if value is not None:
            result.values[product] = value
        result.nodes += [
            Node("MatMul", node.inputs[:2], [product], name=node.name),
            Node("Add", [product, node.inputs[2]], list(node.outputs), name=f"{node.name}_bias"),
        ]
    return result


def _product_name(original: Graph, producers: dict[str, Node], name: str) -> str:
    """The tensor that the MatMul behind `name` wrote before what follows was folded into it."""
    node = producers.get(name)
    while node is not None and node.op != "MatMul":
        name = next((n for n in node.inputs if n not in original.constants), "")
        node = producers.get(name)
    return name or "product"
