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


def pairs_lines() -> list[Any]:
    """Those that round rows, too; the one on AMX tiles also on a model of the instructions."""
    tiles = [
        {**line, "name": line["name"].replace("amxbf16", "model")}
        for line in _core.kernels()
        if line["name"] == "gemm_bf16_32x32c32_amxbf16"
    ]
    assert len(tiles) == 1
    here = [param.values[0] for param in lines() if param.values[0]["pairs_mr"]]
    return [pytest.param(line, id=line["name"]) for line in tiles + here]


def rounds_rows(isa: str, rows: int) -> bool:
    name = _core.select_kernel("gemm_bf16", isa)
    (line,) = [line for line in _core.kernels() if line["name"] == name]
    return bool(line["pairs_mr"]) and rows > line["mr"]


def rounded(x: Array) -> Array:
    """To the nearest bfloat16, ties to even, as float32: by another implementation."""
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def float_kernel(line: Line) -> str:
    """The gemm_f32 kernel that multiplies many rows of the same weights."""
    if line["pairs_mr"]:
        return "gemm_f32_12x32_avx512"
    (name,) = [
        other["name"]
        for other in _core.kernels()
        if (other["family"], other["isa"], other["nr"]) == ("gemm_f32", line["isa"], line["nr"])
    ]
    return str(name)


def pairs(panels: Array, depth: int = 2) -> Array:
    """Panels [..., k, nr] of floats as the kernels read them, flat; k padded to their kr."""
    bits = panels.astype(ml_dtypes.bfloat16).view(np.uint16)
    *lead, k, nr = bits.shape
    padded = np.concatenate([bits, np.zeros((*lead, -k % depth, nr), np.uint16)], axis=-2)
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


@pytest.mark.parametrize("line", pairs_lines())
@pytest.mark.parametrize("at_start", [False, True])
@pytest.mark.parametrize("accumulate", [False, True])
def test_tile_of_rounded_rows(
    line: Line, rng: np.random.Generator, at_start: bool, accumulate: bool
) -> None:
    nr, name, most = line["nr"], line["name"], line["pairs_mr"]
    for m, k in itertools.product(range(1, most + 1), (1, 2, 3)):
        k, gap = k * line["kr"], 2 * GAP
        lhs = rounded(rng.standard_normal((m, k)).astype(np.float32))
        weights = rounded(rng.standard_normal((k, nr)).astype(np.float32))
        flat = np.full((m - 1) * (k + gap) + k, 0x7FC0, np.uint16)  # NaN
        for i in range(m):
            flat[i * (k + gap) : i * (k + gap) + k] = lhs[i].astype(ml_dtypes.bfloat16).view("u2")
        start = rng.standard_normal((most, nr)).astype(np.float32) if accumulate else None
        flat_start = None if start is None else start.reshape(-1)
        got = _core.testing.gemm_bf16_pairs(
            name, m, k, flat, k + gap, pairs(weights), at_start, flat_start
        ).reshape(most, nr)
        want = lhs.astype(np.float64) @ weights
        size = np.abs(lhs).astype(np.float64) @ np.abs(weights)
        if start is not None:
            want, size = want + start[:m], size + np.abs(start[:m])
        # A float32 sum of k products and the old one; what is subnormal may be lost.
        assert (np.abs(got[:m] - want) <= (k + 2) * 2**-23 * size + k * 2**-125).all()


@pytest.mark.parametrize("line", pairs_lines())
def test_subnormal_numbers_of_rounded_rows_are_flushed(line: Line) -> None:
    """As Intel has it: operands, products and sums below 2^-126 are zero."""
    k, nr = line["kr"], line["nr"]
    for a, b in [(2.0**-130, 2.0**30), (2.0**30, 2.0**-130), (2.0**-70, 2.0**-60)]:
        lhs = np.full((1, k), a, np.float32).astype(ml_dtypes.bfloat16).view("u2").reshape(-1)
        assert lhs.any()
        panel = pairs(np.full((k, nr), b, np.float32))
        got = _core.testing.gemm_bf16_pairs(line["name"], 1, k, lhs, k, panel, False)
        assert not got[:nr].any()


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
    want = pairs(panels, line["kr"]).reshape(2 * panels.shape[1], -1)
    got = packed.reshape(len(want), -1)
    as_float = [(x.astype(np.uint32) << 16).view(np.float32) for x in (got, want)]
    np.testing.assert_array_equal(as_float[0][:, : want.shape[1]], as_float[1])
    assert not got[:, want.shape[1] :].any()


