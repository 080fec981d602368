"""Threads: which steps use them, who gets them, and that results do not depend on them."""

from __future__ import annotations

import multiprocessing
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("onnx")
import lepton_rt
from lepton_rt import _core
from small_networks import cnn

paces = _core.testing.paces


def test_a_step_keeps_to_the_faster_way() -> None:
    assert all(paces(20_000, 35_000, 20_000, 1000)[17:])
    assert not any(paces(9_000, 5_000, 9_000, 1000)[17:])


def test_workers_that_must_be_woken_count() -> None:
    """Faster among steps that all use the pool, slower among steps that do not."""
    assert not any(paces(4_000, 5_000, 9_000, 1000)[17:])


@pytest.mark.parametrize("step", range(4))
def test_a_long_step_is_never_run_alone(step: int) -> None:
    assert all(paces(2_000_000, 3_000_000, 2_000_000, 5000, step))
    assert all(paces(300_000, 400_000, 300_000, 5000, step))
    assert not all(paces(150_000, 20_000, 150_000, 10, step))


def test_while_a_step_is_tried_alone_its_neighbours_use_the_pool() -> None:
    steps = [paces(20_000, 20_000, 20_000, 14, step) for step in range(9)]
    for run, (one, next_one) in ((r, pair) for pair in pairwise(steps) for r in range(14)):
        assert one[run] or next_one[run]


def test_a_step_is_tried_again_later() -> None:
    chosen = paces(20_000, 35_000, 20_000, 4100)
    assert [chosen[first : first + 17].count(False) for first in (0, 2000, 4000)] == [3, 3, 3]
    assert all(chosen[17:2000])


def run_all(session: lepton_rt.Session, images: list[np.ndarray]) -> list[np.ndarray]:
    return [np.array(session.run(image)) for image in images]


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_results_do_not_depend_on_threads(threads: int, rng: np.random.Generator) -> None:
    """Over enough runs that steps change between the pool and the caller's thread."""
    images = [rng.standard_normal((1 + i % 3, 3, 16, 16)).astype(np.float32) for i in range(60)]
    expected = run_all(lepton_rt.Session(cnn(), threads=1), images)
    for got, want in zip(run_all(lepton_rt.Session(cnn(), threads=threads), images), expected):
        np.testing.assert_array_equal(got, want)


def test_sessions_run_at_once(rng: np.random.Generator) -> None:
    """More callers than processors, each with a session of its own; all finish and agree."""
    image = rng.standard_normal((2, 3, 16, 16)).astype(np.float32)
    expected = lepton_rt.Session(cnn(), threads=1).run(image)
    wrong: list[int] = []

    def call(i: int) -> None:
        session = lepton_rt.Session(cnn(), threads=1 + i % 3)
        wrong.extend(i for _ in range(50) if not np.array_equal(session.run(image), expected))

    callers = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_workers_rest_between_runs(rng: np.random.Generator) -> None:
    """A worker may look for work during a run only."""
    session = lepton_rt.Session(cnn(), threads=2)
    for _ in range(20):
        session.run(rng.standard_normal((4, 3, 16, 16)).astype(np.float32))
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def _run_in_child(session: lepton_rt.Session, image: np.ndarray, queue: object) -> None:
    queue.put(session.run(image))  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(rng: np.random.Generator) -> None:
    session = lepton_rt.Session(cnn(), threads=2)
    image = rng.standard_normal((4, 3, 16, 16)).astype(np.float32)
    expected = session.run(image)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_run_in_child, args=(session, image, queue))
    child.start()
    got = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(got, expected)


def test_times_of_steps(rng: np.random.Generator) -> None:
    session = lepton_rt.Session(cnn(), threads=1)
    image = rng.standard_normal((2, 3, 16, 16)).astype(np.float32)
    times = session._executor.profile([image])
    assert len(times) == len(session.explain())
    assert all(time >= 0 for time in times)
    assert sum(times) > 1000


def test_plain_runs_and_others_agree(rng: np.random.Generator) -> None:
    session = lepton_rt.Session(cnn(), threads=1)
    image = rng.standard_normal((2, 3, 16, 16)).astype(np.float32)
    plain = session._executor.run_plain
    np.testing.assert_array_equal(plain((image,)), session.run({"x": image}))
    others = [(), (image, image), (image.tolist(),), (image[:, :, ::2],), (image[:, :2],)]
    others += [(image.astype(np.float64),), (image.astype(">f4"),), (None,)]
    assert all(plain(other) is None for other in others)
