"""Matrix products in float32 and 8 bit, against NumPy's BLAS and ONNX Runtime.

    OMP_NUM_THREADS=1 python benchmarks/bench_gemm.py [--threads 1] [--seconds 1] [--cpu]

Each shape of shapes/gemm.txt is one product with constant weights, run by every runtime in turn,
round by round, so that all see the same machine; the figures are medians in GMAC/s. Each result is
checked once: integers exactly, floats to 1e-4 of their size. ONNX Runtime's integer product runs in
its exact mode (session.x64quantprecision = 1). --cpu counts the calling thread's processor time
instead of the clock's: for one thread on a machine that has other work to do.
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

from lepton_rt import _core
from lepton_rt.graph.ir import Value
from lepton_rt.plan import Plan, Step, StepAttr

Array = npt.NDArray[Any]
Runner = Callable[[], Array]

SHAPES = Path(__file__).parent / "shapes" / "gemm.txt"


def read_shapes() -> list[tuple[int, int, int, str]]:
    shapes = []
    for line in SHAPES.read_text().splitlines():
        if line and not line.startswith("#"):
            m, k, n, note = line.split(maxsplit=3)
            shapes.append((int(m), int(k), int(n), note))
    return shapes


def lepton(
    key: str,
    a: Array,
    constants: list[Array],
    attrs: dict[str, StepAttr],
    kernel: str,
    threads: int,
) -> Runner:
    """One step through the executor."""
    names = ["a", *(f"c{i}" for i in range(len(constants)))]
    plan = Plan(
        isa=_core.max_isa(),
        inputs={"a": Value(a.dtype, (None, None))},
        outputs=["y"],
        steps=[Step(key, names, ["y"], attrs, kernel, key)],
        constants=dict(zip(names[1:], constants, strict=True)),
        dtypes={"y": np.dtype(np.float32)},
    )
    executor = _core.Executor(*plan.encode(), threads=threads)
    return lambda: executor.run([a])[0]


def onnxruntime_product(a: Array, b: Array, threads: int) -> Runner | None:
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
        weights.append(numpy_helper.from_array(np.uint8(128), "zero"))
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
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: np.asarray(session.run(None, {"a": a})[0])


def runners(m: int, k: int, n: int, threads: int) -> dict[str, Runner | None]:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((m, k)).astype(np.float32)
    b = rng.standard_normal((k, n)).astype(np.float32)
    qa = rng.integers(0, 256, (m, k), dtype=np.uint8)
    qb = rng.integers(-128, 128, (k, n), dtype=np.int8)
    shape: dict[str, StepAttr] = {"packed": 1, "k": k, "n": n}
    f32 = _core.select_kernel("gemm_f32", _core.max_isa())
    s8 = _core.choose_gemm_s8(_core.max_isa(), qb)
    ones = np.ones(n, np.float32)
    return {
        "lepton f32": lepton(
            "lepton.MatMul", a, [_core.pack_gemm_f32(f32, b)], shape, f32, threads
        ),
        "numpy f32": lambda: a @ b,
        "ort f32": onnxruntime_product(a, b, threads),
        "lepton s8": lepton(
            "lepton.QLinearMatMul",
            qa,
            [_core.pack_gemm_s8(s8, qb), ones],
            {**shape, "a_zero_point": 128},
            s8,
            threads,
        ),
        "ort s8": onnxruntime_product(qa, qb, threads),
    }


def check(results: dict[str, Array]) -> None:
    for name, y in results.items():
        kind = name.split()[1]
        reference = results[f"lepton {kind}"].astype(np.float64)
        tolerance = 0.0 if kind == "s8" else 1e-4 * float(np.abs(reference).max())
        assert np.abs(y - reference).max() <= tolerance, name


def medians(run: dict[str, Runner], seconds: float, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each runner, taken in turns until the time is spent."""
    times: dict[str, list[float]] = {name: [] for name in run}
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(next(iter(times.values()))) < 5:
        for name, call in run.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3, help="per shape")
    parser.add_argument("--only", default="", help="only shapes whose note contains this")
    parser.add_argument("--cpu", action="store_true", help="processor time, one thread only")
    options = parser.parse_args()
    clock = time.thread_time if options.cpu else time.perf_counter
    header = False
    for m, k, n, note in read_shapes():
        if options.only not in note:
            continue
        made = runners(m, k, n, options.threads)
        run = {name: call for name, call in made.items() if call is not None}
        check({name: call() for name, call in run.items()})
        took = medians(run, options.seconds, clock)
        if not header:
            print(f"{'m':>5} {'k':>5} {'n':>5}  " + "  ".join(f"{x:>10}" for x in run) + "  GMAC/s")
            header = True
        rates = "  ".join(f"{m * k * n / took[name] / 1e9:10.1f}" for name in run)
        print(f"{m:5} {k:5} {n:5}  {rates}  {note}", flush=True)


if __name__ == "__main__":
    main()
