"""Products of float32 rows by weights kept as bfloat16, against the same weights as float32.

    OMP_NUM_THREADS=1 python benchmarks/bench_bf16.py [--threads 1] [--rounds 3] [--rows 1 4 16]

Weights are k × n, in as many copies as fill --megabytes as float32; a round multiplies by each copy
once, one after the other in both forms, so every run reads its weights from beyond the second-level
cache. Figures are medians; GB/s counts the bytes of the weights. Each result is checked once
against float64. LEPTON_MAX_ISA picks the kernels. --cpu counts processor time, for one thread on a
machine that has other work to do.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import lepton_rt
from lepton_rt.graph.ir import Constant, Graph, Node, Value

FORMS = {"f32": 4, "bf16": 2}


def session(k: int, n: int, precision: str, seed: int, threads: int) -> lepton_rt.Session:
    weights = np.random.default_rng(seed).standard_normal((k, n)).astype(np.float32)
    float32 = np.dtype(np.float32)
    graph = Graph(
        inputs={"x": Value(float32, ("m", k))},
        outputs={"y": Value(float32, ("m", n))},
        nodes=[Node("MatMul", ["x", "w"], ["y"])],
        constants={"w": Constant(float32, (k, n), "dense", {"data": weights})},
    )
    return lepton_rt.Session(graph, precision=precision, threads=threads)


def report(k: int, n: int, options: argparse.Namespace) -> None:
    copies = max(1, (options.megabytes << 20) // (4 * k * n))
    made = {f: [session(k, n, f, i, options.threads) for i in range(copies)] for f in FORMS}
    real = np.random.default_rng(0).standard_normal((k, n)).astype(np.float32)
    clock = time.thread_time if options.cpu else time.perf_counter
    for rows in options.rows:
        x = np.random.default_rng(1).standard_normal((rows, k)).astype(np.float32)
        exact, size = x.astype(np.float64) @ real, np.abs(x) @ np.abs(real)
        for form, bound in (("f32", k * 2**-23), ("bf16", 2**-8 + k * 2**-23)):
            assert (np.abs(made[form][0].run(x) - exact) <= bound * size).all(), form
        times: dict[str, list[float]] = {form: [] for form in FORMS}
        for _ in range(options.rounds):
            for copy in range(copies):
                for form in FORMS:
                    start = clock()
                    made[form][copy].run(x)
                    times[form].append(clock() - start)
        took = {form: statistics.median(values) for form, values in times.items()}
        line = f"{rows:4} x {k} x {n}:"
        for form, element in FORMS.items():
            rate, bandwidth = rows * k * n / took[form] / 1e9, k * n * element / took[form] / 1e9
            line += f"  {form} {took[form] * 1e6:7.0f} us {rate:6.1f} GMAC/s {bandwidth:5.1f} GB/s"
        print(f"{line}  ratio {took['f32'] / took['bf16']:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["768x3072", "4096x4096"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 128])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    for shape in options.shapes:
        k, n = (int(size) for size in shape.split("x"))
        report(k, n, options)


if __name__ == "__main__":
    main()
