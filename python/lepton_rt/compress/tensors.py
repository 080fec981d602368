"""Runs a graph and hands out its inner tensors, a few rows at a time to bound the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lepton_rt.compress.batches import Feed
from lepton_rt.graph.ir import Array, Graph, Value
from lepton_rt.session import Session

_BUDGET = 256 << 20  # bytes of inner tensors held at a time


class TensorReader:
    """Runs `graph` with some of its tensors as outputs.

    Raises whatever Session raises for a graph that it cannot run.
    """

    def __init__(self, graph: Graph, names: Sequence[str], budget: int = _BUDGET) -> None:
        self.names = list(names)
        self.budget = budget
        self._inputs = [name for name in self.names if name in graph.inputs]
        self._computed = [name for name in self.names if name not in graph.inputs]
        self._sliceable = _free_leading_dims(graph)
        self._rows: int | None = None
        self._session = Session(_with_outputs(graph, self._computed)) if self._computed else None

    def slices(self, feed: Feed) -> Iterator[Feed]:
        """The feed cut along the batch axis so that the tensors of each slice fit the budget."""
        rows = min((array.shape[0] for array in feed.values() if array.ndim), default=0)
        if not self._sliceable or rows <= 1:
            yield feed
            return
        if self._rows is None:
            one = {name: array[:1] for name, array in feed.items()}
            size = sum(array.nbytes for array in self.read(one).values())
            self._rows = max(1, self.budget // max(size, 1))
        for start in range(0, rows, self._rows):
            yield {name: array[start : start + self._rows] for name, array in feed.items()}

    def read(self, feed: Feed) -> dict[str, Array]:
        """Tensor name → its value for this feed."""
        found = {name: feed[name] for name in self._inputs}
        if self._session is not None:
            result = self._session.run(feed)
            outputs = [result] if isinstance(result, np.ndarray) else list(result)
            found.update(zip(self._computed, outputs))
        return {name: found[name] for name in self.names}


def _with_outputs(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with exactly these tensors as outputs."""
    wanted = graph.copy()
    unknown = Value(np.dtype(np.float32))
    wanted.outputs = {name: graph.value(name) or unknown for name in names}
    return wanted


def _free_leading_dims(graph: Graph) -> bool:
    """Whether all inputs share one leading dimension, and it is not fixed."""
    leading = {value.shape[0] if value.shape else 0 for value in graph.inputs.values()}
    return len(leading) == 1 and not isinstance(next(iter(leading)), int)
