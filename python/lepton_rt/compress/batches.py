"""Calibration data in the forms people have it: arrays, tuples or dicts, one per batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from lepton_rt.errors import InputError
from lepton_rt.graph.ir import Array, Graph, Value

Feed = dict[str, Array]
"""Input name → array."""


def feeds(graph: Graph, batches: Iterable[Any] | Any) -> Iterator[Feed]:
    """One feed per batch. A single array or dict counts as one batch.

    Raises InputError when a batch does not fit the inputs of the graph, or when there is none.
    """
    if isinstance(batches, Mapping) or hasattr(batches, "__array__"):
        batches = [batches]
    if isinstance(batches, (str, bytes)) or not isinstance(batches, Iterable):
        kind = type(batches).__name__
        raise InputError(f"calibration needs an iterable of batches, not {kind}")
    count = 0
    for count, batch in enumerate(batches, 1):
        yield make_feed(graph, batch, f"calibration batch {count}")
    if count == 0:
        raise InputError("calibration needs at least one batch, and there was none")


def first_batch(batches: Iterable[Any] | Any) -> tuple[Any, Iterable[Any] | Any]:
    """The first of the batches, and all of them again (an iterator cannot be read twice).

    Raises InputError when there is none.
    """
    if isinstance(batches, Mapping) or hasattr(batches, "__array__"):
        return batches, batches
    if not isinstance(batches, Iterable):
        raise InputError(f"calibration needs an iterable of batches, not {type(batches).__name__}")
    iterator = iter(batches)
    for first in iterator:
        again = batches if iterator is not batches else itertools.chain([first], iterator)
        return first, again
    raise InputError("calibration needs at least one batch, and there was none")


def first_batches(batches: Iterable[Any] | Any, count: int) -> tuple[Any, Iterable[Any] | Any]:
    """Some batches from the first on, and all of them again (an iterator cannot be read twice)."""
    if isinstance(batches, Mapping) or hasattr(batches, "__array__"):
        return batches, batches
    if not isinstance(batches, Iterable) or isinstance(batches, (str, bytes)):
        return batches, batches  # `feeds` says what is wrong with them
    iterator = iter(batches)
    some = list(itertools.islice(iterator, count))
    return some, batches if iterator is not batches else itertools.chain(some, iterator)


def sized_feeds(graph: Graph, batches: Iterable[Any] | Any) -> Iterable[Feed]:
    """`feeds`, with a length where `batches` has one (for progress)."""
    return _Sized(graph, batches) if hasattr(batches, "__len__") else feeds(graph, batches)


class _Sized:
    def __init__(self, graph: Graph, batches: Any) -> None:
        self.graph, self.batches = graph, batches

    def __len__(self) -> int:
        single = isinstance(self.batches, Mapping) or hasattr(self.batches, "__array__")
        return 1 if single else len(self.batches)

    def __iter__(self) -> Iterator[Feed]:
        return feeds(self.graph, self.batches)


def make_feed(graph: Graph, batch: Any, what: str = "input") -> Feed:
    """Input name → checked array, from one array, a tuple in input order, or a dict by name."""
    names = list(graph.inputs)
    if isinstance(batch, Mapping):
        _check_names(names, batch, what)
        given = {name: batch[name] for name in names}
    elif isinstance(batch, (tuple, list)) and (len(names) > 1 or _holds_arrays(batch)):
        if len(batch) != len(names):
            raise InputError(
                f"{what} holds {len(batch)} arrays, but the model has {len(names)} "
                f"input{'s' if len(names) > 1 else ''} ({', '.join(names)})"
            )
        given = dict(zip(names, batch))
    else:
        if len(names) != 1:
            raise InputError(f"{what} is one array, but the model has inputs {', '.join(names)}")
        given = {names[0]: batch}
    return {name: _checked(name, graph.inputs[name], value, what) for name, value in given.items()}


def _holds_arrays(batch: tuple[Any, ...] | list[Any]) -> bool:
    return bool(batch) and all(hasattr(item, "__array__") for item in batch)


def _check_names(names: list[str], batch: Mapping[str, Any], what: str) -> None:
    missing = [name for name in names if name not in batch]
    unknown = [str(name) for name in batch if name not in names]
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise InputError(f"{what} {problem}; the model's inputs are {', '.join(names)}")


def _checked(name: str, expected: Value, value: Any, what: str) -> Array:
    array = np.asarray(value)
    if array.dtype != expected.dtype:
        if array.dtype.kind not in "fiub" or (
            array.dtype.kind == "f" and expected.dtype.kind != "f"
        ):
            raise InputError(f"{what}: {name!r} must be {expected.dtype}, not {array.dtype}")
        array = array.astype(expected.dtype)
    if expected.shape is not None and not _fits(array.shape, expected.shape):
        wanted = "×".join("?" if d is None else str(d) for d in expected.shape)
        got = "×".join(map(str, array.shape)) or "a scalar"
        raise InputError(f"{what}: {name!r} must have shape {wanted}, not {got}")
    return array


def _fits(shape: tuple[int, ...], expected: tuple[Any, ...]) -> bool:
    return len(shape) == len(expected) and all(
        not isinstance(want, int) or want == got for got, want in zip(shape, expected)
    )
