"""Element-wise operators: every one is a `lepton.Elementwise` program."""

from __future__ import annotations

import numpy as np

from lepton_rt.graph.ir import Node
from lepton_rt.lower import LowerContext, Rule
from lepton_rt.passes.programs import node_compute, single, translatable
from lepton_rt.passes.vocabulary import ELEMENTWISE
from lepton_rt.plan import Step

__all__ = ["RULES"]


def _single(node: Node, context: LowerContext) -> Step | None:
    """A plain ONNX operator as a program of its own."""
    dtypes = [context.value(name).dtype for name in node.inputs if name]
    compute = node_compute(node, dtypes)
    if compute is None or not translatable(node):
        return None
    program = single(node)
    attrs = {"program": ";".join(program.render()), "compute": compute}
    return Step("lepton.Elementwise", program.inputs, list(node.outputs), attrs)  # type: ignore[arg-type]


def _program(node: Node, context: LowerContext) -> Step:
    program = node.attrs["program"]
    text = program if isinstance(program, str) else ";".join(program)  # type: ignore[arg-type]
    attrs = {**node.attrs, "program": text}
    return Step("lepton.Elementwise", list(node.inputs), list(node.outputs), attrs)  # type: ignore[arg-type]


def _lookup(node: Node, context: LowerContext) -> Step:
    table = np.asarray(node.attrs["table"], context.value(node.outputs[0]).dtype)
    name = context.add_constant(table, f"{node.outputs[0]}.table")
    return Step("lepton.Lookup", [node.inputs[0], name], list(node.outputs))


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE - {"Cast", "Identity"}, _single),
    "lepton.Elementwise": _program,
    "lepton.Lookup": _lookup,
}
