"""Attention against torch's scaled_dot_product_attention, on the shapes of real models.

    python benchmarks/bench_attention.py [--threads 1] [--runs 15]

Both read and write [batch, rows, heads, depth] memory (torch through transposed views), on the same
threads, interleaved; medians of processor time over threads, which other work on the machine does
not lengthen. Results are checked once against each other. GFLOP/s counts two products and nothing
of the softmax; a causal product counts half.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lepton_rt import _core
from lepton_rt.graph.ir import Value
from lepton_rt.plan import Plan, Step

Array = npt.NDArray[Any]
SHAPES = Path(__file__).parent / "shapes" / "attention.txt"
NAMES = ("q", "k", "v")


def executor(causal: int, threads: int) -> Any:
    attrs: dict[str, Any] = {f"{role}_layout": "BSHD" for role in "qkvy"}
    attrs.update(is_causal=causal, bottom_right=1)
    float32 = np.dtype(np.float32)
    plan = Plan(
        isa=_core.max_isa(),
        inputs={name: Value(float32, (None,) * 4) for name in NAMES},
        outputs=["y"],
        steps=[Step("lepton.Attention", list(NAMES), ["y"], attrs, "", "attention")],
        constants={},
        dtypes={"y": float32},
    )
    return _core.Executor(*plan.encode(), threads=threads)


def timed(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def bench(sizes: list[int], threads: int, runs: int) -> tuple[float, float]:
    """Median seconds of ours and of torch's."""
    batch, heads, kv_heads, seq_q, seq_k, depth, causal = sizes
    rng = np.random.default_rng(0)
    shapes = [(batch, seq_q, heads, depth)] + [(batch, seq_k, kv_heads, depth)] * 2
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    tensors = [torch.from_numpy(a).transpose(1, 2) for a in arrays]
    ours = executor(causal, threads)
    attention = torch.nn.functional.scaled_dot_product_attention

    def theirs() -> torch.Tensor:
        return attention(*tensors, is_causal=bool(causal), enable_gqa=heads != kv_heads)

    with torch.inference_mode():
        want = theirs().transpose(1, 2).numpy()
        np.testing.assert_allclose(ours.run(arrays)[0], want, rtol=1e-4, atol=1e-5)
        pairs = [(timed(lambda: ours.run(arrays)), timed(theirs)) for _ in range(runs)]
    ours_s, theirs_s = (statistics.median(column) / threads for column in zip(*pairs))
    return ours_s, theirs_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{'shape':40} {'ours µs':>9} {'torch µs':>9} {'ratio':>6} {'GFLOP/s':>8} {'GB/s':>6}")
    for line in SHAPES.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        *numbers, name = line.split(maxsplit=7)
        batch, heads, kv_heads, seq_q, seq_k, depth, causal = sizes = [int(n) for n in numbers]
        ours, theirs = bench(sizes, args.threads, args.runs)
        work = 4 * batch * heads * seq_q * seq_k * depth / (2 if causal else 1)
        moved = 8 * batch * depth * (heads * seq_q + kv_heads * seq_k)
        print(
            f"{name:40} {ours * 1e6:9.0f} {theirs * 1e6:9.0f} {theirs / ours:6.2f} "
            f"{work / ours / 1e9:8.1f} {moved / ours / 1e9:6.1f}"
        )


if __name__ == "__main__":
    main()
