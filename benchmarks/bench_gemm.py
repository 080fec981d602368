"""Matrix products in float32 and 8 bit, beside NumPy's BLAS, ONNX Runtime, FBGEMM and oneDNN.

    OMP_NUM_THREADS=1 python benchmarks/bench_gemm.py [--threads 1] [--seconds 1] [--cpu] [--no-f32]

Each shape of shapes/gemm.txt is one product with constant weights, run by every runtime in turn,
round by round, so that all see the same machine; the figures are medians in GMAC/s. 8-bit products
come twice: with normally distributed weights that fill 8 bits a column (±127) and 7 bits (±63);
activations are random bytes. Ours scale to uint8, as FBGEMM and oneDNN do (through PyTorch's
quantized linear); ONNX Runtime's MatMulInteger stores int32. Peers whose sums saturate on this
processor are compared at 7 bits only, where nothing can. Each result is checked once: integers
exactly, floats to 1e-4 of their size. --cpu counts the calling thread's processor time instead of
the clock's: for one thread on a machine that has other work to do. The peaks of the machine are
loops on registers alone, measured here.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_rt import _core
from lepton_rt.graph.ir import Value
from lepton_rt.plan import Plan, Step, StepAttr

Array = npt.NDArray[Any]
Runner = Callable[[], Array]

SHAPES = Path(__file__).parent / "shapes" / "gemm.txt"
ZERO_POINT = 128
BITS = {"8": 127, "7": 63}  # the largest weight


def read_shapes() -> list[tuple[int, int, int, str]]:
    shapes = []
    for line in SHAPES.read_text().splitlines():
        if line and not line.startswith("#"):
            m, k, n, note = line.split(maxsplit=3)
            shapes.append((int(m), int(k), int(n), note))
    return shapes


def measure_peaks() -> dict[str, float]:
    """GMAC/s of loops on registers alone, the best of several runs in processor time."""
    peaks = {}
    for name, macs in _core.testing.peaks():
        rounds = 300_000
        took = []
        for _ in range(5):
            start = time.thread_time()
            _core.testing.peak(name, rounds)
            took.append(time.thread_time() - start)
        peaks[name] = macs * rounds / min(took) / 1e9
    return peaks


def lepton(
    key: str,
    a: Array,
    constants: list[Array],
    attrs: dict[str, StepAttr],
    kernel: str,
    threads: int,
    output: str = "float32",
) -> Runner:
    """One step through the executor."""
    names = ["a", *(f"c{i}" for i in range(len(constants)))]
    plan = Plan(
        isa=_core.max_isa(),
        inputs={"a": Value(a.dtype, (None, None))},
        outputs=["y"],
        steps=[Step(key, names, ["y"], attrs, kernel, key)],
        constants=dict(zip(names[1:], constants, strict=True)),
        dtypes={"y": np.dtype(output)},
    )
    executor = _core.Executor(*plan.encode(), threads=threads)
    return lambda: executor.run([a])[0]


def onnxruntime_product(a: Array, b: Array, threads: int, exact: bool = True) -> Runner | None:
    """MatMul or MatMulInteger in ONNX Runtime; None where it is not installed."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    integer = a.dtype != np.float32
    inputs = ["a", "b"]
    weights = [numpy_helper.from_array(b, "b")]
    if integer:
        inputs.append("zero")
        weights.append(numpy_helper.from_array(np.uint8(ZERO_POINT), "zero"))
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if integer else "MatMul", inputs, ["y"])],
        "product",
        [helper.make_tensor_value_info("a", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT32 if integer else 1, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.x64quantprecision", "1" if exact else "0")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: np.asarray(session.run(None, {"a": a})[0])


def torch_product(engine: str, a: Array, b: Array, scale: float, threads: int) -> Runner | None:
    """PyTorch's quantized linear by FBGEMM or oneDNN, to uint8; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    warnings.filterwarnings("ignore", category=UserWarning, module=__name__)
    torch.set_num_threads(threads)
    make = torch._make_per_tensor_quantized_tensor
    if engine not in torch.backends.quantized.supported_engines:
        return None
    torch.backends.quantized.engine = engine
    x = make(torch.from_numpy(a), 1.0, ZERO_POINT)
    w = make(torch.from_numpy(np.ascontiguousarray(b.T)), 1.0, 0)
    packed = torch.ops.quantized.linear_prepack(w, None)

    def run() -> Array:
        torch.backends.quantized.engine = engine
        y = torch.ops.quantized.linear(x, packed, scale, ZERO_POINT)
        return np.asarray(y.int_repr().numpy())

    return run


def float_runners(m: int, k: int, n: int, threads: int) -> dict[str, Runner | None]:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((m, k)).astype(np.float32)
    b = rng.standard_normal((k, n)).astype(np.float32)
    kernel = _core.select_kernel("gemm_f32", _core.max_isa())
    shape: dict[str, StepAttr] = {"packed": 1, "k": k, "n": n}
    packed = _core.pack_gemm_f32(kernel, b)
    return {
        "lepton f32": lepton("lepton.MatMul", a, [packed], shape, kernel, threads),
        "numpy f32": lambda: a @ b,
        "ort f32": onnxruntime_product(a, b, threads),
    }


def weights_of(k: int, n: int, largest: int) -> Array:
    """Normally distributed, each column scaled to its largest weight."""
    w = np.random.default_rng(1).standard_normal((k, n))
    return np.rint(w / np.abs(w).max(0) * largest).astype(np.int8)


def integer_runners(
    m: int, k: int, n: int, threads: int, bits: str
) -> dict[str, tuple[Runner | None, Array]]:
    """Runner and expected result, by runtime."""
    a = np.random.default_rng(0).integers(0, 256, (m, k), dtype=np.uint8)
    b = weights_of(k, n, BITS[bits])
    sums = (a.astype(np.float64) - ZERO_POINT) @ b.astype(np.float64)  # exact: below 2^53
    scale = float(np.abs(sums).max() / 127)
    inverse = np.float32(1) / np.float32(scale)
    scaled = np.rint(sums.astype(np.float32) * inverse) + ZERO_POINT
    bytes_, sums = np.clip(scaled, 0, 255).astype(np.uint8), sums.astype(np.int32)
    kernel = _core.choose_gemm_s8(_core.max_isa(), b)
    attrs: dict[str, StepAttr] = {"packed": 1, "k": k, "n": n, "a_zero_point": ZERO_POINT}
    constants = [_core.pack_gemm_s8(kernel, b), np.full(n, inverse)]
    attrs["y_zero_point"] = ZERO_POINT
    key = "lepton.QLinearMatMul"
    made: dict[str, tuple[Runner | None, Array]] = {
        "lepton": (lepton(key, a, constants, attrs, kernel, threads, "uint8"), bytes_),
        "ort exact": (onnxruntime_product(a, b, threads), sums),
    }
    if bits == "7":
        made["ort"] = (onnxruntime_product(a, b, threads, exact=False), sums)
        for engine in ("fbgemm", "onednn"):
            made[engine] = (torch_product(engine, a, b, scale, threads), bytes_)
    return made


def check_floats(results: dict[str, Array]) -> None:
    reference = results["lepton f32"].astype(np.float64)
    for name, y in results.items():
        assert np.abs(y - reference).max() <= 1e-4 * float(np.abs(reference).max()), name


def check_integers(runners: dict[str, tuple[Runner | None, Array]]) -> None:
    """Sums are equal; bytes too, but for ties that a peer's own order of scaling rounds."""
    for name, (run, want) in runners.items():
        if run is None:
            continue
        off = np.abs(run().astype(np.int64) - want)
        assert off.max(initial=0) <= (1 if want.dtype == np.uint8 else 0), name
        assert (off > 0).mean() < 1e-3, name


def medians(run: dict[str, Runner], seconds: float, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each runner, taken in turns until the time is spent.

    Each call is timed after one that is not: the runtime before it had the caches.
    """
    times: dict[str, list[float]] = {name: [] for name in run}
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(next(iter(times.values()))) < 5:
        for name, call in run.items():
            call()
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(m: int, k: int, n: int, options: argparse.Namespace) -> dict[str, float]:
    """GMAC/s by kind and runtime."""
    run: dict[str, Runner] = {}
    if not options.no_f32:
        floats = {x: f for x, f in float_runners(m, k, n, options.threads).items() if f is not None}
        check_floats({name: call() for name, call in floats.items()})
        run.update(floats)
    for bits in BITS:
        runners = integer_runners(m, k, n, options.threads, bits)
        check_integers(runners)
        run.update({f"{x} s{bits}": call for x, (call, _) in runners.items() if call is not None})
    took = medians(run, options.seconds, time.thread_time if options.cpu else time.perf_counter)
    return {name: m * k * n / seconds / 1e9 for name, seconds in took.items()}


def ratio_to_best(rates: dict[str, float], kind: str) -> float:
    """Our rate over that of the fastest peer of a kind ("s8", "s7")."""
    peers = [rate for name, rate in rates.items() if name.endswith(kind) and "lepton" not in name]
    return rates[f"lepton {kind}"] / max(peers) if peers else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="per shape")
    parser.add_argument("--only", default="", help="only shapes whose note contains this")
    parser.add_argument("--cpu", action="store_true", help="processor time, one thread only")
    parser.add_argument("--no-f32", action="store_true", help="8-bit products only")
    options = parser.parse_args()
    for name, peak in measure_peaks().items():
        print(f"peak {peak:6.1f} GMAC/s  {name}")
    ratios: dict[str, list[float]] = {bits: [] for bits in BITS}
    for i, (m, k, n, note) in enumerate(x for x in read_shapes() if options.only in x[3]):
        rates = measure(m, k, n, options)
        if i == 0:
            names = "  ".join(f"{x:>12}" for x in rates)
            print(f"{'m':>5} {'k':>5} {'n':>5}  {names}  s8/best s7/best")
        for bits, values in ratios.items():
            values.append(ratio_to_best(rates, f"s{bits}"))
        columns = "  ".join(f"{rate:12.1f}" for rate in rates.values())
        ours = "  ".join(f"{values[-1]:7.2f}" for values in ratios.values())
        print(f"{m:5} {k:5} {n:5}  {columns}  {ours}  {note}", flush=True)
    for bits, values in ratios.items():
        mean = statistics.geometric_mean(values)
        print(f"geometric mean, {bits}-bit weights: {mean:.2f} times the fastest exact peer")


if __name__ == "__main__":
    main()
