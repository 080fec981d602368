"""Accuracy and latency of several runtimes on the same images, measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lepton_rt.cli.demo.digits import Images, Labels
from lepton_rt.session import Session

BATCHES = (1, 64)
_SECONDS = 1.5  # of interleaved timing for each batch size

Runner = Callable[[Images], Any]


@dataclass
class Contestant:
    """One runtime with one model. file and memory are in bytes, None where not applicable.

    memory: weights as held for running plus working memory at the larger batch size.
    """

    name: str
    run: Runner
    file: int | None = None
    memory: int | None = None
    accuracy: float = 0.0
    predictions: list[int] = field(default_factory=list)
    latency: dict[int, float] = field(default_factory=dict)
    """Batch size → median seconds."""


def lepton_contestant(name: str, path: Path, threads: int) -> Contestant:
    """The model in a file, run by lepton_rt."""
    session = Session(path, threads=threads)
    return Contestant(name, session.run, path.stat().st_size, session_memory(session))


def session_memory(session: Session) -> int:
    """Bytes of packed constants and of working memory for the larger batch."""
    packed = session._executor.constant_bytes
    shape = [BATCHES[-1], *(int(d) for d in (session.inputs[0].shape or ())[1:] if d)]
    return packed + session._executor.bind([shape])[0]


def onnxruntime_contestant(name: str, path: Path, threads: int) -> Contestant | None:
    """The model in an ONNX file, run by ONNX Runtime with its defaults; None without it."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    input_name = session.get_inputs()[0].name

    def run(images: Images) -> Any:
        return session.run(None, {input_name: images})[0]

    return Contestant(name, run, path.stat().st_size)


def measure(contestants: Sequence[Contestant], images: Images, labels: Labels) -> None:
    """Fills in the accuracy and the latencies of all contestants."""
    for contestant in contestants:
        scores = [contestant.run(images[i : i + 64]) for i in range(0, len(images), 64)]
        predictions = np.concatenate(scores).argmax(1)
        contestant.predictions = predictions.tolist()
        contestant.accuracy = float((predictions == labels).mean())
    for batch in BATCHES:
        _race(contestants, np.ascontiguousarray(images[:batch]), batch)


def _race(contestants: Sequence[Contestant], images: Images, batch: int) -> None:
    """Interleaved runs until the time is up, so that a disturbance hits everyone alike."""
    times: list[list[float]] = [[] for _ in contestants]
    for contestant in contestants:
        contestant.run(images)
    deadline = time.perf_counter() + _SECONDS
    while time.perf_counter() < deadline or len(times[0]) < 5:
        for contestant, measured in zip(contestants, times):
            start = time.perf_counter()
            contestant.run(images)
            measured.append(time.perf_counter() - start)
    for contestant, measured in zip(contestants, times):
        contestant.latency[batch] = statistics.median(measured)
