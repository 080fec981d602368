"""Convolution layers of real networks, float32 and quantised, beside ONNX Runtime.

    python benchmarks/bench_conv.py [--network resnet50] [--only 3x3] [--peer] [--cpu-time]

Prints GMAC/s per layer, and the sum over each network (counting repeated layers). Times are medians
of runs that alternate between the implementations; the first layer reads NCHW. The peer runs each
layer as a model of one node, whose input and output are NCHW; it may choose its own layout inside.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import conv_oracle
from harness import one_step_plan
from lepton_rt import _core
from lepton_rt.graph.ir import Node
from lepton_rt.lowering import winograd, winograd_s8
from lepton_rt.lowering.sparse import pack_sparse_f32

Array = npt.NDArray[Any]
SHAPES = Path(__file__).parent / "shapes" / "conv.txt"


@dataclass(frozen=True)
class Layer:
    network: str
    size: int
    c: int
    m: int
    kernel: int
    stride: int
    group: int
    count: int

    @property
    def out(self) -> int:
        return (self.size + 2 * (self.kernel // 2) - self.kernel) // self.stride + 1

    @property
    def macs(self) -> int:
        return self.out**2 * self.m * self.kernel**2 * self.c // self.group

    @property
    def attrs(self) -> dict[str, Any]:
        return {"strides": [self.stride] * 2, "pads": [self.kernel // 2] * 4}

    def __str__(self) -> str:
        kind = "depthwise " if self.group > 1 else ""
        return (
            f"{self.size:3} {self.c:4} {self.m:4} {kind}{self.kernel}x{self.kernel} s{self.stride}"
        )


def read_layers(path: Path = SHAPES) -> list[Layer]:
    lines = [line.split() for line in path.read_text().splitlines() if line[0] != "#"]
    return [Layer(words[0], *map(int, words[1:])) for words in lines]


def operands(layer: Layer, dtype: str, rng: np.random.Generator, bits: int) -> tuple[Array, Array]:
    shape = (1, layer.c, layer.size, layer.size)
    w_shape = (layer.m, layer.c // layer.group, layer.kernel, layer.kernel)
    if dtype == "f32":
        return (
            rng.standard_normal(shape).astype(np.float32),
            rng.standard_normal(w_shape).astype(np.float32),
        )
    largest = 2 ** (bits - 1) - 1
    return (
        rng.integers(0, 256, shape).astype(np.uint8),
        rng.integers(-largest, largest + 1, w_shape).astype(np.int8),
    )


def native(
    layer: Layer,
    dtype: str,
    isa: str,
    threads: int,
    x: Array,
    w: Array,
    direct: bool,
    sparse: bool = False,
) -> Callable[[], Any]:
    """direct: no Winograd. sparse: float32 weights without their zero blocks."""
    first = layer.c == 3
    depthwise = layer.group > 1
    attrs = conv_oracle.conv_attrs(w, layer.group, layer.attrs) | {"channels_last": int(not first)}
    data = x if first else np.ascontiguousarray(np.moveaxis(x, 1, -1))
    if dtype == "f32":
        packed, kernel = conv_oracle.pack_f32(w, layer.group, isa, depthwise=depthwise)
        node = Node("Conv", ["x", "w"], ["y"], attrs)
        if not direct and winograd.pays(node, w, data.shape):
            packed = _core.pack_gemm_f32(kernel, winograd.transform_weights(w))
            attrs["winograd"] = winograd.tile_of(w)
        if sparse:
            kernel = _core.select_kernel("gemm_f32_sparse", isa)
            width = next(int(line["nr"]) for line in _core.kernels() if line["name"] == kernel)
            packed = pack_sparse_f32(conv_oracle.tap_major(w, 1)[0], width)
        inputs: list[Array | None] = [data, packed, np.zeros(layer.m, np.float32)]
        key, out = "lepton.Conv", "float32"
    else:
        zeros = np.zeros(layer.m, np.int8)
        packed, kernel = conv_oracle.pack_s8(w, zeros, layer.group, isa, depthwise=depthwise)
        products = None if depthwise or direct else winograd_s8.product_kernel(kernel)
        if products and winograd_s8.pays(attrs, w, zeros, data.shape):
            kernel, packed = products, winograd_s8.pack_weights(products, w, zeros)
            attrs["winograd"] = winograd_s8.TILE
        scale = np.full(layer.m, 1e-4, np.float32)
        inputs = [data, packed, np.zeros(layer.m, np.int32), scale]
        attrs |= {"x_zero_point": 128, "y_zero_point": 128}
        key, out = "lepton.QLinearConv", "uint8"
    constants = range(1, len(inputs))
    plan, arrays = one_step_plan(key, inputs, attrs, constants, [out], kernel, isa)
    executor = _core.Executor(*plan.encode(), threads=threads)
    return lambda: executor.run(arrays)[0]


def peer(layer: Layer, dtype: str, threads: int, x: Array, w: Array) -> Callable[[], Any]:
    import onnxruntime as ort
    from onnx import helper, numpy_helper

    attrs = layer.attrs | {"group": layer.group, "kernel_shape": [layer.kernel] * 2}
    quantised = dtype != "f32"
    constants: dict[str, Any] = {"w": w}
    if quantised:
        scales = {"xs": 0.01, "ws": 0.01, "ys": 1.0}
        constants |= {name: np.float32(v) for name, v in scales.items()}
        constants |= {"xz": np.uint8(128), "wz": np.int8(0), "yz": np.uint8(128)}
        names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    else:
        names = ["x", "w"]
    node = helper.make_node("QLinearConv" if quantised else "Conv", names, ["y"], **attrs)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Its exact integer mode; the default may saturate without VNNI.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(model.SerializeToString(), options)
    return lambda: session.run(None, {"x": x})[0]


def check(layer: Layer, dtype: str, y: Array, x: Array, w: Array) -> None:
    """The result against NumPy, once."""
    wide = np.int64 if dtype != "f32" else np.float64
    zero = 128 if dtype != "f32" else 0
    exact = conv_oracle.convolve(
        x.astype(wide) - zero, w.astype(wide), group=layer.group, **layer.attrs
    )
    exact = np.moveaxis(exact, 1, -1)
    if dtype == "f32":
        np.testing.assert_allclose(y, exact, rtol=1e-3, atol=1e-3)
    else:
        scale = np.full(layer.m, 1e-4, np.float32)
        np.testing.assert_array_equal(y, conv_oracle.requantize(exact, scale, 128, 0, 255))


def alternate(
    functions: list[Callable[[], Any]], runs: int, clock: Callable[[], float]
) -> list[float]:
    """Median seconds of each, interleaved."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(runs):
        for function, taken in zip(functions, times, strict=True):
            start = clock()
            function()
            taken.append(clock() - start)
    return [statistics.median(taken) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="")
    parser.add_argument("--only", default="", help="layers whose description contains this")
    parser.add_argument("--dtype", choices=["f32", "u8"], action="append")
    parser.add_argument("--bits", type=int, default=8, help="of quantised weights")
    parser.add_argument("--direct", action="store_true", help="no Winograd")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", default=_core.max_isa())
    parser.add_argument("--peer", action="store_true", help="ONNX Runtime beside it")
    parser.add_argument("--check", action="store_true", help="compare results with NumPy")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument(
        "--cpu-time", action="store_true", help="time of the calling thread: for shared machines"
    )
    options = parser.parse_args()
    clock = time.thread_time if options.cpu_time else time.perf_counter
    rng = np.random.default_rng(0)
    totals: dict[tuple[str, str], list[float]] = {}
    for layer in read_layers():
        if options.network not in layer.network or options.only not in str(layer):
            continue
        for dtype in options.dtype or ["f32", "u8"]:
            x, w = operands(layer, dtype, rng, options.bits)
            functions = [native(layer, dtype, options.isa, options.threads, x, w, options.direct)]
            if options.check:
                check(layer, dtype, functions[0](), x, w)
            if options.peer:
                functions.append(peer(layer, dtype, options.threads, x, w))
            times = alternate(functions, options.runs, clock)
            rates = "  ".join(
                f"{t * 1e6:9.1f} us {layer.macs / t / 1e9:6.1f} GMAC/s" for t in times
            )
            print(f"{layer.network:12} {layer!s:32} {dtype}  {rates}", flush=True)
            total = totals.setdefault((layer.network, dtype), [0.0] * (len(times) + 1))
            for i, t in enumerate([layer.macs * 1e-9, *times]):
                total[i] += t * layer.count
    for (network, dtype), (gmacs, *times) in totals.items():
        rates = "  ".join(f"{t * 1e3:8.2f} ms {gmacs / t:6.1f} GMAC/s" for t in times)
        print(f"{network:12} all layers {dtype}: {rates}")


if __name__ == "__main__":
    main()
