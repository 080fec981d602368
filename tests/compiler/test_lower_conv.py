"""Convolutions from ONNX nodes to results, against the tap-by-tap oracle."""

from __future__ import annotations

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
