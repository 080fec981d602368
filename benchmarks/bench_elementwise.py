"""Elementwise programs, softmax, norms, reductions: time per small step, GB/s of large ones.

    python benchmarks/bench_elementwise.py [--filter softmax] [--threads 1]

Each case runs as a plan; small ones as a chain of many steps, so that the call itself does not
count. Peers, interleaved: the same computation by PyTorch on the same threads, where it is
installed. Medians. Results are checked once against the peer. Ours writes into the same output each
time, as a server would.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_rt import _core
from lepton_rt.graph.ir import Value
from lepton_rt.plan import Plan, Step, StepAttr

Array = npt.NDArray[Any]


@dataclass
class Case:
    """One operator; its first input runs through `chain` steps one after the other."""

    name: str
    key: str
    inputs: list[Array]
    attrs: dict[str, StepAttr]
    out: str = "float32"
    chain: int = 1
    peer: Callable[..., Any] | None = None
    moved: int = field(default=0)
    """Bytes read and written; 0: not bandwidth."""


def program(text: str) -> dict[str, StepAttr]:
    return {"program": text}


def executor(case: Case, threads: int) -> tuple[Any, list[Array]]:
    names = [f"x{i}" for i in range(len(case.inputs))]
    steps = []
    last = "x0"
    for i in range(case.chain):
        steps.append(Step(case.key, [last, *names[1:]], [f"y{i}"], case.attrs))
        last = f"y{i}"
    plan = Plan(
        isa=_core.max_isa(),
        inputs={n: Value(a.dtype, a.shape) for n, a in zip(names[:1], case.inputs, strict=False)},
        outputs=[last],
        steps=steps,
        constants=dict(zip(names[1:], case.inputs[1:], strict=True)),
        dtypes={s.outputs[0]: np.dtype(case.out) for s in steps},
    )
    return _core.Executor(*plan.encode(), threads=threads), case.inputs[:1]


def cases() -> list[Case]:
    rng = np.random.default_rng(0)

    def f32(*shape: int) -> Array:
        return rng.normal(0, 1, shape).astype(np.float32)

    key = "lepton.Elementwise"
    small, vector, large = f32(16), f32(16), f32(1 << 24)
    rows = f32(512, 768)
    found = [
        Case("Add 16 + 16", key, [small, vector], program("Add r0 r1"), chain=1000),
        Case("Relu 16", key, [small], program("Relu r0"), chain=1000),
        Case("Exp 16", key, [small], program("Exp r0"), chain=1000),
        Case("Add 3 x [64] over [64, 64]", key, [f32(64, 64), f32(64)],
             program("Add r0 r1;Mul r2 r1;Relu r3"), chain=100),
    ]  # fmt: skip
    for size, label in ((1 << 20, "1M"), (1 << 14, "16K")):
        x, y = f32(size), f32(size)
        chain = 1 if size > 1 << 14 else 100
        found += [
            Case(f"Add {label}", key, [x, y], program("Add r0 r1"), chain=chain,
                 peer=(lambda a, b: a + b) if chain == 1 else None, moved=3 * x.nbytes),
            Case(f"Exp {label}", key, [x], program("Exp r0"),
                 peer=lambda a: a.exp(), moved=2 * x.nbytes),
            Case(f"Gelu {label}", key, [x], program("Gelu r0"),
                 peer=lambda a: __import__("torch").nn.functional.gelu(a), moved=2 * x.nbytes),
            Case(f"Tanh {label}", key, [x], program("Tanh r0"),
                 peer=lambda a: a.tanh(), moved=2 * x.nbytes),
            Case(f"Sigmoid {label}", key, [x], program("Sigmoid r0"),
                 peer=lambda a: a.sigmoid(), moved=2 * x.nbytes),
            Case(f"Quantize u8 {label}", key, [x], program("Quantize r0 #0.03 #128 #0 #255"),
                 out="uint8", moved=x.nbytes * 5 // 4),
        ]  # fmt: skip
    found += [
        Case("[12544, 64] + [64], Relu", key, [f32(12544, 64), f32(64)],
             program("Add r0 r1;Relu r2"), peer=lambda a, b: (a + b).relu(),
             moved=2 * 12544 * 64 * 4),
        Case("[64, 12544] + [64, 1]", key, [f32(64, 12544), f32(64, 1)], program("Add r0 r1"),
             peer=lambda a, b: a + b, moved=2 * 12544 * 64 * 4),
        Case("[12544, 16] + [16]", key, [f32(12544, 16), f32(16)], program("Add r0 r1"),
             peer=lambda a, b: a + b, moved=2 * 12544 * 16 * 4),
        Case("Softmax [1536, 128]", "Softmax", [f32(1536, 128)], {},
             peer=lambda a: a.softmax(-1), moved=2 * 1536 * 128 * 4),
        Case("Softmax [21, 65536] axis 0", "Softmax", [f32(21, 65536)], {"axis": 0},
             peer=lambda a: a.softmax(0), moved=2 * 21 * 65536 * 4),
        Case("LayerNormalization [512, 768]", "LayerNormalization", [rows, f32(768), f32(768)], {},
             peer=lambda a, s, b: __import__("torch").nn.functional.layer_norm(a, (768,), s, b),
             moved=2 * rows.nbytes),
        Case("ReduceMean [1, 49, 2048] axis 1", "ReduceMean", [f32(1, 49, 2048)], {"axes": [1]},
             peer=lambda a: a.mean(1, keepdim=True), moved=49 * 2048 * 4),
        Case("ReduceSum [512, 768] axis 1", "ReduceSum", [rows], {"axes": [1]},
             peer=lambda a: a.sum(1, keepdim=True), moved=rows.nbytes),
        Case("ReduceMax [512, 768] axis 1", "ReduceMax", [rows], {"axes": [1]},
             peer=lambda a: a.amax(1, keepdim=True), moved=rows.nbytes),
        Case("Add 16M", key, [large, large[::-1].copy()], program("Add r0 r1"),
             moved=3 * large.nbytes),
    ]  # fmt: skip
    return found


def measure(case: Case, threads: int) -> str:
    """One line: time per step, GB/s, ratio to the peer."""
    run, inputs = executor(case, threads)
    peer, tensors = None, []
    if case.peer is not None:
        try:
            import torch
        except ImportError:
            pass
        else:
            torch.set_num_threads(threads)
            peer, tensors = case.peer, [torch.from_numpy(a) for a in case.inputs]
            np.testing.assert_allclose(
                run.run(inputs)[0], peer(*tensors).numpy(), rtol=1e-4, atol=1e-5
            )
    # Processor time where one thread does it all, so that other work on the machine counts less.
    clock = time.thread_time if threads == 1 else time.perf_counter
    out = run.run(inputs)
    ours: list[float] = []
    theirs: list[float] = []
    stop = time.perf_counter() + 0.4
    while len(ours) < 5 or time.perf_counter() < stop:
        start = clock()
        run.run(inputs, out)
        middle = clock()
        ours.append((middle - start) / case.chain)
        if peer is not None:
            peer(*tensors)
            theirs.append(clock() - middle)
    seconds = statistics.median(ours)
    line = f"{case.name:32s} {seconds * 1e9:12.0f} ns"
    line += f" {case.moved / seconds / 1e9:8.1f} GB/s" if case.moved else " " * 14
    if theirs:
        line += f"   {statistics.median(theirs) / seconds:5.2f} x PyTorch's speed"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--filter", default="", help="only cases whose name contains this")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for case in cases():
        if options.filter.lower() in case.name.lower():
            print(measure(case, options.threads), flush=True)


if __name__ == "__main__":
    main()
