"""Convolutions from ONNX nodes to results, against the tap-by-tap oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton_rt
from conv_oracle import convolve, requantize
from lepton_rt import _core
from lepton_rt.graph.ir import Graph
from lepton_rt.lower import LowerContext
from lepton_rt.lowering import winograd_s8
from lepton_rt.lowering.rhs import pack_rhs


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_conv_integer(group: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max + 1, (2, 4, 7, 9)).astype(dtype)
    w = rng.integers(-128, 128, (6, 4 // group, 3, 2)).astype(np.int8)
    zero = np.array(info.min + 77, dtype)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    attrs = {"pads": [1, 0, 1, 1], "strides": [2, 1], "group": group}
    node = helper.make_node("ConvInteger", ["x", "w", "zero"], ["y"], **attrs)
    graph = helper.make_graph(
        [node],
        "conv",
        [
            helper.make_tensor_value_info("x", kind, ["n", 4, "h", "w"]),
            helper.make_tensor_value_info("zero", kind, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = lepton_rt.Session(model.SerializeToString(), threads=1)
    y = session.run({"x": x, "zero": zero})
    centred = x.astype(np.int64) - int(zero)
    expected = convolve(centred, w.astype(np.int64), group=group, strides=[2, 1], pads=[1, 0, 1, 1])
    np.testing.assert_array_equal(y, expected)
    assert not any(step.is_host for step in session.explain())


@pytest.mark.parametrize(
    ("shape", "weights", "attrs", "expected"),
    [
        ((2, 24, 13, 14), (40, 24, 3, 3), {"pads": [1] * 4}, True),
        ((2, 24, 13, 14), (40, 24, 3, 3), {"pads": [1] * 4, "strides": [1, 2]}, False),
        ((2, 24, 13, 14), (40, 24, 3, 3), {"pads": [1] * 4, "dilations": [2, 2]}, False),
        ((2, 24, 13, 14), (40, 12, 3, 3), {"pads": [1] * 4, "group": 2}, False),
        ((2, 24, 13, 14), (40, 24, 3, 1), {}, False),
        ((2, 24, 7, 7), (40, 24, 3, 3), {"pads": [1] * 4}, False),
        ((2, 24, "h", 14), (40, 24, 3, 3), {"pads": [1] * 4}, False),
        ((2, 8, 13, 14), (40, 8, 3, 3), {"pads": [1] * 4}, False),
        ((2, 24, 7, 7), (40, 24, 5, 5), {"pads": [2] * 4}, True),
        ((2, 24, 4, 4), (40, 24, 5, 5), {"pads": [2] * 4}, False),
        ((2, 24, 7, 7), (40, 24, 5, 3), {"pads": [2] * 4}, False),
    ],
)
def test_winograd_where_it_pays(
    shape: tuple[Any, ...], weights: tuple[int, ...], attrs: dict[str, Any], expected: bool
) -> None:
    """The second of two convolutions, whose input is channels-last."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((shape[1], 3, 1, 1)).astype(np.float32)
    second = (rng.standard_normal(weights) / 10).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "v"], ["t"]),
            helper.make_node("Conv", ["t", "w"], ["y"], **attrs),
        ],
        "convs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [shape[0], 3, *shape[2:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(first, "v"), numpy_helper.from_array(second, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = lepton_rt.Session(model.SerializeToString(), threads=1)
    notes = [step.note for step in session.explain() if step.op == "lepton.Conv"]
    assert ["Winograd" in note for note in notes] == [False, expected]
    size = [13 if isinstance(n, str) else n for n in shape]
    x = rng.standard_normal((size[0], 3, *size[2:])).astype(np.float32)
    wide = convolve(x.astype(np.float64), first.astype(np.float64))
    exact = convolve(wide, second.astype(np.float64), **attrs)
    np.testing.assert_allclose(session.run(x), exact, rtol=1e-4, atol=1e-4 * exact.std())


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512vnni"])
@pytest.mark.parametrize("size", [14, 8])
def test_integer_winograd_where_it_pays(isa: str, size: int) -> None:
    """Only where products are multiplied without VNNI, and 48 tiles share the weights."""
    rng = np.random.default_rng(0)
    w = rng.integers(-127, 128, (64, 64, 3, 3)).astype(np.int8)
    zeros = np.zeros(1, np.int8)
    preferred = _core.choose_gemm_s8(isa, w.reshape(1, 576, 64), zeros)
    pays = winograd_s8.pays({"channels_last": 1}, w, zeros, (1, size, size, 64))
    assert pays == (size == 14)
    assert (winograd_s8.product_kernel(preferred) is not None) == (isa == "avx2")
    for change in ({"strides": [2, 2]}, {"group": 2}, {"channels_last": 0}):
        assert not winograd_s8.pays({"channels_last": 1, **change}, w, zeros, (1, 14, 14, 64))
    assert not winograd_s8.pays({"channels_last": 1}, w, zeros, (1, "h", 14, 64))


