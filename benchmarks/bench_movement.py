"""Data movement: Transpose, Resize, Pad, Slice, Gather, Concat against ONNX Runtime.

    python benchmarks/bench_movement.py [--filter Resize] [--threads 1]

Both runtimes run the same one-node model on the same threads, interleaved; medians. Results are
checked once against each other. GB/s counts the bytes of input and output once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import helper, numpy_helper

import lepton_rt

Array = npt.NDArray[Any]


@dataclass
class Case:
    """One operator on x; the other inputs are constants."""

    op: str
    label: str
    x: Array
    constants: list[Array | None]
    attrs: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.op} {self.label} {self.x.dtype}"


def model_of(case: Case) -> Any:
    names = ["x", *(f"c{i}" if c is not None else "" for i, c in enumerate(case.constants))]
    return helper.make_model(
        helper.make_graph(
            [helper.make_node(case.op, names, ["y"], **case.attrs)],
            "bench",
            [
                helper.make_tensor_value_info(
                    "x", helper.np_dtype_to_tensor_dtype(case.x.dtype), case.x.shape
                )
            ],
            [
                helper.make_tensor_value_info(
                    "y", helper.np_dtype_to_tensor_dtype(case.x.dtype), None
                )
            ],
            [
                numpy_helper.from_array(c, f"c{i}")
                for i, c in enumerate(case.constants)
                if c is not None
            ],
        ),
        opset_imports=[helper.make_opsetid("", 19)],
        ir_version=10,
    )


def runners(case: Case, threads: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Ours and the peer's, each writing into the same memory every time."""
    model = model_of(case)
    session = lepton_rt.Session(model, threads=threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    peer = ort.InferenceSession(model.SerializeToString(), options)
    ours = session.run(case.x)
    theirs = peer.run(None, {"x": case.x})[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    binding = peer.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(case.x))
    binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_numpy(theirs))
    return lambda: session.run(case.x, out=ours), lambda: peer.run_with_iobinding(binding)


def measure(case: Case, threads: int, repeats: int) -> tuple[float, float, int]:
    """(our median seconds, the peer's, bytes moved)."""
    ours, theirs = runners(case, threads)
    moved = case.x.nbytes + ours().nbytes
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, record in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            run()
            record.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1]), moved


def cases() -> list[Case]:
    rng = np.random.default_rng(0)

    def random(*shape: int, dtype: str = "float32") -> Array:
        return rng.integers(0, 200, shape).astype(dtype)

    def ints(*values: int) -> Array:
        return np.array(values, np.int64)

    found = []
    for shape, perm in [
        ((1, 64, 56, 56), (0, 2, 3, 1)),
        ((1, 56, 56, 64), (0, 3, 1, 2)),
        ((1, 3, 224, 224), (0, 2, 3, 1)),
        ((1, 224, 224, 3), (0, 3, 1, 2)),
        ((8, 128, 12, 64), (0, 2, 1, 3)),
        ((8, 128, 12, 64), (0, 2, 3, 1)),
        ((1, 512, 512), (0, 2, 1)),
    ]:
        for dtype in ("float32", "uint8"):
            x = random(*shape, dtype=dtype)
            found.append(Case("Transpose", f"{shape} {perm}", x, [], {"perm": perm}))
    floor = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    for shape, scales, attrs in [
        ((1, 64, 56, 56), (1, 1, 2, 2), {"mode": "linear"}),
        ((1, 56, 56, 64), (1, 2, 2, 1), {"mode": "linear"}),
        ((1, 64, 56, 56), (1, 1, 2, 2), floor),
        ((1, 56, 56, 64), (1, 2, 2, 1), floor),
        ((1, 3, 64, 64), (1, 1, 2, 2), {"mode": "cubic"}),
    ]:
        factors = np.array(scales, np.float32)
        label = f"{attrs.get('mode', 'nearest')} {shape} x{scales}"
        found.append(Case("Resize", label, random(*shape), [None, factors], attrs))
    image = random(1, 64, 56, 56)
    margin = ints(0, 0, 1, 1, 0, 0, 1, 1)
    found += [
        Case("Pad", "constant, 1 pixel", image, [margin], {}),
        Case("Pad", "reflect, 1 pixel", image, [margin], {"mode": "reflect"}),
        Case(
            "Slice",
            "every other pixel",
            image,
            [ints(0, 0), ints(56, 56), ints(2, 3), ints(2, 2)],
            {},
        ),
        Case("Slice", "half the channels", image, [ints(0), ints(32), ints(1)], {}),
        Case("Concat", "channels", image, [random(1, 32, 56, 56)], {"axis": 1}),
        Case("Concat", "last axis", random(1, 3136, 64), [random(1, 3136, 32)], {"axis": 2}),
        Case("Gather", "embedding", random(3000, 384), [rng.integers(0, 3000, (1, 128))], {}),
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--filter", default="", help="only cases whose name contains this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=50)
    args = parser.parse_args()
    print(f"{'case':56s} {'ours us':>9s} {'onnxruntime us':>15s} {'ratio':>6s} {'GB/s':>6s}")
    for case in cases():
        if args.filter not in case.name:
            continue
        ours, theirs, moved = measure(case, args.threads, args.repeats)
        print(
            f"{case.name:56s} {ours * 1e6:9.1f} {theirs * 1e6:15.1f} {theirs / ours:6.2f} "
            f"{moved / ours / 1e9:6.1f}"
        )


if __name__ == "__main__":
    main()
