"""GPT-2 (124 M parameters), a token at a time with its cache: weights as float32 and as bfloat16.

    python benchmarks/bench_generation.py [--rounds 3] [--tokens 24] [--threads 1]

Weights are random, of the sizes that trained ones have. Each form is compiled to a .plan; every
round opens it in a process of its own, one form after the other, reads a prompt of 16 tokens and
goes on for --tokens. Figures are medians over the tokens of all rounds; memory is the proportional
set size (/proc/self/smaps_rollup) after them, less what it was after the import. Error: of the
logits of 64 tokens read at once, ‖bf16 − f32‖ / ‖f32‖, and how many have the same likeliest token.
LEPTON_MAX_ISA picks the kernels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import lepton_rt

FORMS = ("f32", "bf16")

MEASURE = r"""
import json, sys, time
import numpy as np
import lepton_rt

def pss_mb():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024

path, threads, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
lepton_rt.Session
before = pss_mb()
session = lepton_rt.Session(path, threads=threads)
state = session.new_state()
logits = session.run(np.arange(16).reshape(1, 16) * 977, state=state)
times = []
for _ in range(tokens):
    token = logits[:, -1:].argmax(-1)
    start = time.perf_counter()
    logits = session.run(token, state=state)
    times.append(time.perf_counter() - start)
print(json.dumps({"ms": [t * 1e3 for t in times], "pss_mb": pss_mb() - before}))
"""


def compiled(folder: Path) -> dict[str, Path]:
    import torch
    import transformers

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from acceptance.torch_models import enlivened, gpt2_config
    from decoder_models import export_decoder

    torch.manual_seed(0)
    model = enlivened(transformers.GPT2LMHeadModel(gpt2_config(True)), ())
    program = export_decoder(model, cache=True)
    ids = np.random.default_rng(0).integers(0, 50257, (1, 64))
    plans, logits = {}, {}
    for form in FORMS:
        session = lepton_rt.Session(program, precision=form)
        plans[form] = folder / f"{form}.plan"
        session.save_plan(plans[form])
        logits[form] = session.run(ids, state=session.new_state())[0]
    error = np.linalg.norm(logits["bf16"] - logits["f32"]) / np.linalg.norm(logits["f32"])
    same = (logits["bf16"].argmax(-1) == logits["f32"].argmax(-1)).sum()
    print(f"error of the logits {error:.2g}; the same likeliest token {same} of {ids.size} times")
    return plans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plans = compiled(Path(folder))
        for threads in options.threads:
            found: dict[str, list[dict[str, list[float]]]] = {form: [] for form in FORMS}
            for _ in range(options.rounds):
                for form, path in plans.items():
                    arguments = [str(path), str(threads), str(options.tokens)]
                    made = subprocess.run(
                        [sys.executable, "-c", MEASURE, *arguments],
                        stdout=subprocess.PIPE,
                        check=True,
                    )
                    found[form].append(json.loads(made.stdout))
            for form, rounds in found.items():
                ms = statistics.median(t for figures in rounds for t in figures["ms"])
                pss = statistics.median(figures["pss_mb"] for figures in rounds)
                size = plans[form].stat().st_size / 2**20
                figures = f"{ms:.2f} ms a token, {pss:.0f} MB, plan {size:.0f} MB"
                print(f"{threads} threads, {form}: {figures}")


if __name__ == "__main__":
    main()