@pytest.mark.parametrize(("share", "expected"), [(0.9, True), (0.5, False), (0.1, False)])
def test_integer_winograd_leaves_sparse_weights_alone(share: float, expected: bool) -> None:
    """Where the direct product skips enough zeros, Winograd would multiply them again."""
    rng = np.random.default_rng(0)
    w = np.rint(rng.standard_normal((64, 64, 3, 3)) * 20).clip(-63, 63).astype(np.int8)
    held = rng.random((4, 16, 3, 3)) < share
    w *= np.repeat(np.repeat(held, 16, axis=0), 4, axis=1)
    context = LowerContext(Graph(), "avx2")
    direct = pack_rhs(context, w.transpose(2, 3, 1, 0).reshape(1, 576, 64), None)
    assert direct.visited == pytest.approx(held.mean(), abs=0.02)
    found = winograd_s8.product_kernel(direct.kernel, direct.visited)
    assert (found is not None) == expected


@pytest.mark.skipif(
    "avx2" not in _core.usable_isas(), reason="direct products are chosen elsewhere"
)
def test_sessions_run_integer_winograd_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What explain() notes, and the same bits as without it."""
    rng = np.random.default_rng(4)
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node(
                "QLinearConv",
                ["q", "s", "z", "v", "ws", "wz", "t", "z"],
                ["a"],
                kernel_shape=[1, 1],
            ),
            helper.make_node(
                "QLinearConv", ["a", "t", "z", "w", "ws", "wz", "t", "z"], ["b"], pads=[1] * 4
            ),
            helper.make_node("DequantizeLinear", ["b", "t", "z"], ["y"]),
        ],
        "integers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 15, 14])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in {
                "s": np.float32(0.02),
                "t": np.float32(0.1),
                "ws": np.float32(0.01),
                "z": np.uint8(120),
                "wz": np.int8(0),
                "v": rng.integers(-127, 128, (64, 8, 1, 1)).astype(np.int8),
                "w": rng.integers(-127, 128, (64, 64, 3, 3)).astype(np.int8),
            }.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    data, x = model.SerializeToString(), rng.standard_normal((1, 8, 15, 14)).astype(np.float32)
    session = lepton_rt.Session(data, threads=1, isa="avx2")
    assert [s for s in session.explain() if "exact Winograd" in s.note]
    monkeypatch.setattr(winograd_s8, "pays", lambda *_: False)
    direct = lepton_rt.Session(data, threads=1, isa="avx2")
    assert not [s for s in direct.explain() if "exact Winograd" in s.note]
    np.testing.assert_array_equal(session.run(x), direct.run(x))


@pytest.mark.parametrize("isa", _core.usable_isas())
@pytest.mark.parametrize(
    ("kernel", "attrs", "expected"),
    [
        ((7, 7), {"strides": [2, 2], "pads": [3] * 4}, True),
        ((3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, True),
        ((5, 5), {"pads": [2] * 4}, False),  # would multiply by 3 zeros in 8 taps
        ((3, 3), {"dilations": [1, 2]}, False),
        ((3, 3), {"strides": [4, 1]}, False),
        ((1, 1), {}, False),
    ],
    ids=str,
)
def test_first_layers_read_planes(
    isa: str, kernel: tuple[int, int], attrs: dict[str, Any], expected: bool
) -> None:
    """Where a kernel reads windows; weights whose zero is not 0, against the oracle."""
    rng = np.random.default_rng(1)
    w = rng.integers(20, 237, (20, 3, *kernel)).astype(np.uint8)
    zero = rng.integers(120, 137, 20).astype(np.uint8)
    x = rng.integers(0, 256, (2, 3, 31, 30)).astype(np.uint8)
    names = ["x", "s", "z", "w", "ws", "wz", "t", "z"]
    constants = {"s": np.float32(1), "z": np.uint8(120), "w": w, "wz": zero}
    constants |= {"ws": np.full(20, 0.01, np.float32), "t": np.float32(16)}
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", names, ["y"], **attrs)],
        "first",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = lepton_rt.Session(model.SerializeToString(), threads=1, isa=isa)
    (note,) = [s.note for s in session.explain() if s.op == "lepton.QLinearConv"]
    reads_windows = any(
        line["family"] == "gemm_s8_windows" and line["isa"] == isa for line in _core.kernels()
    )
    assert ("planes" in note) == (expected and reads_windows)
    geometry = {name: value for name, value in attrs.items() if name != "auto_pad"}
    if "auto_pad" in attrs:
        geometry["pads"] = [1, 0, 1, 1]  # 31 and 30 by 3 with steps of 2
    wide = w.astype(np.int64) - zero.astype(np.int64)[:, None, None, None]
    sums = convolve(x.astype(np.int64) - 120, wide, **geometry)
    scale = np.full(20, np.float32(1) * np.float32(0.01) / np.float32(16), np.float32)
    want = requantize(np.moveaxis(sums, 1, -1), scale, 120, 0, 255)
    np.testing.assert_array_equal(session.run(x), np.moveaxis(want, -1, 1))
