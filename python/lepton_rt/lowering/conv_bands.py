"""Joins a depthwise convolution with the 1x1 convolutions before and after it.

The joined step walks an image in bands of rows (csrc/ops/conv_bands.cc), so the wide tensors of an
inverted residual block stay in cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from lepton_rt.plan import Plan, Step, StepAttr

from .joined_step import join_steps, last_readers

__all__ = ["join_convolutions"]

_RESIDUAL = {"lepton.Conv": 3, "lepton.QLinearConv": 4}
"""Operand of the residual; what follows it is computed, too."""


def join_convolutions(plan: Plan) -> Plan:
    """The plan with joined convolutions."""
    readers = last_readers(plan)
    steps: list[Step] = []
    left = list(plan.steps)
    while left:
        count = _chain(left[:3], plan, readers)
        steps += [_joined(plan, left[:count], readers)] if count > 1 else left[:1]
        del left[: max(count, 1)]
    return Plan(plan.isa, plan.inputs, plan.outputs, steps, plan.constants, plan.dtypes)


def _chain(steps: list[Step], plan: Plan, readers: Mapping[str, int]) -> int:
    """How many of the steps are a chain with a depthwise convolution; 0: none."""
    first = int(not _is_depthwise(steps[0]))
    if first >= len(steps) or not _is_depthwise(steps[first]):
        return 0
    if first == 1 and not (_is_pointwise(steps[0]) and _feeds(steps[0], steps[1], readers)):
        return 0
    if any(_operand(step, _RESIDUAL[step.op]) for step in steps[: first + 1]):
        return 0
    last = steps[first + 1] if first + 1 < len(steps) else None
    if last is not None and _is_pointwise(last) and _feeds(steps[first], last, readers):
        count = first + 2
    else:
        count = first + 1
    computed = [steps[0].inputs[0], _operand(steps[count - 1], _RESIDUAL[steps[0].op])]
    return count if not any(name in plan.constants for name in computed) else 0


def _operand(step: Step, index: int) -> str:
    return step.inputs[index] if index < len(step.inputs) else ""


def _feeds(step: Step, after: Step, readers: Mapping[str, int]) -> bool:
    """Whether the next step reads the step's result as X, and no other does."""
    made = step.outputs[0]
    once = [name for name in after.inputs if name == made]
    return (
        step.op == after.op
        and after.inputs[0] == made
        and len(once) == 1
        and readers.get(made) == id(after)
    )


def _is_convolution(step: Step) -> bool:
    shape = cast(Any, step.attrs.get("kernel_shape", []))
    fixed = step.attrs.get("auto_pad", "NOTSET") in ("", "NOTSET")
    return (
        step.op in _RESIDUAL
        and len(shape) == 2
        and fixed
        and step.attrs.get("channels_last", 1) == 1
        and all(not name for name in step.inputs[_RESIDUAL[step.op] + 1 :])
    )


def _is_pointwise(step: Step) -> bool:
    attrs = cast(Any, step.attrs)
    return (
        _is_convolution(step)
        and attrs["kernel_shape"] == [1, 1]
        and list(attrs.get("strides", [1, 1])) == [1, 1]
        and not any(attrs.get("pads", []))
        and attrs.get("group", 1) == 1
    )


def _is_depthwise(step: Step) -> bool:
    attrs = cast(Any, step.attrs)
    return (
        _is_convolution(step)
        and attrs["group"] == attrs["in_channels"] == attrs["out_channels"]
        and attrs["group"] > 1
        and step.kernel.startswith("depthwise")
    )


def _joined(plan: Plan, steps: list[Step], readers: Mapping[str, int]) -> Step:
    attrs: list[Mapping[str, StepAttr]] = [step.attrs for step in steps]
    at = next(i for i, step in enumerate(steps) if _is_depthwise(step))
    top, left, bottom, right = cast(Any, steps[at].attrs.get("pads", [0, 0, 0, 0]))
    attrs[at] = {**steps[at].attrs, "pads": [0, left, 0, right]}
    joined = join_steps(plan, steps, attrs, readers)
    joined.attrs["pad_rows"] = [int(top), int(bottom)]
    return joined
