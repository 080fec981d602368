"""Block-sparse float32 products: kernels against guard pages, operators against dense ones.

A sum over the rows that hold something is the dense kernel's chain of FMAs without the terms that
are zero, so results are not only close: they are the same values.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from conv_oracle import conv_attrs, convolve, pack_f32, tap_major
from harness import run_op
from lepton_rt import _core
from lepton_rt.errors import ModelError
from lepton_rt.lowering.sparse import pack_sparse_f32

Array = npt.NDArray[Any]
Line = dict[str, Any]
Rng = np.random.Generator


def lines() -> list[Any]:
    allowed = _core.usable_isas()
    return [
        pytest.param(line, id=line["name"])
        for line in _core.kernels()
        if line["family"] == "gemm_f32_sparse" and line["isa"] in allowed
    ]


def sparse_matrix(rng: Rng, k: int, n: int, share: float, rows: int = 4) -> Array:
    """[k, n] with values in about `share` of the blocks of 16 columns and some rows."""
    held = rng.random((-(-k // rows), -(-n // 16))) < share
    mask = np.repeat(np.repeat(held, rows, axis=0), 16, axis=1)[:k, :n]
    return rng.standard_normal((k, n)).astype(np.float32) * mask


def packed_for(isa: str, b: Array) -> tuple[str, Array]:
    kernel = _core.select_kernel("gemm_f32_sparse", isa)
    line = next(line for line in _core.kernels() if line["name"] == kernel)
    return kernel, pack_sparse_f32(b, line["nr"])


@pytest.mark.parametrize("line", lines())
@pytest.mark.parametrize("at_start", [False, True])
def test_tile(line: Line, rng: Rng, at_start: bool) -> None:
    nr, mr = line["nr"], line["mr"]
    for m, stored, gap in itertools.product(range(1, mr + 1), (0, 1, 2, 3, 8, 17), (0, 5)):
        k = stored + 3
        stride = k + gap
        rows = rng.standard_normal((m, k)).astype(np.float32)
        lhs = np.full((m - 1) * stride + k, np.nan, np.float32)
        for i in range(m):
            lhs[i * stride : i * stride + k] = rows[i]
        index = rng.integers(0, k, stored).astype(np.uint16)
        values = rng.standard_normal((stored, nr)).astype(np.float32)
        panels = stored % 4 + 1
        starts = np.sort(rng.integers(0, stored + 1, panels + 1)).astype(np.uint32)
        starts[-1] = stored
        got = _core.testing.gemm_f32_sparse(
            line["name"], m, lhs, stride, starts, index, values.reshape(-1), at_start
        )
        for p in range(panels):
            own = slice(starts[p], starts[p + 1])
            wide = rows[:, index[own]].astype(np.float64)
            want = wide @ values[own]
            # Every product and every sum rounds once at most.
            bound = np.finfo(np.float32).eps * (stored + 1) * (np.abs(wide) @ np.abs(values[own]))
            found = got.reshape(m, 64)[:, p * nr : (p + 1) * nr]
            assert (np.abs(found - want) <= bound).all()


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 7, 5), (17, 36, 16), (30, 130, 77), (70, 1000, 200)]
)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("threads", [1, 2])
def test_matmul_equals_the_dense_one(
    isa: str, rng: Rng, shape: tuple[int, int, int], share: float, threads: int
) -> None:
    m, k, n = shape
    a = rng.standard_normal((m, k)).astype(np.float32)
    b = sparse_matrix(rng, k, n, share)
    bias = rng.standard_normal(n).astype(np.float32)
    residual = rng.standard_normal((m, n)).astype(np.float32)
    dense = _core.select_kernel("gemm_f32", isa)
    for given, transposed in ((residual, 0), (residual[:1], 1), (None, 0)):
        attrs: dict[str, Any] = {"packed": 1, "k": k, "n": n, "min": -1.0, "transA": transposed}
        results = [
            run_op(
                "lepton.MatMul",
                [a.T.copy() if transposed else a, packed, bias, given],
                attrs,
                constants=[1, 2],
                kernel=kernel,
                isa=isa,
                threads=threads,
            )[0]
            for kernel, packed in ((dense, _core.pack_gemm_f32(dense, b)), packed_for(isa, b))
        ]
        np.testing.assert_array_equal(results[1], results[0])


@pytest.mark.parametrize("geometry", [(8, 20, 1, 1), (6, 33, 3, 1), (16, 40, 3, 2), (3, 16, 7, 2)])
@pytest.mark.parametrize("has_residual", [False, True])
def test_convolution_equals_the_dense_one(
    isa: str, rng: Rng, geometry: tuple[int, int, int, int], has_residual: bool
) -> None:
    channels, outputs, size, stride = geometry
    b = sparse_matrix(rng, size * size * channels, outputs, 0.4, rows=channels)
    w = b.reshape(size, size, channels, outputs).transpose(3, 2, 0, 1)
    assert np.array_equal(tap_major(w, 1)[0], b)
    x = rng.standard_normal((2, 11, 9, channels)).astype(np.float32)
    pads = [size // 2] * 4
    attrs = conv_attrs(w, 1, {"channels_last": 1, "strides": [stride] * 2, "pads": pads})
    bias = rng.standard_normal(outputs).astype(np.float32)
    exact = convolve(
        np.moveaxis(x, -1, 1).astype(np.float64),
        w.astype(np.float64),
        strides=[stride] * 2,
        pads=pads,
    )
    exact = np.moveaxis(exact, 1, -1) + bias
    residual = rng.standard_normal(exact.shape).astype(np.float32) if has_residual else None
    results = [
        run_op(
            "lepton.Conv",
            [x, packed, bias, *([residual] if has_residual else [])],
            attrs,
            constants=[1, 2],
            kernel=kernel,
            isa=isa,
        )[0]
        for packed, kernel in (pack_f32(w, 1, isa), packed_for(isa, b)[::-1])
    ]
    np.testing.assert_array_equal(results[1], results[0])
    want = exact if residual is None else exact + residual
    np.testing.assert_allclose(results[1], want, rtol=1e-4, atol=1e-4)


def test_zeros_are_not_multiplied(isa: str, rng: Rng) -> None:
    """What meets zeros alone leaves no trace, an infinity or NaN neither."""
    b = np.zeros((40, 32), np.float32)
    b[8:12, :16] = rng.standard_normal((4, 16))
    a = rng.standard_normal((3, 40)).astype(np.float32)
    spoilt = a.copy()
    spoilt[:, :8], spoilt[:, 12:] = np.nan, np.inf
    kernel, packed = packed_for(isa, b)
    attrs: dict[str, Any] = {"packed": 1, "k": 40, "n": 32}
    clean, same = (
        run_op("lepton.MatMul", [x, packed], attrs, constants=[1], kernel=kernel, isa=isa)[0]
        for x in (a, spoilt)
    )
    assert np.abs(clean[:, :16]).min() > 0
    np.testing.assert_array_equal(same, clean)


def test_rejects_a_blob_that_does_not_fit(isa: str, rng: Rng) -> None:
    a = rng.standard_normal((2, 40)).astype(np.float32)
    kernel, packed = packed_for(isa, sparse_matrix(rng, 40, 32, 0.6))

    def run(blob: Array, **how: Any) -> None:
        attrs: dict[str, Any] = {"packed": 1, "k": 40, "n": 32, **how}
        run_op("lepton.MatMul", [a, blob], attrs, constants=[1], kernel=kernel, isa=isa)

    run(packed)
    starts, index = packed.copy(), packed.copy()
    starts[4:8] = 255  # more rows than there are
    index[64:66] = 40, 0  # row 40 of 40
    blobs = [starts, index, packed[:-64], packed[:0], np.concatenate([packed, packed[:64]])]
    for blob in blobs:
        with pytest.raises(ModelError):
            run(blob)
    for how in ({"n": 64}, {"batch": [2]}, {"packed": 0}, {"k": 3}):
        with pytest.raises(ModelError):
            run(packed, **how)
