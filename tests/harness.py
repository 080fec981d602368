"""Runs one operator through a one-step plan, for kernel tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_rt import _core
from lepton_rt.graph.ir import Value
from lepton_rt.plan import Plan, Step, StepAttr

Array = npt.NDArray[Any]


def one_step_plan(
    key: str,
    inputs: Sequence[Array | None],
    attrs: dict[str, StepAttr] | None,
    constants: Sequence[int],
    outputs: Sequence[str],
    kernel: str,
    isa: str | None,
) -> tuple[Plan, list[Array]]:
    """The plan, and the run-time inputs in plan order."""
    names = [f"x{i}" if array is not None else "" for i, array in enumerate(inputs)]
    made = [f"y{i}" for i in range(len(outputs))]
    live = [i for i, array in enumerate(inputs) if array is not None and i not in constants]
    arrays = [np.asarray(inputs[i], order="C") for i in live]  # keeps rank 0
    plan = Plan(
        isa=isa or _core.max_isa(),
        inputs={names[i]: Value(a.dtype, (None,) * a.ndim) for i, a in zip(live, arrays)},
        outputs=made,
        steps=[Step(key, names, made, dict(attrs or {}), kernel, key)],
        constants={names[i]: np.asarray(inputs[i]) for i in constants if inputs[i] is not None},
        dtypes={name: np.dtype(dtype) for name, dtype in zip(made, outputs)},
    )
    return plan, arrays


def run_op(
    key: str,
    inputs: Sequence[Array | None],
    attrs: dict[str, StepAttr] | None = None,
    *,
    constants: Sequence[int] = (),
    outputs: Sequence[str] = ("float32",),
    kernel: str = "",
    isa: str | None = None,
    threads: int = 1,
) -> list[Array]:
    """Outputs of operator `key` ("Conv", "lepton.QLinearConv").

    inputs: arrays, None = omitted; those whose index is in `constants` are plan constants.
    Raises UnsupportedError where the factory rejects the step.
    """
    plan, arrays = one_step_plan(key, inputs, attrs, constants, outputs, kernel, isa)
    executor = _core.Executor(*plan.encode(), threads=threads)
    first = executor.run(arrays)
    again = executor.run(arrays)  # the bound context is reused: same result
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    return first
