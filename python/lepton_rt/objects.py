"""What only Python can hold (strings, sequences, optionals, maps) on its way through a run.

A plan has no word for them. Between two host steps it carries a handle in their place: the index,
in a uint64 scalar, of the value in a table that lives as long as the run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from lepton_rt.errors import InputError
from lepton_rt.graph.ir import Array, Value

HANDLE = Value(np.dtype(np.uint64), ())
"""What a plan says of a tensor in place of the type that it cannot hold."""


class ObjectTable(threading.local):
    """The objects of the runs in progress. Host steps run on the thread that called `run`."""

    def __init__(self) -> None:
        self._runs: list[list[Any]] = []

    @contextmanager
    def run(self) -> Iterator[None]:
        """A table of its own for one run; runs may nest."""
        self._runs.append([])
        try:
            yield
        finally:
            self._runs.pop()

    def keep(self, value: Any) -> Array:
        """Puts a value into the table; returns its handle."""
        self._runs[-1].append(value)
        return np.array(len(self._runs[-1]) - 1, np.uint64)

    def get(self, handle: Array) -> Any:
        """The value behind a handle."""
        return self._runs[-1][int(handle)]


def checked_object(name: str, value: Value, given: Any) -> Any:
    """An input of a type that only Python holds, in the form host steps want.

    Strings become an object array; a sequence is a list or tuple, an optional may be None, a map is
    a dict; what they contain becomes arrays.

    Raises:
        InputError: it has another form, or strings another shape than the model states.
    """
    if not value.kind:
        return _strings(name, value, given)
    return _contained(name, value.kind, given)


def _strings(name: str, value: Value, given: Any) -> Array:
    array = np.asarray(given)
    if array.dtype.kind not in "OUST":
        raise InputError(f'input "{name}" expects strings, got an array of {array.dtype}')
    array = array.astype(object)
    if not all(isinstance(text, (str, bytes)) for text in array.reshape(-1).tolist()):
        raise InputError(f'input "{name}" expects strings, and some elements are not')
    fits = value.shape is None or (
        len(value.shape) == array.ndim
        and all(not isinstance(d, int) or d == n for d, n in zip(value.shape, array.shape))
    )
    if not fits:
        raise InputError(f'input "{name}" cannot have shape {list(array.shape)}')
    return array


def _contained(name: str, kind: str, given: Any) -> Any:
    if kind.startswith("optional("):
        return None if given is None else _contained(name, kind[len("optional(") : -1], given)
    if kind.startswith("seq("):
        if not isinstance(given, (list, tuple)):
            raise InputError(
                f'input "{name}" expects a list for {kind}, got {type(given).__name__}'
            )
        return [_contained(name, kind[len("seq(") : -1], item) for item in given]
    if kind.startswith("map("):
        if not isinstance(given, Mapping):
            raise InputError(f'input "{name}" expects a dict for {kind}')
        return dict(given)
    if isinstance(given, (list, tuple, dict)) or given is None:
        raise InputError(f'input "{name}" expects an array for {kind}, got {type(given).__name__}')
    return np.asarray(given)
