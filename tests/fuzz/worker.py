"""Runs mutants in this process: worker.py SEEDS_DIR CURRENT first count.

Before each one the file CURRENT says which it is, so that the parent knows what a crash was about.
Whatever a mutant raises must be a lepton_rt.Error or a MemoryError; anything else is printed and
ends the process.
"""

from __future__ import annotations

import faulthandler
import os
import random
import resource
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import lepton_rt
from mutate import mutant

SECONDS_EACH = 30
ADDRESS_SPACE = 6 << 30
MAX_ELEMENTS = 1 << 16


def sanitized() -> bool:
    return "libasan" in os.environ.get("LD_PRELOAD", "")


def random_input(value: object, rng: np.random.Generator) -> np.ndarray | None:
    """An array that fits a session's input, or None when that would be too large."""
    shape = [d if isinstance(d, int) else 2 for d in (value.shape or ())]  # type: ignore[attr-defined]
    if any(d < 0 for d in shape) or np.prod([float(d) for d in shape] or [1.0]) > MAX_ELEMENTS:
        return None
    dtype = np.dtype(value.dtype)  # type: ignore[attr-defined]
    if dtype.hasobject:
        return np.full(shape, "word", object)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def exercise(data: bytes, rng: np.random.Generator) -> str:
    """Loads and runs one mutant; returns what became of it."""
    try:
        session = lepton_rt.Session(data, threads=1)
        feed = {}
        for value in session.inputs:
            array = random_input(value, rng)
            if array is None:
                return "large"
            feed[value.name] = array
        session.run(feed)
    except MemoryError:
        return "large"
    except lepton_rt.Error as error:
        text = str(error)
        if not text or len(text) > 2000:
            raise AssertionError(f"the message is empty or endless: {text[:200]!r}") from error
        return "refused"
    return "ran"


def main() -> None:
    seeds_dir, current, first, count = sys.argv[1:]
    faulthandler.enable()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    seeds = sorted(Path(seeds_dir).iterdir())
    if not sanitized():
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    tally = {"ran": 0, "refused": 0, "large": 0}
    for number in range(int(first), int(first) + int(count)):
        rng = random.Random(number)
        seed = rng.choice(seeds)
        Path(current).write_text(f"{number} {seed.name}")
        data = mutant(seed.suffix[1:], seed.read_bytes(), rng)
        faulthandler.dump_traceback_later(SECONDS_EACH, exit=True)
        try:
            tally[exercise(data, np.random.default_rng(number))] += 1
        except BaseException:
            print(f"mutant {number} of {seed.name}: not a lepton_rt.Error")
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
            os._exit(1)
        faulthandler.cancel_dump_traceback_later()
    print(" ".join(f"{name}={n}" for name, n in tally.items()))


if __name__ == "__main__":
    main()
