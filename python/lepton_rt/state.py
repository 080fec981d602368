"""What a session keeps between runs: key/value caches that grow, and states that are replaced."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_rt.errors import InputError, ModelError
from lepton_rt.graph.ir import Array, Graph

if TYPE_CHECKING:
    from lepton_rt.interface import TensorSpec

_RENAMES = (
    (r"^past_key_values", "present"),
    (r"^past_key_values", "present_key_values"),
    (r"^past", "present"),
)
"""How exporters name what continues a cache."""


def find_state(graph: Graph) -> dict[str, str]:
    """Inputs whose name pairs with an output's: past_key_values.0.key, present.0.key."""
    pairs: dict[str, str] = {}
    for name in graph.inputs:
        for pattern, replacement in _RENAMES:
            other = re.sub(pattern, replacement, name)
            if other != name and other in graph.outputs and other not in pairs.values():
                pairs[name] = other
                break
    return pairs


def checked_pairs(graph: Graph, pairs: Mapping[str, str] | None) -> dict[str, str]:
    """The pairs as declared, or as `find_state` finds them.

    Raises:
        InputError: a name is no input or output of the model, or an output continues two inputs.
    """
    if pairs is None:
        return find_state(graph)
    for past, present in pairs.items():
        if past not in graph.inputs:
            raise InputError(f'state names no input of the model: "{past}"')
        if present not in graph.outputs:
            raise InputError(f'state names no output of the model: "{present}"')
    if len(set(pairs.values())) != len(pairs):
        raise InputError("state names an output twice")
    return dict(pairs)


def to_front(array: Array, axis: int) -> Array:
    return np.moveaxis(array, axis, 0)


def from_front(array: Array, axis: int) -> Array:
    if axis >= array.ndim:
        raise ModelError(f"a state of rank {array.ndim} cannot grow along axis {axis}")
    return np.moveaxis(array, 0, axis)


class _Cache:
    """Rows that only ever grow, in a buffer with room to spare: first axis, what grows."""

    def __init__(self, empty: Array, rows: int) -> None:
        self._buffer = np.empty((max(rows, len(empty)), *empty.shape[1:]), empty.dtype)
        self._buffer[: len(empty)] = empty
        self.length = len(empty)

    @property
    def rows(self) -> Array:
        return self._buffer[: self.length]

    @property
    def capacity(self) -> int:
        return len(self._buffer)

    def room_for(self, length: int) -> Array:
        """The first `length` rows of the buffer, which begins with the rows there are."""
        if length > len(self._buffer):
            larger = np.empty(
                (max(length, 2 * len(self._buffer)), *self._buffer.shape[1:]), self._buffer.dtype
            )
            larger[: self.length] = self.rows
            self._buffer = larger
        return self._buffer[:length]

    def take(self, result: Array) -> None:
        """Makes `result` the rows; nothing is copied when they were written in place."""
        target = self.room_for(len(result))
        if result.ctypes.data != target.ctypes.data:
            if result.shape[1:] != target.shape[1:]:
                self._buffer = np.array(result)
            else:
                target[...] = result
        self.length = len(result)


class State:
    """The state of one sequence (or one batch of them) of one session.

    Made by `Session.new_state`, passed to `Session.run`. Use it from one thread at a time; any
    number of states may share a session.
    """

    def __init__(
        self,
        specs: Sequence[TensorSpec],
        pairs: Mapping[str, str],
        axes: Mapping[str, int],
        rows: int = 256,
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._pairs = dict(pairs)
        self._axes = dict(axes)
        self._rows = rows
        self._caches: dict[str, _Cache] = {}
        self._values: dict[str, Array] = {}

    @property
    def length(self) -> int:
        """Rows of the growing caches: the tokens seen so far."""
        return max((cache.length for cache in self._caches.values()), default=0)

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        caches = sum(c.capacity * c.rows[:1].nbytes for c in self._caches.values() if c.length)
        return caches + sum(value.nbytes for value in self._values.values())

    def reset(self) -> None:
        """Forgets the sequence; the next run starts a new one."""
        self._caches.clear()
        self._values.clear()

    def value(self, name: str) -> Array:
        """A copy of a state as the model's input `name` would take it.

        Raises:
            InputError: there is no such state, or nothing ran yet.
        """
        if name in self._caches:
            return np.array(from_front(self._caches[name].rows, self._axes[name]))
        if name in self._values:
            return np.array(self._values[name])
        raise InputError(f'no state "{name}" yet; states: {", ".join(self._pairs)}')

    def run(
        self,
        given: Mapping[str, Array],
        run: Callable[[list[Array], list[Any] | None], list[Array]],
        output_shapes: Callable[[list[list[int]]], list[Any]],
        outputs: Sequence[str],
    ) -> list[Array]:
        """One run from this state to the next; returns all outputs.

        given: the inputs that are not state. `run` takes inputs by position and memory to write
        results into; `output_shapes` says their shapes.
        """
        self._start(given)
        arrays = [self._input(name, given) for name in self._specs]
        shapes = output_shapes([list(a.shape) for a in arrays]) if self._axes else []
        by_output = {present: past for past, present in self._pairs.items()}
        out: list[Any] = [None] * len(outputs)
        for i, name in enumerate(outputs):
            past = by_output.get(name, "")
            cache = self._caches.get(past)
            if cache is not None and shapes[i] is not None:
                out[i] = cache.room_for(shapes[i][0])
        # A cache that had to grow lies elsewhere now.
        arrays = [self._input(name, given) for name in self._specs]
        results = run(arrays, out)
        for i, name in enumerate(outputs):
            past = by_output.get(name, "")
            if past in self._caches:
                self._caches[past].take(results[i])
            elif past:
                self._values[past] = results[i]
        return results

    def _input(self, name: str, given: Mapping[str, Array]) -> Array:
        if name in self._caches:
            return self._caches[name].rows
        return self._values[name] if name in self._values else given[name]

    def _start(self, given: Mapping[str, Array]) -> None:
        """Empty caches and zeros, sized by the symbols that the other inputs resolve."""
        if self._caches or self._values:
            return
        sizes: dict[str, int] = {}
        for name, array in given.items():
            shape = self._specs[name].shape or ()
            sizes.update({d: n for d, n in zip(shape, array.shape) if isinstance(d, str)})
        for name in self._pairs:
            spec = self._specs[name]
            if spec.shape is None:
                raise InputError(f'state "{name}" has no known rank: it cannot be started')
            axis = self._axes.get(name)
            dims = []
            for i, dim in enumerate(spec.shape):
                known = dim if isinstance(dim, int) else sizes.get(dim or "")
                dims.append(0 if i == axis or known is None else known)
            zeros = np.zeros(dims, spec.dtype)
            if axis is None:
                self._values[name] = zeros
            else:
                self._caches[name] = _Cache(to_front(zeros, axis), self._rows)
