"""lepton.QLinearMatMul and MatMulInteger against NumPy in int64, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness import run_op
from lepton_rt import _core
from lepton_rt.errors import InputError, ModelError, UnsupportedError

Array = npt.NDArray[Any]


def draw(rng: np.random.Generator, shape: Any, dtype: str) -> Array:
    """Random integers, a third of them the extremes."""
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max + 1, shape)
    extreme = rng.choice([info.min, info.max], shape)
    return np.asarray(np.where(rng.random(shape) < 0.33, extreme, x), dtype)


def accumulate(a: Array, b: Array, a_zero_point: Any = 0, b_zero_point: Any = 0) -> Array:
    return np.matmul(a.astype(np.int64) - a_zero_point, b.astype(np.int64) - b_zero_point)


def clamp_round(v: Array, zero_point: int, lo: int, hi: int) -> Array:
    return np.clip(np.rint(v).astype(np.float64) + zero_point, lo, hi).astype(np.int64)


def scaled(acc: Array, scale: Array) -> Array:
    """float32(acc)·scale as the contract computes it."""
    return acc.astype(np.int32).astype(np.float32) * scale.astype(np.float32)


def pack(isa: str, b: Array, zero_points: Array | None) -> tuple[str, Array, dict[str, Any]]:
    kernel = _core.choose_gemm_s8(isa, b, zero_points)
    attrs: dict[str, Any] = {"packed": 1, "k": b.shape[-2], "n": b.shape[-1]}
    if b.ndim > 2:
        attrs["batch"] = list(b.shape[:-2])
    return kernel, _core.pack_gemm_s8(kernel, b, zero_points), attrs


SHAPES = [
    ((3, 4), (4, 5)),
    ((7,), (7, 5)),
    ((6, 7), (7,)),
    ((7,), (7,)),
    ((2, 3, 4), (4, 17)),
    ((2, 3, 5), (2, 5, 17)),
    ((2, 1, 3, 4), (5, 4, 6)),
    ((3, 4), (2, 3, 4, 7)),
    ((0, 4), (4, 5)),
    ((3, 0), (0, 5)),
    ((3, 4), (4, 0)),
    ((25, 33), (33, 35)),
    ((1, 300), (300, 130)),
]


@pytest.mark.parametrize("a_dtype", ["uint8", "int8"])
@pytest.mark.parametrize("b_dtype", ["uint8", "int8"])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("a_shape, b_shape", SHAPES)
def test_matmul_integer(
    isa: str,
    rng: np.random.Generator,
    a_shape: Any,
    b_shape: Any,
    a_dtype: str,
    b_dtype: str,
    constant: bool,
) -> None:
    a, b = draw(rng, a_shape, a_dtype), draw(rng, b_shape, b_dtype)
    a_zero_point, b_zero_point = draw(rng, (), a_dtype), draw(rng, (), b_dtype)
    constants = [1, 3] if constant else []
    (got,) = run_op(
        "MatMulInteger",
        [a, b, a_zero_point, b_zero_point],
        constants=constants,
        outputs=["int32"],
        isa=isa,
    )
    want = accumulate(a, b, a_zero_point.astype(int), b_zero_point.astype(int))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("constants", [[], [1], [1, 3], [3]])
def test_matmul_integer_zero_points(
    isa: str, rng: np.random.Generator, rows: bool, columns: bool, constants: list[int]
) -> None:
    a, b = draw(rng, (9, 31), "uint8"), draw(rng, (31, 21), "int8")
    a_zero_point = draw(rng, (9,), "uint8") if rows else None
    b_zero_point = draw(rng, (21,), "int8") if columns else None
    constants = [i for i in constants if i != 3 or columns]
    (got,) = run_op(
        "MatMulInteger",
        [a, b, a_zero_point, b_zero_point],
        constants=constants,
        outputs=["int32"],
        isa=isa,
        threads=2,
    )
    left = a_zero_point.astype(int)[:, None] if a_zero_point is not None else 0
    right = b_zero_point.astype(int) if b_zero_point is not None else 0
    np.testing.assert_array_equal(got, accumulate(a, b, left, right))


def test_matmul_integer_zero_points_of_a_stack(isa: str, rng: np.random.Generator) -> None:
    a, b = draw(rng, (3, 4, 10), "int8"), draw(rng, (3, 10, 7), "uint8")
    a_zero_point, b_zero_point = draw(rng, (3, 4, 1), "int8"), draw(rng, (3, 1, 7), "uint8")
    inputs = [a, b, a_zero_point, b_zero_point]
    for constants in ([], [1, 3]):
        (got,) = run_op("MatMulInteger", inputs, constants=constants, outputs=["int32"], isa=isa)
        want = accumulate(a, b, a_zero_point.astype(int), b_zero_point.astype(int))
        np.testing.assert_array_equal(got, want)


def test_extremes_are_exact(isa: str) -> None:
    """The largest products of both signs, over a k that would overflow saturating instructions."""
    k = 1030
    a = np.full((7, k), 255, np.uint8)
    for b_value, zero_point in ((0, 255), (255, 0)):
        b = np.full((k, 17), b_value, np.uint8)
        (got,) = run_op(
            "MatMulInteger",
            [a, b, np.uint8(0), np.uint8(zero_point)],
            outputs=["int32"],
            isa=isa,
        )
        assert (got == 255 * (b_value - zero_point) * k).all()


@pytest.mark.parametrize("out", ["uint8", "int8"])
@pytest.mark.parametrize("b_is", ["packed", "constant", "run_time"])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("m, k, n", [(1, 64, 40), (7, 33, 17), (30, 5, 8), (13, 128, 1)])
def test_requantised(
    isa: str,
    rng: np.random.Generator,
    out: str,
    b_is: str,
    per_column: bool,
    m: int,
    k: int,
    n: int,
) -> None:
    a, b = draw(rng, (m, k), "uint8"), draw(rng, (k, n), "int8")
    zero_points = draw(rng, (n if per_column else 1,), "int8")
    scale = rng.uniform(0.5, 2.0, n if per_column else 1).astype(np.float32) / np.float32(k * 60)
    bias = rng.integers(-50 * k, 50 * k, n, dtype=np.int32)
    low = np.iinfo(out).min
    attrs: dict[str, Any] = {"a_zero_point": 131, "y_zero_point": low + 100}
    attrs |= {"lo": low + 100, "hi": low + 250}
    kernel, b_operand, points = "", b, zero_points
    if b_is == "packed":
        kernel, b_operand, more = pack(isa, b, zero_points)
        attrs, points = attrs | more, None
    constants = [] if b_is == "run_time" else [1, 2, 3] + ([5] if points is not None else [])
    (got,) = run_op(
        "lepton.QLinearMatMul",
        [a, b_operand, scale, bias, None, points],
        attrs,
        constants=constants,
        outputs=[out],
        kernel=kernel,
        isa=isa,
    )
    acc = accumulate(a, b, 131, zero_points.astype(int)) + bias
    np.testing.assert_array_equal(
        got, clamp_round(scaled(acc, scale), low + 100, low + 100, low + 250)
    )
    assert len(np.unique(got)) > 5 or got.size < 20


@pytest.mark.parametrize("r_dtype", ["uint8", "int8"])
@pytest.mark.parametrize("out", ["uint8", "int8"])
@pytest.mark.parametrize("r_shape", [(2, 9, 19), (19,), (9, 1), (9, 19), ()])
def test_residual(isa: str, rng: np.random.Generator, r_dtype: str, out: str, r_shape: Any) -> None:
    a, b = draw(rng, (2, 9, 40), "int8"), draw(rng, (40, 19), "int8")
    residual = draw(rng, r_shape, r_dtype)
    scale = rng.uniform(0.001, 0.002, 19).astype(np.float32)
    low = int(np.iinfo(out).min)
    r_zero_point = int(np.iinfo(r_dtype).min) + 7
    q_scale, r_scale, out_scale = np.float32(0.037), np.float32(0.05), np.float32(0.061)
    kernel, blob, attrs = pack(isa, b, None)
    attrs |= {"a_zero_point": -3, "y_zero_point": 20, "lo": -100, "hi": 200}
    attrs |= {"q_scale": float(q_scale), "r_scale": float(r_scale), "out_scale": float(out_scale)}
    attrs |= {"r_zero_point": r_zero_point, "out_zero_point": low + 99}
    attrs |= {"out_lo": low + 50, "out_hi": low + 255}
    (got,) = run_op(
        "lepton.QLinearMatMul",
        [a, blob, scale, None, residual],
        attrs,
        constants=[1, 2],
        outputs=[out],
        kernel=kernel,
        isa=isa,
        threads=2,
    )
    q = clamp_round(scaled(accumulate(a, b, -3), scale), 20, -100, 200)
    x = (q - 20).astype(np.float32) * q_scale
    y = (residual.astype(np.int64) - r_zero_point).astype(np.float32) * r_scale
    want = clamp_round((x + y) / out_scale, low + 99, low + 50, low + 255)
    np.testing.assert_array_equal(got, want)
    assert len(np.unique(got)) > 10
    for name in ("q_scale", "out_scale", "out_zero_point", "out_lo", "out_hi"):
        del attrs[name]
    attrs |= {"y_zero_point": low + 99, "lo": low + 50, "hi": low + 255}
    (got,) = run_op(
        "lepton.QLinearMatMul",
        [a, blob, scale, None, residual],
        attrs,
        constants=[1, 2],
        outputs=[out],
        kernel=kernel,
        isa=isa,
        threads=2,
    )
    wide = accumulate(a, b, -3).astype(np.float64) * scale + y.astype(np.float64)
    assert_rounded(got, wide + low + 99, low + 50, low + 255)


@pytest.mark.parametrize("r_shape", [(2, 9, 130), (130,), (9, 1), (9, 130), ()])
def test_float_residual(isa: str, rng: np.random.Generator, r_shape: Any) -> None:
    a, b = draw(rng, (2, 9, 40), "int8"), draw(rng, (40, 130), "int8")
    residual = rng.standard_normal(r_shape).astype(np.float32)
    scale = rng.uniform(0.0001, 0.0002, 130).astype(np.float32)
    kernel, blob, attrs = pack(isa, b, None)
    (got,) = run_op(
        "lepton.QLinearMatMul",
        [a, blob, scale, None, residual],
        {**attrs, "a_zero_point": -3, "min": -1.5},
        constants=[1, 2],
        outputs=["float32"],
        kernel=kernel,
        isa=isa,
        threads=2,
    )
    want = accumulate(a, b, -3).astype(np.float32) * scale + residual
    np.testing.assert_array_equal(got, np.maximum(want, np.float32(-1.5)))


def assert_rounded(got: Array, real: Array, low: int, high: int) -> None:
    """got is real, rounded and clamped; ties either way."""
    assert np.abs(got.astype(np.float64) - np.clip(real, low, high)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("one_scale", [False, True])
@pytest.mark.parametrize("constants", [[1], [1, 2]])
def test_dequantised(
    isa: str, rng: np.random.Generator, one_scale: bool, constants: list[int]
) -> None:
    a, b = draw(rng, (11, 70), "uint8"), draw(rng, (70, 37), "int8")
    scale = rng.uniform(0.01, 0.1, 1 if one_scale else 37).astype(np.float32)
    bias = rng.integers(-999, 999, 37, dtype=np.int32)
    kernel, blob, attrs = pack(isa, b, None)
    attrs |= {"a_zero_point": 128, "min": -20.0, "max": 30.0}
    inputs = [a, blob, scale, bias]
    (got,) = run_op(
        "lepton.QLinearMatMul", inputs, attrs, constants=constants, kernel=kernel, isa=isa
    )
    want = np.clip(scaled(accumulate(a, b, 128) + bias, scale), np.float32(-20), np.float32(30))
    np.testing.assert_array_equal(got, want)


def test_int32_output_with_bias(isa: str, rng: np.random.Generator) -> None:
    a, b = draw(rng, (5, 12), "uint8"), draw(rng, (12, 18), "uint8")
    bias = rng.integers(-(2**31), 2**31, 18).astype(np.int32)
    (got,) = run_op("lepton.QLinearMatMul", [a, b, None, bias], outputs=["int32"], isa=isa)
    want = (accumulate(a, b) + bias.astype(np.int64)).astype(np.int32)  # wraps
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("m, k, n", [(1, 512, 900), (200, 96, 64), (50, 1500, 70), (6, 2000, 600)])
@pytest.mark.parametrize("output", ["uint8", "float32"])
def test_isas_and_thread_counts_agree(
    rng: np.random.Generator, m: int, k: int, n: int, output: str
) -> None:
    a, b = draw(rng, (m, k), "uint8"), draw(rng, (k, n), "int8")
    scale = rng.uniform(0.5, 2.0, n).astype(np.float32) / np.float32(k * 40)
    results = []
    for isa in _core.usable_isas():
        kernel, blob, attrs = pack(isa, b, None)
        attrs |= {"a_zero_point": 120}
        attrs |= {"y_zero_point": 128} if output == "uint8" else {}
        for threads in (1, 2, 3):
            results += run_op(
                "lepton.QLinearMatMul",
                [a, blob, scale],
                attrs,
                constants=[1, 2],
                outputs=[output],
                kernel=kernel,
                isa=isa,
                threads=threads,
            )
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    want = scaled(accumulate(a, b, 120), scale)
    if output == "uint8":
        want = clamp_round(want, 128, 0, 255)
    np.testing.assert_array_equal(results[0], want)


def test_scales_that_overflow_clamp(isa: str, rng: np.random.Generator) -> None:
    a, b = draw(rng, (3, 40), "uint8"), draw(rng, (40, 5), "int8")
    scale = np.array([1e30, np.inf, np.nan, 0.0, -1e30], np.float32)
    (got,) = run_op("lepton.QLinearMatMul", [a, b, scale], outputs=["uint8"], isa=isa)
    acc = accumulate(a, b)
    for j, sign in ((0, 1), (1, 1), (4, -1)):
        np.testing.assert_array_equal(got[:, j], np.where(sign * acc[:, j] > 0, 255, 0))
    assert not got[:, 2:4].any()


@pytest.mark.parametrize(
    "attrs",
    [
        {"a_zero_point": -1},
        {"a_zero_point": 256},
        {"y_zero_point": 256},
        {"lo": -1},
        {"hi": 256},
        {"lo": 9, "hi": 8},
        {"packed": 1, "k": 4, "n": 5},
    ],
)
def test_attributes_out_of_range(isa: str, attrs: dict[str, Any]) -> None:
    inputs = [np.zeros((3, 4), np.uint8), np.zeros((4, 5), np.uint8), np.ones(5, np.float32)]
    with pytest.raises(ModelError):
        run_op("lepton.QLinearMatMul", inputs, attrs, outputs=["uint8"], constants=[1], isa=isa)


def test_operands_that_do_not_fit(isa: str) -> None:
    a, b, scale = np.zeros((3, 4), np.uint8), np.zeros((4, 5), np.uint8), np.ones(5, np.float32)

    def run(inputs: list[Any], output: str = "uint8", constants: Any = ()) -> None:
        run_op("lepton.QLinearMatMul", inputs, constants=constants, outputs=[output], isa=isa)

    with pytest.raises(InputError):
        run([a, b, np.ones(4, np.float32)])
    with pytest.raises(InputError):
        run([a, b, scale, np.zeros(4, np.int32)])
    with pytest.raises(InputError):
        run([a, b, scale, None, np.zeros((2, 5), np.uint8)])
    with pytest.raises(InputError):
        run([a, b, scale, None, None, np.zeros(4, np.uint8)])
    with pytest.raises(InputError):
        run([a, b, scale, None, None, None, np.zeros(5, np.uint8)])
    with pytest.raises(ModelError):
        run([a, b, scale, None, None, np.zeros(4, np.uint8)], constants=[1, 5])
    with pytest.raises(ModelError):
        run([a, b])
    with pytest.raises(UnsupportedError):
        run([a, b, scale], "float64")
    with pytest.raises(UnsupportedError):
        run([a, b.astype(np.int16), scale])
