"""Mutated model files: every one must load and run, or be refused with a lepton_rt.Error."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
from onnx.reference import ReferenceEvaluator

import lepton_rt
from fuzz.seeds import all_seeds

QUICK_RUNS = 400
MAX_FAILURES = 10
WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each seed as .onnx and as .lepton, and as .plan where it has no host steps."""
    folder = tmp_path_factory.mktemp("seeds")
    for name, model in all_seeds().items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
        lepton_rt.save_lepton(lepton_rt.import_onnx(model), folder / f"{name}.lepton")
        with contextlib.suppress(lepton_rt.UnsupportedError):
            lepton_rt.Session(model).save_plan(folder / f"{name}.plan")
    return folder


def test_most_seeds_have_plans(seeds: Path) -> None:
    assert len(list(seeds.glob("*.plan"))) >= 4


@pytest.mark.parametrize("name", sorted(all_seeds()))
def test_seeds_run(name: str) -> None:
    """A seed that is refused, or that gives nonsense, would make its mutants worthless."""
    model = all_seeds()[name]
    oracle = ReferenceEvaluator(model)
    rng = np.random.default_rng(3)
    feed = {}
    session = lepton_rt.Session(model)
    for value in session.inputs:
        shape = [d if isinstance(d, int) else 2 for d in value.shape or ()]
        is_float = value.dtype.kind == "f"
        array = rng.standard_normal(shape) if is_float else rng.integers(0, 4, shape)
        if value.dtype.hasobject:
            array = np.full(shape, "word", object)
        feed[value.name] = array.astype(value.dtype)
    results = session.run(feed)
    results = [results] if isinstance(results, np.ndarray) else list(results)
    step = (
        0.06 if name == "qdq_cnn" else 0.0
    )  # of its last 8-bit tensor: rounding may differ by one
    for result, expected in zip(results, oracle.run(None, feed)):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4 + step)


@dataclass
class Outcome:
    tally: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def run_range(seeds: Path, current: Path, first: int, count: int) -> Outcome:
    """Runs mutants first … first + count - 1, starting over after each one that fails."""
    outcome = Outcome()
    end = first + count
    while first < end and len(outcome.failures) < MAX_FAILURES:
        command = [sys.executable, str(WORKER), str(seeds), str(current), str(first)]
        done = subprocess.run(
            [*command, str(end - first)], capture_output=True, text=True, errors="replace"
        )
        if done.returncode == 0:
            for item in done.stdout.split("\n")[-2].split():
                name, n = item.split("=")
                outcome.tally[name] = outcome.tally.get(name, 0) + int(n)
            break
        which = current.read_text()
        shown = (done.stdout[-1500:] + done.stderr[-1500:]).strip()
        outcome.failures.append(f"mutant {which} (exit {done.returncode}):\n{shown}")
        first = int(which.split()[0]) + 1
    return outcome


def campaign(seeds: Path, tmp_path: Path, runs: int) -> None:
    workers = max(1, len(os.sched_getaffinity(0)))
    share = -(-runs // workers)
    jobs = [(k * share, min(share, runs - k * share)) for k in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(
            pool.map(lambda job: run_range(seeds, tmp_path / f"current{job[0]}", *job), jobs)
        )
    failures = [text for outcome in outcomes for text in outcome.failures]
    tally: dict[str, int] = {}
    for outcome in outcomes:
        for name, n in outcome.tally.items():
            tally[name] = tally.get(name, 0) + n
    print(f"{runs} mutants: {tally}, {len(failures)} failed")
    assert not failures, "\n\n".join(failures)
    # A campaign that refuses everything, or nothing, tests nothing.
    assert tally["ran"] > runs // 50
    assert tally["refused"] > runs // 5


@pytest.mark.timeout(900)
def test_mutants(seeds: Path, tmp_path: Path) -> None:
    campaign(seeds, tmp_path, int(os.environ.get("LEPTON_FUZZ_RUNS", QUICK_RUNS)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_mutants_in_full(seeds: Path, tmp_path: Path) -> None:
    campaign(seeds, tmp_path, 10_000)
