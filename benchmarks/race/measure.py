"""Races the entrants of one network: loads them, then lets them run in turn, round by round."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .runtimes import Absent, runtime, version
from .workers import Lost, Worker

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    networks: list[str]
    entrants: list[tuple[str, str]]
    """(runtime, variant)"""
    batches: list[int] | None
    """None: those of the network."""
    threads: list[int]
    rounds: int
    seconds: float
    """How long an entrant runs in a round; at least one run."""
    inputs: int
    """Random samples that outputs are compared on."""
    cache: Path
    env: Mapping[str, str] = field(default_factory=dict)
    """Of the workers."""

    @property
    def log(self) -> Path:
        return self.cache / "workers.log"


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile."""
    if len(values) == 1:
        return dict.fromkeys(("median", "p10", "p90"), values[0])
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return {"median": statistics.median(values), "p10": tenths[0], "p90": tenths[-1]}


def build(options: Options, network: str, step: Callable[[str], None]) -> list[Row]:
    """Makes all models of a network; what could not be made says so in its row."""
    rows: list[Row] = []
    reference_is_there = False
    for name, variant in options.entrants:
        step(f"{network}: build {name} {variant}")
        row = {"network": network, "runtime": name, "variant": variant}
        row["precision"] = runtime(name).VARIANTS[variant]
        try:
            row["version"] = version(name)
            with Worker(options.cache, network, name, variant, {}, options.log) as worker:
                if not reference_is_there:
                    worker.ask("prepare", count=options.inputs)
                    reference_is_there = True
                row.update(worker.ask("build"))
        except Absent as error:
            row["absent"] = str(error)
        except Lost as error:
            row[error.kind] = str(error)
        rows.append(row)
    return rows


def race(
    options: Options, rows: Iterable[Row], batch: int, step: Callable[[str], None]
) -> list[Row]:
    """One network at one batch size: a row per entrant and number of threads."""
    made: list[Row] = []
    with contextlib.ExitStack() as stack:
        workers = []
        for row in rows:
            entrant = (row["network"], row["runtime"], row["variant"])
            worker = Worker(options.cache, *entrant, options.env, options.log)
            workers.append((dict(row), stack.enter_context(worker)))
        for threads in options.threads:
            lanes = []
            for base, worker in workers:
                row = {**base, "batch": batch, "threads": threads}
                made.append(row)
                step(f"{row['network']} b{batch} {threads}T: load {worker.runtime}")
                with _noted(row):
                    row.update(worker.ask("load", batch=batch, threads=threads))
                    if "error" not in base:
                        base.update(worker.ask("evaluate", count=options.inputs))
                    row.update(base)
                    lanes.append((row, worker))
            _rounds(options, lanes, step)
    return made


def _rounds(options: Options, lanes: list[tuple[Row, Worker]], step: Callable[[str], None]) -> None:
    times: dict[int, list[dict[str, list[float]]]] = {i: [] for i in range(len(lanes))}
    for turn in range(options.rounds):
        for i, (row, worker) in enumerate(lanes):
            step(f"{row['network']} b{row['batch']} {row['threads']}T: round {turn + 1}")
            if "failed" not in row:
                with _noted(row):
                    times[i].append(worker.ask("time", seconds=options.seconds))
    for i, (row, _) in enumerate(lanes):
        if "failed" in row:
            continue
        for clock in ("wall_ms", "cpu_ms"):
            row[clock] = quantiles([ms for turn in times[i] for ms in turn[clock]])
            row[f"round_{clock}"] = [statistics.median(turn[clock]) for turn in times[i]]


@contextlib.contextmanager
def _noted(row: Row) -> Any:
    """A worker that cannot go on ends in its row, not in an exception."""
    try:
        yield
    except Lost as error:
        row[error.kind] = str(error)
