"""Operators of the user's own: Python functions, run as host steps, or from native libraries."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_rt import _core
from lepton_rt.dtypes import dtype_from_name
from lepton_rt.errors import InputError, ModelError
from lepton_rt.graph.ir import LEPTON_DOMAIN, Array, Dim, Graph, Node, Value
from lepton_rt.plan import DTYPE_CODES, attribute_payload, joined


@dataclass(frozen=True)
class CustomOp:
    """What `register_op` was given; run is None for an operator of a native library."""

    run: Callable[..., Any] | None
    infer: Callable[..., Any] | None

    @property
    def is_native(self) -> bool:
        return self.run is None


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


def load_op_library(path: str | os.PathLike[str]) -> list[str]:
    """Loads a shared library of operators written against ``lepton_op.h``, for models to use.

    The header lies in the package's ``include`` folder. The library is trusted: it runs in this
    process, and stays loaded until it ends. An operator registered before under the same name is
    replaced, for models compiled later.

    Returns:
        The operators' names, as "domain.Name".

    Raises:
        InputError: the file cannot be loaded or is no such library.
        UnsupportedError: it was built for another version of the interface.
    """
    names = _core.load_op_library(os.path.abspath(path))
    for domain, name in names:
        _REGISTERED[domain, name] = CustomOp(None, None)
    return [f"{domain}.{name}" for domain, name in names]


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
    if op.is_native:
        return _infer_native(node, inputs, said)
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
    assert op.run is not None
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
    if op.run is None:
        raise ModelError(f"the native operator {node.key} takes tensors of numbers only")
    try:
        results = op.run(*inputs, **_attributes(node))
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise ModelError(f"the custom operator {node.key} failed: {text[:300]}") from error
    return _results(results, node)


def _infer_native(
    node: Node, inputs: Sequence[Value | None], said: Sequence[Value | None]
) -> list[Value | None]:
    types: list[tuple[int, list[int]] | None] = []
    for name, value in zip(node.inputs, inputs):
        code = None if value is None else DTYPE_CODES.get(value.dtype.name)
        if value is None and not name:
            types.append(None)
        elif value is None or value.shape is None or code is None:
            if all(v is not None for v, out in zip(said, node.outputs) if out):
                return list(said)
            raise ModelError(f"the type of {name!r}, which {node.key} reads, is not known")
        else:
            types.append((code, [d if isinstance(d, int) else -1 for d in value.shape]))
    attrs = [(name, *attribute_payload(name, joined(value))) for name, value in node.attrs.items()]
    try:
        made = _core.infer_custom_op(node.key, types, attrs, len(node.outputs))
    except InputError as error:
        raise ModelError(str(error)) from None
    codes = {code: name for name, code in DTYPE_CODES.items()}
    return [
        Value(dtype_from_name(codes[code]), tuple(d if d >= 0 else None for d in dims))
        for code, dims in made
    ]


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
