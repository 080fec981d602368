"""Weights kept as bfloat16: every line of gemm_bf16, and products and convolutions by them."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from conv_oracle import conv_attrs, tap_major
from harness import run_op
from lepton_rt import _core
from lepton_rt.errors import ModelError, UnsupportedError

Array = npt.NDArray[Any]
Line = dict[str, Any]

DEPTHS = (1, 2, 3, 7, 8, 33, 130)
GAP = 5  # floats between rows of lhs


def lines() -> list[Any]:
    allowed = _core.usable_isas()
    return [
        pytest.param(line, id=line["name"])
        for line in _core.kernels()
        if line["family"] == "gemm_bf16" and line["isa"] in allowed
    ]


def rounded(x: Array) -> Array:
    """To the nearest bfloat16, ties to even, as float32: by another implementation."""
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def float_kernel(line: Line) -> str:
    """The gemm_f32 kernel that multiplies many rows of the same weights."""
    (name,) = [
        other["name"]
        for other in _core.kernels()
        if (other["family"], other["isa"], other["nr"]) == ("gemm_f32", line["isa"], line["nr"])
    ]
    return str(name)


def pairs(panels: Array) -> Array:
    """Panels [..., k, nr] of floats as the kernels read them, flat."""
    bits = panels.astype(ml_dtypes.bfloat16).view(np.uint16)
    *lead, k, nr = bits.shape
    padded = np.concatenate([bits, np.zeros((*lead, k % 2, nr), np.uint16)], axis=-2)
    split = padded.reshape(*lead, -1, 2, nr)
    return np.ascontiguousarray(np.swapaxes(split, -1, -2)).reshape(-1)


def with_special_values(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    x = rng.standard_normal(shape).astype(np.float32)
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38], np.float32)
    return np.where(rng.random(shape) < 0.1, rng.choice(special, shape), x)


@pytest.mark.parametrize("line", lines())
@pytest.mark.parametrize("at_start", [False, True])
def test_tile(line: Line, rng: np.random.Generator, at_start: bool) -> None:
    """Near the exact product, and the bits of gemm_f32 by the rounded weights."""
    nr, name = line["nr"], line["name"]
    for m, k in itertools.product(range(1, line["mr"] + 1), DEPTHS):
        lhs = rng.standard_normal((m, k)).astype(np.float32)
        weights = rng.standard_normal((k, nr)).astype(np.float32)
        flat = np.full((m - 1) * (k + GAP) + k, np.nan, np.float32)
        for i in range(m):
            flat[i * (k + GAP) : i * (k + GAP) + k] = lhs[i]
        got = _core.testing.gemm_bf16(name, m, 1, k, flat, k + GAP, pairs(weights), at_start)
        got = got.reshape(m, nr)
        # Each weight is off by 2^-8 of itself at most, a float32 sum of k products by k·eps.
        size = np.abs(lhs).astype(np.float64) @ np.abs(weights)
        exact = lhs.astype(np.float64) @ weights
        assert (np.abs(got - exact) <= (2**-8 + (k + 1) * 2**-23) * size).all()
        panel = rounded(weights).reshape(-1)
        kernel = float_kernel(line)
        want = _core.testing.gemm_f32(kernel, 1, k, lhs[-1].copy(), k, panel, at_start)
        np.testing.assert_array_equal(got[-1], want[:nr])


@pytest.mark.parametrize("line", lines())
@pytest.mark.parametrize("at_start", [False, True])
def test_a_row_against_several_panels(line: Line, rng: np.random.Generator, at_start: bool) -> None:
    nr, name = line["nr"], line["name"]
    for panels, k in itertools.product(range(1, line["panels"] + 1), DEPTHS):
        lhs = rng.standard_normal(k).astype(np.float32)
        weights = rng.standard_normal((panels, k, nr)).astype(np.float32)
        got = _core.testing.gemm_bf16(name, 1, panels, k, lhs, k, pairs(weights), at_start)
        for panel, row in zip(weights, got.reshape(panels, nr), strict=True):
            alone = _core.testing.gemm_bf16(name, 1, 1, k, lhs, k, pairs(panel), at_start)
            np.testing.assert_array_equal(row, alone)


@pytest.mark.parametrize("line", lines())
@pytest.mark.parametrize("at_start", [False, True])
def test_unpacking_is_exact(line: Line, rng: np.random.Generator, at_start: bool) -> None:
    for k in DEPTHS:
        weights = with_special_values(rng, (k, line["nr"]))
        got = _core.testing.unpack_bf16(line["name"], k, pairs(weights), at_start)
        np.testing.assert_array_equal(got.reshape(k, -1), rounded(weights))


@pytest.mark.parametrize("line", lines())
@pytest.mark.parametrize("k, n", [(1, 1), (2, 8), (3, 33), (64, 31), (5, 70)])
def test_packing_rounds_to_nearest_even(
    line: Line, rng: np.random.Generator, k: int, n: int
) -> None:
    """Panels of nr columns, padded with zeros; ties, overflow to infinity, NaN, denormals."""
    nr, stack = line["nr"], with_special_values(rng, (2, k, n))
    ties = (rng.integers(0x3F00, 0x4000, stack.shape) << 16 | 0x8000).astype(np.uint32)
    stack = np.where(rng.random(stack.shape) < 0.3, ties.view(np.float32), stack)
    packed = _core.pack_gemm_bf16(line["name"], stack).view(np.uint16)
    padded = np.concatenate([stack, np.zeros((2, k, -n % nr), np.float32)], axis=-1)
    panels = padded.reshape(2, k, -1, nr).transpose(0, 2, 1, 3)
    want = pairs(panels).reshape(2 * panels.shape[1], -1)
    got = packed.reshape(len(want), -1)
    as_float = [(x.astype(np.uint32) << 16).view(np.float32) for x in (got, want)]
    np.testing.assert_array_equal(as_float[0][:, : want.shape[1]], as_float[1])
    assert not got[:, want.shape[1] :].any()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "k, n", [(1, 1), (2, 40), (31, 17), (128, 64), (129, 33), (257, 65), (600, 130)]
)
def test_products_have_the_bits_of_float32_by_rounded_weights(
    isa: str, rng: np.random.Generator, threads: int, k: int, n: int
) -> None:
    """Few rows and many, k in one piece and in several, with every epilogue."""
    kernel, wide = (_core.select_kernel(f, isa) for f in ("gemm_bf16", "gemm_f32"))
    b = rng.standard_normal((k, n)).astype(np.float32)
    attrs = {"packed": 1, "k": k, "n": n, "min": [-3.0], "max": [5.0]}
    for m in (0, 1, 2, 5, 6, 7, 12, 13, 24, 25, 49, 150, 300):
        a = rng.standard_normal((m, k)).astype(np.float32)
        bias = rng.standard_normal(n).astype(np.float32) if m % 2 else None
        residual = rng.standard_normal((m, n)).astype(np.float32) if m % 3 else None

        def run(kernel: str, packed: Array) -> Array:
            inputs = [a, packed, bias, residual]  # noqa: B023
            key = "lepton.MatMul"
            (y,) = run_op(
                key, inputs, attrs, constants=[1], kernel=kernel, isa=isa, threads=threads
            )
            return y

        got = run(kernel, _core.pack_gemm_bf16(kernel, b))
        np.testing.assert_array_equal(got, run(wide, _core.pack_gemm_f32(wide, rounded(b))))


@pytest.mark.parametrize("shape", [(3, 4, 20), (2, 3, 30, 20)])
def test_stacks_and_transposed_rows(
    isa: str, rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    kernel = _core.select_kernel("gemm_bf16", isa)
    b = rng.standard_normal((*shape[:-2], shape[-1], 9)).astype(np.float32)
    attrs: dict[str, Any] = {"packed": 1, "k": shape[-1], "n": 9, "batch": list(shape[:-2])}
    a = rng.standard_normal(shape).astype(np.float32)
    packed = _core.pack_gemm_bf16(kernel, b)
    want = a.astype(np.float64) @ rounded(b)
    for transposed in (False, True):
        given = np.ascontiguousarray(np.swapaxes(a, -1, -2)) if transposed else a
        options = {**attrs, "transA": int(transposed)}
        (got,) = run_op("lepton.MatMul", [given, packed], options, constants=[1], kernel=kernel)
        np.testing.assert_allclose(got, want, rtol=0, atol=20 * 2**-23 * 60)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("size, depth", [(1, 20), (3, 6), (3, 40)])
def test_convolutions_have_the_bits_of_float32_by_rounded_weights(
    isa: str, rng: np.random.Generator, group: int, size: int, depth: int
) -> None:
    kernel, wide = (_core.select_kernel(f, isa) for f in ("gemm_bf16", "gemm_f32"))
    w = rng.standard_normal((group * 35, depth, size, size)).astype(np.float32)
    x = rng.standard_normal((2, 9, 7, group * depth)).astype(np.float32)
    attrs = conv_attrs(w, group, {"pads": [size // 2] * 4, "channels_last": 1})
    bias = rng.standard_normal(group * 35).astype(np.float32)

    def run(kernel: str, packed: Array) -> Array:
        inputs = [x, packed, bias]
        (y,) = run_op("lepton.Conv", inputs, attrs, constants=[1, 2], kernel=kernel, threads=2)
        return y

    got = run(kernel, _core.pack_gemm_bf16(kernel, tap_major(w, group)))
    want = run(wide, _core.pack_gemm_f32(wide, tap_major(rounded(w), group)))
    np.testing.assert_array_equal(got, want)


def test_packed_weights_of_another_size_are_refused(isa: str) -> None:
    kernel = _core.select_kernel("gemm_bf16", isa)
    packed = _core.pack_gemm_bf16(kernel, np.ones((6, 5), np.float32))
    a = np.ones((2, 6), np.float32)
    attrs = {"packed": 1, "k": 6, "n": 5}
    run_op("lepton.MatMul", [a, packed], attrs, constants=[1], kernel=kernel)
    for wrong in ({"k": 9}, {"n": 100}, {"k": -1}, {"packed": 0}, {"transB": 1}):
        with pytest.raises((ModelError, UnsupportedError)):
            run_op("lepton.MatMul", [a, packed], {**attrs, **wrong}, constants=[1], kernel=kernel)
    conv = {"kernel_shape": [1, 1], "in_channels": 6, "out_channels": 5, "channels_last": 1}
    x = np.ones((1, 2, 2, 6), np.float32)
    run_op("lepton.Conv", [x, packed], conv, constants=[1], kernel=kernel)
    with pytest.raises((ModelError, UnsupportedError)):
        run_op(
            "lepton.Conv", [x, packed], {**conv, "out_channels": 90}, constants=[1], kernel=kernel
        )


def test_every_isa_of_this_machine_has_a_kernel() -> None:
    of_family = [line for line in _core.kernels() if line["family"] == "gemm_bf16"]
    for isa in _core.machine_isas():
        name = _core.select_kernel("gemm_bf16", isa)
        (chosen,) = [line for line in of_family if line["name"] == name]
        assert chosen["available"]
        assert chosen["isa"] == isa or isa not in {line["isa"] for line in of_family}
