"""Many Python threads call one Session, each with its own shapes: every answer must be its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("onnx")
import lepton_rt
from fuzz.seeds import cnn, qdq_cnn


@pytest.mark.parametrize("threads", [1, 2])
def test_a_thousand_calls_on_one_session(threads: int) -> None:
    session = lepton_rt.Session(cnn(), threads=threads)
    rng = np.random.default_rng(7)
    inputs = [rng.standard_normal((1 + i % 5, 3, 12, 12)).astype(np.float32) for i in range(20)]
    expected = [np.array(session.run(x)) for x in inputs]

    def call(i: int) -> bool:
        return np.array_equal(session.run(inputs[i % 20]), expected[i % 20])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(1000)))


def test_sessions_beside_each_other() -> None:
    rng = np.random.default_rng(8)
    inputs = [rng.standard_normal((1, 4, 8, 8)).astype(np.float32) for _ in range(10)]
    expected = [np.array(lepton_rt.Session(qdq_cnn()).run(x)) for x in inputs]

    def make_and_call(i: int) -> bool:
        session = lepton_rt.Session(qdq_cnn(), threads=1 + i % 2)
        return np.array_equal(session.run(inputs[i % 10]), expected[i % 10])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(make_and_call, range(40)))


def test_concurrent_refusals() -> None:
    """A call that is refused must not disturb the others."""
    session = lepton_rt.Session(cnn(), threads=2)
    x = np.ones((2, 3, 12, 12), np.float32)
    expected = np.array(session.run(x))

    def call(i: int) -> bool:
        if i % 3:
            return np.array_equal(session.run(x), expected)
        with pytest.raises(lepton_rt.InputError):
            session.run(x[:, :2])
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(300)))
