"""lepton.DynamicQuantizeMatMul against NumPy, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness import run_op
from lepton_rt import _core
from lepton_rt.errors import InputError, ModelError, UnsupportedError

Array = npt.NDArray[Any]
KEY = "lepton.DynamicQuantizeMatMul"
Rng = np.random.Generator


def quantized(x: Array) -> tuple[Array, np.float32, int]:
    """DynamicQuantizeLinear in float32."""
    lo, hi = np.float32(min(x.min(initial=0), 0)), np.float32(max(x.max(initial=0), 0))
    scale = np.float32(1) if lo == hi else np.float32((hi - lo) / np.float32(255))
    zero = int(np.rint(np.clip(np.float32(0) - lo / scale, 0, 255)))
    return np.clip(np.rint(x / scale) + np.float32(zero), 0, 255).astype(np.int64), scale, zero


def run(
    isa: str,
    a: Array,
    b: Array,
    scale: Array,
    zero_points: Array | None = None,
    bias: Array | None = None,
    residual: Array | None = None,
    threads: int = 1,
    **attrs: Any,
) -> Array:
    kernel = _core.choose_gemm_s8(isa, b, zero_points)
    packed = _core.pack_gemm_s8(kernel, b, zero_points)
    attrs = {"packed": 1, "k": b.shape[0], "n": b.shape[1], **attrs}
    inputs = [a, packed, scale, bias, residual]
    return run_op(KEY, inputs, attrs, constants=[1, 2, 3], kernel=kernel, isa=isa, threads=threads)[
        0
    ]


@pytest.mark.parametrize("a_shape", [(3, 5), (5,), (2, 3, 5), (1, 5), (0, 5), (70, 5), (2, 300)])
@pytest.mark.parametrize("columns", [1, 17, 130])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("full", [False, True])
def test_matmul(
    isa: str, rng: Rng, a_shape: tuple[int, ...], columns: int, dtype: str, full: bool
) -> None:
    k = a_shape[-1]
    a = rng.normal(0.3, 1, a_shape).astype(np.float32)
    info = np.iinfo(dtype)
    b = rng.integers(info.min, info.max + 1, (k, columns)).astype(dtype)
    zeros = rng.integers(info.min, info.max + 1, columns if full else 1).astype(dtype)
    scale = rng.uniform(0.01, 0.1, columns if full else 1).astype(np.float32)
    out_shape = (*a_shape[:-1], columns)
    bias = rng.normal(size=columns).astype(np.float32) if full else None
    residual = rng.normal(size=out_shape).astype(np.float32) if full else None
    q, a_scale, a_zero = quantized(a)
    acc = np.matmul(q - a_zero, b.astype(np.int64) - zeros)
    want = acc.astype(np.float32) * (a_scale * scale)
    if bias is not None and residual is not None:
        want = np.clip(want + bias + residual, 0, 2)
    attrs = {"min": 0.0, "max": 2.0} if full else {}
    for threads in (1, 2):
        got = run(isa, a, b, scale, zeros, bias, residual, threads, **attrs)
        np.testing.assert_array_equal(got, want)


def quantized_rows(x: Array) -> tuple[Array, Array, Array]:
    """DynamicQuantizeLinear of every row in float32; scale and zero point [rows, 1]."""
    x = x.reshape(-1, x.shape[-1])
    top, zero = np.float32(255), np.float32(0)
    lo = np.minimum(x.min(axis=1, initial=0, keepdims=True), zero)
    hi = np.maximum(x.max(axis=1, initial=0, keepdims=True), zero)
    width = hi / top - lo / top
    scale = np.where(width > 0, width, np.float32(1))
    points = np.minimum(np.rint(-lo / scale), top)
    return np.clip(np.rint(x / scale) + points, 0, 255).astype(np.int64), scale, points


@pytest.mark.parametrize("a_shape", [(3, 5), (5,), (2, 3, 5), (1, 5), (0, 5), (70, 5), (2, 300)])
@pytest.mark.parametrize("columns", [1, 17, 130])
@pytest.mark.parametrize("full", [False, True])
def test_rows_of_their_own(
    isa: str, rng: Rng, a_shape: tuple[int, ...], columns: int, full: bool
) -> None:
    k = a_shape[-1]
    a = rng.normal(0.3, 1, a_shape).astype(np.float32)
    a[..., 0] *= 100  # an outlier each
    if full:
        a[:1] = 0
        a[1:2] = np.abs(a[1:2])
    b = rng.integers(-128, 128, (k, columns)).astype(np.int8)
    zeros = rng.integers(-128, 128, columns if full else 1).astype(np.int8)
    scale = rng.uniform(0.01, 0.1, columns if full else 1).astype(np.float32)
    out_shape = (*a_shape[:-1], columns)
    bias = rng.normal(size=columns).astype(np.float32) if full else None
    residual = rng.normal(size=out_shape).astype(np.float32) if full else None
    q, a_scale, points = quantized_rows(a)
    acc = np.matmul(q - points.astype(np.int64), b.astype(np.int64) - zeros)
    want = (acc.astype(np.float32) * scale * a_scale).reshape(out_shape)
    if bias is not None and residual is not None:
        want = np.clip(want + bias + residual, 0, 2)
    attrs = {"min": 0.0, "max": 2.0} if full else {}
    for threads in (1, 2):
        got = run(isa, a, b, scale, zeros, bias, residual, threads, per_row=1, **attrs)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-20, 1.0, 1e20, 3e38])
def test_rows_of_any_size_near_ties(isa: str, rng: Rng, size: float) -> None:
    """Values halfway between two levels, give or take a rounding."""
    a = (rng.integers(-100, 156, (64, 77)) + np.float32(0.5)).astype(np.float32)
    a[:, 0], a[:, 1] = -100, 155
    a = a * np.float32(size / 200) * rng.uniform(0.5, 1, (64, 1)).astype(np.float32)
    q, a_scale, points = quantized_rows(a)
    want = (q - points).astype(np.float32).sum(axis=1, keepdims=True) * np.float32(1) * a_scale
    got = run(isa, a, np.ones((77, 1), np.int8), np.ones(1, np.float32), per_row=1)
    np.testing.assert_array_equal(got, want)


def test_a_row_that_is_not_finite_stays_alone(isa: str) -> None:
    a = np.ones((3, 4), np.float32)
    a[0, 1], a[2, 3] = np.nan, np.inf
    got = run(isa, a, np.ones((4, 3), np.int8), np.ones(1, np.float32), per_row=1)
    assert np.isnan(got[[0, 2]]).all()
    np.testing.assert_allclose(got[1], 4, rtol=1e-6)


def test_constant_input_has_scale_one(isa: str) -> None:
    got = run(isa, np.zeros((2, 4), np.float32), np.ones((4, 3), np.int8), np.ones(1, np.float32))
    np.testing.assert_array_equal(got, np.zeros((2, 3), np.float32))


def test_not_a_number_does_no_harm(isa: str) -> None:
    a = np.full((2, 4), np.nan, np.float32)
    assert run(isa, a, np.ones((4, 3), np.int8), np.ones(1, np.float32)).shape == (2, 3)


def test_rejects_what_does_not_fit(isa: str, rng: Rng) -> None:
    a, b = rng.normal(size=(2, 4)).astype(np.float32), np.ones((4, 3), np.int8)
    one = np.ones(1, np.float32)
    with pytest.raises(InputError):
        run(isa, a[:, :3], b, one)
    with pytest.raises(InputError):
        run(isa, a, b, np.ones(2, np.float32))
    with pytest.raises(InputError):
        run(isa, a, b, one, bias=np.ones(2, np.float32))
    with pytest.raises(InputError):
        run(isa, a, b, one, residual=np.ones((1, 3), np.float32))
    with pytest.raises((ModelError, InputError)):  # what is packed in runs fits any larger k
        run(isa, a, b, one, k=5)
    with pytest.raises(ModelError):
        run(isa, a, b, one, k=-1)
    with pytest.raises(ModelError):
        run(isa, a, b, one, batch=[2])
    with pytest.raises(UnsupportedError):
        run_op(KEY, [a, b, one], constants=[1, 2], isa=isa)
