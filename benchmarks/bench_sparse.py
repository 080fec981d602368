"""Block-sparse networks against the same networks dense, both in lepton_rt.

    OMP_NUM_THREADS=1 python benchmarks/bench_sparse.py [--networks resnet50 bert_base] [--cpu]

Every convolution and matrix product but the first and the last is pruned by blocks (prune), then
all are quantised to int8 (quantize, two random samples), or stay float32 with --f32. Dense and
sparse sessions take turns; figures are medians. Each sparse result is checked once against the same
weights packed densely: the same bits, in float32 close to them where dense layers run by Winograd.
--products times single products of shapes/gemm.txt at several shares of blocks instead, --layers
3x3 convolutions with stride 1, the dense ones by Winograd where layers take it (in int8 with AVX2
kernels, whose direct product skips zeros). LEPTON_MAX_ISA picks the kernels. --cpu counts processor
time, for one thread on a machine that has other work to do. --cache keeps exported networks in a
folder.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import bench_conv
import numpy as np
import numpy.typing as npt
from bench_gemm import read_shapes
from race import networks

import lepton_rt
from lepton_rt import _core
from lepton_rt.graph.ir import Graph, Value
from lepton_rt.lower import LowerContext
from lepton_rt.lowering import conv, matmul, rhs
from lepton_rt.lowering.sparse import Sparse, pack_sparse_f32
from lepton_rt.plan import Plan, Step, StepAttr

Array = npt.NDArray[Any]
Runner = Callable[[], Array]

SPARSITIES = (0.75, 0.9)
SHARES = (0.7, 0.5, 0.4, 0.25, 0.1)


def exported(name: str, cache: str) -> bytes:
    path = Path(cache or ".") / f"{name}.onnx"
    if cache and path.exists():
        return path.read_bytes()
    data = networks.export(name)
    if cache:
        path.write_bytes(data)
    return data


@contextlib.contextmanager
def dense_only() -> Iterator[None]:
    """While it lasts, no weights are packed without their zeros."""
    none = Sparse("", None, "")
    with contextlib.ExitStack() as stack:
        for module, name in (
            (rhs, "try_sparse"),
            (matmul, "try_sparse_f32"),
            (conv, "try_sparse_f32"),
        ):
            stack.enter_context(mock.patch.object(module, name, return_value=none))
        yield


def medians(run: dict[str, Runner], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in run}
    for _ in range(rounds):
        for name, call in run.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def network(name: str, options: argparse.Namespace, clock: Callable[[], float]) -> None:
    data = exported(name, options.cache)
    calibration = networks.NETWORKS[name].samples(2, seed=2)
    x = networks.NETWORKS[name].samples(1, seed=3)
    run: dict[str, Runner] = {}

    def add(label: str, model: Any) -> None:
        made = model
        if not options.f32:
            made = lepton_rt.quantize(model, [calibration], progress=False)
        session = lepton_rt.Session(made, threads=options.threads)
        run[label] = lambda: np.asarray(session.run(x))
        with dense_only():
            same = lepton_rt.Session(made, threads=options.threads)
        got, want = session.run(x), same.run(x)
        assert np.abs(got - want).max() <= 1e-5 * options.f32 * np.abs(want).max(), label

    add("dense", data)
    for sparsity in SPARSITIES:
        add(f"{sparsity:.0%}", lepton_rt.prune(data, sparsity, block=tuple(options.block)))
    took = medians(run, options.rounds, clock)
    line = f"{name}: dense {took['dense'] * 1e3:.1f} ms"
    for label in list(run)[1:]:
        line += f"  {label} {took[label] * 1e3:.1f} ms ({took['dense'] / took[label]:.2f} times)"
    print(line, flush=True)


def product(b: Array, a: Array, threads: int) -> Runner:
    """a · b, requantised to uint8, as a network of 8-bit layers runs it."""
    packed = rhs.pack_rhs(LowerContext(Graph(), _core.max_isa()), b, None)
    attrs: dict[str, StepAttr] = {"packed": 1, "k": b.shape[0], "n": b.shape[1]}
    attrs.update(a_zero_point=128, y_zero_point=128)
    plan = Plan(
        isa=_core.max_isa(),
        inputs={"a": Value(a.dtype, (None, None))},
        outputs=["y"],
        steps=[Step("lepton.QLinearMatMul", ["a", "b", "s"], ["y"], attrs, packed.kernel, "y")],
        constants={"b": packed.data, "s": np.full(b.shape[1], 1e-3, np.float32)},
        dtypes={"y": np.dtype(np.uint8)},
    )
    executor = _core.Executor(*plan.encode(), threads=threads)
    return lambda: np.asarray(executor.run([a])[0])


def float_product(b: Array, a: Array, threads: int, sparse: bool) -> Runner:
    """a · b in float32, as a layer of a network runs it."""
    context = LowerContext(Graph(), _core.max_isa())
    kernel = context.select("gemm_f32_sparse" if sparse else "gemm_f32")
    width = next(int(line["nr"]) for line in _core.kernels() if line["name"] == kernel)
    packed = pack_sparse_f32(b, width) if sparse else _core.pack_gemm_f32(kernel, b)
    attrs: dict[str, StepAttr] = {"packed": 1, "k": b.shape[0], "n": b.shape[1]}
    plan = Plan(
        isa=_core.max_isa(),
        inputs={"a": Value(a.dtype, (None, None))},
        outputs=["y"],
        steps=[Step("lepton.MatMul", ["a", "b"], ["y"], attrs, kernel, "y")],
        constants={"b": packed},
        dtypes={"y": np.dtype(np.float32)},
    )
    executor = _core.Executor(*plan.encode(), threads=threads)
    return lambda: np.asarray(executor.run([a])[0])


def float_products(options: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Weights drawn from a normal distribution; every sparse result is that of the dense kernel."""
    rng = np.random.default_rng(0)
    for m, k, n, note in read_shapes():
        a = rng.standard_normal((m, k)).astype(np.float32)
        b = rng.standard_normal((k, n)).astype(np.float32)
        run = {"dense": float_product(b, a, options.threads, sparse=False)}
        for share in SHARES:
            held = b * block_mask(rng, b.shape, share, options.block)
            run[f"{share:.0%}"] = float_product(held, a, options.threads, sparse=True)
            same = float_product(held, a, options.threads, sparse=False)
            assert np.array_equal(run[f"{share:.0%}"](), same())
        report(m, k, n, note, medians(run, max(5, int(4e8 / (m * k * n))), clock))


