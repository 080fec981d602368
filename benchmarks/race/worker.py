"""One runtime in a process of its own, which works only when it is told to.

Reads one JSON command a line, writes one JSON answer a line; see `Worker` in `workers.py`.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from .runtimes import Absent, Run, runtime
from .store import Store


def peak_mb() -> float:
    """The largest resident set so far."""
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def memory_mb() -> float:
    """The proportional set size; where the system does not tell it, the resident peak."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return peak_mb()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


class Entrant:
    """A network in one variant of one runtime."""

    def __init__(self, cache: str, network: str, name: str, variant: str) -> None:
        self.store = Store(Path(cache), network)
        self.adapter = runtime(name)
        self.name = name
        self.variant = variant
        self.run: Run | None = None
        self.memory: dict[str, float] = {}

    def build(self) -> dict[str, Any]:
        """Makes the model; its size on disk."""
        path = self.store.model(self.name, self.variant)
        files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
        if path.suffix == ".xml":
            files.append(path.with_suffix(".bin"))
        return {"file_mb": sum(file.stat().st_size for file in files) / 1e6}

    def prepare(self, count: int) -> dict[str, Any]:
        """Exports the network and runs it in torch."""
        self.store.prepare()
        self.store.reference(count)
        return {}

    def load(self, batch: int, threads: int) -> dict[str, Any]:
        """Loads and runs; memory is what the first load and ten runs took above the bare import."""
        importlib.import_module(self.adapter.MODULE)
        path = self.store.model(self.name, self.variant)
        self.run = None
        gc.collect()
        before = memory_mb()
        self.x = self.store.network.samples(batch, seed=4)
        start = time.perf_counter()
        self.run = self.adapter.load(self.variant, self.store, path, batch, threads)
        loaded = time.perf_counter()
        self.run(self.x)
        ran = time.perf_counter()
        for _ in range(1 if self.memory else 9):
            self.run(self.x)
        if not self.memory:
            self.memory = {"pss_mb": memory_mb() - before, "peak_rss_mb": peak_mb()}
        times = {"load_ms": (loaded - start) * 1e3, "first_run_ms": (ran - loaded) * 1e3}
        return {**times, **self.memory}

    def time(self, seconds: float) -> dict[str, Any]:
        """Milliseconds of each run: by the clock, and of processor time, all threads together."""
        assert self.run is not None
        wall: list[float] = []
        cpu: list[float] = []
        deadline = time.perf_counter() + seconds
        while True:
            start, start_cpu = time.perf_counter(), time.process_time()
            self.run(self.x)
            stop, stop_cpu = time.perf_counter(), time.process_time()
            wall.append((stop - start) * 1e3)
            cpu.append((stop_cpu - start_cpu) * 1e3)
            if stop >= deadline:
                return {"wall_ms": wall, "cpu_ms": cpu}

    def evaluate(self, count: int) -> dict[str, Any]:
        """How far the outputs for random samples are from torch's in float32."""
        assert self.run is not None
        batch = len(self.x)
        samples, want = self.store.reference(count)
        padded = np.resize(samples, (-(-count // batch) * batch, *samples.shape[1:]))
        pieces = [self.run(padded[i : i + batch]).copy() for i in range(0, len(padded), batch)]
        got = np.concatenate(pieces)[:count]
        if got.shape != want.shape:
            raise ValueError(f"output {got.shape} instead of {want.shape}")
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        return {
            "error": float(error),
            "top1": float((got.argmax(-1) == want.argmax(-1)).mean()),
        }

    def features(self) -> dict[str, Any]:
        """The vector extensions that this process can see."""
        from numpy._core._multiarray_umath import __cpu_features__ as seen

        return {"seen": sorted(name for name, present in seen.items() if present)}


def _answer(entrant: Entrant, command: dict[str, Any]) -> dict[str, Any]:
    action = command.pop("do")
    try:
        made: dict[str, Any] = getattr(entrant, action)(**command)
        return made
    except (Absent, ImportError) as error:
        return {"absent": str(error)}
    except Exception as error:
        text = str(error).strip().splitlines()
        return {"failed": f"{type(error).__name__}: {text[-1][:200] if text else ''}"}


def _end_with_parent() -> None:
    """A stopped process would outlive its parent for ever."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # <linux/prctl.h>
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main() -> None:
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not come between the answers
    entrant = Entrant(*sys.argv[1:5])
    for line in sys.stdin:
        answers.write(json.dumps(_answer(entrant, json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
