"""Block-sparse 8-bit products: kernels against guard pages, operators against dense ones."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness import run_op
from lepton_rt import _core
from lepton_rt.errors import ModelError
from lepton_rt.lowering.sparse import pack_sparse

Array = npt.NDArray[Any]
Line = dict[str, Any]
Rng = np.random.Generator


def lines() -> list[Any]:
    allowed = _core.usable_isas()
    return [
        pytest.param(line, id=line["name"])
        for line in _core.kernels()
        if line["family"] == "gemm_s8_sparse" and line["isa"] in allowed
    ]


def extremes(rng: Rng, shape: Any, low: int, high: int) -> Array:
    x = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 0.4, rng.choice([low, high], shape), x)


def sparse_matrix(rng: Rng, k: int, n: int, width: int, share: float) -> Array:
    """int16 [k, n] of int8 values in about `share` of its blocks."""
    held = rng.random((-(-k // 4), -(-n // width))) < share
    mask = np.repeat(np.repeat(held, 4, axis=0), width, axis=1)[:k, :n]
    return np.where(mask, extremes(rng, (k, n), -128, 127), 0).astype(np.int16)


@pytest.mark.parametrize("line", lines())
@pytest.mark.parametrize("at_start", [False, True])
def test_tile(line: Line, rng: Rng, at_start: bool) -> None:
    nr, mr = line["nr"], line["mr"]
    for m, quads, gap in itertools.product(range(1, mr + 1), (0, 1, 2, 3, 5, 8, 17), (0, 5)):
        k = 4 * (quads + 3)
        stride = k + gap
        lhs = np.full((m - 1) * stride + k, 77, np.uint8)
        rows = extremes(rng, (m, k), 0, 255)
        for i in range(m):
            lhs[i * stride : i * stride + k] = rows[i]
        index = rng.integers(0, k // 4, quads).astype(np.uint16)
        values = extremes(rng, (quads, nr, 4), -128, 127).astype(np.int8)
        panels = quads % 4 + 1
        starts = np.sort(rng.integers(0, quads + 1, panels + 1)).astype(np.uint32)
        starts[-1] = quads
        want = np.zeros((m, panels, nr), np.int64)
        for p in range(panels):
            own = slice(starts[p], starts[p + 1])
            gathered = rows.reshape(m, -1, 4)[:, index[own]].astype(np.int64)
            want[:, p] = np.einsum("mqr,qnr->mn", gathered, values[own].astype(np.int64))
        start = rng.integers(-(2**31), 2**31, (m, 64)).astype(np.int32)
        run = (line["name"], m, lhs, stride, starts, index, values.reshape(-1), at_start)
        got = _core.testing.gemm_s8_sparse(*run)
        columns = panels * nr
        want = want.reshape(m, columns)
        np.testing.assert_array_equal(got.reshape(m, 64)[:, :columns], want)
        got = _core.testing.gemm_s8_sparse(*run, start.reshape(-1))
        wrapped = (want + start[:, :columns]).astype(np.uint64).astype(np.uint32).astype(np.int32)
        np.testing.assert_array_equal(got.reshape(m, 64)[:, :columns], wrapped)
        np.testing.assert_array_equal(got.reshape(m, 64)[:, columns:], start[:, columns:])


def operands(isa: str, values: Array) -> tuple[tuple[str, Array], tuple[str, Array]]:
    """(kernel, packed) of the dense and of the sparse product."""
    b = values.astype(np.int8)
    dense = _core.choose_gemm_s8(isa, b, None)
    sparse = _core.select_kernel("gemm_s8_sparse", isa)
    line = next(line for line in _core.kernels() if line["name"] == sparse)
    packed = pack_sparse(values, line["nr"])
    return (dense, _core.pack_gemm_s8(dense, b, None)), (sparse, packed)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize(
    "shape", [(1, 4, 1), (3, 7, 5), (17, 36, 16), (30, 130, 77), (70, 1000, 200)]
)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_matmul_equals_the_dense_one(
    isa: str, rng: Rng, dtype: Any, shape: tuple[int, int, int], share: float
) -> None:
    m, k, n = shape
    info = np.iinfo(dtype)
    a = extremes(rng, (m, k), info.min, info.max).astype(dtype)
    bias = rng.integers(-1000, 1000, n).astype(np.int32)
    scale = rng.uniform(1e-4, 1e-3, n).astype(np.float32)
    residual = rng.integers(0, 256, (m, n)).astype(np.uint8)
    attrs: dict[str, Any] = {"packed": 1, "k": k, "n": n, "a_zero_point": int(info.max) - 100}
    attrs.update(y_zero_point=100, r_scale=0.5, r_zero_point=3)
    if share > 0:
        attrs.update(q_scale=0.7, out_scale=0.9)
    points = rng.integers(info.min, info.max + 1, m).astype(dtype)
    pair = operands(isa, sparse_matrix(rng, k, n, 16, share))
    for threads, given, zeros in ((1, residual, None), (2, None, None), (1, None, points)):
        results = []
        for kernel, packed in pair:
            inputs = [a, packed, scale, bias, given, None, zeros]
            made = run_op(
                "lepton.QLinearMatMul",
                inputs,
                attrs,
                constants=[1, 2, 3],
                outputs=["uint8"],
                kernel=kernel,
                isa=isa,
                threads=threads,
            )
            results.append(made[0])
        np.testing.assert_array_equal(results[1], results[0])


@pytest.mark.parametrize("geometry", [(8, 20, 1, 1), (6, 33, 3, 1), (16, 40, 3, 2), (3, 16, 7, 2)])
def test_convolution_equals_the_dense_one(
    isa: str, rng: Rng, geometry: tuple[int, int, int, int]
) -> None:
    channels, outputs, size, stride = geometry
    values = sparse_matrix(rng, size * size * channels, outputs, 16, 0.4)
    x = rng.integers(0, 256, (2, 11, 9, channels)).astype(np.uint8)
    scale = rng.uniform(1e-4, 1e-3, outputs).astype(np.float32)
    bias = rng.integers(-1000, 1000, outputs).astype(np.int32)
    attrs: dict[str, Any] = {
        "kernel_shape": [size, size],
        "strides": [stride, stride],
        "pads": [size // 2] * 4,
        "group": 1,
        "in_channels": channels,
        "out_channels": outputs,
        "channels_last": 1,
        "x_zero_point": 117,
        "y_zero_point": 128,
    }
    results = [
        run_op(
            "lepton.QLinearConv",
            [x, packed, bias, scale],
            attrs,
            constants=[1, 2, 3],
            outputs=["uint8"],
            kernel=kernel,
            isa=isa,
        )[0]
        for kernel, packed in operands(isa, values)
    ]
    np.testing.assert_array_equal(results[1], results[0])


@pytest.mark.parametrize("per_row", [0, 1])
def test_dynamic_product_equals_the_dense_one(isa: str, rng: Rng, per_row: int) -> None:
    a = rng.standard_normal((9, 50)).astype(np.float32)
    bias = rng.standard_normal(40).astype(np.float32)
    residual = rng.standard_normal((9, 40)).astype(np.float32)
    scale = rng.uniform(0.01, 0.1, 40).astype(np.float32)
    results = [
        run_op(
            "lepton.DynamicQuantizeMatMul",
            [a, packed, scale, bias, residual],
            {"packed": 1, "k": 50, "n": 40, "per_row": per_row},
            constants=[1, 2, 3],
            kernel=kernel,
            isa=isa,
        )[0]
        for kernel, packed in operands(isa, sparse_matrix(rng, 50, 40, 16, 0.4))
    ]
    np.testing.assert_array_equal(results[1], results[0])


def test_rejects_a_blob_that_does_not_fit(isa: str, rng: Rng) -> None:
    a = rng.integers(0, 256, (2, 40)).astype(np.uint8)
    _, (kernel, packed) = operands(isa, sparse_matrix(rng, 40, 32, 16, 0.6))
    scale = np.ones(1, np.float32)

    def run(blob: Array, k: int = 40, n: int = 32) -> None:
        attrs: dict[str, Any] = {"packed": 1, "k": k, "n": n}
        run_op(
            "lepton.QLinearMatMul",
            [a, blob, scale],
            attrs,
            constants=[1, 2],
            outputs=["uint8"],
            kernel=kernel,
            isa=isa,
        )

    run(packed)
    starts, quads = packed.copy(), packed.copy()
    starts[4:8] = 255  # more blocks than there are
    panels = 32 // next(line["nr"] for line in _core.kernels() if line["name"] == kernel)
    assert panels * 4 + 4 <= 64
    quads[64 + 128] = 10  # rows 40 … 43 of 40
    blobs = [starts, quads, packed[:-64], packed[:0], np.concatenate([packed, packed[:64]])]
    for blob in blobs:
        with pytest.raises(ModelError):
            run(blob)
    with pytest.raises(ModelError):
        run(packed, n=64)
