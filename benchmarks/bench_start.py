"""Start and memory: from opening a model to being ready, and what it takes after ten runs.

    python benchmarks/bench_start.py [--network resnet50] [--rounds 7] [--threads 1]

Every figure is taken in a process of its own, one after the other, round by round; medians. Open is
the constructor's time, with the package imported and the files in the page cache; memory is the
proportional set size (/proc/self/smaps_rollup) after ten runs, less what it was after the import.
The int8 models: lepton_rt's own, as .plan, .lepton and cached .onnx, and the same network quantised
by ONNX Runtime (QDQ) in ONNX Runtime and here. Models are built once (benchmarks/race).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from race.networks import NETWORKS
from race.store import Store, default_cache

MEASURE = r"""
import json, sys, time
import numpy as np

def pss_mb():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024

runtime, path, sample, threads = sys.argv[1:]
x = np.load(sample)
if runtime == "onnxruntime":
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    before = pss_mb()
    start = time.perf_counter()
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    opened = time.perf_counter()
    run = lambda: session.run(None, {"x": x})
else:
    import lepton_rt
    lepton_rt.Session
    before = pss_mb()
    start = time.perf_counter()
    session = lepton_rt.Session(path, threads=int(threads), cache=runtime == "cached")
    opened = time.perf_counter()
    run = lambda: session.run(x)
run()
ran = time.perf_counter()
for _ in range(9):
    run()
figures = {"open_ms": (opened - start) * 1e3, "first_run_ms": (ran - opened) * 1e3,
           "pss_mb": pss_mb() - before}
print(json.dumps(figures))
"""


def measure(runtime: str, path: Path, sample: Path, threads: int) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURE, runtime, str(path), str(sample), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def entrants(store: Store) -> dict[str, tuple[str, Path]]:
    """Label → (runtime, file). Plans are made anew: they belong to this build."""
    import lepton_rt

    ours, qdq = store.model("lepton", "int8"), store.model("ort", "qdq")
    folder = store.folder("plans")
    for name, model in (("own", ours), ("qdq", qdq)):
        lepton_rt.Session(model).save_plan(folder / f"{name}.plan")
    lepton_rt.Session(ours, cache=True)
    return {
        "ONNX Runtime, QDQ .onnx": ("onnxruntime", qdq),
        "lepton_rt, .plan of that file": ("lepton_rt", folder / "qdq.plan"),
        "lepton_rt, that file": ("lepton_rt", qdq),
        "lepton_rt, .plan of its own int8": ("lepton_rt", folder / "own.plan"),
        "lepton_rt, its own .lepton": ("lepton_rt", ours),
        "lepton_rt, its own .lepton, cached": ("cached", ours),
    }


def main() -> None:
    import numpy as np

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet50", choices=sorted(NETWORKS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    store = Store(options.cache, options.network)
    files = entrants(store)
    sample = store.folder("plans") / "x.npy"
    np.save(sample, store.network.samples(1, seed=3))
    figures: dict[str, list[dict[str, float]]] = {label: [] for label in files}
    for _ in range(options.rounds):
        for label, (runtime, path) in files.items():
            figures[label].append(measure(runtime, path, sample, options.threads))
    first = next(iter(figures))
    median = {
        label: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for label, rows in figures.items()
    }
    print(f"{store.network.title}, int8, batch 1, {options.threads} thread(s)")
    print(f"{'':36} {'open, ms':>9} {'first run':>10} {'PSS, MB':>8} {'open':>6} {'PSS':>6}")
    for label, row in median.items():
        open_ratio = row["open_ms"] / median[first]["open_ms"]
        pss_ratio = row["pss_mb"] / median[first]["pss_mb"]
        print(
            f"{label:36} {row['open_ms']:9.1f} {row['first_run_ms']:10.1f} {row['pss_mb']:8.1f} "
            f"{open_ratio:5.2f}x {pss_ratio:5.2f}x"
        )


if __name__ == "__main__":
    main()
