"""float16 and bfloat16 through operators that compute in float32."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from harness import run_op

Array = np.ndarray[Any, Any]
HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
CASES: list[tuple[str, list[tuple[int, ...]], dict[str, Any]]] = [
    ("Softmax", [(3, 40)], {}),
    ("LogSoftmax", [(3, 40, 5)], {"axis": 1}),
    ("ReduceMean", [(3, 40, 5)], {"axes": [1]}),
    ("ReduceMax", [(3, 40, 5)], {"axes": [2], "keepdims": 0}),
    ("ReduceL2", [(300, 500)], {"axes": [0]}),
    ("LayerNormalization", [(6, 50), (50,), (50,)], {}),
    ("RMSNormalization", [(6, 50), (50,)], {}),
    ("GroupNormalization", [(2, 4, 9), (4,), (4,)], {"num_groups": 2}),
    ("InstanceNormalization", [(2, 4, 9), (4,), (4,)], {}),
    ("LpNormalization", [(2, 4, 9)], {"axis": 1}),
]


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("op, shapes, attrs", CASES, ids=[c[0] for c in CASES])
@pytest.mark.parametrize("threads", [1, 2])
def test_rounds_once(
    op: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], threads: int,
    half: np.dtype[Any], isa: str, rng: np.random.Generator,
) -> None:  # fmt: skip
    """The float32 operator on the same values, rounded at the end."""
    inputs = [rng.normal(0, 1, s).astype(half) for s in shapes]
    wide = run_op(op, [x.astype(np.float32) for x in inputs], attrs, isa=isa)[0]
    got = run_op(op, inputs, attrs, outputs=(half.name,), isa=isa, threads=threads)[0]
    assert got.dtype == half
    np.testing.assert_array_equal(got.astype(np.float32), wide.astype(half).astype(np.float32))


def test_axes_known_at_run_only(isa: str, rng: np.random.Generator) -> None:
    x = rng.normal(0, 1, (3, 4)).astype(np.float16)
    got = run_op("ReduceSum", [x, np.array([1])], outputs=("float16",), isa=isa)[0]
    np.testing.assert_allclose(got, x.astype(float).sum(1, keepdims=True), rtol=1e-3, atol=1e-3)


def test_indices(isa: str, rng: np.random.Generator) -> None:
    x = rng.normal(0, 1, (3, 40)).astype(np.float16)
    got = run_op("ArgMax", [x], {"axis": 1, "keepdims": 0}, outputs=("int64",), isa=isa)[0]
    np.testing.assert_array_equal(got, x.argmax(1))


def test_empty(isa: str) -> None:
    x = np.zeros((0, 4), np.float16)
    assert run_op("Softmax", [x], outputs=("float16",), isa=isa)[0].shape == (0, 4)
