"""Kernels of the elementwise families, one call at a time, operands against guard pages.

Every isa's kernel against the scalar definition: arithmetic bit for bit, the rest within ulps.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lepton_rt import _core
from lepton_rt.plan import DTYPE_CODES

Array = np.ndarray[Any, Any]
DTYPES = {"f32": np.float32, "f64": np.float64, "i64": np.int64, "u64": np.uint64}
LENGTHS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 70]
# The dtypes that elementwise programs compute with; those of less than a byte, 8-bit floats and
# complex numbers are only moved.
CONVERTED = {
    name: code
    for name, code in DTYPE_CODES.items()
    if name == "bfloat16" or (hasattr(np, name) and "complex" not in name) or name == "bool"
}
# Within a few ulp of each other; everything else must be equal.
INEXACT = {
    "Cos", "Elu", "Erf", "Exp", "Gelu", "GeluTanh", "Log", "Mish", "Pow", "Selu",
    "Sigmoid", "Silu", "Sin", "Softplus", "Swish", "Tanh",
}  # fmt: skip


def cases() -> list[tuple[str, str, int]]:
    return [
        (compute, name, operands)
        for compute in DTYPES
        for name, operands, _ in _core.testing.micro_ops(compute, _core.max_isa())
    ]


def operand(compute: str, size: int, rng: np.random.Generator) -> Array:
    if compute[0] == "f":
        special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, -1.5, 2.0]
        x = rng.normal(0, 3, size)
        return np.where(rng.random(size) < 0.2, rng.choice(special, size), x).astype(
            DTYPES[compute]
        )
    info = np.iinfo(DTYPES[compute])
    few = np.array([0, 1, 2, 7, info.min, info.max, info.max - 1, info.min + 1], DTYPES[compute])
    many = rng.integers(info.min, info.max, size, DTYPES[compute])
    return np.where(rng.random(size) < 0.5, rng.choice(few, size), many)


@pytest.mark.parametrize("compute, name, operands", cases(), ids=str)
def test_micro(compute: str, name: str, operands: int, isa: str) -> None:
    rng = np.random.default_rng(len(name))
    for n in LENGTHS:
        for splat in range(1 << operands) if operands < 4 else (0, 1, 6, 30, 31):
            ins = [operand(compute, 1 if splat >> i & 1 else n, rng) for i in range(operands)]
            expected = _core.testing.micro(name, compute, "scalar", ins, splat, n)
            for at_start in (False, True):
                got = _core.testing.micro(name, compute, isa, ins, splat, n, -1, at_start)
                if name in INEXACT:
                    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=4e-7)
                else:
                    np.testing.assert_array_equal(got, expected)
            for i in range(operands):  # over one of its operands
                if not splat >> i & 1:
                    over = _core.testing.micro(name, compute, isa, ins, splat, n, i)
                    np.testing.assert_array_equal(over, got)


@pytest.mark.parametrize("compute", DTYPES)
@pytest.mark.parametrize("stored", CONVERTED)
def test_convert(compute: str, stored: str, isa: str, rng: np.random.Generator) -> None:
    code = CONVERTED[stored]
    dtype = np.dtype(ml_dtypes.bfloat16 if stored == "bfloat16" else stored)
    for n in LENGTHS:
        raw = rng.integers(0, 256, n * dtype.itemsize).astype(np.uint8).view(dtype)
        values = operand(compute, n, rng)
        if compute[0] == "f":
            with np.errstate(over="ignore"):
                values *= rng.choice([1, 40, 1e5, 1e12, 1e19], n).astype(values.dtype)
        for is_load, src, like in ((True, raw, np.dtype(DTYPES[compute])), (False, values, dtype)):
            expected = _core.testing.convert(code, compute, "scalar", is_load, src, like)
            for at_start in (False, True):
                got = _core.testing.convert(code, compute, isa, is_load, src, like, at_start)
                np.testing.assert_array_equal(got.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("op", range(7))
@pytest.mark.parametrize("at_start", [False, True])
def test_reduce(op: int, at_start: bool, isa: str, rng: np.random.Generator) -> None:
    for rows, width, gap in ((1, 1, 0), (3, 7, 0), (2, 33, 5), (130, 9, 1), (5, 256, 0), (2, 70, 3),
                             (300, 41, 0), (1, 1200, 0)):  # fmt: skip
        stride = width + gap
        x = rng.normal(0, 1, (rows - 1) * stride + width).astype(np.float32)
        for axis in (0, 1):
            if axis == 0 and width > 256:
                continue
            start = 1.0 if op == 6 else 0.25
            expected = _core.testing.reduce(op, "scalar", x, rows, width, stride, axis, start)
            got = _core.testing.reduce(op, isa, x, rows, width, stride, axis, start, at_start)
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("at_start", [False, True])
def test_softmax(log: bool, at_start: bool, isa: str, rng: np.random.Generator) -> None:
    for n in [*LENGTHS[1:], 300]:
        for width in (1, 3, 8, 16, 21, 64):
            x = rng.normal(0, 3, n * width).astype(np.float32)
            expected = _core.testing.softmax("scalar", x, n, width, log)
            got = _core.testing.softmax(isa, x, n, width, log, at_start)
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("at_start", [False, True])
def test_norm(at_start: bool, isa: str, rng: np.random.Generator) -> None:
    for n in [*LENGTHS, 600, 1030]:
        x, gamma, beta = (rng.normal(0, 1, n).astype(np.float32) for _ in range(3))
        for shift in (beta, beta[:0]):
            expected = _core.testing.norm("scalar", x, gamma, shift)
            got = _core.testing.norm(isa, x, gamma, shift, at_start)
            for a, b in zip(got, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
