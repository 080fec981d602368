"""Operators of the user's own, written in Python, run as host steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_rt.errors import ModelError
from lepton_rt.graph.ir import LEPTON_DOMAIN, Array, Dim, Graph, Node, Value


@dataclass(frozen=True)
class CustomOp:
    """What `register_op` was given."""

    run: Callable[..., Any]
    infer: Callable[..., Any] | None


_REGISTERED: dict[tuple[str, str], CustomOp] = {}


def register_op(
    domain: str,
    name: str,
    function: Callable[..., Any],
    *,
    infer: Callable[..., Any] | None = None,
) -> None:
    """Makes models with the operator `domain`.`name` run, through a Python function.

    Args:
        domain: a domain other than ONNX's own and "lepton".
        name: the operator's name; registering it again replaces it, for models compiled later.
        function: ``function(*inputs, **attributes)`` takes numpy arrays (None for an omitted
            input), which it must not change, and returns an array, or a tuple of them.
        infer: ``infer(*values, **attributes)`` gives the type of the result from those of the
            inputs (each has ``dtype`` and ``shape``, whose dimensions may be symbols or None): a
            ``(dtype, shape)`` pair, or a list of pairs for several outputs; shape None means any.
            Without it the model's own statement counts, else a trial call on zeros gives the dtypes
            and ranks, with 1 for every free dimension.

    Raises:
        ValueError: the domain is ONNX's or lepton_rt's, the name is empty, or function is not
            callable.
    """
    if domain in ("", "ai.onnx", LEPTON_DOMAIN):
        raise ValueError(f"operators of domain {domain!r} cannot be registered")
    if not name or not callable(function) or not (infer is None or callable(infer)):
        raise ValueError("an operator needs a name and a function")
    _REGISTERED[domain, name] = CustomOp(function, infer)


def find_op(domain: str, name: str) -> CustomOp | None:
    """The registered operator, or None."""
    return _REGISTERED.get((domain, name))


def custom_domains(graph: Graph) -> set[str]:
    """Domains of the registered operators that the graph uses."""
    return {node.domain for node in graph.nodes if (node.domain, node.op) in _REGISTERED}


def registered_domains() -> set[str]:
    """Domains in which any operator is registered."""
    return {domain for domain, _ in _REGISTERED}


def infer_custom(
    op: CustomOp, node: Node, inputs: Sequence[Value | None], said: Sequence[Value | None]
) -> list[Value | None]:
    """Output types of a custom operator; `said` is what the model states of them.

    Raises ModelError where they cannot be found out.
    """
    if op.infer is not None:
        try:
            return _pairs(op.infer(*inputs, **_attributes(node)), node)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"infer of {node.key} failed: {error}") from error
    if all(value is not None for value, name in zip(said, node.outputs) if name):
        return list(said)
    zeros = [None if value is None else _zeros(value, node) for value in inputs]
    try:
        results = _results(op.run(*zeros, **_attributes(node)), node)
    except Exception as error:
        raise ModelError(
            f"the types of what {node.key} makes are not known, and a trial call failed "
            f"({error}): register it with infer"
        ) from error
    return [Value(array.dtype, (None,) * array.ndim) for array in results]


def run_custom(op: CustomOp, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    """Calls the operator. Raises ModelError when it fails or returns too little."""
    try:
        results = op.run(*inputs, **_attributes(node))
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise ModelError(f"the custom operator {node.key} failed: {text[:300]}") from error
    return _results(results, node)


def _attributes(node: Node) -> dict[str, Any]:
    return dict(node.attrs)


def _results(made: Any, node: Node) -> list[Array]:
    listed = list(made) if isinstance(made, (tuple, list)) else [made]
    if len(listed) < len(node.outputs):
        raise ModelError(
            f"the custom operator {node.key} returned {len(listed)} of {len(node.outputs)} outputs"
        )
    return [np.asarray(array) for array in listed[: len(node.outputs)]]


def _pairs(made: Any, node: Node) -> list[Value | None]:
    listed = list(made) if isinstance(made, list) else [made]
    if len(listed) < len(node.outputs):
        raise ModelError(f"infer of {node.key} gave {len(listed)} of {len(node.outputs)} types")
    values: list[Value | None] = []
    for item in listed[: len(node.outputs)]:
        if isinstance(item, Value):
            values.append(item)
            continue
        dtype, shape = item
        values.append(Value(np.dtype(dtype), None if shape is None else tuple(map(_dim, shape))))
    return values


def _dim(dim: Any) -> Dim:
    return dim if dim is None or isinstance(dim, str) else int(dim)


def _zeros(value: Value, node: Node) -> Array:
    if value.shape is None:
        raise ModelError(
            f"the types of what {node.key} makes are not known, and neither is the rank of an "
            "input: register it with infer"
        )
    return np.zeros([d if isinstance(d, int) else 1 for d in value.shape], value.dtype)
