"""Block pruning: which blocks become zero, and what runs sparse afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import lepton_rt
from lepton_rt import _core
from lepton_rt.errors import ModelError
from lepton_rt.graph.onnx_io import import_onnx
from small_networks import Builder

Array = npt.NDArray[Any]


def network() -> Any:
    """x [n, 3, 8, 8] → convolutions 3×3, 1×1, 3×3 → mean → two fully connected layers."""
    b = Builder(3)
    b.conv("x", "c1", 3, 16)
    b.node("Relu", ["c1"], "a1")
    b.conv("a1", "c2", 16, 64, k=1)
    b.node("Relu", ["c2"], "a2")
    b.conv("a2", "c3", 64, 48)
    b.node("Relu", ["c3"], "a3")
    b.node("GlobalAveragePool", ["a3"], "mean")
    b.node("Flatten", ["mean"], "flat")
    b.node("Gemm", ["flat", b.normal("fc1_w", 40, 48), b.normal("fc1_b", 40)], "hidden", transB=1)
    b.node("Relu", ["hidden"], "a4")
    b.node("MatMul", ["a4", b.normal("fc2_w", 40, 10)], "y")
    return b.model({"x": ["n", 3, 8, 8]}, {"y": ["n", 10]})


def matrix(graph: Any, name: str) -> Array:
    """[positions, inputs, outputs] of a weight."""
    weight = graph.array(name)
    if weight.ndim == 4:
        return np.asarray(weight.reshape(*weight.shape[:2], -1).transpose(2, 1, 0))
    return np.asarray(weight.T[None])


@pytest.mark.parametrize("block", [(8, 4), (16, 4), (16, 1), (5, 3)])
@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.75])
def test_smallest_blocks_become_zero(block: tuple[int, int], sparsity: float) -> None:
    model = network()
    original = import_onnx(model)
    made = lepton_rt.prune(model, sparsity, block=block)
    assert {layer.weight for layer in made.layers} == {"c2_w", "c3_w", "fc1_w"}
    for name in ("c2_w", "c3_w", "fc1_w"):
        before, after = matrix(original, name), matrix(made.graph, name)
        kept, gone = [], []
        for position in range(len(before)):
            for i in range(0, before.shape[1], block[1]):
                for j in range(0, before.shape[2], block[0]):
                    here = np.s_[position, i : i + block[1], j : j + block[0]]
                    norm = float(np.square(before[here], dtype=np.float64).sum())
                    if after[here].any():
                        np.testing.assert_array_equal(after[here], before[here])
                        kept.append(norm)
                    else:
                        gone.append(norm)
        assert len(gone) == round(sparsity * (len(kept) + len(gone)))
        assert max(gone, default=0.0) <= min(kept)
    for name in ("c1_w", "fc2_w"):
        np.testing.assert_array_equal(made.graph.array(name), original.array(name))


def test_options_and_errors() -> None:
    model = network()
    every = lepton_rt.prune(model, 0.5, block=(2, 2), ends=True)
    assert [layer.weight for layer in every.layers] == ["c1_w", "c2_w", "c3_w", "fc1_w", "fc2_w"]
    assert "c3_w" in str(every)
    some = lepton_rt.prune(model, 0.5, exclude=["c3", "Gemm"])
    assert [layer.weight for layer in some.layers] == ["c2_w"]
    for wrong in ({"sparsity": 1.0}, {"sparsity": -0.1}, {"sparsity": 0.5, "block": (0, 4)}):
        with pytest.raises(ValueError):
            lepton_rt.prune(model, **wrong)
    with pytest.raises(ValueError, match="nothing"):
        lepton_rt.prune(model, 0.5, exclude=["no such layer"])
    with pytest.raises(ModelError):
        lepton_rt.prune(model, 0.5, exclude=["Conv", "Gemm", "MatMul"])


def test_quantised_layers_leave_zero_blocks_out(isa: str, rng: np.random.Generator) -> None:
    """Sparse kernels where they pay, and the same result as on every other instruction set."""
    pruned = lepton_rt.prune(network(), 0.75)
    x = rng.standard_normal((6, 3, 8, 8)).astype(np.float32)
    made = lepton_rt.quantize(pruned, [x], progress=False)
    session = lepton_rt.Session(made, isa=isa)
    kernels = [step.kernel for step in session.explain() if "QLinear" in step.op]
    notes = [step.note for step in session.explain() if "QLinear" in step.op]
    if isa in ("scalar", "avx512vnni"):
        assert sum("sparse" in kernel for kernel in kernels) == 3
        assert sum(note.startswith("sparse: ") for note in notes) == 3
    reference = lepton_rt.Session(made, isa=_core.usable_isas()[0])
    np.testing.assert_array_equal(session.run(x), reference.run(x))


def test_a_few_zeros_stay_dense_and_are_explained(rng: np.random.Generator) -> None:
    pruned = lepton_rt.prune(network(), 0.25)
    x = rng.standard_normal((6, 3, 8, 8)).astype(np.float32)
    made = lepton_rt.quantize(pruned, [x], progress=False)
    steps = list(lepton_rt.Session(made, isa="scalar").explain())
    notes = [step.note for step in steps if step.note.startswith("dense: ")]
    assert len(notes) == 3
    assert all("sparse pays up to 50%" in note for note in notes)


@pytest.mark.parametrize(("sparsity", "expected"), [(0.9, 4), (0.6, 3), (0.2, 0)])
def test_float_layers_leave_zero_blocks_out(
    isa: str, rng: np.random.Generator, sparsity: float, expected: int
) -> None:
    """Where that pays, which for a layer that would run by Winograd is later than for others."""
    b = Builder(3)
    b.conv("x", "c1", 3, 16)
    b.conv("c1", "c2", 16, 64, k=1)
    b.conv("c2", "c3", 64, 48)
    b.node("GlobalAveragePool", ["c3"], "mean")
    b.node("Flatten", ["mean"], "flat")
    b.node("Gemm", ["flat", b.normal("fc1_w", 64, 48), b.normal("fc1_b", 64)], "h", transB=1)
    b.node("MatMul", ["h", b.normal("fc2_w", 64, 128)], "h2")
    b.node("MatMul", ["h2", b.normal("fc3_w", 128, 10)], "y")
    pruned = lepton_rt.prune(b.model({"x": [2, 3, 12, 12]}, {"y": [2, 10]}), sparsity)
    session = lepton_rt.Session(pruned, isa=isa, threads=1)
    steps = [step for step in session.explain() if "f32" in step.kernel]
    sparse = [step for step in steps if step.note.startswith("sparse: ")]
    # With AVX-512, products of 16 rows of weights are too shallow to gain.
    assert len(sparse) == max(expected - (isa not in ("scalar", "avx2")), 0)
    assert all("gemm_f32_sparse" in step.kernel for step in sparse)
    assert any("Winograd" in step.note for step in steps) == (sparsity < 0.9)
    if not expected:
        assert sum("sparse pays up to" in step.note for step in steps) >= 3
    x = rng.standard_normal((2, 3, 12, 12)).astype(np.float32)
    want = lepton_rt.Session(pruned, isa=isa, threads=1, optimise=False).run(x)
    np.testing.assert_allclose(session.run(x), want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_sparse_floats_stay_so_in_plans(tmp_path: Any, rng: np.random.Generator) -> None:
    pruned = lepton_rt.prune(network(), 0.9)
    session = lepton_rt.Session(pruned, threads=1)
    session.save_plan(tmp_path / "net.plan")
    opened = lepton_rt.Session(tmp_path / "net.plan", threads=1)
    x = rng.standard_normal((6, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(opened.run(x), session.run(x))
    assert any("gemm_f32_sparse" in step.kernel for step in opened.explain())
