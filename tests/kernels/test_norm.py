"""Normalisations against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness import run_op

Array = np.ndarray[Any, Any]


def normalized(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    wide = x.astype(np.float64)
    mean = wide.mean(axis=axes, keepdims=True)
    variance = ((wide - mean) ** 2).mean(axis=axes, keepdims=True)
    return (wide - mean) / np.sqrt(variance + epsilon)


def per_channel(v: Array, rank: int) -> Array:
    return v.reshape(-1, *[1] * (rank - 2)).astype(np.float64)


@pytest.mark.parametrize("shape, axis", [((3, 7), -1), ((2, 5, 64), -1), ((2, 5, 768), 2),
                                         ((2, 5, 9), 1), ((2, 3, 4, 5), -2), ((4, 1), 1),
                                         ((1, 1537), -1), ((0, 4), 1), ((6,), 0)])  # fmt: skip
@pytest.mark.parametrize("offset", [0, 100])
def test_layer(
    shape: tuple[int, ...], axis: int, offset: float, isa: str, rng: np.random.Generator
) -> None:
    x = rng.normal(offset, 2, shape).astype(np.float32)
    inner = shape[axis:] if axis >= 0 else shape[len(shape) + axis :]
    scale, bias = (rng.normal(0, 1, inner).astype(np.float32) for _ in range(2))
    axes = tuple(range(len(shape) - len(inner), len(shape)))
    attrs = {"axis": axis, "epsilon": 1e-3}
    if x.size:
        expected = normalized(x, axes, 1e-3) * scale
    else:
        expected = x
    atol = 2e-6 if offset == 0 else 1e-4
    got = run_op("LayerNormalization", [x, scale], attrs, isa=isa)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=atol)
    names = ("float32",) * 3
    y, mean, inverse = run_op("LayerNormalization", [x, scale, bias], attrs, outputs=names, isa=isa)
    np.testing.assert_allclose(y, expected + bias, rtol=1e-5, atol=atol)
    if x.size:
        wide = x.astype(np.float64)
        np.testing.assert_allclose(mean, wide.mean(axes, keepdims=True), rtol=1e-5, atol=1e-6)
        variance = wide.var(axes, keepdims=True)
        np.testing.assert_allclose(inverse, 1 / np.sqrt(variance + 1e-3), rtol=1e-5)


def test_layer_every_length(isa: str, rng: np.random.Generator) -> None:
    for n in range(1, 40):
        x = rng.normal(0, 1, (3, n)).astype(np.float32)
        scale, bias = (rng.normal(0, 1, n).astype(np.float32) for _ in range(2))
        got = run_op("LayerNormalization", [x, scale, bias], isa=isa)[0]
        expected = normalized(x, (1,), 1e-5) * scale + bias
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("shape, axis", [((2, 5, 64), -1), ((2, 5, 9), 1), ((3, 1023), 1)])
def test_rms(shape: tuple[int, ...], axis: int, isa: str, rng: np.random.Generator) -> None:
    x = rng.normal(1, 2, shape).astype(np.float32)
    inner = shape[axis:]
    scale = rng.normal(0, 1, inner).astype(np.float32)
    axes = tuple(range(len(shape) - len(inner), len(shape)))
    wide = x.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean(axis=axes, keepdims=True) + 1e-5) * scale
    got = run_op("RMSNormalization", [x, scale], {"axis": axis, "epsilon": 1e-5}, isa=isa)[0]
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(
    "shape", [(2, 6, 5, 7), (3, 4, 9), (1, 8), (2, 4, 3, 3, 3), (2, 32, 33, 31)]
)
@pytest.mark.parametrize("groups", [1, 2])
def test_group_and_instance(
    shape: tuple[int, ...], groups: int, isa: str, rng: np.random.Generator
) -> None:
    x = rng.normal(3, 2, shape).astype(np.float32)
    channels = shape[1]
    scale, bias = (rng.normal(0, 1, channels).astype(np.float32) for _ in range(2))
    flat = x.reshape(shape[0], groups, -1)
    expected = normalized(flat, (2,), 1e-5).reshape(shape)
    expected = expected * per_channel(scale, len(shape)) + per_channel(bias, len(shape))
    for threads in (1, 2):
        got = run_op("GroupNormalization", [x, scale, bias], {"num_groups": groups}, isa=isa,
                     threads=threads)[0]  # fmt: skip
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    if len(shape) > 2:
        expected = normalized(x, tuple(range(2, len(shape))), 1e-2)
        expected = expected * per_channel(scale, len(shape)) + per_channel(bias, len(shape))
        got = run_op("InstanceNormalization", [x, scale, bias], {"epsilon": 1e-2}, isa=isa)[0]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (300, 40), (1, 3, 224, 11), (0, 3, 2)])
def test_batch(shape: tuple[int, ...], isa: str, rng: np.random.Generator) -> None:
    x = rng.normal(0, 2, shape).astype(np.float32)
    scale, bias, mean = (rng.normal(0, 1, shape[1]).astype(np.float32) for _ in range(3))
    variance = rng.uniform(0.1, 2, shape[1]).astype(np.float32)
    s, b, m, v = (per_channel(p, len(shape)) for p in (scale, bias, mean, variance))
    expected = (x - m) / np.sqrt(v + 1e-5) * s + b
    got = run_op("BatchNormalization", [x, scale, bias, mean, variance], isa=isa, threads=2)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_lp(p: int, axis: int, isa: str, rng: np.random.Generator) -> None:
    x = rng.normal(0, 2, (4, 5, 30)).astype(np.float32)
    x[0] = 0
    x[:, :, 0] = 0
    norm = np.linalg.norm(x.astype(np.float64), ord=p, axis=axis, keepdims=True)
    got = run_op("LpNormalization", [x], {"axis": axis, "p": p}, isa=isa)[0]
    np.testing.assert_allclose(got, x / np.where(norm == 0, 1, norm), rtol=1e-6)


@pytest.mark.parametrize("axes", [None, [1], [2, 3], [0, 3], [0, 1, 2, 3]])
def test_mean_variance(axes: list[int] | None, isa: str, rng: np.random.Generator) -> None:
    x = rng.normal(5, 2, (2, 3, 4, 7)).astype(np.float32)
    attrs = {} if axes is None else {"axes": axes}
    got = run_op("MeanVarianceNormalization", [x], attrs, isa=isa)[0]
    expected = normalized(x, (0, 2, 3) if axes is None else tuple(axes), 0)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_shapes_are_checked() -> None:
    x = np.zeros((2, 3, 4), np.float32)
    three = np.ones(3, np.float32)
    with pytest.raises(Exception, match="channel"):
        run_op("InstanceNormalization", [x, np.ones(4, np.float32), three])
    with pytest.raises(Exception, match="group"):
        run_op("GroupNormalization", [x, three, three], {"num_groups": 2})
    with pytest.raises(Exception, match="scale"):
        run_op("LayerNormalization", [x, three])
    with pytest.raises(Exception, match="num_groups"):
        run_op("GroupNormalization", [x, three, three], {"num_groups": 0})
