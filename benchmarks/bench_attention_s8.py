"""Attention in 8 bits beside our own float32 attention, one thread, interleaved.

    python benchmarks/bench_attention_s8.py [--runs 9] [--lengths 128,512,1024,2048]

Twelve heads of 64, batch 1. "rounded": lepton.DynamicQuantizeAttention over float32; "8 bit":
lepton.QLinearAttention, softmax to uint8, a result of int8. Processor time of the thread.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import lepton_rt
from lepton_rt import _core
from lepton_rt.compress.attention import quantize_attention

HEADS, DEPTH = 12, 64
STEP = np.float32(0.03)


def model(length: int, integers: bool) -> bytes:
    """q, k, v [1, length, heads · depth] to their attention, as quantised or in float."""
    nodes, constants = (
        [],
        {
            "heads": np.array([0, 0, HEADS, DEPTH], np.int64),
            "rows": np.array([0, 0, HEADS * DEPTH], np.int64),
            "step": STEP,
            "zero": np.int8(0),
            "factor": np.float32(DEPTH**-0.5),
            "p_step": np.float32(1 / 255),
            "p_zero": np.uint8(0),
            "y_step": np.float32(0.02),
        },
    )

    def add(op: str, *inputs: str, **attrs: object) -> str:
        nodes.append(helper.make_node(op, inputs, [f"t{len(nodes)}"], **attrs))
        return str(nodes[-1].output[0])

    def heads(name: str) -> str:
        real = add("DequantizeLinear", name, "step", "zero") if integers else name
        return add("Transpose", add("Reshape", real, "heads"), perm=[0, 2, 1, 3])

    keys = add("Transpose", heads("k"), perm=[0, 1, 3, 2])
    scores = add("Mul", add("MatMul", heads("q"), keys), "factor")
    p = add("Softmax", scores, axis=-1)
    if integers:
        p = add("QuantizeLinear", p, "p_step", "p_zero")
        p = add("DequantizeLinear", p, "p_step", "p_zero")
    y = add("Transpose", add("MatMul", p, heads("v")), perm=[0, 2, 1, 3])
    y = add("Reshape", y, "rows")
    if integers:
        y = add("QuantizeLinear", y, "y_step", "zero")
    dtype = TensorProto.INT8 if integers else TensorProto.FLOAT
    shape = [1, length, HEADS * DEPTH]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(name, dtype, shape) for name in "qkv"],
        [helper.make_tensor_value_info(y, dtype, shape)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def measure(length: int, isa: str, runs: int) -> list[float]:
    """Seconds of float32 attention, rounded and between integers."""
    rng = np.random.default_rng(0)
    real = {n: rng.normal(size=(1, length, HEADS * DEPTH)).astype(np.float32) for n in "qkv"}
    real["q"] *= 3  # so that some keys matter more than others
    small = {n: np.clip(np.rint(a / STEP), -127, 127).astype(np.int8) for n, a in real.items()}
    graphs = [model(length, False), quantize_attention(lepton_rt.import_onnx(model(length, False)))]
    pairs = [
        (lepton_rt.Session(graph, isa=isa, threads=1), feeds)
        for graph, feeds in zip([*graphs, model(length, True)], (real, real, small))
    ]
    for (session, _), op in zip(pairs[1:], ("DynamicQuantizeAttention", "QLinearAttention")):
        assert [step.op for step in session.explain()] == [f"lepton.{op}"]
    exact = pairs[0][0].run({n: a * STEP for n, a in small.items()})
    assert np.abs(exact - pairs[2][0].run(small) * np.float32(0.02)).mean() < 0.1 * exact.std()
    exact = pairs[0][0].run(real)
    assert np.abs(exact - pairs[1][0].run(real)).mean() < 0.1 * exact.std()
    times: list[list[float]] = [[] for _ in pairs]
    for _ in range(runs):
        for (session, feeds), kept in zip(pairs, times):
            start = time.thread_time()
            session.run(feeds)
            kept.append(time.thread_time() - start)
    return [statistics.median(kept) for kept in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--lengths", default="128,512,1024,2048")
    options = parser.parse_args()
    for isa in [name for name in _core.usable_isas() if name != "scalar"]:
        for length in map(int, options.lengths.split(",")):
            real, rounded, small = measure(length, isa, options.runs)
            print(
                f"{isa:11} {length:5}  f32 {1e3 * real:8.2f} ms  rounded {1e3 * rounded:8.2f} ms"
                f"  ratio {real / rounded:.2f}  8 bit {1e3 * small:8.2f} ms"
                f"  ratio {real / small:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
