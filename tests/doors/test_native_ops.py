"""Operators from a shared library, compiled here from C."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper

import lepton_rt
from lepton_rt import custom
from lepton_rt.errors import InputError, ModelError, UnsupportedError

HEADER = Path(__file__).parents[2] / "csrc" / "ops" / "custom_op_api.h"
DOMAIN = "org.example"

SOURCE = r"""
#include <stdio.h>
#include <string.h>
#include "lepton_op.h"

static const lepton_op_attribute* find(const lepton_op_call* call, const char* name) {
  int32_t i;
  for (i = 0; i < call->num_attributes; ++i)
    if (strcmp(call->attributes[i].name, name) == 0) return &call->attributes[i];
  return NULL;
}

/* RowStats: y = factor * x + bias (bias may be omitted), and the sum of each row of it. */
static int row_stats_infer(const lepton_op_call* call) {
  const lepton_op_tensor* x = &call->inputs[0];
  if (call->num_inputs < 1 || call->num_outputs != 2 || x->dtype != 1 || x->rank != 2) {
    snprintf(call->error, LEPTON_OP_ERROR_BYTES, "a float matrix is wanted");
    return 1;
  }
  call->outputs[0] = *x;
  call->outputs[1].dtype = 1;
  call->outputs[1].rank = 1;
  call->outputs[1].dims[0] = x->dims[0];
  return 0;
}

static void one_row(void* context, int64_t row) {
  const lepton_op_call* call = context;
  const lepton_op_attribute* factor = find(call, "factor");
  const int64_t columns = call->inputs[0].dims[1];
  const float* x = (const float*)call->inputs[0].data + row * columns;
  const int biased = call->num_inputs > 1 && call->inputs[1].dtype != 0;
  float *y = call->outputs[0].data, *sums = call->outputs[1].data;
  float sum = 0;
  int64_t j;
  for (j = 0; j < columns; ++j) {
    float value = x[j] * (factor ? ((const float*)factor->data)[0] : 1.f);
    if (biased) value += ((const float*)call->inputs[1].data)[j];
    if (y) y[row * columns + j] = value;
    sum += value;
  }
  if (sums) sums[row] = sum;
}

static int row_stats_run(const lepton_op_call* call) {
  const lepton_op_attribute* fail = find(call, "fail");
  if (fail) {
    snprintf(call->error, LEPTON_OP_ERROR_BYTES, "asked to fail: %s", (const char*)fail->data);
    return 7;
  }
  call->parallel_for(call, call->inputs[0].dims[0], one_row, (void*)call);
  return 0;
}

static int no_type(const lepton_op_call* call) { (void)call; return 0; }

static const lepton_op ops[] = {
    {"org.example", "RowStats", row_stats_infer, row_stats_run},
    {"org.example", "Untyped", no_type, row_stats_run},
};
static const lepton_op_library library = {ABI, COUNT, OPS};
const lepton_op_library* lepton_ops(void) { return &library; }
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom, "_REGISTERED", {})


def build(folder: Path, source: str = SOURCE, abi: str = "LEPTON_OP_ABI", **defines: str) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    shutil.copy(HEADER, folder / "lepton_op.h")
    (folder / "ops.c").write_text(source)
    library = folder / "libops.so"
    values = {"ABI": abi, "COUNT": "2", "OPS": "ops", **defines}
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-Wno-unused", "-fPIC"]
    command += [f"-D{name}={value}" for name, value in values.items()]
    command += ["-shared", str(folder / "ops.c"), "-o", str(library)]
    subprocess.run(command, check=True, timeout=60)
    return library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("ops"))


def model(op: str = "RowStats", bias: bool = True, shape: Any = ("n", 5), **attrs: Any) -> Any:
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node(op, ["r", "b" if bias else ""], ["y", "s"], domain=DOMAIN, **attrs),
        helper.make_node("Neg", ["s"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, shape)],
        [info("y", TensorProto.FLOAT, None), info("z", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.arange(5, dtype=np.float32), "b")],
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


def expected(x: Any, factor: float = 1.0, bias: bool = True) -> tuple[Any, Any]:
    y = np.maximum(x, 0) * np.float32(factor) + (np.arange(5, dtype=np.float32) if bias else 0)
    return y, -y.sum(1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("threads", [1, 4])
def test_runs_natively_on_any_shape(library: Path, bias: bool, threads: int) -> None:
    assert lepton_rt.load_op_library(library) == ["org.example.RowStats", "org.example.Untyped"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session = lepton_rt.Session(model(bias=bias, factor=2.5), threads=threads)
    assert not session.explain().host_steps
    assert session.outputs[1].shape == (None,)
    for rows in (3, 64, 0, 3):
        x = np.random.default_rng(rows).standard_normal((rows, 5)).astype(np.float32)
        y, z = session.run(x)
        want_y, want_z = expected(x, 2.5, bias)
        np.testing.assert_allclose(y, want_y, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(z, want_z, rtol=1e-5, atol=1e-5)


def test_its_errors_reach_the_caller(library: Path) -> None:
    lepton_rt.load_op_library(library)
    with pytest.raises(ModelError, match="a float matrix is wanted"):
        lepton_rt.Session(model(shape=(5,)))
    with pytest.raises(ModelError, match="no dtype"):
        lepton_rt.Session(model("Untyped"))
    session = lepton_rt.Session(model(fail=["one", "two"]))
    with pytest.raises(InputError, match="asked to fail: one;two"):
        session.run(np.ones((2, 5), np.float32))


def test_the_name_registered_last_wins(library: Path) -> None:
    def doubled(x: Any, b: Any, **attrs: Any) -> Any:
        return 2 * x, x.sum(1)

    lepton_rt.load_op_library(library)
    lepton_rt.register_op(DOMAIN, "RowStats", doubled)
    x = np.ones((2, 5), np.float32)
    session = lepton_rt.Session(model())
    assert len(session.explain().host_steps) == 1
    np.testing.assert_array_equal(session.run(x)[0], 2 * x)
    lepton_rt.load_op_library(library)
    np.testing.assert_array_equal(lepton_rt.Session(model()).run(x)[0], expected(x)[0])


def test_plans_need_the_library(library: Path, tmp_path: Path) -> None:
    lepton_rt.load_op_library(library)
    lepton_rt.Session(model()).save_plan(tmp_path / "m.plan")
    x = np.ones((2, 5), np.float32)
    np.testing.assert_array_equal(lepton_rt.Session(tmp_path / "m.plan").run(x)[0], expected(x)[0])
    program = f"import lepton_rt; lepton_rt.Session({str(tmp_path / 'm.plan')!r})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert "no native kernel for org.example.RowStats" in done.stderr


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        lepton_rt.load_op_library(tmp_path / "missing.so")
    (tmp_path / "text.so").write_text("not a library")
    with pytest.raises(InputError, match="cannot be loaded"):
        lepton_rt.load_op_library(tmp_path / "text.so")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="exports no function lepton_ops"):
        lepton_rt.load_op_library(build(tmp_path / "empty", "int nothing;\n"))
    (tmp_path / "old").mkdir()
    with pytest.raises(UnsupportedError, match="another version"):
        lepton_rt.load_op_library(build(tmp_path / "old", abi="99"))
    (tmp_path / "own").mkdir()
    stolen = SOURCE.replace('"org.example", "RowStats"', '"ai.onnx", "Relu"')
    with pytest.raises(InputError, match=r"domain \"ai\.onnx\" cannot"):
        lepton_rt.load_op_library(build(tmp_path / "own", stolen))
