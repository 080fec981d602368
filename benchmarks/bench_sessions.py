"""Two sessions at once: their throughput together, beside that of one session with all threads.

    python benchmarks/bench_sessions.py MODEL [--rounds 9] [--seconds 0.5] [--batch 1]

Each of the two is called from a Python thread of its own and may use as many threads as the one.
Rounds are interleaved; medians.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Sequence

import lepton_rt
from lepton_rt.cli.inputs import random_feed


def throughput(sessions: Sequence[lepton_rt.Session], feed: object, seconds: float) -> float:
    """Runs per second of all sessions together, each called from a thread of its own."""
    counts = [0] * len(sessions)
    start = time.perf_counter()

    def call(i: int) -> None:
        while time.perf_counter() - start < seconds:
            sessions[i].run(feed)
            counts[i] += 1

    callers = [threading.Thread(target=call, args=(i,)) for i in range(len(sessions))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return sum(counts) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="+")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    for model in options.model:
        sessions = [lepton_rt.Session(model) for _ in range(3)]
        feed = random_feed(sessions[0], options.batch, (), seed=0)
        array = feed if len(feed) > 1 else next(iter(feed.values()))
        for session in sessions:
            for _ in range(12):  # until it is settled which steps use the pool
                session.run(array)
        rounds = [
            [throughput(group, array, options.seconds) for group in (sessions[:1], sessions[1:])]
            for _ in range(options.rounds)
        ]
        one, two = (statistics.median(column) for column in zip(*rounds))
        ratio = statistics.median(both / alone for alone, both in rounds)
        print(
            f"{model}, {sessions[0].threads} threads: one session {one:.1f} runs/s, two together "
            f"{two:.1f} runs/s, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
