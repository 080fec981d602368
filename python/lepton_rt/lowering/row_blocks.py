"""Joins an integer matrix product with the steps after it that work row by row.

The joined step runs them one after another over blocks of rows (csrc/ops/row_blocks.cc), so what
stands between them stays in cache. Products of one operand, such as queries, keys and values, form
one step too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lepton_rt.graph.ir import Graph
from lepton_rt.plan import Plan, Step

from .joined_step import join_steps, last_readers

__all__ = ["join_rows"]

_PRODUCT = "lepton.QLinearMatMul"
_DEFAULT_AXES = {
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), -1),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), 1),
}
"""Operators whose axis must be the last one, unless all its places are treated alike."""
_TAILS = {*_DEFAULT_AXES, "lepton.Elementwise", "lepton.Lookup"}
_MOST_STEPS = 24

Dims = tuple[Any, ...]


def join_rows(plan: Plan, graph: Graph) -> Plan:
    """The plan with joined steps. graph: what it was lowered from, for the shapes of tensors."""
    shapes = _shapes(plan, graph)
    groups: list[_Group] = []
    for step in plan.steps:
        if not groups or not groups[-1].take(step):
            groups.append(_Group(step, shapes, plan.constants))
    readers = last_readers(plan)
    steps: list[Step] = []
    for group in groups:
        steps += [group.joined(plan, readers)] if len(group.steps) > 1 else group.steps
    return Plan(plan.isa, plan.inputs, plan.outputs, steps, plan.constants, plan.dtypes)


def _shapes(plan: Plan, graph: Graph) -> dict[str, Dims]:
    """Shapes of tensors that are computed, where every size is known or has a name."""
    shapes = {}
    for name in [*plan.inputs, *(out for step in plan.steps for out in step.outputs)]:
        value = graph.value(name) if name else None
        if value is not None and value.shape is not None and None not in value.shape:
            shapes[name] = tuple(value.shape)
    return shapes


@dataclass
class _Group:
    """A product, or several of one operand, and what follows them."""

    first: Step
    shapes: Mapping[str, Dims]
    constants: Mapping[str, Any]
    steps: list[Step] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    lead: Dims | None = None

    def __post_init__(self) -> None:
        self.steps = [self.first]
        if self.first.op == _PRODUCT and self.first.attrs.get("packed"):
            shape = self.shapes.get(self.first.inputs[0], ())
            self.lead = shape[:-1] if len(shape) > 1 else None
            if not self._is_row_wise(self.first):
                self.lead = None
        self.made.update(self.first.outputs)

    def take(self, step: Step) -> bool:
        """Adds the step after the last one, if it belongs here."""
        if self.lead is None or len(self.steps) >= _MOST_STEPS or not self._is_row_wise(step):
            return False
        reads_group = not self.made.isdisjoint(step.inputs)
        if step.op == _PRODUCT:
            fits = bool(step.attrs.get("packed")) and step.inputs[0] == self.first.inputs[0]
            fits = fits and not reads_group
        else:
            fits = step.op in _TAILS and reads_group
        if fits:
            self.steps.append(step)
            self.made.update(step.outputs)
        return fits

    def _is_row_wise(self, step: Step) -> bool:
        """Whether all that the step reads and writes has these rows, and constants have one."""
        if len(step.outputs) != 1 or not step.outputs[0]:
            return False
        made = self.shapes.get(step.outputs[0], ())
        if len(made) < 2 or made[:-1] != self.lead:
            return False
        if step.op in _DEFAULT_AXES and not self._has_one_scale(step):
            axis = step.attrs.get("axis", _DEFAULT_AXES[step.op])
            if axis not in (-1, len(made) - 1):
                return False
        return all(self._fits_rows(name) for name in step.inputs if name)

    def _fits_rows(self, name: str) -> bool:
        constant = self.constants.get(name)
        if constant is None:
            return self.shapes.get(name, ())[:-1] == self.lead
        return all(size == 1 for size in constant.shape[:-1])

    def _has_one_scale(self, step: Step) -> bool:
        scale = self.constants.get(step.inputs[1])
        return "Quantize" in step.op and scale is not None and scale.size == 1

    def joined(self, plan: Plan, readers: Mapping[str, int]) -> Step:
        """The steps as one."""
        attrs = [
            {**step.attrs, "axis": -1} if step.op in _DEFAULT_AXES else step.attrs
            for step in self.steps
        ]
        return join_steps(plan, self.steps, attrs, readers)
