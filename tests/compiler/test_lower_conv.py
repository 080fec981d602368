"""Convolutions from ONNX nodes to results, against the tap-by-tap oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton_rt
from conv_oracle import convolve


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
