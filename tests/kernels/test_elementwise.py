"""lepton.Elementwise programs against NumPy: every micro-op, broadcasting, dtypes, extremes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import run_op
from lepton_rt import UnsupportedError, _core
from lepton_rt.graph.ir import Value
from lepton_rt.plan import Plan, Step

Array = np.ndarray[Any, Any]
SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-38, 3.4028235e38, -3.4028235e38, 1, -1,
     0.5, 1.5, 2.5, -2.5, 88.0, 88.8, 104.0, -87.5, -103.0, -105.0, 1e-7, -1e-7, 0.625, 4.0, -6.0],
    np.float32,
)  # fmt: skip
_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return np.where(
        x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))
    )


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


# Formulas in float64: (program, f, relative tolerance, absolute tolerance).
UNARY: list[tuple[str, Callable[[Array], Array], float, float]] = [
    ("Neg r0", np.negative, 0, 0),
    ("Abs r0", np.abs, 0, 0),
    ("Sign r0", np.sign, 0, 0),
    ("Sqrt r0", np.sqrt, 1e-7, 0),
    ("Reciprocal r0", np.reciprocal, 1e-7, 1e-44),
    ("Exp r0", np.exp, 3e-7, 2e-45),
    ("Log r0", np.log, 3e-7, 0),
    ("Sin r0", np.sin, 3e-7, 1e-7),
    ("Cos r0", np.cos, 3e-7, 1e-7),
    ("Tan r0", np.tan, 3e-7, 1e-7),
    ("Asin r0", np.arcsin, 3e-7, 0),
    ("Acos r0", np.arccos, 3e-7, 0),
    ("Atan r0", np.arctan, 3e-7, 0),
    ("Sinh r0", np.sinh, 3e-7, 0),
    ("Cosh r0", np.cosh, 3e-7, 0),
    ("Tanh r0", np.tanh, 3e-7, 0),
    ("Asinh r0", np.arcsinh, 3e-7, 0),
    ("Acosh r0", np.arccosh, 3e-7, 0),
    ("Atanh r0", np.arctanh, 3e-7, 0),
    ("Sigmoid r0", _sigmoid, 5e-7, 2e-38),
    ("Erf r0", _erf, 4e-7, 0),
    ("Relu r0", lambda x: np.maximum(x, 0), 0, 0),
    ("Clip r0 #-1.5 #2", lambda x: np.clip(x, -1.5, 2), 0, 0),
    ("Clip r0 #-inf #2", lambda x: np.minimum(x, 2), 0, 0),
    ("Clip r0", lambda x: x, 0, 0),
    ("LeakyRelu r0", lambda x: np.where(x < 0, np.float64(np.float32(0.01)) * x, x), 1e-7, 1e-45),
    ("LeakyRelu r0 #0.25", lambda x: np.where(x < 0, 0.25 * x, x), 1e-7, 1e-45),
    ("Elu r0 #1.5", lambda x: np.where(x < 0, 1.5 * np.expm1(x), x), 4e-7, 1e-44),
    (
        "Selu r0",
        lambda x: 1.0507009873554805 * np.where(x < 0, 1.6732632423543772 * np.expm1(x), x),
        5e-7,
        1e-44,
    ),
    ("Celu r0 #2", lambda x: np.where(x < 0, 2 * np.expm1(x / 2), x), 4e-7, 1e-44),
    ("HardSigmoid r0", lambda x: np.clip(0.2 * x + 0.5, 0, 1), 1e-6, 1e-7),
    ("HardSigmoid r0 #0.5 #0.25", lambda x: np.clip(0.5 * x + 0.25, 0, 1), 1e-6, 0),
    ("HardSwish r0", lambda x: x * np.clip(x / 6 + 0.5, 0, 1), 1e-6, 1e-6),
    ("Silu r0", lambda x: x * _sigmoid(x), 6e-7, 1e-36),
    ("Swish r0 #1.5", lambda x: x * _sigmoid(1.5 * x), 6e-6, 1e-36),
    ("Gelu r0", lambda x: 0.5 * x * _erfc(-x / math.sqrt(2)), 1e-6, 1e-7),
    ("GeluTanh r0", _gelu_tanh, 5e-6, 2e-7),
    ("Mish r0", lambda x: x * np.tanh(_softplus(x)), 1e-6, 1e-36),
    ("Softplus r0", _softplus, 1e-6, 1e-44),
    ("Softsign r0", lambda x: x / (1 + np.abs(x)), 3e-7, 0),
    ("ThresholdedRelu r0 #0.5", lambda x: np.where((x > 0.5) | np.isnan(x), x, 0), 0, 0),
    ("Shrink r0 #0.5 #0.25",
     lambda x: np.where(x < -0.5, x + 0.25, np.where(x > 0.5, x - 0.25, 0)), 1e-7, 0),
    ("Floor r0", np.floor, 0, 0),
    ("Ceil r0", np.ceil, 0, 0),
    ("Round r0", np.rint, 0, 0),
    ("Not r0", lambda x: np.logical_not(x).astype(np.float64), 0, 0),
    ("IsNaN r0", lambda x: np.isnan(x).astype(np.float64), 0, 0),
    ("IsInf r0", lambda x: np.isinf(x).astype(np.float64), 0, 0),
    ("IsInf r0 #0 #1", lambda x: (x == np.inf).astype(np.float64), 0, 0),
    ("IsInf r0 #1 #0", lambda x: (x == -np.inf).astype(np.float64), 0, 0),
    ("Identity r0", lambda x: x, 0, 0),
]  # fmt: skip
BINARY: list[tuple[str, Callable[[Array, Array], Array]]] = [
    ("Add", np.add),
    ("Sub", np.subtract),
    ("Mul", np.multiply),
    ("Div", np.divide),
    ("Mod", np.mod),
    ("Fmod", np.fmod),
    ("Pow", np.power),
    ("Min", np.minimum),
    ("Max", np.maximum),
    ("And", np.logical_and),
    ("Or", np.logical_or),
    ("Xor", np.logical_xor),
    ("Equal", np.equal),
    ("Greater", np.greater),
    ("Less", np.less),
    ("GreaterOrEqual", np.greater_equal),
    ("LessOrEqual", np.less_equal),
    ("PRelu", lambda x, s: np.where(x < 0, s * x, x)),
]


def program(text: str, inputs: list[Array], out: str = "float32", **kw: Any) -> Array:
    attrs = {"program": text}
    if "compute" in kw:
        attrs["compute"] = kw.pop("compute")
    return run_op("lepton.Elementwise", inputs, attrs, outputs=(out,), **kw)[0]


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("text, formula, rtol, atol", UNARY, ids=[u[0] for u in UNARY])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_unary(
    text: str, formula: Callable[[Array], Array], rtol: float, atol: float, dtype: str, isa: str,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    wide = np.concatenate([rng.normal(0, s, 1500) for s in (1e-3, 0.5, 3, 30)])
    x = np.concatenate([wide.astype(np.float32), SPECIAL]).astype(dtype)
    got = program(text, [x], dtype, isa=isa)
    expected = formula(x.astype(np.float64)).astype(dtype)
    if rtol == 0:
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("text", [u[0] for u in UNARY])
def test_unary_tails_and_splat(text: str, isa: str, rng: np.random.Generator) -> None:
    """Every length gives what the whole tile gives, element by element."""
    x = rng.normal(0, 2, 40).astype(np.float32)
    whole = program(text, [x], isa=isa)
    for n in range(18):
        np.testing.assert_array_equal(program(text, [x[:n]], isa=isa), whole[:n])
    spread = program(text.replace("r0", "r1", 1), [np.zeros(20, np.float32), x[3:4]], isa=isa)
    np.testing.assert_array_equal(spread, np.full(20, whole[3]))


@pytest.mark.parametrize("name, formula", BINARY, ids=[b[0] for b in BINARY])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary(
    name: str, formula: Callable[[Array, Array], Array], dtype: str, isa: str,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    a = np.concatenate([rng.normal(0, 3, 1000).round(1), np.repeat(SPECIAL, len(SPECIAL))])
    b = np.concatenate([rng.normal(0, 3, 1000).round(1), np.tile(SPECIAL, len(SPECIAL))])
    a, b = a.astype(dtype), b.astype(dtype)
    expected = formula(a, b).astype(dtype)
    got = program(f"{name} r0 r1", [a, b], dtype, isa=isa)
    np.testing.assert_allclose(got, expected, rtol=2e-7 if name in ("Pow", "Mod") else 0)
    for value in (2.0, -0.5, 0.0, np.inf):  # a splat on either side
        s = np.array([value], dtype)
        got = program(f"{name} r0 r1", [a, s], dtype, isa=isa)
        np.testing.assert_allclose(got, formula(a, s).astype(dtype), rtol=2e-7)
        got = program(f"{name} r0 r1", [s, a], dtype, isa=isa)
        np.testing.assert_allclose(got, formula(s, a).astype(dtype), rtol=2e-7)
        got = program(f"{name} r0 #{value}", [a], dtype, isa=isa)
        np.testing.assert_allclose(got, formula(a, s).astype(dtype), rtol=2e-7)


@pytest.mark.parametrize("exponent", [0.0, 0.5, -0.5, 1.0, 2.0, 3.0, -1.0, 2.5])
def test_power_of_literal(exponent: float, isa: str, rng: np.random.Generator) -> None:
    x = np.concatenate([rng.normal(0, 3, 100).astype(np.float32), SPECIAL])
    got = program(f"Pow r0 #{exponent}", [x], isa=isa)
    # Like NumPy, a literal 0.5 is a square root: NaN for -infinity.
    expected = np.power(x.astype(np.float64), exponent).astype(np.float32)
    np.testing.assert_allclose(got, expected, rtol=3e-7, atol=3e-45)


@pytest.mark.parametrize("text, formula", [("Sin r0", np.sin), ("Cos r0", np.cos)])
def test_sine_of_many_turns(
    text: str, formula: Callable[[Array], Array], isa: str, rng: np.random.Generator
) -> None:
    near = np.arange(-5000, 5000) * (np.pi / 2)  # where results vanish or turn
    for scale in (1, 100, 8000, 1e6):
        x = np.concatenate([rng.uniform(-scale, scale, 3000), near[np.abs(near) < scale]])
        x = x.astype(np.float32)
        expected = formula(x.astype(np.float64))
        np.testing.assert_allclose(program(text, [x], isa=isa), expected, rtol=3e-7, atol=3e-8)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16"])
def test_small_integers_take_a_short_cut(dtype: str, isa: str, rng: np.random.Generator) -> None:
    """What runs in float32 inside wraps and compares as integers do."""
    info = np.iinfo(dtype) if dtype != "bool" else np.iinfo(np.uint8)
    a, b = (rng.integers(info.min, info.max, 200, endpoint=True).astype(dtype) for _ in range(2))
    x, y = a.astype(np.int64), b.astype(np.int64)
    for out in ("int8", "uint8", "uint16", "int32", "int64", "bool"):
        expected = (np.maximum(x - y, y) + x + 300).astype(out)
        got = program("Sub r0 r1;Max r2 r1;Add r3 r0;Add r4 #300", [a, b], out, compute="i64",
                      isa=isa)  # fmt: skip
        np.testing.assert_array_equal(got, expected)
        got = program("Less r0 r1;Not r2;Where r3 r0 r1", [a, b], out, compute="i64", isa=isa)
        np.testing.assert_array_equal(got, np.where(x < y, y, x).astype(out))


def test_chains_in_place(isa: str, rng: np.random.Generator) -> None:
    """Steps that may overwrite their inputs: same sizes, other dtypes, inputs used again."""
    x = rng.normal(0, 50, (3, 900)).astype(np.float32)
    texts = [
        (["x"], "Mul r0 #2;Add r1 r0", "float32", "a"),
        (["a"], "Identity r0", "int32", "b"),  # over a, element by element
        (["b", "b"], "Add r0 r1;Sub r2 #1", "int32", "c"),
        (["c"], "Mul r0 #0.5", "float32", "d"),
        (["d", "x"], "Mul r0 r1;Add r2 r0;Sub r3 r1", "float32", "e"),
        (["e", "d", "x"], "Max r0 r1;Add r3 r2;Mul r4 r0", "float32", "f"),
    ]
    steps = [
        Step("lepton.Elementwise", ins, [out], {"program": text}) for ins, text, _, out in texts
    ]
    plan = Plan(isa, {"x": Value(x.dtype, x.shape)}, ["f"], steps,
                dtypes={out: np.dtype(t) for _, _, t, out in texts})  # fmt: skip
    got = _core.Executor(*plan.encode()).run([x])[0]
    a = x * np.float32(2) + x
    b = a.astype(np.int32)
    d = (b + b - 1).astype(np.float32) * np.float32(0.5)
    e = d * x + d - x
    np.testing.assert_array_equal(got, (np.maximum(e, d) + x) * e)


# Shapes that reach every way of loading: contiguous, splat, expanded, tiles over several rows,
# rows longer than a tile, outer dimensions, empty tensors.
SHAPES = [
    ((5,), (5,)),
    ((), ()),
    ((1,), ()),
    ((3, 1), (1, 4)),
    ((2, 3, 16), (16,)),
    ((2, 500, 3), (3,)),
    ((2, 7, 9, 24), (24,)),
    ((2, 24, 7, 9), (24, 1, 1)),
    ((2, 24, 40, 30), (1, 24, 1, 1)),
    ((3, 700), (3, 1)),
    ((3, 700), (700,)),
    ((4, 1, 6, 1, 5), (1, 3, 1, 2, 5)),
    ((2, 3, 2, 3, 2, 3, 2, 3), (1, 3, 1, 3, 1, 3, 1, 3)),
    ((2, 1, 2, 1, 2, 1, 2, 1), (1, 3, 1, 3, 1, 3, 1, 3)),
    ((0, 4), (4,)),
    ((4, 0), (1, 1)),
    ((3, 0, 5), (3, 1, 5)),
    ((1, 1000, 1), (7, 1, 11)),
    ((2, 1, 1030), (3, 1)),
    ((6000,), (6000,)),
    ((6000,), (1,)),
]


@pytest.mark.parametrize("a, b", SHAPES, ids=str)
@pytest.mark.parametrize("other", ["float32", "uint8", "int64"])
def test_broadcast(
    a: tuple[int, ...], b: tuple[int, ...], other: str, isa: str, rng: np.random.Generator
) -> None:
    x = rng.normal(0, 3, a).astype(np.float32)
    y = rng.integers(0, 100, b).astype(other)
    for swap in (False, True):
        ins = [y, x] if swap else [x, y]
        got = program("Sub r0 r1;Mul r2 r0;Add r3 #0.5", ins, isa=isa)
        p, q = (v.astype(np.float32) for v in ins)
        np.testing.assert_array_equal(got, (p - q) * p + np.float32(0.5))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_broadcast_random(data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, 5))
    full = [data.draw(st.sampled_from([0, 1, 2, 3, 5, 17, 40])) for _ in range(rank)]
    arrays = []
    for _ in range(3):
        keep = data.draw(st.integers(0, rank))
        shape = [1 if data.draw(st.booleans()) else d for d in full[rank - keep :]]
        arrays.append(np.arange(math.prod(shape), dtype=np.int32).reshape(shape))
    got = program("Mul r0 r1;Add r3 r2;Neg r4", arrays, "int32", compute="i64")
    np.testing.assert_array_equal(got, -(arrays[0] * arrays[1] + arrays[2]))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(threads: int, isa: str, rng: np.random.Generator) -> None:
    x = rng.normal(0, 1, (33, 70, 300)).astype(np.float32)
    c = rng.normal(0, 1, (70, 1)).astype(np.float32)
    one = program("Mul r0 r1;Exp r2;Add r3 r1", [x, c], isa=isa)
    many = program("Mul r0 r1;Exp r2;Add r3 r1", [x, c], isa=isa, threads=threads)
    np.testing.assert_array_equal(one, many)


INTS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


def _wrapping_div(a: Array, b: Array) -> Array:
    """Towards zero, x / 0 = 0, the most negative / -1 wraps."""
    out = []
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        q = 0 if y == 0 else abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        out.append(q)
    bits = a.dtype.itemsize * 8
    return np.array([v & ((1 << bits) - 1) for v in out], np.uint64).astype(a.dtype)


@pytest.mark.parametrize("dtype", INTS)
def test_integers(dtype: str, isa: str, rng: np.random.Generator) -> None:
    info = np.iinfo(dtype)
    edge = np.array([info.min, info.max, info.min + 1, 0, 1, 2, 7, info.max - 1], dtype)
    if info.min < 0:
        edge = np.concatenate([edge, np.array([-1, -2, -7], dtype)])
    a = np.concatenate([rng.integers(info.min, info.max, 300, dtype), np.repeat(edge, len(edge))])
    b = np.concatenate([rng.integers(info.min, info.max, 300, dtype), np.tile(edge, len(edge))])

    def check(name: str, expected: Array, *ins: Array, out: str = dtype) -> None:
        operands = " ".join(f"r{i}" for i in range(len(ins)))
        got = program(f"{name} {operands}", list(ins), out, compute="i64", isa=isa)
        np.testing.assert_array_equal(got, expected, err_msg=name)

    nonzero = np.where(b == 0, np.array(3, dtype), b)
    check("Add", a + b, a, b)
    check("Sub", a - b, a, b)
    check("Mul", a * b, a, b)
    check("Div", _wrapping_div(a, b), a, b)
    check("Mod", np.mod(a, nonzero), a, nonzero)
    check("Mod", np.where(b == 0, 0, np.mod(a, nonzero)).astype(dtype), a, b)
    check("Fmod", np.fmod(a, nonzero), a, nonzero)
    check("Min", np.minimum(a, b), a, b)
    check("Max", np.maximum(a, b), a, b)
    check("Pow", np.power(a, (np.abs(b) % 5 + 0).astype(dtype) & 3), a,
          (np.abs(b) % 5).astype(dtype) & 3)  # fmt: skip
    check("Neg", -a, a)
    check("Abs", np.abs(a), a)
    check("Sign", np.sign(a), a)
    check("Relu", np.maximum(a, 0), a)
    check("Clip", np.minimum(np.maximum(a, edge[4]), b), a, np.full_like(a, 1), b)
    check("BitwiseAnd", a & b, a, b)
    check("BitwiseOr", a | b, a, b)
    check("BitwiseXor", a ^ b, a, b)
    check("BitwiseNot", ~a, a)
    check("Where", np.where(a > 0, a, b), (a > 0), a, b)
    for name, f in (("Equal", np.equal), ("Less", np.less), ("Greater", np.greater),
                    ("LessOrEqual", np.less_equal), ("GreaterOrEqual", np.greater_equal),
                    ("And", np.logical_and), ("Or", np.logical_or),
                    ("Xor", np.logical_xor)):  # fmt: skip
        check(name, f(a, b), a, b, out="bool")
    check("Not", a == 0, a, out="bool")
    if info.min == 0:
        for shift in (0, 1, 3, info.bits - 1):
            s = np.full_like(a, shift)
            check("BitShiftLeft", np.left_shift(a, s), a, s)
            check("BitShiftRight", np.right_shift(a, s), a, s)
        check("BitShiftLeft", np.zeros_like(a), a, np.full_like(a, 64))


def test_where_and_bool(isa: str, rng: np.random.Generator) -> None:
    c = rng.integers(0, 2, (5, 37)).astype(bool)
    a = rng.normal(0, 1, (5, 37)).astype(np.float32)
    got = program("Where r0 r1 #-inf", [c, a], isa=isa)
    np.testing.assert_array_equal(got, np.where(c, a, -np.inf).astype(np.float32))
    got = program("Not r0;And r1 r0", [c], "bool", isa=isa)
    np.testing.assert_array_equal(got, np.zeros_like(c))
    got = program("Less r0 #0.5;Or r2 r1", [a, c], "bool", compute="f32", isa=isa)
    np.testing.assert_array_equal(got, (a < 0.5) | c)


def test_integer_literals(isa: str) -> None:
    x = np.array([-5, 0, 9], np.int64)
    got = program("Mul r0 #3;Add r1 #-9223372036854775807", [x], "int64", isa=isa)
    np.testing.assert_array_equal(got, x * 3 - 9223372036854775807)
    got = program("Clip r0 #-inf #2.0", [x], "int64", isa=isa)
    np.testing.assert_array_equal(got, np.minimum(x, 2))
    got = program("Max r0 #18446744073709551615", [x.astype(np.uint64)], "uint64", isa=isa)
    np.testing.assert_array_equal(got, np.full(3, 2**64 - 1, np.uint64))


def test_quantised_sum(isa: str, rng: np.random.Generator) -> None:
    a, b = (rng.integers(0, 256, (3, 333)).astype(np.uint8) for _ in range(2))
    text = (
        "Dequantize r0 #0.02 #120;Dequantize r1 #0.03 #128;Add r2 r3;Quantize r4 #0.05 #10 #0 #255"
    )
    got = program(text, [a, b], "uint8", isa=isa)  # without a compute type: float32
    f32 = np.float32
    real = (a.astype(f32) - 120) * f32(0.02) + (b.astype(f32) - 128) * f32(0.03)
    np.testing.assert_array_equal(got, np.clip(np.rint(real / f32(0.05)) + 10, 0, 255))


def test_long_chain_and_reuse(isa: str, rng: np.random.Generator) -> None:
    """Registers are shared as values die; old values stay readable while they live."""
    x = rng.normal(0, 1, (3, 600)).astype(np.float32)
    s = np.array([0.75], np.float32)
    text = ["Mul r1 r1", "Add r0 r2", "Neg r3", "Max r3 r4", "Mul r5 r5"]
    text += [f"Add r{i} r0" for i in range(6, 40)] + ["Sub r40 r3"]
    got = program(";".join(text), [x, s], isa=isa)
    three = x + s * s
    value = np.maximum(three, -three) ** 2
    for _ in range(34):
        value = value + x
    np.testing.assert_array_equal(got, value - three)


def test_result_is_an_input_or_a_literal(isa: str) -> None:
    x = np.arange(2000, dtype=np.float32).reshape(2, 1000)
    np.testing.assert_array_equal(program("Identity r0", [x], isa=isa), x)
    np.testing.assert_array_equal(program("Identity #2.5", [x], isa=isa), np.full_like(x, 2.5))
    spread = program("Identity r1", [x, x[:, :1]], isa=isa)
    np.testing.assert_array_equal(spread, np.broadcast_to(x[:, :1], x.shape))
    rows = program("Identity r1", [x, x[:1].astype(np.int16)], isa=isa)
    np.testing.assert_array_equal(rows, np.broadcast_to(x[:1], x.shape))


@pytest.mark.parametrize(
    "text",
    ["", "Nonsense r0", "Add r0", "Add r0 r0 r0", "Add r0 r7", "Add r0 #x", "Add r0 q", "Neg r1",
     "Neg r-1", "Neg r99999999999999999999", "Add r0 #", "Sqrt", ";".join(["Neg r0"] * 500)],
)  # fmt: skip
def test_bad_programs(text: str) -> None:
    with pytest.raises(Exception):  # noqa: B017 - a lepton_rt error of any kind, no crash
        program(text, [np.zeros(3, np.float32)])


def test_unsupported_in_integers() -> None:
    with pytest.raises(UnsupportedError):
        program("Exp r0", [np.zeros(3, np.int64)], "int64", compute="i64")


def test_shapes_that_do_not_broadcast() -> None:
    with pytest.raises(Exception, match="broadcast"):
        program("Add r0 r1", [np.zeros(3, np.float32), np.zeros(4, np.float32)])
