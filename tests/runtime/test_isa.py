"""LEPTON_MAX_ISA: what it forces really runs, and a value that cannot be honoured is an error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lepton_rt import _core

AVX512 = ["scalar", "avx2", "avx512", "avx512vnni"]
INCLUDED = {
    "scalar": ["scalar"],
    "avx2": ["scalar", "avx2"],
    "avxvnni": ["scalar", "avx2", "avxvnni"],
    "avx512": ["scalar", "avx2", "avx512"],
    "avx512vnni": AVX512,
    "avx512bf16": [*AVX512, "avx512bf16"],
    "amxint8": [*AVX512, "avx512bf16", "amxint8"],
    "amxbf16": [*AVX512, "avx512bf16", "amxint8", "amxbf16"],
}

REPORT = """
import numpy as np, lepton_rt
from lepton_rt import _core
from onnx import TensorProto, helper, numpy_helper
w = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 4]) for n in "xy"]
node = helper.make_node("MatMul", ["x", "w"], ["y"])
graph = helper.make_graph([node], "g", info[:1], info[1:], [w])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
session = lepton_rt.Session(model)
print(session.explain()[0].kernel, session.run(np.ones((2, 4), np.float32)).sum())
print(*_core.usable_isas())
"""


def run_with(cap: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", REPORT],
        env={**os.environ, "LEPTON_MAX_ISA": cap},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("cap", list(_core.machine_isas()))
def test_cap_is_obeyed(cap: str) -> None:
    done = run_with(cap)
    first, usable = done.stdout.splitlines()
    kernel, total = first.split()
    assert kernel == _core.select_kernel("gemm_f32", cap), done.stderr
    assert float(total) == 32
    assert usable.split() == INCLUDED[cap]


def test_an_instruction_set_includes_its_bases() -> None:
    """A kernel of a set that the cap does not include is not chosen for it."""
    for cap, included in INCLUDED.items():
        for family in ("gemm_f32", "gemm_s8", "gemm_bf16"):
            assert _core.select_kernel(family, cap).rsplit("_", 1)[1] in included


def test_unknown_cap_is_an_error() -> None:
    done = run_with("sse9")
    assert done.returncode != 0
    assert 'InputError: LEPTON_MAX_ISA is "sse9"; known values: scalar' in done.stderr
