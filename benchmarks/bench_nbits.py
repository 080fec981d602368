"""Products of a few rows by weights of 4 and 8 bits, against memory bandwidth and ONNX Runtime.

    OMP_NUM_THREADS=1 python benchmarks/bench_nbits.py [--threads 1] [--rounds 3] [--cpu]

Weights are 4096 × 4096, in as many copies as fill --megabytes; a round multiplies by each copy
once, so every run reads its weights from memory. ONNX Runtime (MatMulNBits, accuracy levels 0:
float32 and 4: 8-bit activations) takes turns with us, copy by copy, and so does a read of 64 MB
that were not read since the last round (`read_memory`, one piece a thread), which measures the
bandwidth. Figures are medians; GB/s counts the bytes that a runtime's weights and scales have. Each
result is checked once against float64. A codebook of 16 values has no peer. --rows 1 2 4 8 16 32
shows the way from products of a row to products of matrices.
LEPTON_MAX_ISA picks the kernels. --cpu counts processor
time, for one thread on a machine that has other work to do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

import lepton_rt
from lepton_rt import _core
from lepton_rt.graph.ir import Constant, Graph, Node, Value

Array = npt.NDArray[Any]
Runner = Callable[[Array], Array]

K = N = 4096
READ_BYTES = 64 << 20


def model(bits: int, size: int, level: int, rng: np.random.Generator) -> tuple[Any, Array]:
    """com.microsoft::MatMulNBits without zero points as a model, and its weights as floats."""
    from onnx import TensorProto, helper, numpy_helper

    groups = K // size
    b = rng.integers(0, 256, (N, groups, size * bits // 8), dtype=np.uint8)
    scale = rng.uniform(0.01, 0.1, N * groups).astype(np.float32)
    node = helper.make_node(
        "MatMulNBits",
        ["x", "b", "scale"],
        ["y"],
        domain="com.microsoft",
        K=K,
        N=N,
        bits=bits,
        block_size=size,
        accuracy_level=level,
    )
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", N])],
        [numpy_helper.from_array(b, "b"), numpy_helper.from_array(scale, "scale")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    q = b if bits == 8 else np.stack([b & 15, b >> 4], axis=-1)
    real = (q.reshape(N, groups, size) - np.float32(1 << (bits - 1))) * scale.reshape(N, -1, 1)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), real.reshape(N, K).T


def codebook(rng: np.random.Generator) -> tuple[Graph, Array]:
    """The same product by a matrix of indices into a table of 16 values, and its weights."""
    import ml_dtypes

    # Integers times a power of two, as share_weights makes them.
    table = np.sort(np.clip(np.rint(rng.standard_normal(16) * 40), -127, 127))
    table = (table / 32).astype(np.float32)
    indices = rng.integers(0, 16, (K, N), dtype=np.uint8)
    parts = {"indices": indices.astype(ml_dtypes.uint4), "table": table}
    float32 = np.dtype(np.float32)
    graph = Graph(
        inputs={"x": Value(float32, ("m", K))},
        outputs={"y": Value(float32, ("m", N))},
        nodes=[Node("MatMul", ["x", "w"], ["y"])],
        constants={"w": Constant(float32, (K, N), "codebook", parts)},
    )
    return graph, table[indices]


def lepton(proto: Any, copies: int, threads: int) -> list[Runner]:
    sessions = [lepton_rt.Session(proto, threads=threads) for _ in range(copies)]
    return [lambda x, s=session: np.asarray(s.run(x)) for session in sessions]  # type: ignore[misc]


def onnxruntime(proto: Any, copies: int, threads: int) -> list[Runner]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    data = proto.SerializeToString()
    sessions = [
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        for _ in range(copies)
    ]
    return [lambda x, s=session: np.asarray(s.run(None, {"x": x})[0]) for session in sessions]  # type: ignore[misc]


class Reader:
    """Reads READ_BYTES from memory, another piece every time."""

    def __init__(self, megabytes: int, threads: int) -> None:
        self.data = np.ones(max(megabytes << 20, 4 * READ_BYTES) // 8, np.uint64)
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)
        self.at = 0

    def __call__(self) -> None:
        words = READ_BYTES // 8
        piece = self.data[self.at : self.at + words].reshape(self.threads, -1)
        self.at = (self.at + words) % (self.data.size - words + 1)
        self.at -= self.at % words
        if self.threads == 1:
            _core.testing.read_memory(piece)
        else:
            list(self.pool.map(_core.testing.read_memory, piece))


def check(run: dict[str, list[Runner]], x: Array, real: Array) -> None:
    """Level 4 quantises the activations, the others are float32 products."""
    exact = x.astype(np.float64) @ real
    for name, calls in run.items():
        bound = 2e-2 if name.endswith("level 4") else 1e-5
        assert np.abs(calls[0](x) - exact).max() <= bound * np.abs(exact).max(), name


def measure(
    run: dict[str, list[Runner]],
    x: Array,
    reader: Reader,
    rounds: int,
    clock: Callable[[], float],
) -> dict[str, float]:
    """Median seconds of each runner over all copies, and of the reader."""
    times: dict[str, list[float]] = {name: [] for name in [*run, "read"]}
    for _ in range(rounds):
        for copy in range(len(next(iter(run.values())))):
            for name, calls in run.items():
                start = clock()
                calls[copy](x)
                times[name].append(clock() - start)
            if copy % 4 == 0:
                start = clock()
                reader()
                times["read"].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def report(bits: int, size: int, options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    threads = options.threads
    protos = {level: model(bits, size, level, np.random.default_rng(1)) for level in (0, 4)}
    weight_bytes = K * N * bits // 8 + K // size * N * 4
    copies = -(-(options.megabytes << 20) // weight_bytes)
    run = {"lepton": lepton(protos[0][0], copies, threads)}
    if bits == 4:
        run["ours at level 4"] = lepton(protos[4][0], copies, threads)
    # ONNX Runtime has no float32 kernel for 8 bits: it makes floats of all weights every time.
    levels = (0, 4) if bits == 4 else (4,)
    for level in levels:
        run[f"ort level {level}"] = onnxruntime(protos[level][0], copies, threads)
    reader = Reader(options.megabytes, threads)
    clock = time.thread_time if options.cpu else time.perf_counter
    for rows in options.rows:
        x = rng.standard_normal((rows, K)).astype(np.float32)
        check(run, x, protos[0][1])
        took = measure(run, x, reader, options.rounds, clock)
        bandwidth = READ_BYTES / took["read"] / 1e9
        ours = weight_bytes / took["lepton"] / 1e9
        line = f"{bits} bits, groups of {size:3}, {rows:2} rows: {took['lepton'] * 1e6:6.0f} us"
        line += f"  {ours:5.1f} GB/s ({ours / bandwidth:4.0%} of {bandwidth:.1f})"
        line += f"  {rows * K * N / took['lepton'] / 1e9:6.1f} GMAC/s"
        if "ours at level 4" in took:
            level4 = took["ours at level 4"]
            line += f"  level 4: {level4 * 1e6:6.0f} us {weight_bytes / level4 / 1e9:5.1f} GB/s"
        for name in [name for name in run if name.startswith("ort")]:
            line += f"  {name}: {took[name] * 1e6:6.0f} us ({took[name] / took['lepton']:.2f})"
        print(line, flush=True)


def report_codebook(options: argparse.Namespace) -> None:
    graph, real = codebook(np.random.default_rng(1))
    weight_bytes = K * N // 2
    copies = -(-(options.megabytes << 20) // weight_bytes)
    run = {"lepton": lepton(graph, copies, options.threads)}
    reader = Reader(options.megabytes, options.threads)
    clock = time.thread_time if options.cpu else time.perf_counter
    for rows in options.rows:
        x = np.random.default_rng(0).standard_normal((rows, K)).astype(np.float32)
        check(run, x, real)
        took = measure(run, x, reader, options.rounds, clock)
        bandwidth, ours = READ_BYTES / took["read"] / 1e9, weight_bytes / took["lepton"] / 1e9
        line = f"codebook of 16 values, {rows:2} rows: {took['lepton'] * 1e6:6.0f} us"
        print(f"{line}  {ours:5.1f} GB/s ({ours / bandwidth:4.0%} of {bandwidth:.1f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=512, help="of weights, each runtime's")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--groups", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--cpu", action="store_true", help="processor time, one thread only")
    options = parser.parse_args()
    if 4 in options.bits:
        report_codebook(options)
    for bits in options.bits:
        for size in options.groups:
            report(bits, size, options)


if __name__ == "__main__":
    main()
