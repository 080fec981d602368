"""Operators of host steps that the onnx package's reference evaluator has another notion of.

It wraps what is in an optional in a list, sometimes; here an optional is its content, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lepton_rt.errors import ModelError


def _optional(operands: list[Any]) -> Any:
    return operands[0] if operands else None


def _has_element(operands: list[Any]) -> Any:
    return np.array(bool(operands) and operands[0] is not None)


def _get_element(operands: list[Any]) -> Any:
    if operands[0] is None:
        raise ModelError("OptionalGetElement of an optional that is empty")
    return operands[0]


HOST_OPS: dict[str, Callable[[list[Any]], Any]] = {
    "Optional": _optional,
    "OptionalHasElement": _has_element,
    "OptionalGetElement": _get_element,
}
"""Operator → function from its operands to its one output."""
