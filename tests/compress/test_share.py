"""Weight sharing: what the tables mean, and that indices are multiplied as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lepton_rt
from lepton_rt.errors import ModelError
from lepton_rt.graph.ir import Constant
from lepton_rt.graph.onnx_io import import_onnx
from lepton_rt.graph.verify import verify
from small_networks import Builder, cnn


def mlp(rows: Any = "n") -> Any:
    """x [rows, 70] → two fully connected layers, one stored transposed."""
    b = Builder(5)
    b.node("Gemm", ["x", b.normal("w1", 90, 70), b.normal("b1", 90)], "h", transB=1)
    b.node("Relu", ["h"], "a")
    b.node("MatMul", ["a", b.normal("w2", 90, 33)], "p")
    b.node("Add", ["p", b.normal("b2", 33)], "y")
    return b.model({"x": [rows, 70]}, {"y": [rows, 33]})


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_the_nearest_of_few_values(bits: int) -> None:
    original = import_onnx(mlp())
    made = lepton_rt.share_weights(mlp(), bits)
    assert [layer.weight for layer in made.layers] == ["w1", "w2"]
    for name, before in (("w1", original.array("w1").T), ("w2", original.array("w2"))):
        constant = made.graph.constants[name]
        assert constant.encoding == "codebook"
        table, after = constant.parts["table"], constant.dense()
        assert table.size <= 2**bits
        assert not (table.view(np.uint32) & 0xFFFF).any()
        if bits <= 4:
            steps = table / 2.0 ** (np.frexp(np.abs(table).max())[1] - 7)
            np.testing.assert_array_equal(steps, np.clip(np.rint(steps), -127, 127))
        distance = np.abs(before[..., None] - table).min(axis=-1)
        np.testing.assert_array_equal(np.abs(before - after), distance)
        # k-means is no worse than evenly spaced values, from which it starts.
        even = np.linspace(before.min(), before.max(), 2**bits, dtype=np.float32)
        error = np.square(before[..., None] - even).min(axis=-1).mean()
        assert np.square(before - after).mean() <= error * 1.01 + 1e-5


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_indices_are_multiplied_as_they_are(
    isa: str, rng: np.random.Generator, rows: int, tmp_path: Path
) -> None:
    made = lepton_rt.share_weights(mlp())
    session = lepton_rt.Session(made, isa=isa)
    steps = [step for step in session.explain() if "MatMul" in step.op]
    assert [step.op for step in steps] == ["lepton.MatMulNBits"] * 2
    assert all("lut4" in step.kernel and "table of 16" in step.note for step in steps)
    assert all(("s8lut4" in step.kernel) == (isa == "avx512vnni") for step in steps)
    x = rng.standard_normal((rows, 70)).astype(np.float32)
    w1, w2 = (made.graph.array(name).astype(np.float64) for name in ("w1", "w2"))
    original = import_onnx(mlp())
    b1, b2 = (original.array(name) for name in ("b1", "b2"))
    want = np.maximum(x @ w1 + b1, 0) @ w2 + b2
    got = session.run(x)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    made.save(tmp_path / "m.lepton")
    stored = lepton_rt.Session(tmp_path / "m.lepton", isa=isa)
    assert [step.op for step in stored.explain()] == [step.op for step in session.explain()]
    np.testing.assert_array_equal(stored.run(x), got)
    assert (tmp_path / "m.lepton").stat().st_size < 90 * (70 + 33) // 2 + 6000
    made.save(tmp_path / "m.onnx")
    expanded = lepton_rt.Session(tmp_path / "m.onnx", isa=isa).run(x)
    np.testing.assert_allclose(expanded, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_any_bfloat16_table_is_multiplied(isa: str, rng: np.random.Generator) -> None:
    made = lepton_rt.share_weights(mlp())
    w1 = made.graph.constants["w1"]
    table = w1.parts["table"].copy()
    table[0] = -0.001953125 * 1.5  # far below a 128th of the largest
    parts = {**w1.parts, "table": table}
    made.graph.constants["w1"] = Constant(w1.dtype, w1.shape, "codebook", parts)
    session = lepton_rt.Session(made.graph, isa=isa)
    first = next(step for step in session.explain() if "MatMul" in step.op)
    assert "f32lut4" in first.kernel
    x = rng.standard_normal((2, 70)).astype(np.float32)
    graph = made.graph
    want = lepton_rt.Session(graph, isa=isa, optimise=False).run(x)
    np.testing.assert_allclose(session.run(x), want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_many_rows_use_floats_where_sums_are_floats(isa: str, rng: np.random.Generator) -> None:
    made = lepton_rt.share_weights(mlp(rows=100))
    session = lepton_rt.Session(made, isa=isa)
    packed = any("NBits" in step.op for step in session.explain())
    assert packed == (isa == "avx512vnni")
    x = rng.standard_normal((100, 70)).astype(np.float32)
    want = lepton_rt.Session(lepton_rt.share_weights(mlp()), isa=isa).run(x)
    np.testing.assert_allclose(session.run(x), want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_zeros_and_convolutions(rng: np.random.Generator) -> None:
    graph = import_onnx(cnn())
    weight = np.array(graph.array("c3_w"))
    weight[:, ::2] = 0
    graph.constants["c3_w"] = Constant.of(weight)
    made = lepton_rt.share_weights(graph, 3, exclude=["c1"])
    assert "c1_w" not in {layer.weight for layer in made.layers}
    shared = made.graph.array("c3_w")
    assert (shared[:, ::2] == 0).all()
    assert "c3_w" in str(made)
    x = rng.standard_normal((2, 3, 16, 16)).astype(np.float32)
    assert lepton_rt.compare(graph, made, [x]) is not None
    for wrong in (0, 9):
        with pytest.raises(ValueError):
            lepton_rt.share_weights(graph, wrong)
    with pytest.raises(ModelError):
        lepton_rt.share_weights(graph, exclude=["Conv", "Gemm"])


def test_a_table_that_does_not_fit_is_refused() -> None:
    good = lepton_rt.share_weights(mlp()).graph
    verify(good)
    parts = good.constants["w2"].parts
    wrong = [
        {**parts, "table": parts["table"][:8]},
        {**parts, "table": parts["table"].astype(np.float64)},
        {**parts, "table": parts["table"].reshape(2, -1)},
        {**parts, "indices": parts["indices"][:-1]},
        {**parts, "indices": parts["indices"].astype(np.int8)},
        {"indices": parts["indices"]},
    ]
    for each in wrong:
        graph = good.copy()
        graph.constants["w2"] = Constant(np.dtype(np.float32), (90, 33), "codebook", each)
        with pytest.raises(ModelError):
            verify(graph)
