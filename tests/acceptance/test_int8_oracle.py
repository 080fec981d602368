"""Networks quantised by lepton_rt, layer by layer against ONNX Runtime's exact integers.

Each layer is fed the oracle's own inputs, so errors do not add up and a difference names its layer.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from race import networks

import lepton_rt
from lepton_rt._core import usable_isas
from lepton_rt.graph.onnx_io import export_onnx
from oracle import core_operators, ort_run, quantized_tensors, step_shares
from sample_models import submodel, with_outputs

Array = npt.NDArray[Any]
NETWORKS = ["mobilenet_v2", "resnet50"]
EXACT_CORES = {"Conv", "Gemm", "MatMul", "Add"}


@functools.cache
def quantised(name: str) -> tuple[onnx.ModelProto, dict[str, Array], dict[str, Array]]:
    """(QDQ model, feeds, the oracle's value of every quantised tensor and output)."""
    rng = np.random.default_rng(3)
    batches = [rng.normal(size=(2, 3, 224, 224)).astype(np.float32) for _ in range(4)]
    made = lepton_rt.quantize(networks.export(name), batches, progress=False)
    model = export_onnx(made.graph, opset=21)
    feeds = {model.graph.input[0].name: rng.normal(size=(1, 3, 224, 224)).astype(np.float32)}
    return model, feeds, ort_run(with_outputs(model, quantized_tensors(model)), feeds)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_agrees_with_the_oracle(name: str) -> None:
    model, feeds, oracle = quantised(name)
    frontier = {**feeds, **oracle}
    tensors = [t for t in quantized_tensors(model) if t in oracle]
    assert len(tensors) > 40
    exact = 0
    for tensor in tensors:
        layer = submodel(model, tensor, frontier)
        inputs = {i.name: frontier[i.name] for i in layer.graph.input}
        got = lepton_rt.Session(layer).run(inputs)
        equal, within_one = step_shares(got, oracle[tensor])
        cores = core_operators(layer, also=("Relu", "Clip"))
        if cores and cores <= EXACT_CORES:
            exact += 1
            # The oracle adds residuals in float32: a channel of near ties may round either way.
            share = 0.999 if "Add" in cores else 0.9999
            assert equal >= share, f"{tensor}: {cores} equal at {equal:.5%}"
        assert within_one >= 0.999, f"{tensor}: {cores} within one step at {within_one:.5%}"
    assert exact >= 50


@pytest.mark.parametrize("name", NETWORKS)
def test_integers_do_not_depend_on_isa_or_threads(name: str) -> None:
    model, feeds, _ = quantised(name)
    tapped = with_outputs(model, quantized_tensors(model))
    results = [
        lepton_rt.Session(tapped, isa=isa, threads=threads).run(feeds)
        for isa in usable_isas()
        for threads in (1, 2)
    ]
    for other in results[1:]:
        for tensor, want in results[0].items():
            np.testing.assert_array_equal(other[tensor], want, err_msg=tensor)


@pytest.mark.parametrize("name", NETWORKS)
def test_fused_equals_unfused(name: str) -> None:
    """Tapping every quantised tensor forbids fusion across it; the result stays the same."""
    model, feeds, _ = quantised(name)
    tapped = with_outputs(model, quantized_tensors(model))
    output = model.graph.output[0].name
    fused = lepton_rt.Session(model).run(feeds)
    np.testing.assert_array_equal(fused, lepton_rt.Session(tapped).run(feeds)[output])


@pytest.mark.parametrize("name", NETWORKS)
def test_no_float_step_and_no_transpose_inside(name: str) -> None:
    model, _, _ = quantised(name)
    steps = list(lepton_rt.Session(model).explain())
    first = next(i for i, s in enumerate(steps) if "Conv" in s.op)
    last = max(i for i, s in enumerate(steps) if "Conv" in s.op or "MatMul" in s.op)
    inside = steps[first:last]
    floats = [s.name for s in inside if any(d.startswith("float") for d in s.dtypes)]
    assert not floats
    assert not [s.name for s in inside if s.op == "Transpose"]
