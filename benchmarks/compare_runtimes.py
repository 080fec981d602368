"""Whole networks, fp32 and int8, beside ONNX Runtime in the same run, interleaved.

    python benchmarks/compare_runtimes.py [--networks mobilenet_v2] [--batch 1] [--rounds 15]

The int8 rows run one and the same QDQ file, quantised by lepton_rt, in both runtimes; ONNX Runtime
runs it in its default mode (which saturates on CPUs without VNNI) and in its exact mode. Random
weights and inputs. Prints medians in milliseconds and ratios, and writes JSON with --json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import networks
import numpy as np
import onnxruntime as ort

import lepton_rt
from lepton_rt.graph.onnx_io import export_onnx


def ort_runner(model: bytes, threads: int, x: Any, exact: bool = False) -> Callable[[], Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feeds)[0]


def lepton_runner(model: bytes, threads: int, x: Any) -> Callable[[], Any]:
    session = lepton_rt.Session(model, threads=threads)
    return lambda: session.run(x)


def interleaved(runners: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each runner, one run of each per round after a warm-up."""
    for run in runners.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def compare(name: str, batch: int, threads: int, rounds: int) -> dict[str, float]:
    """Median milliseconds per runtime of one network."""
    fp32 = networks.cnn(name)
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(2, 3, 224, 224)).astype(np.float32) for _ in range(4)]
    quantised = lepton_rt.quantize(fp32, batches, progress=False)
    int8 = export_onnx(quantised.graph, opset=21).SerializeToString()
    x = rng.normal(size=(batch, 3, 224, 224)).astype(np.float32)
    times = interleaved(
        {
            "lepton fp32": lepton_runner(fp32, threads, x),
            "ort fp32": ort_runner(fp32, threads, x),
            "lepton int8": lepton_runner(int8, threads, x),
            "ort int8 (default)": ort_runner(int8, threads, x),
            "ort int8 (exact)": ort_runner(int8, threads, x, exact=True),
        },
        rounds,
    )
    return {runtime: statistics.median(values) for runtime, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=networks.NAMES, choices=networks.NAMES)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", help="write the figures here")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for name in options.networks:
        for threads in options.threads:
            medians = compare(name, options.batch, threads, options.rounds)
            results.append({"network": name, "threads": threads, "ms": medians})
            print(f"{name}, batch {options.batch}, {threads} thread(s)")
            for runtime, ms in medians.items():
                own = medians["lepton fp32" if "fp32" in runtime else "lepton int8"]
                print(f"  {runtime:20} {ms:8.2f} ms   {ms / own:5.2f}x lepton's time")
    if options.json:
        record = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": platform.processor() or platform.machine(),
            "lepton_rt": lepton_rt.__version__,
            "onnxruntime": ort.__version__,
            "batch": options.batch,
            "results": results,
        }
        with open(options.json, "w") as file:
            json.dump(record, file, indent=1)


if __name__ == "__main__":
    main()
