"""Several steps of a plan as one, in the form that csrc/ops/joined_step.h reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lepton_rt.plan import DTYPE_CODES, Plan, Step, StepAttr

__all__ = ["join_steps", "last_readers"]


def last_readers(plan: Plan) -> dict[str, int]:
    """Tensor → id of the last step that reads it; 0 for outputs of the graph."""
    readers = {name: id(step) for step in plan.steps for name in step.inputs if name}
    readers.update(dict.fromkeys(plan.outputs, 0))
    return readers


def join_steps(
    plan: Plan,
    steps: Sequence[Step],
    attrs_of: Sequence[Mapping[str, StepAttr]],
    readers: Mapping[str, int],
) -> Step:
    """The steps, of one output each, as one step.

    Inputs that are computed are marked as cut; values that others read (`last_readers`) become
    its outputs. attrs_of: of every step.
    """
    values = [step.outputs[0] for step in steps]
    inputs = list(dict.fromkeys(n for s in steps for n in s.inputs if n and n not in values))
    members = {id(step) for step in steps}
    results = [i for i, name in enumerate(values) if readers.get(name, -1) not in members | {-1}]
    numbers = {name: i for i, name in enumerate([*inputs, *values])}
    attrs: dict[str, StepAttr] = {
        "rows": [int(name not in plan.constants) for name in inputs],
        "values": [DTYPE_CODES[np.dtype(plan.dtypes[name]).name] for name in values],
        "results": results,
    }
    for i, step in enumerate(steps):
        attrs[f"{i}.in"] = [numbers.get(name, -1) for name in step.inputs]
        attrs[f"{i}.out"] = [numbers[name] for name in step.outputs]
        attrs.update({f"{i}.{name}": value for name, value in attrs_of[i].items()})
    return Step(
        "+".join(step.op for step in steps),
        inputs,
        [values[i] for i in results],
        attrs,
        "+".join(step.kernel for step in steps).rstrip("+"),
        steps[0].name,
        steps[0].note,
    )
