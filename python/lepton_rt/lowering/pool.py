"""Pooling: quantisation parameters become attributes."""

from __future__ import annotations

from lepton_rt.graph.ir import Node
from lepton_rt.lower import LowerContext, Rule
from lepton_rt.plan import Step, StepAttr

__all__ = ["RULES"]


def _quantised_average(node: Node, context: LowerContext) -> Step | None:
    attrs: dict[str, StepAttr] = dict(node.attrs)  # type: ignore[arg-type]
    for index, name in enumerate(("x_scale", "x_zero_point", "y_scale", "y_zero_point"), start=1):
        array = context.constant(node.inputs[index])
        if array is None or array.size != 1:
            return None
        value = array.reshape(-1)[0]
        attrs[name] = float(value) if name.endswith("scale") else int(value)
    return Step(node.key, [node.inputs[0]], list(node.outputs), attrs)


RULES: dict[str, Rule] = {
    "lepton.QLinearAveragePool": _quantised_average,
    "lepton.QLinearReduceMean": _quantised_average,
}
