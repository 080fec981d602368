"""Cast between every pair of dtypes, against NumPy where NumPy defines the result."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from harness import run_op

Array = np.ndarray[Any, Any]
INTS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
ALL = ["bool", *INTS, *FLOATS]


def dtype(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def cast(x: Array, to: str, isa: str) -> Array:
    return run_op("Cast", [x], outputs=(to,), isa=isa)[0]


def samples(name: str, rng: np.random.Generator) -> Array:
    """Values of every magnitude, edges included."""
    if name == "bool":
        return rng.integers(0, 2, 67).astype(bool)
    if name in INTS:
        info = np.iinfo(name)
        edge = [info.min, info.max, 0, 1, info.max - 1, info.max // 2, info.max // 3]
        small = rng.integers(max(info.min, -100), 100, 40)
        return np.concatenate(
            [rng.integers(info.min, info.max, 300, name), np.array(edge, name), small.astype(name)]
        )
    wide = rng.normal(0, 1, 300) * 10.0 ** rng.integers(-9, 9, 300)
    edge = np.array([0, -0.0, 0.5, -0.5, 1.5, 2.5, 65504, 65519, 65520, 6e-8, 3e-8, 2.98e-8, 1e-40])
    half_way = (1 + (2 * rng.integers(0, 512, 50) + 1) / 2048.0) * (1 + rng.choice([0, 1e-12], 50))
    with np.errstate(over="ignore"):
        return np.concatenate([wide, edge, half_way]).astype(dtype(name))


def fits(x: Array, to: str) -> Array:
    """Where truncation of x lies inside the integer type."""
    info = np.iinfo(to)
    t = np.trunc(x.astype(np.float64))
    return (t >= float(info.min)) & (t <= float(info.max)) & (t < 2.0**info.bits)


@pytest.mark.parametrize("source", ALL)
@pytest.mark.parametrize("to", ALL)
def test_every_pair(source: str, to: str, isa: str, rng: np.random.Generator) -> None:
    x = samples(source, rng)
    if source in FLOATS and to in INTS:
        x = x[fits(x, to)]
    with np.errstate(over="ignore"):
        via = x.astype(np.float32) if source == "float64" and to == "bfloat16" else x
        expected = via.astype(dtype(to))
    got = cast(x, to, isa)
    assert got.dtype == dtype(to)
    if to == "bfloat16":  # ml_dtypes rounds twice on some roads
        np.testing.assert_allclose(got.astype(float), expected.astype(float), rtol=2**-8)
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("source", ["float16", "float32", "float64"])
def test_float_to_integer_out_of_range(source: str, isa: str) -> None:
    values = [np.nan, np.inf, -np.inf, 300.7, -1.5, -200, 40000, 1e9, 3e9, -3e9, 1e19, 2e19, -1e19]
    with np.errstate(over="ignore"):
        x = np.array(values + [300.7] * 9).astype(source)
    exact = [0 if v != v else int(v) if np.isfinite(v) else (1 if v > 0 else -1) << 100
             for v in x.tolist()]  # fmt: skip
    for to in INTS:
        info = np.iinfo(to)
        if to in ("int32", "int64"):
            expected = [min(max(v, int(info.min)), int(info.max)) for v in exact]
        elif to == "uint64":
            expected = [min(v, 2**64 - 1) if v >= 0 else max(v, -(2**63)) % 2**64 for v in exact]
        else:
            expected = [min(max(v, -(2**63)), 2**63 - 1) % 2**info.bits for v in exact]
            expected = [v - 2**info.bits if v > info.max else v for v in expected]
        np.testing.assert_array_equal(cast(x, to, isa), np.array(expected, to), err_msg=to)
    np.testing.assert_array_equal(cast(x, "bool", isa), np.ones(len(x), bool))


def test_every_float16(isa: str) -> None:
    x = np.arange(65536, dtype=np.uint16).view(np.float16)
    wide = cast(x, "float32", isa)
    np.testing.assert_array_equal(wide, x.astype(np.float32))
    np.testing.assert_array_equal(cast(wide, "float16", isa), x)


def test_float16_rounding(isa: str, rng: np.random.Generator) -> None:
    bits = rng.integers(0, 2**32, 20000, np.uint64).astype(np.uint32)
    near = (rng.integers(0x3300, 0x4800, 20000) << 16 | rng.integers(0, 2, 20000) * 0x1000).astype(
        np.uint32
    )
    x = np.concatenate([bits, near, near + 1, near - 1]).view(np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(cast(x, "float16", isa), x.astype(np.float16))
    x = x[~np.isnan(x)]  # a bfloat16 NaN is equal to nothing, not even to testing.assert_*
    with np.errstate(all="ignore"):
        exact = x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(cast(x, "bfloat16", isa).astype(float), exact.astype(float))


def test_shapes(isa: str) -> None:
    for shape in [(), (0,), (3, 0, 2), (2, 3, 5), (1, 1, 1, 1, 1, 1, 1, 700)]:
        x = np.ones(shape, np.float32)
        np.testing.assert_array_equal(cast(x, "int32", isa), x.astype(np.int32))
