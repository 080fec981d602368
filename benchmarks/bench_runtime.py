"""What the executor itself costs: time per tiny step, and time to bind to shapes it has not seen.

    python benchmarks/bench_runtime.py [--network]

The first figure runs 1,000 unfused steps of 16 elements on one thread; the others bind ResNet-50 to
new batch sizes and BERT-base to new lengths (random weights, made by transformers). Medians and
minima; shared machines are noisy, so compare runs of one session only.
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


def bind_times(executor: _core.Executor, shapes: list[list[list[int]]]) -> list[float]:
    """Seconds to bind to each of `shapes`, none of them seen before."""
    times = []
    for shape in shapes:
        start = time.perf_counter()
        executor.bind(shape)
        times.append(time.perf_counter() - start)
    return times


def bert() -> lepton_rt.Session:
    """BERT-base of any batch size and length, with an attention mask."""
    import torch
    import transformers

    ids = torch.zeros(2, 16, dtype=torch.int64)
    dims = {0: "batch", 1: "length"}
    return lepton_rt.Session(
        transformers.BertModel(transformers.BertConfig()),
        example_inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        dynamic={"input_ids": dims, "attention_mask": dims},
        threads=1,
    )


def print_bind(title: str, session: lepton_rt.Session, shapes: list[list[list[int]]]) -> None:
    times = bind_times(session._executor, shapes)
    figures = f"{statistics.median(times) * 1e6:.0f} us, at best {min(times) * 1e6:.0f} us"
    print(f"bind of {title} ({len(session.explain())} steps): {figures}")


def _median(run: object, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="store_true", help="bind networks too (needs torch)")
    options = parser.parse_args()
    print(f"one step of 16 elements: {step_overhead() * 1e9:.0f} ns")
    if options.network:
        from race import networks

        session = lepton_rt.Session(networks.export("resnet50"), threads=1)
        print_bind("ResNet-50", session, [[[n, 3, 224, 224]] for n in range(2, 34)])
        print_bind("BERT-base", bert(), [[[1, n], [1, n]] for n in range(2, 130)])


if __name__ == "__main__":
    main()
