"""Softmax, LogSoftmax and Hardmax against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness import run_op

Array = np.ndarray[Any, Any]


def softmax(x: Array, axis: int, log: bool) -> Array:
    wide = x.astype(np.float64)
    e = wide - wide.max(axis=axis, keepdims=True)
    total = np.exp(e).sum(axis=axis, keepdims=True)
    return e - np.log(total) if log else np.exp(e) / total


CASES = [((5,), 0), ((3, 1), 1), ((4, 128), -1), ((4, 129), 1), ((2, 3, 1000), -1), ((7, 40), 0),
         ((2, 21, 5, 13), 1), ((1, 1000), -1), ((2, 3, 70), 1), ((0, 4), 1), ((4, 0), 1),
         ((), -1)]  # fmt: skip


@pytest.mark.parametrize("shape, axis", CASES, ids=str)
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("spread", [0.1, 3, 60])
def test_softmax(
    shape: tuple[int, ...], axis: int, op: str, spread: float, isa: str, rng: np.random.Generator
) -> None:
    x = rng.normal(0, spread, shape).astype(np.float32)
    got = run_op(op, [x], {"axis": axis}, isa=isa)[0]
    if shape == ():
        np.testing.assert_array_equal(got, 1 if op == "Softmax" else 0)
    elif x.size:
        expected = softmax(x, axis, op == "LogSoftmax")
        # x − max is rounded before exp: an error of |x − max| · 2^-24, relative.
        rtol = 2e-6 + spread * 1e-7
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=1e-6 if "Log" in op else 1e-30)


def test_every_length(isa: str, rng: np.random.Generator) -> None:
    for n in range(1, 40):
        x = rng.normal(0, 4, (3, n)).astype(np.float32)
        got = run_op("Softmax", [x], isa=isa)[0]
        np.testing.assert_allclose(got, softmax(x, -1, False), rtol=2e-6)
        got = run_op("Softmax", [np.ascontiguousarray(x.T)], {"axis": 0}, isa=isa)[0]
        np.testing.assert_allclose(got.T, softmax(x, -1, False), rtol=2e-6)


@pytest.mark.parametrize("transpose", [False, True])
def test_special(transpose: bool, isa: str) -> None:
    inf, nan = np.inf, np.nan
    x = np.array([[1e4, 1e4 - 1] + [0] * 9, [-inf, 0] + [-inf] * 9, [-3e38, 3e38] + [0] * 9],
                 np.float32)  # fmt: skip
    bad = np.array([[nan] + [1] * 10, [1] * 10 + [nan], [-inf] * 11, [1] * 5 + [nan] + [2] * 5],
                   np.float32)  # fmt: skip
    for rows in (x, bad):
        with np.errstate(all="ignore"):
            expected = softmax(rows, 1, False)
        ins = np.ascontiguousarray(rows.T) if transpose else rows
        got = run_op("Softmax", [ins], {"axis": 0 if transpose else 1}, isa=isa)[0]
        np.testing.assert_allclose(got.T if transpose else got, expected, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_threads(op: str, axis: int, isa: str, rng: np.random.Generator) -> None:
    x = rng.normal(0, 3, (50, 70, 90)).astype(np.float32)
    one, two = (run_op(op, [x], {"axis": axis}, isa=isa, threads=t)[0] for t in (1, 3))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_hardmax(axis: int, isa: str, rng: np.random.Generator) -> None:
    x = rng.integers(0, 5, (6, 9, 70)).astype(np.float32)
    got = run_op("Hardmax", [x], {"axis": axis}, isa=isa)[0]
    expected = np.zeros_like(x)
    np.put_along_axis(expected, np.expand_dims(x.argmax(axis), axis), 1, axis)
    np.testing.assert_array_equal(got, expected)


def test_bad_axis() -> None:
    with pytest.raises(Exception, match="axis"):
        run_op("Softmax", [np.zeros((2, 3), np.float32)], {"axis": 2})
