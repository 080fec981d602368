"""What the executor itself costs: time per tiny step, and time to bind to a new batch size.

    python benchmarks/bench_runtime.py [--network]

The first figure runs 1,000 unfused steps of 16 elements on one thread; the second binds ResNet-50
(random weights, made by transformers) to batch sizes it has not seen. Medians; shared machines are
noisy, so compare runs of one session only.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import lepton_rt
from lepton_rt import _core


def chain(steps: int, elements: int) -> bytes:
    """An ONNX model of `steps` additions, one after the other."""
    nodes = [helper.make_node("Add", [f"t{i}", "one"], [f"t{i + 1}"]) for i in range(steps)]
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [elements])
        for name in ("t0", f"t{steps}")
    ]
    one = numpy_helper.from_array(np.ones(elements, np.float32), "one")
    graph = helper.make_graph(nodes, "chain", info[:1], info[1:], [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


def step_overhead(steps: int = 1000, elements: int = 16) -> float:
    """Seconds per step of a chain kept unfused, one thread."""
    session = lepton_rt.Session(chain(steps, elements), threads=1, optimise=False)
    assert len(session.explain()) == steps
    x = np.zeros(elements, np.float32)
    assert (session.run(x) == steps).all()
    return _median(lambda: session.run(x), 200) / steps


def bind_time(executor: _core.Executor, shapes: list[list[list[int]]]) -> float:
    """Median seconds to bind to each of `shapes`, none of them seen before."""
    times = []
    for shape in shapes:
        start = time.perf_counter()
        executor.bind(shape)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _median(run: object, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="store_true", help="bind ResNet-50 too (needs torch)")
    options = parser.parse_args()
    print(f"one step of 16 elements: {step_overhead() * 1e9:.0f} ns")
    if options.network:
        from race import networks

        session = lepton_rt.Session(networks.export("resnet50"), threads=1)
        batches = [[[n, 3, 224, 224]] for n in range(2, 34)]
        seconds = bind_time(session._executor, batches)
        print(f"bind of ResNet-50 ({len(session.explain())} steps): {seconds * 1e6:.0f} us")


if __name__ == "__main__":
    main()
