"""Calibration: one pass over the data, every tensor's observer fed batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lepton_rt.compress.batches import Feed, sized_feeds
from lepton_rt.compress.input_moments import InputMoments
from lepton_rt.compress.observers import Observer, make_observer
from lepton_rt.compress.progress import track
from lepton_rt.compress.tensors import TensorReader
from lepton_rt.graph.ir import Graph


@dataclass
class Calibration:
    """What calibration learnt. sample: the first slice of data, for checks afterwards."""

    observers: dict[str, Observer]
    sample: Feed


def calibrate(
    graph: Graph,
    tensors: Sequence[str],
    batches: Iterable[Any] | Any,
    *,
    method: str = "minmax",
    percentile: float = 99.99,
    progress: bool = True,
    budget: int = 256 << 20,
    moments: InputMoments | None = None,
) -> Calibration:
    """Observes float tensors of a graph over an iterable of batches, which is read once.

    method: "minmax", "percentile" (leaves 100 - percentile % out on either side), "mse" or
    "entropy". budget: bytes of inner tensors held at a time; larger batches are cut along their
    first axis where the model leaves that free. moments: fed as well. Raises InputError for data
    that does not fit, is missing, or makes a tensor NaN or infinite; ValueError for an unknown
    method.
    """
    observers = {name: make_observer(name, method, percentile) for name in tensors}
    wanted = [*tensors, *(moments.tensors if moments else ())]
    reader = TensorReader(graph, list(dict.fromkeys(wanted)), budget)
    sample: Feed = {}
    for feed in track(sized_feeds(graph, batches), "calibrating", progress):
        for part in reader.slices(feed):
            sample = sample or part
            arrays = reader.read(part)
            for name, observer in observers.items():
                observer.observe(arrays[name])
            if moments:
                moments.add(arrays)
    return Calibration(observers, sample)
