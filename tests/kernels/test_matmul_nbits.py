"""lepton.MatMulNBits: weights of 4 and 8 bits against their dequantised floats."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from harness import run_op
from lepton_rt import _core
from lepton_rt.errors import InputError, ModelError
from lepton_rt.lowering.matmul_nbits import pack_nbits

Array = npt.NDArray[Any]
Rng = np.random.Generator
KEY = "lepton.MatMulNBits"
DTYPES = {
    "uint4": (0, 15, ml_dtypes.uint4),
    "int4": (-8, 7, ml_dtypes.int4),
    "uint8": (0, 255, np.uint8),
    "int8": (-128, 127, np.int8),
}


def kernel_of(isa: str, bits: int) -> tuple[str, int, int]:
    name = _core.select_kernel("gemm_f32lut4" if bits == 4 else "gemm_f32s8", isa)
    line = next(line for line in _core.kernels() if line["name"] == name)
    return name, line["nr"], line["kr"]


def run(
    isa: str,
    a: Array,
    q: Array,
    scale: Array,
    zero: Array | None,
    size: int,
    bias: Array | None = None,
    residual: Array | None = None,
    threads: int = 1,
    **attrs: Any,
) -> Array:
    bits = 4 if "4" in q.dtype.name else 8
    kernel, width, depth = kernel_of(isa, bits)
    packed, zero_points = pack_nbits(q, scale, zero, size, width, depth)
    sizes = {"k": q.shape[0], "n": q.shape[1], "bits": bits, "block_size": size}
    given = {**sizes, "zero_points": int(zero_points), **attrs}
    inputs = [a, packed, bias, residual]
    return run_op(KEY, inputs, given, constants=[1, 2], kernel=kernel, isa=isa, threads=threads)[0]


def draw(rng: Rng, dtype: str, k: int, n: int, size: int) -> tuple[Array, Array, Array, Array]:
    """Values, scales, zero points, and what they mean."""
    lo, hi, stored = DTYPES[dtype]
    groups = -(-k // size)
    q = rng.integers(lo, hi + 1, (k, n)).astype(stored)
    zero = rng.integers(lo, hi + 1, (groups, n)).astype(stored)
    scale = rng.uniform(0.01, 0.1, (groups, n)).astype(np.float32)
    rows = np.arange(k) // size
    real = (q.astype(np.float32) - zero.astype(np.float32)[rows]) * scale[rows]
    return q, scale, zero, real


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("a_shape", [(64,), (1, 64), (5, 64), (2, 9, 300), (70, 100), (0, 64)])
@pytest.mark.parametrize("n", [1, 16, 45])
@pytest.mark.parametrize("size", [16, 32, 128, 1000])
def test_product(
    isa: str, rng: Rng, dtype: str, a_shape: tuple[int, ...], n: int, size: int
) -> None:
    k = a_shape[-1]
    q, scale, zero, real = draw(rng, dtype, k, n, size)
    a = rng.normal(size=a_shape).astype(np.float32)
    bias = rng.normal(size=n).astype(np.float32)
    residual = rng.normal(size=(*a_shape[:-1], n)).astype(np.float32)
    exact = np.matmul(a.astype(np.float64), real.astype(np.float64))
    bound = 1e-6 * k**0.5 * np.abs(a).max(initial=1) * np.abs(real).max() * 4
    for threads in (1, 2):
        got = run(isa, a, q, scale, zero, size, threads=threads)
        np.testing.assert_allclose(got, exact, rtol=0, atol=bound)
        got = run(isa, a, q, scale, zero, size, bias, residual, threads, min=0.0, max=3.0)
        want = np.clip(exact + bias + residual, 0, 3)
        np.testing.assert_allclose(got, want, rtol=0, atol=bound + 1e-5)


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_dequantised_weights_do_not_depend_on_isa(rng: Rng, dtype: str) -> None:
    """One-hot rows read the matrix itself."""
    q, scale, zero, real = draw(rng, dtype, 40, 37, 16)
    a = np.eye(40, dtype=np.float32)
    for isa in _core.usable_isas():
        np.testing.assert_array_equal(run(isa, a, q, scale, zero, 16), real)


def test_rejects_what_does_not_fit(isa: str, rng: Rng) -> None:
    q, scale, zero, _ = draw(rng, "uint4", 64, 20, 32)
    a = rng.normal(size=(2, 64)).astype(np.float32)
    with pytest.raises(InputError):
        run(isa, a[:, :5], q, scale, zero, 32)
    with pytest.raises(InputError):
        run(isa, a, q, scale, zero, 32, bias=np.ones(3, np.float32))
    with pytest.raises(InputError):
        run(isa, a, q, scale, zero, 32, residual=np.ones((1, 20), np.float32))
    for wrong in ({"k": 65}, {"k": 0}, {"k": -1}, {"n": 2**40}, {"n": 200}, {"block_size": 0}):
        with pytest.raises(ModelError):
            run(isa, a, q, scale, zero, 32, **wrong)
    with pytest.raises(ModelError):
        run(isa, a, q, scale, zero, 32, block_size=16)
