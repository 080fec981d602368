"""Every line of the GEMM kernel lists, one call at a time, operands against guard pages."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness import run_op
from lepton_rt import _core
from lepton_rt.errors import ModelError

Array = npt.NDArray[Any]
Line = dict[str, Any]

PLACEMENTS = (False, True)  # operands against the page after, the page before
GAP = 77  # what lies between rows of a destination and must still be there afterwards


def lines(family: str, kind: str = "") -> list[Any]:
    allowed = _core.usable_isas()
    return [
        pytest.param(line, id=line["name"])
        for line in [*_core.kernels(), *modelled_lines()]
        if line["family"] == family and line["isa"] in allowed and kind in ("", line["kind"])
    ]


def modelled_lines() -> list[Line]:
    """The kernels on AMX tiles, their code on a model of the instructions, which runs anywhere."""
    return [
        {**line, "name": line["name"].replace("amxint8", "model"), "isa": "scalar"}
        for line in _core.kernels()
        if line["isa"] == "amxint8"
    ]


def extremes(rng: np.random.Generator, shape: Any, low: int, high: int) -> Array:
    x = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 0.4, rng.choice([low, high], shape), x)


def flat_rows(rows: Array, stride: int, fill: Any) -> Array:
    """The rows `stride` apart in one flat array that ends with the last row."""
    m, n = rows.shape
    if m == 0 or n == 0:
        return np.empty(0, rows.dtype)
    flat = np.full((m - 1) * stride + n, fill, rows.dtype)
    for i in range(m):
        flat[i * stride : i * stride + n] = rows[i]
    return flat


def rows_of(flat: Array, m: int, n: int, stride: int) -> Array:
    """The rows again; checks that what lies between them was left alone."""
    if m == 0 or n == 0:
        assert flat.size == 0
        return flat.reshape(m, n)
    gaps = np.ones(flat.size, bool)
    for i in range(m):
        gaps[i * stride : i * stride + n] = False
    assert (flat[gaps] == GAP).all()
    return np.stack([flat[i * stride : i * stride + n] for i in range(m)])


def depths(kr: int) -> list[int]:
    return sorted({kr * k for k in (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 100)})


OPERANDS = {  # dtype and range of both operands, by the form a kernel reads them in
    "i16": (("int16", -255, 255), ("int16", -255, 255)),
    "u8": (("uint8", 0, 255), ("int8", -128, 127)),
    "u8 pairs": (("uint8", 0, 255), ("int8", -64, 64)),
    "u8 runs": (("uint8", 0, 255), ("int8", -128, 127)),
}


def gemm_s8_operands(line: Line, rng: np.random.Generator, m: int, k: int, n: int) -> Any:
    """lhs [m, k] and rhs [k, n] with many extremes, or nothing else."""
    made = []
    for (dtype, low, high), shape in zip(OPERANDS[line["form"]], ((m, k), (k, n)), strict=True):
        x = extremes(rng, shape, low, high)
        made.append(np.where(rng.random() < 0.2, rng.choice([low, high]), x).astype(dtype))
    return made


def panel_of(line: Line, rhs: Array, bound: int = 255) -> Array:
    """rhs [k, n] as the kernel reads it: one panel without the sums of its columns."""
    k, n = rhs.shape
    if line["family"] == "gemm_s8" and line["form"] == "u8 runs":
        return _core.pack_gemm_s8(line["name"], rhs, None, bound)[4 * n :].view(np.int8)
    kr = line["kr"]
    return rhs.reshape(k // kr, kr, n).transpose(0, 2, 1).reshape(-1)


@pytest.mark.parametrize("line", lines("gemm_s8"))
@pytest.mark.parametrize("at_start", PLACEMENTS)
def test_gemm_s8_tile(line: Line, rng: np.random.Generator, at_start: bool) -> None:
    kr, widths = line["kr"], range(line["nv"], line["nr"] + 1, line["nv"])
    for m, n, k in itertools.product(range(1, line["mr"] + 1), widths, depths(kr)):
        lhs, rhs = gemm_s8_operands(line, rng, m, k, n)
        stride = k + int(rng.choice([0, 6])) * kr
        flat = flat_rows(lhs, stride, 99)
        panel = panel_of(line, rhs)
        got = _core.testing.gemm_s8(line["name"], m, n, k, flat, stride, panel, at_start)
        want = lhs.astype(np.int64) @ rhs.astype(np.int64)
        np.testing.assert_array_equal(got.reshape(-1, n)[:m], want)


@pytest.mark.parametrize("line", lines("gemm_s8"))
@pytest.mark.parametrize("left, right", list(itertools.product((0, 1), (0, 1))))
def test_gemm_s8_of_nothing_but_extremes(line: Line, left: int, right: int) -> None:
    """Where a kernel saturates if it ever does: every pair, quad and sum at its bound."""
    m, n, k = line["mr"], line["nr"], 512
    (lhs_dtype, *lhs_ends), (rhs_dtype, *rhs_ends) = OPERANDS[line["form"]]
    lhs = np.full((m, k), lhs_ends[left], lhs_dtype)
    panel = panel_of(line, np.full((k, n), rhs_ends[right], rhs_dtype))
    got = _core.testing.gemm_s8(line["name"], m, n, k, lhs.reshape(-1), k, panel, False)
    assert (got == lhs_ends[left] * rhs_ends[right] * k).all()


@pytest.mark.parametrize("line", [*lines("gemm_s8"), *lines("gemm_f32")])
def test_k_in_two_calls(line: Line, rng: np.random.Generator) -> None:
    """Starting from dst, a second call continues the sum without changing a bit."""
    nr, kr, m, k = line["nr"], line["kr"], line["mr"], 36
    if line["family"] == "gemm_s8":
        lhs, rhs = gemm_s8_operands(line, rng, m, k, nr)
    else:
        lhs = rng.standard_normal((m, k)).astype(np.float32)
        rhs = rng.standard_normal((k, nr)).astype(np.float32)

    def run(x: Array, part: Array, start: Array | None) -> Array:
        depth = x.shape[1]
        operands = (depth, x.reshape(-1), depth, panel_of(line, part), False, start)
        if line["family"] == "gemm_s8":
            return _core.testing.gemm_s8(line["name"], m, nr, *operands)
        return _core.testing.gemm_f32(line["name"], m, *operands)

    whole = run(lhs, rhs, None)
    for cut in (0, 4 * kr, k):
        left, right = np.ascontiguousarray(lhs[:, :cut]), np.ascontiguousarray(lhs[:, cut:])
        first = run(left, rhs[:cut], None)
        np.testing.assert_array_equal(run(right, rhs[cut:], first), whole)


@pytest.mark.parametrize("line", lines("gemm_s8"))
def test_gemm_s8_wraps(line: Line) -> None:
    """Beyond 2^31 the sum wraps; it never saturates."""
    k, n = 160000, line["nr"]
    (lhs_dtype, _, lhs_most), (rhs_dtype, _, rhs_most) = OPERANDS[line["form"]]
    lhs = np.full((1, k), lhs_most, lhs_dtype)
    panel = panel_of(line, np.full((k, n), rhs_most, rhs_dtype))
    got = _core.testing.gemm_s8(line["name"], 1, n, k, lhs.reshape(-1), k, panel, False)
    want = np.array(lhs_most * rhs_most * k)
    assert want > 2**31
    assert (got[:n] == want.astype(np.int32)).all()


CALL_WITHOUT_TILES = """
import numpy as np
from lepton_rt import _core
lhs, panel = np.zeros(32 * 64, np.uint8), np.zeros(64 * 32, np.int8)
_core.testing.gemm_s8("gemm_s8_32x32c4_model", 32, 32, 64, lhs, 64, panel, False, hold_tiles=False)
"""


def test_model_notices_missing_tiles() -> None:
    """A call on a thread that holds no tiles would be an illegal instruction."""
    command = [sys.executable, "-c", CALL_WITHOUT_TILES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGABRT
    assert "tile model: no tiles are configured" in done.stderr


PAIR_LINES = [line for line in lines("gemm_s8") if line.values[0]["form"] == "u8 pairs"]
RUN_LINES = [line for line in lines("gemm_s8") if line.values[0]["form"] == "u8 runs"]
WEIGHTS = {
    "7 bit": lambda rng, shape: rng.integers(-64, 64, shape),
    "8 bit": lambda rng, shape: rng.integers(-128, 128, shape),
    "normal": lambda rng, shape: np.clip(np.rint(rng.standard_normal(shape) * 36), -128, 127),
    "one sign": lambda rng, shape: rng.integers(0, 128, shape) * rng.choice([-1, 1], shape[1]),
    "sparse": lambda rng, shape: rng.integers(-128, 128, shape) * (rng.random(shape) < 0.01),
    "zeros": lambda rng, shape: np.zeros(shape),
}


@pytest.mark.parametrize("line", RUN_LINES)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("bound", [1, 127, 200, 255])
def test_sums_of_runs_stay_in_16_bits(
    line: Line, rng: np.random.Generator, weights: str, bound: int
) -> None:
    """The worst activations for each column: the bound where its weight has one sign, else 0."""
    k, n = 1500, line["nr"]
    rhs = WEIGHTS[weights](rng, (k, n)).astype(np.int8)
    panel = panel_of(line, rhs, bound)
    for j in range(n):
        for sign in (1, -1):
            lhs = np.where(np.sign(rhs[:, j]) == sign, bound, 0).astype(np.uint8)
            got = _core.testing.gemm_s8(line["name"], 1, n, k, lhs, k, panel, False)
            np.testing.assert_array_equal(got[:n], lhs.astype(np.int64) @ rhs.astype(np.int64))


@pytest.mark.parametrize("line", PAIR_LINES)
@pytest.mark.parametrize("bound", [1, 127, 128, 200, 255])
@pytest.mark.parametrize("sign", [1, -1])
def test_pairs_are_proved(line: Line, rng: np.random.Generator, bound: int, sign: int) -> None:
    """The heaviest pair that is taken sums exactly; one more is refused, wherever it stands."""
    k, n, name = 38, line["nr"] + 3, line["name"]
    most = min(32767 // bound, 254)
    rhs = np.zeros((k, n), np.int8)
    at, column = int(rng.integers(k // 2)) * 2, int(rng.integers(n))
    rhs[at : at + 2, column] = sign * np.array([min(most, 127), max(most - 127, 0)])
    a = np.full((2, k), bound, np.uint8)
    attrs = {"packed": 1, "k": k, "n": n}
    packed = _core.pack_gemm_s8(name, rhs, None, bound)
    got = run_op(
        "lepton.QLinearMatMul", [a, packed], attrs, constants=[1], kernel=name, outputs=("int32",)
    )[0]
    np.testing.assert_array_equal(got, a.astype(np.int64) @ rhs.astype(np.int64))
    assert _core.choose_gemm_s8(line["isa"], rhs, None, bound, few_rows=True) == name
    if most == 254:
        return
    rhs[at + 1, column] += sign
    with pytest.raises(ValueError, match="16 bits"):
        _core.pack_gemm_s8(name, rhs, None, bound)
    assert _core.choose_gemm_s8(line["isa"], rhs, None, bound, few_rows=True) != name


@pytest.mark.parametrize("line", RUN_LINES)
def test_runs_are_as_long_as_weights_allow(line: Line, rng: np.random.Generator) -> None:
    k, n, name = 1024, 64, line["name"]

    def counts(weights: str, bound: int) -> dict[str, int]:
        packed = _core.pack_gemm_s8(
            name, WEIGHTS[weights](rng, (k, n)).astype(np.int8), None, bound
        )
        return _core.gemm_run_statistics(name, k, n, 1, packed)

    dense = k * n // 32
    narrow = counts("7 bit", 127)
    assert narrow["runs4"] > 0.99 * dense
    assert narrow["dense"] == dense == narrow["runs4"] + narrow["runs2"] + narrow["runs1"]
    assert counts("7 bit", 255)["runs2"] > dense / 2
    wide = counts("8 bit", 255)
    assert wide["runs4"] + wide["runs2"] + wide["runs1"] > 1.9 * dense  # nearly all were split
    assert counts("zeros", 255) == {"dense": dense, "runs4": 0, "runs2": 0, "runs1": 0}
    sparse = counts("sparse", 255)
    assert 0 < sparse["runs4"] + sparse["runs2"] + sparse["runs1"] < dense / 2


@pytest.mark.parametrize("line", RUN_LINES)
def test_damaged_runs_are_refused(line: Line, rng: np.random.Generator) -> None:
    """No count or place of a packed operand leads a kernel outside of its operands."""
    k, n, name = 64, 16, line["name"]
    b = rng.integers(-60, 60, (k, n)).astype(np.int8)
    packed = _core.pack_gemm_s8(name, b)
    attrs = {"packed": 1, "k": k, "n": n}
    a = rng.integers(0, 256, (3, k), dtype=np.uint8)
    refused = 0
    for at in range(4 * n, packed.size, 4):
        damaged = packed.copy()
        damaged[at : at + 4] ^= rng.integers(1, 256, 4, dtype=np.uint8)
        inputs = [a, damaged, np.ones(n, np.float32)]
        try:
            run_op("lepton.QLinearMatMul", inputs, attrs, constants=[1], kernel=name)
        except ModelError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("line", lines("gemm_f32"))
@pytest.mark.parametrize("at_start", PLACEMENTS)
def test_gemm_f32_tile(line: Line, rng: np.random.Generator, at_start: bool) -> None:
    nr = line["nr"]
    for m, k, gap in itertools.product(range(1, line["mr"] + 1), depths(1), (0, 3)):
        lhs = rng.standard_normal((m, k)).astype(np.float32)
        rhs = rng.standard_normal((k, nr)).astype(np.float32)
        flat = flat_rows(lhs, k + gap, np.nan)
        panel = rhs.reshape(-1)
        got = _core.testing.gemm_f32(line["name"], m, k, flat, k + gap, panel, at_start)
        want = lhs.astype(np.float64) @ rhs.astype(np.float64)
        # A float32 sum of k products errs by at most about k·eps times the sum of their sizes.
        bound = (k + 1) * np.finfo(np.float32).eps * (np.abs(lhs) @ np.abs(rhs)) + 1e-30
        assert (np.abs(got.reshape(-1, nr)[:m] - want) <= bound).all()


@pytest.mark.parametrize("line", lines("gemm_f32"))
def test_gemm_f32_rows_do_not_depend_on_the_tile(line: Line, rng: np.random.Generator) -> None:
    k, nr = 37, line["nr"]
    lhs = rng.standard_normal((line["mr"], k)).astype(np.float32)
    panel = rng.standard_normal(k * nr).astype(np.float32)
    full = _core.testing.gemm_f32(line["name"], line["mr"], k, lhs.reshape(-1), k, panel, False)
    for i in range(line["mr"]):
        one = _core.testing.gemm_f32(line["name"], 1, k, lhs[i], k, panel, False)
        np.testing.assert_array_equal(one[:nr], full.reshape(-1, nr)[i])


@pytest.mark.parametrize("line", lines("gemv_f32"))
@pytest.mark.parametrize("at_start", PLACEMENTS)
def test_gemv_f32_is_gemm_of_one_row(line: Line, rng: np.random.Generator, at_start: bool) -> None:
    nr = line["nr"]
    (gemm,) = [
        other["name"]
        for other in _core.kernels()
        if (other["family"], other["isa"], other["nr"]) == ("gemm_f32", line["isa"], nr)
    ]
    for panels, k in itertools.product(range(1, line["mr"] + 1), (1, 2, 3, 7, 8, 33)):
        lhs = rng.standard_normal(k).astype(np.float32)
        rhs = rng.standard_normal((panels, k * nr)).astype(np.float32)
        got = _core.testing.gemv_f32(line["name"], panels, k, lhs, rhs.reshape(-1), at_start)
        for panel, row in zip(rhs, got.reshape(panels, nr), strict=True):
            want = _core.testing.gemm_f32(gemm, 1, k, lhs, k, panel, False)
            np.testing.assert_array_equal(row, want[:nr])


@pytest.mark.parametrize("line", lines("gemm_f32_fused"))
@pytest.mark.parametrize("at_start", PLACEMENTS)
def test_gemm_f32_fused_is_gemm_and_epilogue(
    line: Line, rng: np.random.Generator, at_start: bool
) -> None:
    nr = line["nr"]
    (gemm,) = [
        other["name"]
        for other in _core.kernels()
        if (other["family"], other["isa"], other["nr"]) == ("gemm_f32", line["isa"], nr)
    ]
    for m, n, k in itertools.product(range(1, line["mr"] + 1), range(1, nr + 1), (1, 3, 16)):
        lhs = rng.standard_normal((m, k)).astype(np.float32)
        panel = np.zeros((k, nr), np.float32)
        panel[:, :n] = rng.standard_normal((k, n))
        lhs[0, 0] = rng.choice([1.0, np.nan, np.inf])
        stride = n + int(rng.integers(3))
        bias = rng.standard_normal(n).astype(np.float32) if rng.integers(2) else None
        size = (m - 1) * stride + n
        added = rng.standard_normal((m, n)).astype(np.float32) if rng.integers(2) else None
        residual = None if added is None else flat_rows(added, stride, GAP)
        least, most = (-1.0, 0.5) if rng.integers(2) else (-np.inf, np.inf)
        got = _core.testing.gemm_f32_fused(
            line["name"],
            m,
            n,
            k,
            lhs.reshape(-1),
            panel.reshape(-1),
            bias,
            residual,
            (least, most),
            np.full(size, GAP, np.float32),
            stride,
            at_start,
        )
        sums = _core.testing.gemm_f32(gemm, m, k, lhs.reshape(-1), k, panel.reshape(-1), False)
        want = sums.reshape(-1, nr)[:m, :n]
        want = want if bias is None else want + bias
        want = want if added is None else want + added
        want = np.clip(want, np.float32(least), np.float32(most))
        np.testing.assert_array_equal(rows_of(got, m, n, stride), want)


@pytest.mark.parametrize("line", lines("widen_s8"))
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("at_start", PLACEMENTS)
def test_widen(line: Line, rng: np.random.Generator, dtype: str, at_start: bool) -> None:
    info = np.iinfo(dtype)
    for m, k, pad, zero_point in itertools.product(
        (0, 1, 3), (0, 1, 7, 15, 16, 17, 31, 32, 33, 70), (0, 1, 3), (info.min, 0, info.max)
    ):
        src = extremes(rng, (m, k), info.min, info.max).astype(dtype)
        stride, dst_stride = k + 5, k + pad + 2
        dst = flat_rows(np.full((m, k + pad), GAP, np.int16), dst_stride, GAP)
        got = _core.testing.widen_s8(
            line["name"],
            m,
            k,
            k + pad,
            flat_rows(src, stride, 1),
            stride,
            int(zero_point),
            dst,
            dst_stride,
            at_start,
        )
        want = np.zeros((m, k + pad), np.int16)
        want[:, :k] = src.astype(np.int16) - zero_point
        np.testing.assert_array_equal(rows_of(got, m, k + pad, dst_stride), want)


@pytest.mark.parametrize("line", lines("copy_u8"))
@pytest.mark.parametrize("flip", [0, 0x80])
@pytest.mark.parametrize("at_start", PLACEMENTS)
def test_copy(line: Line, rng: np.random.Generator, flip: int, at_start: bool) -> None:
    widths = (0, 1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130)
    for m, k, pad in itertools.product((0, 1, 3), widths, (0, 1, 3)):
        src = rng.integers(0, 256, (m, k), dtype=np.uint8)
        stride, dst_stride = k + 5, k + pad + 2
        dst = flat_rows(np.full((m, k + pad), GAP, np.uint8), dst_stride, GAP)
        flat = flat_rows(src, stride, 1)
        got = _core.testing.copy_u8(
            line["name"], m, k, k + pad, flat, stride, flip, dst, dst_stride, at_start
        )
        want = np.zeros((m, k + pad), np.uint8)
        want[:, :k] = src ^ flip
        np.testing.assert_array_equal(rows_of(got, m, k + pad, dst_stride), want)


EXTENTS = [
    *itertools.product((0, 1, 2, 7), (0, 1, 7, 8, 9, 15, 16, 17, 24, 31)),
    *((1, 64), (3, 81), (7, 130)),
]


@pytest.mark.parametrize("line", lines("epilogue_f32"))
@pytest.mark.parametrize("at_start", PLACEMENTS)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("has_residual", [False, True])
def test_epilogue_f32(
    line: Line, rng: np.random.Generator, at_start: bool, has_bias: bool, has_residual: bool
) -> None:
    for (m, n), gap in itertools.product(EXTENTS, (0, 3)):
        acc = rng.standard_normal((m, n)).astype(np.float32)
        bias = rng.standard_normal(n).astype(np.float32) if has_bias else None
        residual = rng.standard_normal((m, n)).astype(np.float32) if has_residual else None
        stride = n + gap
        got = _core.testing.epilogue_f32(
            line["name"],
            m,
            n,
            flat_rows(acc, n + 8, 0),
            n + 8,
            bias,
            None if residual is None else flat_rows(residual, stride, 0),
            stride,
            -0.5,
            0.75,
            flat_rows(np.full((m, n), GAP, np.float32), stride, GAP),
            stride,
            at_start,
        )
        want = acc + (0 if bias is None else bias)
        want = want + (0 if residual is None else residual)
        want = np.clip(want, np.float32(-0.5), np.float32(0.75))
        np.testing.assert_array_equal(rows_of(got, m, n, stride), want)


def quantize(v: Array, zero_point: int, low: int, high: int) -> Array:
    return np.clip(np.rint(v).astype(np.float64) + zero_point, low, high).astype(np.int64)


def run_epilogue_s8(
    line: Line,
    acc: Array,
    bias: Array | None,
    scale: Array | None,
    residual: Array | None,
    requantize: dict[str, Any],
    dtype: str,
    gap: int,
    at_start: bool,
    **rows: Array | None,
) -> Array:
    m, n = acc.shape
    stride = n + gap
    got = _core.testing.epilogue_s8(
        line["name"],
        m,
        n,
        flat_rows(acc, n + 8, 0),
        n + 8,
        bias,
        scale,
        None if residual is None else flat_rows(residual, stride, 0),
        stride,
        requantize,
        -1000.0,
        2000.0,
        flat_rows(np.full((m, n), GAP, dtype), stride, GAP),
        stride,
        at_start,
        **rows,
    )
    return rows_of(got, m, n, stride)


def accumulators(rng: np.random.Generator, m: int, n: int) -> Array:
    """Values whose scaled halves are exact (ties), ordinary ones, and the ends of int32."""
    acc = rng.integers(-600, 600, (m, n))
    far = rng.choice([-(2**31), 2**31 - 1, 2**24 + 1, -(2**24) - 1], (m, n))
    return np.where(rng.random((m, n)) < 0.1, far, acc).astype(np.int32)


def to_float(acc: Array, bias: Array | None, scale: Array) -> Array:
    total = acc.astype(np.int64) + (0 if bias is None else bias.astype(np.int64))
    return total.astype(np.int32).astype(np.float32) * scale  # the sum wraps


@pytest.mark.parametrize("line", lines("epilogue_s8", "requantize"))
@pytest.mark.parametrize("at_start", PLACEMENTS)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("bounds", [(3, 250), (0, 255)])
@pytest.mark.parametrize("largest", [0.5, 3.0])
def test_requantize(
    line: Line,
    rng: np.random.Generator,
    at_start: bool,
    dtype: str,
    has_bias: bool,
    bounds: tuple[int, int],
    largest: float,
) -> None:
    low = int(np.iinfo(dtype).min)
    lo, hi = (low + bound for bound in bounds)
    for (m, n), gap in itertools.product(EXTENTS, (0, 3)):
        acc = accumulators(rng, m, n)
        bias = rng.integers(-99, 99, n, dtype=np.int32) if has_bias else None
        scale = rng.choice([largest, -0.5, 0.25, 0.1, 0.0173], n).astype(np.float32)
        constants = {"zero_point": low + 120, "lo": lo, "hi": hi}
        got = run_epilogue_s8(line, acc, bias, scale, None, constants, dtype, gap, at_start)
        want = quantize(to_float(acc, bias, scale), low + 120, lo, hi)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("line", lines("epilogue_s8", "requantize"))
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(("lo", "hi", "n"), [(3, 250, 37), (0, 255, 131)])
def test_requantize_what_is_not_finite(line: Line, dtype: str, lo: int, hi: int, n: int) -> None:
    """NaN gives lo; infinities and what int32 cannot hold give the bound on their side."""
    low = int(np.iinfo(dtype).min)
    constants = {"zero_point": low + 120, "lo": low + lo, "hi": low + hi}
    for scale, want in [(np.nan, (lo, lo, lo)), (np.inf, (lo, lo, hi)), (3e38, (lo, 120, hi))]:
        for acc, expected in zip((-5, 0, 5), want):
            sums, scales = np.full((3, n), acc, np.int32), np.full(n, scale, np.float32)
            got = run_epilogue_s8(line, sums, None, scales, None, constants, dtype, 0, False)
            assert (got == low + expected).all()


@pytest.mark.parametrize("line", lines("epilogue_s8", "requantize_add"))
@pytest.mark.parametrize("at_start", PLACEMENTS)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("r_dtype", ["uint8", "int8"])
def test_requantize_add(
    line: Line, rng: np.random.Generator, at_start: bool, dtype: str, r_dtype: str
) -> None:
    low, r_low = int(np.iinfo(dtype).min), int(np.iinfo(r_dtype).min)
    q_scale, r_scale, out_scale = np.float32(0.031), np.float32(0.047), np.float32(0.0565)
    constants: dict[str, Any] = {"zero_point": 11, "lo": -128, "hi": 255}
    constants |= {"q_scale": q_scale, "r_scale": r_scale, "out_scale": out_scale}
    constants |= {"r_zero_point": r_low + 40, "out_zero_point": low + 99}
    constants |= {"out_lo": low + 1, "out_hi": low + 254}
    for (m, n), gap in itertools.product(EXTENTS, (0, 3)):
        acc = accumulators(rng, m, n)
        bias = rng.integers(-99, 99, n, dtype=np.int32)
        scale = rng.choice([0.5, 0.25, 0.1, 0.0173], n).astype(np.float32)
        residual = extremes(rng, (m, n), r_low, r_low + 255).astype(r_dtype)
        got = run_epilogue_s8(line, acc, bias, scale, residual, constants, dtype, gap, at_start)
        q = quantize(to_float(acc, bias, scale), 11, -128, 255)
        x = (q - 11).astype(np.float32) * q_scale
        y = (residual.astype(np.int64) - (r_low + 40)).astype(np.float32) * r_scale
        want = quantize((x + y) / out_scale, low + 99, low + 1, low + 254)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("line", lines("epilogue_s8", "requantize_add"))
def test_requantize_add_rounds_as_a_division(line: Line, rng: np.random.Generator) -> None:
    """All pairs of bytes under many scales, some of them too large or small to be multiplied."""
    q, r = (v.reshape(1, -1) for v in np.meshgrid(np.arange(256), np.arange(256)))
    one = np.ones(q.size, np.float32)
    scales = np.exp2(rng.uniform(-8, 8, (40, 3)))
    scales[0] *= 1e-30
    scales[1] *= 1e30
    for q_scale, r_scale, out_scale in scales.astype(np.float32):
        constants = {"zero_point": 9, "q_scale": q_scale, "r_scale": r_scale}
        constants |= {"out_scale": out_scale, "r_zero_point": 77, "out_zero_point": 130}
        acc, residual = (q - 9).astype(np.int32), r.astype(np.uint8)
        got = run_epilogue_s8(line, acc, None, one, residual, constants, "uint8", 0, False)
        v = (q - 9).astype(np.float32) * q_scale + (r - 77).astype(np.float32) * r_scale
        np.testing.assert_array_equal(got, quantize(v / out_scale, 130, 0, 255))


def fma(a: Array, b: Array | np.float32, c: Array | np.float32) -> Array:
    """a · b + c in float32, rounded once."""
    return (a.astype(np.longdouble) * b + c).astype(np.float32)


@pytest.mark.parametrize("line", lines("epilogue_s8", "requantize_sum"))
@pytest.mark.parametrize("at_start", PLACEMENTS)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("r_dtype", ["uint8", "int8"])
@pytest.mark.parametrize("r_scale", [0.5, 0.0831, 2.0**20, 2.0**30])
@pytest.mark.parametrize("bounds", [(1, 254), (0, 255)])
def test_requantize_sum(
    line: Line,
    rng: np.random.Generator,
    at_start: bool,
    dtype: str,
    r_dtype: str,
    r_scale: float,
    bounds: tuple[int, int],
) -> None:
    low, r_low = int(np.iinfo(dtype).min), int(np.iinfo(r_dtype).min)
    lo, hi = (low + bound for bound in bounds)
    constants: dict[str, Any] = {"zero_point": low + 99, "lo": lo, "hi": hi}
    constants |= {"r_scale": np.float32(r_scale), "r_zero_point": r_low + 40}
    offset = np.float32(-(r_low + 40)) * np.float32(r_scale)
    for (m, n), gap in itertools.product(EXTENTS, (0, 3)):
        acc = accumulators(rng, m, n)
        bias = rng.integers(-99, 99, n, dtype=np.int32)
        scale = rng.choice([0.5, 0.25, 0.1, 0.0173], n).astype(np.float32)
        residual = extremes(rng, (m, n), r_low, r_low + 255).astype(r_dtype)
        got = run_epilogue_s8(line, acc, bias, scale, residual, constants, dtype, gap, at_start)
        product = fma(to_float(acc, bias, np.ones_like(scale)), scale, offset)
        v = fma(residual, np.float32(r_scale), product)
        np.testing.assert_array_equal(got, quantize(v, low + 99, lo, hi))


@pytest.mark.parametrize("line", lines("epilogue_s8", "requantize_sum"))
@pytest.mark.parametrize(("lo", "hi", "n"), [(3, 250, 37), (0, 255, 131)])
def test_requantize_sum_of_what_is_not_finite(line: Line, lo: int, hi: int, n: int) -> None:
    constants = {"zero_point": 120, "lo": lo, "hi": hi}
    residual = np.full((1, n), 9, np.uint8)
    for scale, acc, want in [(np.nan, 1, lo), (np.inf, -1, lo), (np.inf, 1, hi), (3e38, 9, hi)]:
        sums, scales = np.full((1, n), acc, np.int32), np.full(n, scale, np.float32)
        got = run_epilogue_s8(line, sums, None, scales, residual, constants, "uint8", 0, False)
        assert (got == want).all()


@pytest.mark.parametrize("line", lines("epilogue_s8", "f32"))
@pytest.mark.parametrize("at_start", PLACEMENTS)
def test_dequantize(line: Line, rng: np.random.Generator, at_start: bool) -> None:
    for (m, n), gap in itertools.product(EXTENTS, (0, 3)):
        acc = accumulators(rng, m, n)
        bias = rng.integers(-99, 99, n, dtype=np.int32)
        scale = rng.uniform(0.1, 9.0, n).astype(np.float32)
        got = run_epilogue_s8(line, acc, bias, scale, None, {}, "float32", gap, at_start)
        want = np.clip(to_float(acc, bias, scale), np.float32(-1000), np.float32(2000))
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("line", lines("epilogue_s8", "f32"))
@pytest.mark.parametrize("at_start", PLACEMENTS)
@pytest.mark.parametrize("present", range(8))
def test_dequantize_rows(
    line: Line, rng: np.random.Generator, at_start: bool, present: int
) -> None:
    for m, n in EXTENTS:
        acc = accumulators(rng, m, n)
        scale = rng.uniform(0.1, 9.0, n).astype(np.float32)
        row_scale = rng.uniform(0.1, 2.0, m).astype(np.float32) if present & 1 else None
        bias = rng.standard_normal(n).astype(np.float32) if present & 2 else None
        residual = rng.standard_normal((m, n)).astype(np.float32) if present & 4 else None
        rows = {"row_scale": row_scale, "float_bias": bias}
        got = run_epilogue_s8(line, acc, None, scale, residual, {}, "float32", 3, at_start, **rows)
        want = to_float(acc, None, scale)
        want = want if row_scale is None else want * row_scale[:, None]
        want = want if bias is None else want + bias
        want = want if residual is None else want + residual
        np.testing.assert_array_equal(got, np.clip(want, np.float32(-1000), np.float32(2000)))


@pytest.mark.parametrize("line", lines("epilogue_s8"))
@pytest.mark.parametrize("at_start", PLACEMENTS)
@pytest.mark.parametrize("large", ["none", "points", "sums", "bias"])
def test_zero_points_of_rows(
    line: Line, rng: np.random.Generator, at_start: bool, large: str
) -> None:
    """Taking them off in the epilogue is the same as taking them off the accumulators."""
    dtype = {"f32": "float32", "s32": "int32"}.get(line["kind"], "uint8")
    for m, n in EXTENTS:
        acc = accumulators(rng, m, n)
        bias = rng.integers(-99, 99, n, dtype=np.int32) if large == "bias" else None
        scale = rng.choice([0.5, 0.1], n).astype(np.float32)
        adds = line["kind"] in ("requantize_add", "requantize_sum")
        residual = rng.integers(0, 256, (m, n)).astype(np.uint8) if adds else None
        points = rng.integers(-128 if large == "points" else 0, 256, m, dtype=np.int32)
        most = 2**23 if large == "sums" else 2**22
        sums = rng.choice([1 - most, -(2**20), -129, -1, 0, 127, 128, most - 1], n)
        sums = sums.astype(np.int32)
        off = acc.astype(np.int64) - np.outer(points, sums)
        rows = {"row_zero_point": points, "column_sum": sums}
        run = (line, bias, scale, residual, {}, dtype, 1, at_start)
        got = run_epilogue_s8(run[0], acc, *run[1:], **rows)
        want = run_epilogue_s8(run[0], off.astype(np.int32), *run[1:])
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("line", lines("epilogue_s8", "s32"))
@pytest.mark.parametrize("at_start", PLACEMENTS)
@pytest.mark.parametrize("has_bias", [False, True])
def test_store_s32(line: Line, rng: np.random.Generator, at_start: bool, has_bias: bool) -> None:
    for (m, n), gap in itertools.product(EXTENTS, (0, 3)):
        acc = accumulators(rng, m, n)
        bias = rng.integers(-(2**31), 2**31, n).astype(np.int32) if has_bias else None
        got = run_epilogue_s8(line, acc, bias, None, None, {}, "int32", gap, at_start)
        total = acc.astype(np.int64) + (0 if bias is None else bias.astype(np.int64))
        np.testing.assert_array_equal(got, total.astype(np.int32))


@pytest.mark.parametrize("family", ["gemm_f32", "gemm_s8"])
def test_every_isa_of_this_machine_has_a_kernel(family: str) -> None:
    for isa in _core.machine_isas():
        name = _core.select_kernel(family, isa)
        of_family = [line for line in _core.kernels() if line["family"] == family]
        (chosen,) = [line for line in of_family if line["name"] == name]
        assert chosen["available"]
        assert chosen["isa"] == isa or isa not in {line["isa"] for line in of_family}


@pytest.mark.parametrize(
    "least, most, zero_point, fits",
    [
        (0, 255, 128, True),
        (0, 255, 129, False),
        (1, 255, 129, True),
        (0, 255, 127, False),
        (0, 254, 127, True),
    ],
)
def test_values_decide_about_the_form(
    isa: str, least: int, most: int, zero_point: int, fits: bool
) -> None:
    """Differences that are no int8 have a kernel that takes int16; no other packs them."""
    b = np.array([[least, most], [140, 130]], np.uint8)
    zeros = np.array([zero_point, zero_point], np.uint8)
    chosen = _core.choose_gemm_s8(isa, b, zeros)
    forms = {line["name"]: line["form"] for line in _core.kernels() if line["family"] == "gemm_s8"}
    assert fits or forms[chosen] == "i16"
    _core.pack_gemm_s8(chosen, b, zeros)
    if not fits:
        narrow = next(name for name, form in forms.items() if form == "u8")
        with pytest.raises(ValueError, match="int8"):
            _core.pack_gemm_s8(narrow, b, zeros)


def test_the_forced_isa_ran(isa: str) -> None:
    """The scalar kernel rounds each product, the FMA kernels do not: the sum tells which ran."""
    x = np.float32(1 + 2**-12)
    rounded = np.float32(x * x)
    a = np.array([[1.0, x]], np.float32)
    b = np.array([[-rounded], [x]], np.float32)
    (got,) = run_op("MatMul", [a, b], isa=isa)
    exact = float(x) * float(x) - float(rounded)
    assert exact != 0
    assert got[0, 0] == (0 if isa == "scalar" else np.float32(exact))


@pytest.mark.parametrize("family", ["gemm_f32", "gemm_s8"])
def test_the_named_kernel_ran(family: str, isa: str, rng: np.random.Generator) -> None:
    """A blob packed for one kernel means something else to another: the step's name decides."""
    name = _core.select_kernel(family, isa)
    others = [
        line["name"]
        for line in _core.kernels()
        if line["family"] == family and line["name"] != name and line["available"]
    ]
    if name == "gemm_s8_32x32c4_amxint8":
        others.remove("gemm_s8_3x32c4_avx2")  # reads the same panels
    k, n = 32, 64
    attrs = {"packed": 1, "k": k, "n": n}
    if family == "gemm_f32":
        key, dtype, pack = "lepton.MatMul", "float32", _core.pack_gemm_f32
        a, b = rng.integers(-9, 9, (3, k)).astype(dtype), rng.integers(-9, 9, (k, n)).astype(dtype)
        extra: list[Any] = []
    else:
        key, dtype, pack = "lepton.QLinearMatMul", "float32", _core.pack_gemm_s8
        a, b = rng.integers(0, 9, (3, k)).astype("uint8"), rng.integers(1, 9, (k, n)).astype("int8")
        extra = [np.ones(n, np.float32)]
    want = a.astype(np.float64) @ b.astype(np.float64)
    inputs = [a, pack(name, b), *extra]
    (got,) = run_op(key, inputs, attrs, constants=[1], kernel=name, isa=isa)
    np.testing.assert_array_equal(got, want)
    for other in others:
        try:
            (wrong,) = run_op(key, inputs, attrs, constants=[1], kernel=other, isa=isa)
        except ModelError:  # the blob is not of the size that this kernel needs
            continue
        assert (wrong != want).any()
