"""What running independent branches side by side could give over sharing out every step.

    python benchmarks/bench_branches.py [--rounds 9]

Inception modules (convolutions 1x1; 1x1 and 3x3; 1x1 and 5x5; a pool and 1x1; concatenated) and
bidirectional LSTMs in float32 and 8 bits, batch 1, random data. Prints the time on one thread, on
two, which share out every step (of a bidirectional layer: take a direction each), and the longer
part of the best division of the branches, each timed by itself on one thread: what no scheduler of
branches on two threads can beat. Medians of interleaved rounds, by the clock.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import nn

import lepton_rt
from lepton_rt.loading import load_graph

INCEPTION = {  # input channels, image, then widths: 1x1; 3x3 after; 5x5 after; behind the pool
    "GoogLeNet 3a": (192, 28, 64, (96, 128), (16, 32), 32),
    "GoogLeNet 5b": (832, 7, 384, (192, 384), (48, 128), 128),
    "an eighth of 3a": (24, 28, 8, (12, 16), (2, 4), 4),
    "16 channels, 7x7": (16, 7, 8, (8, 8), (8, 8), 8),
}


def branches(name: str) -> list[nn.Module]:
    channels, _, ones, threes, fives, pooled = INCEPTION[name]

    def conv(a: int, b: int, k: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, k, padding=k // 2), nn.ReLU()]

    return [
        nn.Sequential(*conv(channels, ones, 1)),
        nn.Sequential(*conv(channels, threes[0], 1), *conv(*threes, 3)),
        nn.Sequential(*conv(channels, fives[0], 1), *conv(*fives, 5)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), *conv(channels, pooled, 1)),
    ]


class Module(nn.Module):
    """The branches of one input, concatenated."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([part(x) for part in self.parts], 1)


class Recurrent(nn.Module):
    """An LSTM over [time, batch, features]."""

    def __init__(self, hidden: int, both: bool) -> None:
        super().__init__()
        self.inner = nn.LSTM(128, hidden, bidirectional=both)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.inner(x)[0]
        return made


def session(module: nn.Module, x: torch.Tensor, threads: int, integer: bool) -> lepton_rt.Session:
    model: Any = load_graph(module.eval(), x)
    if integer:
        mode = "dynamic" if isinstance(module, Recurrent) else "static"
        model = lepton_rt.quantize(model, [x.numpy()], mode=mode, progress=False)
    return lepton_rt.Session(model, threads=threads)


def medians(sessions: list[lepton_rt.Session], x: np.ndarray, rounds: int) -> list[float]:
    """Microseconds a run."""
    times: list[list[float]] = [[] for _ in sessions]
    for made in sessions:
        for _ in range(30):
            made.run(x)
    for _ in range(rounds):
        for made, seen in zip(sessions, times):
            start, count = time.perf_counter(), 0
            while (now := time.perf_counter()) - start < 0.02:
                made.run(x)
                count += 1
            seen.append((now - start) / count * 1e6)
    return [statistics.median(seen) for seen in times]


def report(
    name: str, whole: nn.Module, parts: list[nn.Module], x: torch.Tensor, integer: bool, rounds: int
) -> None:
    sessions = [session(whole, x, threads, integer) for threads in (1, 2)]
    sessions += [session(part, x, 1, integer) for part in parts]
    one, two, *each = medians(sessions, x.numpy(), rounds)
    share = min(
        max(sum(t for t, side in zip(each, sides) if side == half) for half in (0, 1))
        for sides in itertools.product((0, 1), repeat=len(each))
    )
    kind = "int8" if integer else "float32"
    print(f"{name}, {kind}: one thread {one:.1f} µs, two {two:.1f}, longer share {share:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    for integer in (False, True):
        for name, (channels, size, *_) in INCEPTION.items():
            x = torch.randn(1, channels, size, size)
            parts = branches(name)
            report(name, Module(parts), parts, x, integer, rounds)
        for hidden in (64, 256):
            x = torch.randn(64, 1, 128)
            part = Recurrent(hidden, both=False)
            title = f"bidirectional LSTM of {hidden}, 64 steps"
            report(title, Recurrent(hidden, both=True), [part, part], x, integer, rounds)


if __name__ == "__main__":
    main()
