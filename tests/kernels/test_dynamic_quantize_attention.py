"""lepton.DynamicQuantizeAttention against its definition in NumPy, bit for bit on every ISA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness import run_op
from lepton_rt import UnsupportedError

Rng = np.random.Generator
Array = np.ndarray[Any, Any]
OP = "lepton.DynamicQuantizeAttention"
F32 = np.float32


def rounded(x: Array, axis: int) -> tuple[Array, Array]:
    """(integers, scale) of x, each range over one axis."""
    amax = np.abs(x).max(axis, keepdims=True)
    zero = amax < F32(1e-30)
    with np.errstate(divide="ignore"):
        inverse = np.where(zero, F32(0), F32(127) / amax)
    return np.rint(x * inverse).astype(np.int64), np.where(zero, F32(1), amax / F32(127))


def exponentials(z: Array) -> Array:
    """rint(2^z · 255), with the polynomial evaluated in double: fma rounds once."""
    z = np.where(z > F32(-16), z, F32(-16))
    n = np.rint(z)
    f = (z - n).astype(np.float64)
    c = np.float64(F32(1.406877518e01))
    for next_one in (6.186583710e01, 1.767815552e02, 2.549816589e02):
        c = np.float64(F32(c * f + np.float64(F32(next_one))))
    return np.rint(c.astype(F32) * np.exp2(n).astype(F32)).astype(np.int64)


def definition(q: Array, k: Array, v: Array, mask: Array | None, scale: float, causal: bool) -> Any:
    """q, k, v [batch, heads, rows, depth]; keys and values are repeated for grouped heads."""
    group = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, group, axis=1) for x in (k, v))
    (q8, q_scale), (k8, k_scale), (v8, v_scale) = rounded(q, -1), rounded(k, -1), rounded(v, -2)
    s = (q8 @ k8.swapaxes(-1, -2)).astype(F32) * k_scale.swapaxes(-1, -2)
    row_scale = q_scale * F32(scale) * F32(1.44269504)
    factor = row_scale
    allowed = np.ones(s.shape, bool)
    if mask is not None and mask.dtype == bool:
        allowed &= mask
    elif mask is not None:
        with np.errstate(over="ignore"):
            bias = np.maximum(mask * F32(1.44269504), F32(-3.4028235e38))
        s, factor = s * row_scale + bias, F32(1)
        allowed &= mask != -np.inf
    if causal:
        allowed &= np.tri(*s.shape[-2:], dtype=bool)
    s = np.where(allowed, s, F32(-np.inf))
    with np.errstate(invalid="ignore"):
        p = exponentials((s - s.max(-1, keepdims=True)) * factor)
    sums = p.sum(-1, keepdims=True).astype(F32)
    inverse = np.where(sums == 0, F32(0), F32(1) / np.where(sums == 0, F32(1), sums))
    return (p @ v8).astype(F32) * v_scale * inverse


def operands(rng: Rng, batch: int, heads: int, kv: int, rows: int, keys: int, depth: int) -> Any:
    sizes = ((heads, rows), (kv, keys), (kv, keys))
    return [rng.normal(size=(batch, h, n, depth)).astype(F32) for h, n in sizes]


def check(
    inputs: list[Any], attrs: dict[str, Any], mask: Array | None, isa: str, threads: int = 2
) -> None:
    scale = attrs.get("scale", 1 / np.sqrt(inputs[0].shape[-1]))
    want = definition(*inputs, mask, scale, bool(attrs.get("is_causal")))
    given = [*inputs, mask] if mask is not None else inputs
    (got,) = run_op(OP, given, attrs, outputs=["float32"], isa=isa, threads=threads)
    np.testing.assert_array_equal(got, want)


# Batch, heads, heads of keys, queries, keys, depth: whole vectors and panels, and their neighbours.
SHAPES = [
    (1, 2, 2, 128, 128, 64),
    (2, 3, 3, 16, 16, 32),
    (1, 2, 1, 9, 1, 8),
    (1, 4, 2, 25, 63, 20),
    (1, 1, 1, 31, 65, 5),
    (2, 2, 2, 49, 197, 72),
    (1, 1, 1, 12, 3001, 16),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_definition(isa: str, rng: Rng, shape: tuple[int, ...]) -> None:
    check(operands(rng, *shape), {"scale": 0.25}, None, isa)


@pytest.mark.parametrize("keys", [7, 33, 130])
def test_causal(isa: str, rng: Rng, keys: int) -> None:
    rows = max(keys, 9)
    check(operands(rng, 1, 2, 2, rows, keys, 24), {"scale": 0.3, "is_causal": 1}, None, isa)


@pytest.mark.parametrize("keys", [1, 13, 64, 100])
def test_masks(isa: str, rng: Rng, keys: int) -> None:
    inputs = operands(rng, 2, 2, 2, 20, keys, 16)
    attrs = {"scale": 0.25}
    allowed = rng.random((2, 1, 20, keys)) < 0.6  # some rows without any key, where keys are few
    if keys > 1:
        check(inputs, attrs, allowed, isa)
    bias = np.where(allowed, rng.normal(size=allowed.shape), -np.inf).astype(F32)
    lowest = np.where(allowed, F32(0), np.finfo(F32).min)
    for mask in (bias, lowest) if keys > 1 else ():
        check(inputs, attrs, mask, isa)


@pytest.mark.parametrize("shape", [(2, 1, 75, 130), (1, 75, 130), (75, 130), (2, 1, 1, 130)])
@pytest.mark.parametrize("kind", ["bool", "lowest", "infinite", "large"])
def test_keys_hidden_from_the_end(isa: str, rng: Rng, shape: tuple[int, ...], kind: str) -> None:
    """As causal models and padded batches have it, and rows that a mask hides everything from."""
    shown = rng.integers(0, 131, (*shape[:-1], 1))
    shown[..., -1:, :] = 0 if kind == "bool" else 130
    if shape[-2] > 1:
        shown[..., 3, :] = 0
    allowed = np.arange(130) < shown
    hidden = {"lowest": np.finfo(F32).min, "infinite": -np.inf, "large": -1e31}.get(kind, 0)
    bias = np.where(allowed, rng.normal(size=shape), hidden).astype(F32)
    inputs = operands(rng, 2, 2, 1, 75, 130, 24)
    check(inputs, {"scale": 0.25}, allowed if kind == "bool" else bias, isa)


def test_extremes(isa: str, rng: Rng) -> None:
    """Rows of zeros, tiny and huge values, equal scores, one key far above the others."""
    q, k, v = operands(rng, 1, 1, 1, 16, 40, 32)
    q[0, 0, 0], k[0, 0, 3], v[0, 0, :, 5] = 0, 0, 0
    q[0, 0, 1] *= 1e-36
    k[0, 0, 7] *= 1e4
    v[0, 0, :, 1] *= 1e30
    check([q, k, v], {"scale": 1.0}, None, isa)


def test_near_float(isa: str, rng: Rng) -> None:
    """Within two per cent of float32, where sums cancel as random ones do."""
    inputs = operands(rng, 1, 4, 4, 128, 128, 64)
    (got,) = run_op(OP, inputs, {}, outputs=["float32"], isa=isa)
    (want,) = run_op("Attention", inputs, {}, outputs=["float32"], isa=isa)
    assert np.linalg.norm(got - want) < 0.02 * np.linalg.norm(want)


def test_few_rows_are_float(isa: str, rng: Rng) -> None:
    inputs = operands(rng, 1, 4, 2, 3, 50, 16)
    (got,) = run_op(OP, inputs, {}, outputs=["float32"], isa=isa)
    (want,) = run_op("Attention", inputs, {}, outputs=["float32"], isa=isa)
    np.testing.assert_array_equal(got, want)


def test_not_finite(isa: str, rng: Rng) -> None:
    """What is not finite shows where it was used."""
    q, k, v = operands(rng, 1, 2, 2, 16, 20, 8)
    q[0, 0, 2, 1], v[0, 0, 4, 3], k[0, 1, 5, 0] = np.nan, np.inf, -np.inf
    (got,) = run_op(OP, [q, k, v], {}, outputs=["float32"], isa=isa)
    bad = np.isnan(got)
    assert bad[0, 0, 2].all()
    assert bad[0, 0, :, 3].all()
    assert bad[0, 1].all()
    assert bad[0, 0].sum() == 8 + 16 - 1


def test_layouts_and_threads(isa: str, rng: Rng) -> None:
    q, k, v = operands(rng, 2, 4, 4, 30, 50, 16)
    (want,) = run_op(OP, [q, k, v], {}, outputs=["float32"], isa=isa, threads=1)
    flat = [np.ascontiguousarray(x.swapaxes(1, 2)).reshape(2, -1, 64) for x in (q, k, v)]
    attrs = {"q_num_heads": 4, "kv_num_heads": 4}
    for threads in (1, 2, 5):
        (got,) = run_op(OP, flat, attrs, outputs=["float32"], isa=isa, threads=threads)
        np.testing.assert_array_equal(got.reshape(2, 30, 4, 16).swapaxes(1, 2), want)


@pytest.mark.parametrize("attrs", [{"softcap": 2.0}, {"left_window_size": 3}])
def test_refused(rng: Rng, attrs: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        run_op(OP, operands(rng, 1, 1, 1, 9, 9, 8), attrs, outputs=["float32"])
