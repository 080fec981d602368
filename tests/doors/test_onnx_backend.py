"""The onnx package's own harness drives lepton_rt."""

from __future__ import annotations

import unittest
import warnings
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import helper

import lepton_rt
from lepton_rt import onnx_backend


def suite() -> dict[str, Any]:
    import onnx.backend.test

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        harness = onnx.backend.test.BackendTest(onnx_backend, __name__)
    for wanted in ("test_(relu|add|conv_with|softmax|split_equal|lstm|maxpool_2d|gemm).*_cpu",):
        harness.include(wanted)
    return {
        name: case
        for name, case in harness.test_cases.items()
        if name == "OnnxBackendNodeModelTest"
    }


@pytest.mark.slow  # making the suite alone takes long
def test_the_suite_drives_us() -> None:
    result = unittest.TestResult()
    for case in suite().values():
        loader = unittest.defaultTestLoader.loadTestsFromTestCase(case)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loader.run(result)
    problems = [text for _, text in (*result.failures, *result.errors)]
    assert not problems, problems[0]
    assert result.testsRun - len(result.skipped) >= 20


def test_nodes_models_and_devices() -> None:
    x = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
    node = helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2)
    for inputs in ([x], {"x": x}):
        outputs = onnx_backend.run_node(node, inputs)
        np.testing.assert_array_equal(outputs.a, x[:, :3])
        np.testing.assert_array_equal(outputs[1], x[:, 3:])
    clip = helper.make_node("Clip", ["x", "", "high"], ["y"])
    high = np.float32(0.5)
    (y,) = onnx_backend.run_node(clip, [x, high], outputs_info=[(np.float32, (2, 6))])
    np.testing.assert_array_equal(y, np.minimum(x, high))
    assert onnx_backend.supports_device("CPU")
    assert not onnx_backend.supports_device("CUDA:0")
    assert not onnx_backend.supports_device("abacus")
    with pytest.raises(lepton_rt.InputError, match="CUDA"):
        onnx_backend.prepare(onnx.ModelProto(), "CUDA")
    assert not onnx_backend.is_compatible(onnx.ModelProto())