def assert_equal_or_near(got: Array, want: Array, bound: Any) -> None:
    """bound: None where the bits are the same, else of two float32 sums in different orders."""
    if bound is None:
        np.testing.assert_array_equal(got, want)
    else:
        assert (np.abs(got - want) <= 2 * bound + 4 * 2**-23 * np.abs(want) + 1e-6).all()


@pytest.mark.parametrize(
    "k, n", [(1, 1), (2, 40), (31, 17), (128, 64), (129, 33), (257, 65), (1100, 130)]
)
def test_products_have_the_bits_of_float32_by_rounded_weights(
    isa: str, rng: np.random.Generator, k: int, n: int
) -> None:
    """Few rows and many, k in one piece and in several, with every epilogue."""
    kernel, wide = (_core.select_kernel(f, isa) for f in ("gemm_bf16", "gemm_f32"))
    b = rng.standard_normal((k, n)).astype(np.float32)
    attrs = {"packed": 1, "k": k, "n": n, "min": [-3.0], "max": [5.0]}
    for m in (0, 1, 2, 5, 6, 7, 12, 13, 24, 25, 49, 150, 300):
        a = rng.standard_normal((m, k)).astype(np.float32)
        bias = rng.standard_normal(n).astype(np.float32) if m % 2 else None
        residual = rng.standard_normal((m, n)).astype(np.float32) if m % 3 else None

        def run(kernel: str, packed: Array, threads: int = 1) -> Array:
            inputs = [a, packed, bias, residual]  # noqa: B023
            options = {"kernel": kernel, "isa": isa, "threads": threads}
            (y,) = run_op("lepton.MatMul", inputs, attrs, constants=[1], **options)
            return y

        packed = _core.pack_gemm_bf16(kernel, b)
        got = run(kernel, packed)
        np.testing.assert_array_equal(run(kernel, packed, 3), got)
        rounds = rounds_rows(isa, m)
        a = rounded(a) if rounds else a
        want = run(wide, _core.pack_gemm_f32(wide, rounded(b)))
        assert_equal_or_near(got, want, k * 2**-23 * np.abs(a) @ np.abs(b) if rounds else None)


@pytest.mark.parametrize("shape", [(3, 4, 20), (2, 3, 30, 20)])
def test_stacks_and_transposed_rows(
    isa: str, rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    kernel = _core.select_kernel("gemm_bf16", isa)
    b = rng.standard_normal((*shape[:-2], shape[-1], 9)).astype(np.float32)
    attrs: dict[str, Any] = {"packed": 1, "k": shape[-1], "n": 9, "batch": list(shape[:-2])}
    a = rng.standard_normal(shape).astype(np.float32)
    packed = _core.pack_gemm_bf16(kernel, b)
    rows = rounded(a) if rounds_rows(isa, shape[-2]) else a
    want = rows.astype(np.float64) @ rounded(b)
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
    rounds = rounds_rows(isa, 126)
    x = rounded(x) if rounds else x
    want = run(wide, _core.pack_gemm_f32(wide, tap_major(rounded(w), group)))
    most = np.abs(x).max() * np.abs(w).max() * depth * size * size  # the size of a sum
    assert_equal_or_near(got, want, depth * size * size * 2**-23 * most if rounds else None)


def test_packed_weights_of_another_size_are_refused(isa: str) -> None:
    kernel = _core.select_kernel("gemm_bf16", isa)
    packed = _core.pack_gemm_bf16(kernel, np.ones((6, 5), np.float32))
    a = np.ones((2, 6), np.float32)
    attrs = {"packed": 1, "k": 6, "n": 5}
    run_op("lepton.MatMul", [a, packed], attrs, constants=[1], kernel=kernel)
    for wrong in ({"k": 90}, {"n": 100}, {"k": -1}, {"packed": 0}, {"transB": 1}):
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