def layers(options: argparse.Namespace, clock: Callable[[], float]) -> None:
    """3x3 convolutions of ResNet-50, batch 1: Winograd where dense layers take it, then direct."""
    rng = np.random.default_rng(0)
    dtype = "f32" if options.f32 else "u8"
    for size, channels in ((56, 64), (28, 128), (14, 256), (7, 512)):
        layer = bench_conv.Layer("resnet50", size, channels, channels, 3, 1, 1, 1)
        x, _ = bench_conv.operands(layer, dtype, rng, 8)
        shape = (channels, channels, 3, 3)
        w = rng.standard_normal(shape).astype(np.float32)
        if not options.f32:
            w = np.rint(w / np.abs(w).max(axis=(1, 2, 3), keepdims=True) * 127).astype(np.int8)
        how = (layer, dtype, _core.max_isa(), options.threads, x)
        run = {"dense": bench_conv.native(*how, w, False)}
        for share in SHARES:
            masks = [block_mask(rng, shape[:2], share, options.block) for _ in range(9)]
            held = w * np.stack(masks).T.reshape(shape).astype(w.dtype)
            run[f"{share:.0%}"] = bench_conv.native(*how, held, True, options.f32)
        report(size * size, 9 * channels, channels, f"{size}x{size}", medians(run, 21, clock))


def block_mask(
    rng: np.random.Generator, shape: tuple[int, ...], share: float, block: Sequence[int]
) -> Array:
    """Ones in about `share` of the blocks of k × n, outputs by inputs, else zeros: [k, n]."""
    (k, n), (outputs, inputs) = shape, block
    held = rng.random((-(-k // inputs), -(-n // outputs))) < share
    made: Array = np.repeat(np.repeat(held, inputs, axis=0), outputs, axis=1)[:k, :n]
    return made


def report(m: int, k: int, n: int, note: str, took: dict[str, float]) -> None:
    ratios = "  ".join(f"{took['dense'] / took[name]:5.2f}" for name in list(took)[1:])
    rate = m * k * n / took["dense"] / 1e9
    print(f"{m:5} {k:5} {n:5} {rate:7.0f}  {ratios}  {note}", flush=True)


def products(options: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Weights drawn from a normal distribution, each column scaled to int8."""
    rng = np.random.default_rng(0)
    for m, k, n, note in read_shapes():
        a = rng.integers(0, 256, (m, k), dtype=np.uint8)
        real = rng.standard_normal((k, n))
        b = np.rint(real / np.abs(real).max(axis=0) * 127).astype(np.int8)
        with dense_only():
            run = {"dense": product(b, a, options.threads)}
        for share in SHARES:
            mask = block_mask(rng, b.shape, share, options.block)
            # The limit at which lowering turns to sparse kernels is what this measures.
            with mock.patch("lepton_rt.lowering.sparse._PAYS_BELOW", 1.0):
                run[f"{share:.0%}"] = product(b * mask, a, options.threads)
        report(m, k, n, note, medians(run, max(5, int(1e9 / (m * k * n))), clock))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["resnet50", "bert_base"])
    parser.add_argument("--products", action="store_true")
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--f32", action="store_true", help="float32 instead of int8")
    parser.add_argument("--block", type=int, nargs=2, default=[16, 4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cache", default="")
    parser.add_argument("--cpu", action="store_true", help="processor time, one thread only")
    options = parser.parse_args()
    clock = time.thread_time if options.cpu else time.perf_counter
    if options.products or options.layers:
        print(
            "    m     k     n  GMAC/s dense; times as fast with blocks:",
            *map("{:.0%}".format, SHARES),
        )
        measure = float_products if options.f32 else products
        (layers if options.layers else measure)(options, clock)
        return
    for name in options.networks:
        network(name, options, clock)


if __name__ == "__main__":
    main()
