"""Recurrent layers with 8-bit weights and dynamically quantised activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness import run_op
from kernels.test_rnn import OPS, lowered, operands, outputs_of
from lepton_rt import _core
from lepton_rt.errors import Error
from rnn_oracle import recurrent

Array = npt.NDArray[Any]
F32 = np.float32


def rounded(x: Array) -> Array:
    """x through 8 bits over its own range, in float32 as DynamicQuantizeLinear computes it."""
    x = x.astype(F32)
    low, high = min(F32(0), x.min(initial=0)), max(F32(0), x.max(initial=0))
    scale = F32(high / F32(255) - low / F32(255)) or F32(1)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    q = np.clip(np.rint(x / scale) + zero, 0, 255)
    return (q - zero).astype(np.float64) * np.float64(scale)


def quantized(
    rng: np.random.Generator, inputs: list[Array | None], form: str, dtype: Any
) -> tuple[list[Array | None], list[Array]]:
    """Operands with random 8-bit weights, and the floats that these mean.

    form: one scale per "tensor", "direction" or "column".
    """
    info = np.iinfo(dtype)
    operands_8 = [*inputs, *[None] * (12 - len(inputs))]
    floats = []
    for i, scale_at in ((1, 8), (2, 10)):
        w = inputs[i]
        assert w is not None
        shape = {"tensor": (), "direction": w.shape[:1], "column": w.shape[:2]}[form]
        scale = rng.uniform(0.4, 1.2, shape) / (90 * w.shape[2] ** 0.5)
        zero = rng.integers(info.min // 4, info.max // 2, shape).astype(dtype)
        values = rng.integers(info.min, info.max + 1, w.shape).astype(dtype)
        operands_8[i], operands_8[scale_at] = values, np.asarray(scale, F32)
        operands_8[scale_at + 1] = np.asarray(zero, dtype)
        wide = (*shape, *(1,) * (3 - len(shape)))
        factor = np.asarray(scale, F32).reshape(wide).astype(np.float64)
        floats.append((values.astype(np.float64) - zero.reshape(wide)) * factor)
    return operands_8, floats


def check_close(got: list[Array], want: list[Array]) -> None:
    """Equal but for states that fell on the other side of a rounding step."""
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        difference = np.abs(a - b)
        assert np.median(difference) < 1e-5
        assert difference.max() < 1e-2


def run(
    op: str, inputs: list[Array | None], attrs: dict[str, Any], isa: str, threads: int = 1
) -> list[Array]:
    """The outputs with packed weights, which are those with weights known at run time."""
    key, outputs = f"lepton.DynamicQuantize{op}", outputs_of(op)
    late = run_op(key, inputs, attrs, outputs=outputs, isa=isa, threads=threads)
    packed, attributes, kernel = lowered(key, inputs, attrs, isa)
    early = run_op(
        key, packed, attributes, constants=(1, 2), outputs=outputs, kernel=kernel, isa=isa,
        threads=threads,
    )  # fmt: skip
    for a, b in zip(early, late):
        np.testing.assert_array_equal(a, b)
    return early


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("form", ["tensor", "direction", "column"])
@pytest.mark.parametrize("op", OPS)
def test_means_what_it_says(
    op: str, form: str, dtype: Any, isa: str, rng: np.random.Generator
) -> None:
    attrs = {"direction": "bidirectional"}
    inputs, (w, r) = quantized(rng, operands(rng, op, 6, 5, 11, 19, attrs), form, dtype)
    got = run(op, inputs, attrs, isa)
    rest = inputs[3 : 8 if op == "LSTM" else 6]
    want = recurrent(op, inputs[0], w, r, *rest, direction="bidirectional", rounded=rounded)
    check_close(got, want)


@pytest.mark.parametrize("linear_before_reset", [0, 1])
@pytest.mark.parametrize("layout", [0, 1])
def test_gru(layout: int, linear_before_reset: int, isa: str, rng: np.random.Generator) -> None:
    attrs = {"layout": layout, "linear_before_reset": linear_before_reset}
    inputs, (w, r) = quantized(rng, operands(rng, "GRU", 6, 5, 8, 24, attrs), "column", np.int8)
    got = run("GRU", inputs, attrs, isa)
    want = recurrent("GRU", inputs[0], w, r, *inputs[3:6], rounded=rounded, **attrs)
    check_close(got, want)


@pytest.mark.parametrize("op", OPS)
def test_results_depend_on_no_companion_and_no_thread(
    op: str, isa: str, rng: np.random.Generator
) -> None:
    inputs, _ = quantized(rng, operands(rng, op, 9, 14, 40, 130, omit="l"), "column", np.int8)
    whole = run(op, inputs, {}, isa)
    for a, b in zip(whole, run(op, inputs, {}, isa, threads=3)):
        np.testing.assert_array_equal(a, b)
    alone = list(inputs)
    for i in (0, 5, 6):
        if alone[i] is not None:
            alone[i] = alone[i][:, 3:4]  # type: ignore[index]
    for a, b in zip(whole, run(op, alone, {}, isa)):
        np.testing.assert_array_equal(a[..., 3:4, :], b)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 1e-42, 0.0])
def test_unusual_values(value: float, isa: str, rng: np.random.Generator) -> None:
    inputs, (w, r) = quantized(rng, operands(rng, "RNN", 2, 2, 9, 8, omit="lh"), "tensor", np.int8)
    assert inputs[0] is not None
    inputs[0][0, 0] = 0
    inputs[0][0, 0, 8] = value
    got = run("RNN", inputs, {}, isa)[0]
    assert np.isnan(got[:, 0, 0]).all() == (not np.isfinite(value))
    assert np.isfinite(got[:, 0, 1]).all()
    if np.isfinite(value) and abs(value) < 1:
        want = recurrent("RNN", inputs[0], w, r, inputs[3], rounded=rounded)[0]
        check_close([got], [want])


@pytest.mark.parametrize(
    "change",
    [
        {8: np.ones(2, F32)},
        {8: None},
        {10: np.ones((1, 31), F32)},
        {9: np.zeros(3, np.int8)},
        {9: np.zeros((), np.uint8)},
        {1: np.zeros((1, 32, 6), F32)},
        {1: np.zeros((1, 32, 7), np.int8)},
    ],
)
def test_operands_that_do_not_fit(change: dict[int, Any], rng: np.random.Generator) -> None:
    inputs, _ = quantized(rng, operands(rng, "LSTM", 3, 2, 6, 8), "tensor", np.int8)
    for i, array in change.items():
        inputs[i] = array
    with pytest.raises(Error):
        run_op("lepton.DynamicQuantizeLSTM", inputs, {}, outputs=outputs_of("LSTM"))


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("op", OPS)
def test_weights_of_seven_bits(op: str, batch: int, isa: str, rng: np.random.Generator) -> None:
    """Products in 16 bits change no bit of the result; R may have a kernel of its own."""
    inputs = [*operands(rng, op, 5, batch, 37, 70), *[None] * 12][:12]
    for i in (1, 2):
        inputs[i] = rng.integers(-64, 65, inputs[i].shape).astype(np.int8)  # type: ignore[union-attr]
        inputs[6 + 2 * i] = np.asarray(1 / 700, F32)
    run(op, inputs, {}, isa)
    _, attrs, kernel = lowered(f"lepton.DynamicQuantize{op}", inputs, {}, isa)
    forms = {line["name"]: line["form"] for line in _core.kernels() if line["family"] == "gemm_s8"}
    recurrent_kernel = attrs.get("recurrent_kernel", kernel)
    assert forms[recurrent_kernel] == ("u8 pairs" if isa in ("avx2", "avx512") else "u8")


def plain_lstm(
    rng: np.random.Generator, batch: int, hidden: int, omit: str = "p", **attrs: Any
) -> list[Array | None]:
    """Operands of an LSTM without peepholes, whose weights have seven bits."""
    inputs = [*operands(rng, "LSTM", 6, batch, 21, hidden, attrs, omit=omit), *[None] * 12][:12]
    for i in (1, 2):
        w = inputs[i]
        assert w is not None
        inputs[i] = rng.integers(-64, 65, w.shape).astype(np.int8)
        inputs[6 + 2 * i] = rng.uniform(0.5, 1.5, w.shape[:2]).astype(F32) / F32(700)
    return inputs


HAS_LSTM_STEP = ("avx2", "avx512vnni", "avx512bf16", "amxint8", "amxbf16")


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("hidden", [8, 16, 48, 112])
def test_a_step_in_one_kernel(hidden: int, batch: int, isa: str, rng: np.random.Generator) -> None:
    """It has the bits of product, epilogue and cell, whatever rows end early."""
    attrs = {"direction": "bidirectional"}
    inputs = plain_lstm(rng, batch, hidden, **attrs)
    got = run("LSTM", inputs, attrs, isa)
    for a, b in zip(got, run("LSTM", inputs, attrs, isa, threads=3)):
        np.testing.assert_array_equal(a, b)
    _, attributes, _ = lowered("lepton.DynamicQuantizeLSTM", inputs, attrs, isa)
    expected = isa in HAS_LSTM_STEP and (hidden % 16 == 0 or isa == "avx2")
    assert attributes.get("interleaved", 0) == expected
    floats = [
        None if w is None or s is None else w * s[..., None].astype(np.float64)
        for w, s in ((inputs[1], inputs[8]), (inputs[2], inputs[10]))
    ]
    want = recurrent("LSTM", inputs[0], *floats, *inputs[3:7], rounded=rounded, **attrs)
    check_close(got, want)


@pytest.mark.parametrize("batch", [1, 3])
def test_many_units_on_threads(batch: int, isa: str, rng: np.random.Generator) -> None:
    inputs = plain_lstm(rng, batch, 256, omit="plhc")
    for a, b in zip(run("LSTM", inputs, {}, isa), run("LSTM", inputs, {}, isa, threads=2)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("attrs", [{"clip": 0.5}, {"input_forget": 1}, {"hidden_size": 8}])
def test_interleaved_weights_of_another_layer(
    attrs: dict[str, Any], isa: str, rng: np.random.Generator
) -> None:
    if isa not in HAS_LSTM_STEP:
        pytest.skip("no kernel reads interleaved weights")
    inputs = plain_lstm(rng, 2, 16)
    key = "lepton.DynamicQuantizeLSTM"
    packed, attributes, kernel = lowered(key, inputs, {}, isa)
    with pytest.raises(Error):
        run_op(
            key, packed, {**attributes, **attrs}, constants=(1, 2), outputs=outputs_of("LSTM"),
            kernel=kernel, isa=isa,
        )  # fmt: skip


def test_few_rows_leave_no_tiles_empty(rng: np.random.Generator) -> None:
    b = rng.integers(-127, 128, (64, 128)).astype(np.int8)
    kernel = _core.choose_gemm_s8("amxint8", b, few_rows=True)
    assert kernel == _core.choose_gemm_s8("avx512vnni", b)
    assert _core.lstm_step_units(kernel, "amxint8") == 16
    assert _core.lstm_step_units(_core.choose_gemm_s8("amxint8", b), "amxint8") == 0
