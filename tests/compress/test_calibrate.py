"""Histograms, observers and the calibration pass against numpy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rt import InputError
from lepton_rt.compress.calibrate import calibrate
from lepton_rt.compress.histogram import Histogram
from lepton_rt.compress.observers import (
    METHODS,
    SearchObserver,
    make_observer,
    mse_loss,
    widen,
)
from lepton_rt.compress.prepare import prepare
from lepton_rt.compress.qparams import affine_parameters, quantize_array
from lepton_rt.graph.onnx_io import import_onnx
from small_networks import batches, cnn, run_onnx

PARTS = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 200), st.floats(1e-6, 1e6), st.floats(-3, 3)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(PARTS)
def test_histogram_grows_without_losing_or_moving_a_count(parts: list[tuple]) -> None:
    histogram = Histogram(bins=256)
    arrays = []
    for seed, size, scale, offset in parts:
        rng = np.random.default_rng(seed)
        arrays.append(((rng.standard_normal(size) + offset) * scale).astype(np.float32))
        histogram.add(arrays[-1])
    values = np.concatenate(arrays)
    assert histogram.counts.sum() == histogram.total == values.size
    assert histogram.counts.size <= 256
    edges = histogram.edges()
    if values.size:
        assert edges[0] <= values.min() <= values.max() < edges[-1]
        width = edges[1] - edges[0]
        expected = np.bincount(
            (np.floor(values.astype(np.float64) / width) - edges[0] / width).astype(int),
            minlength=histogram.counts.size,
        )
        assert np.array_equal(histogram.counts, expected)


def test_few_values_are_given_the_range_of_many(rng: np.random.Generator) -> None:
    clipped = {"as seen": 0.0, "widened": 0.0}
    for _ in range(20):
        few, many = rng.standard_normal(768), rng.standard_normal(100_000)
        low, high = few.min(), few.max()
        clipped["as seen"] += np.square(many - np.clip(many, low, high)).sum()
        clipped["widened"] += np.square(many - np.clip(many, *widen(low, high, 768))).sum()
    assert clipped["widened"] < clipped["as seen"] / 20
    assert widen(-1.0, 2.0, 100_000) == widen(-1.0, 2.0, 0) == (-1.0, 2.0)
    assert widen(0.0, 2.0, 2) == (0.0, 3.0)


def test_histogram_counts_zeros_apart(rng: np.random.Generator) -> None:
    values = np.maximum(rng.standard_normal(1000), 0).astype(np.float32)
    histogram = Histogram()
    for part in (np.zeros(5, np.float32), values, np.float32([[0]])):
        histogram.add(part)
    assert histogram.zeros == 6 + (values == 0).sum()
    assert histogram.nonzero_counts().sum() == (values > 0).sum()
    assert histogram.nonzero_counts().min() >= 0


def test_minmax_is_the_extent_with_zero(rng: np.random.Generator) -> None:
    data = rng.standard_normal((4, 100)).astype(np.float32)
    observer = make_observer("t", "minmax")
    for row in data:
        observer.observe(row)
    assert observer.range() == (data.min(), data.max())
    positive = make_observer("t", "minmax")
    positive.observe(data**2 + 1)
    assert positive.range() == (0.0, (data**2 + 1).max())


@pytest.mark.parametrize("percentile", [99.9, 99.0, 90.0, 100.0])
def test_percentile_agrees_with_numpy(percentile: float, rng: np.random.Generator) -> None:
    data = rng.standard_normal(200_000).astype(np.float32)
    observer = make_observer("t", "percentile", percentile)
    for part in np.split(data, 8):
        observer.observe(part)
    expected = np.percentile(data, [100 - percentile, percentile])
    assert np.allclose(observer.range(), expected, atol=5e-3)


def squared_error(data: np.ndarray, low: float, high: float) -> float:
    scale, zero_point = affine_parameters(low, high, 0, 255)
    q = quantize_array(data, scale, zero_point, np.dtype(np.uint8)).astype(np.float64)
    return float(np.mean((scale * (q - zero_point) - data) ** 2))


@pytest.mark.parametrize("one_sided", [False, True])
def test_mse_is_near_the_best_of_a_brute_force_search(
    one_sided: bool, rng: np.random.Generator
) -> None:
    data = rng.standard_t(3, 50_000).astype(np.float32)
    data = np.maximum(data, 0) if one_sided else data
    observer = SearchObserver("t", mse_loss)
    for part in np.split(data, 5):
        observer.observe(part)
    found = squared_error(data, *observer.range())
    low, high = float(data.min()), float(data.max())
    grid = np.geomspace(1 / 16, 1, 40)
    best = min(squared_error(data, low * a, high * b) for a in grid for b in grid)
    assert found < squared_error(data, low, high)
    assert found < 1.1 * best


def test_entropy_cuts_outliers_but_little_of_the_rest(rng: np.random.Generator) -> None:
    data = np.concatenate([rng.standard_normal(100_000), [40.0, -35.0]]).astype(np.float32)
    observer = make_observer("t", "entropy")
    observer.observe(data)
    low, high = observer.range()
    assert -20 < low < -2.5
    assert 2.5 < high < 20
    assert observer.share_clipped(low, high) < 0.01


@pytest.mark.parametrize("size", [1, 5, 300])
def test_entropy_of_few_values_keeps_them(size: int, rng: np.random.Generator) -> None:
    data = rng.standard_normal(size).astype(np.float32)
    observer = make_observer("t", "entropy")
    observer.observe(data)
    low, high = observer.range()
    assert np.mean((data < low) | (data > high)) <= 0.02


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.5, -1e-3, 1e-30, 1e30])
def test_constant_tensors_have_a_range(method: str, value: float) -> None:
    observer = make_observer("t", method)
    observer.observe(np.full((2, 3), value, np.float32))
    observer.observe(np.zeros((0, 3), np.float32))
    low, high = observer.range()
    assert low <= 0 <= high
    assert low <= np.float32(value) * 1.001 or low == np.float32(value)
    assert np.isclose(low + high, value, rtol=1e-2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(method: str, bad: float) -> None:
    observer = make_observer("layer7", method)
    with pytest.raises(InputError, match="layer7"):
        observer.observe(np.array([1.0, bad], np.float32))


def test_unknown_method() -> None:
    with pytest.raises(ValueError, match="minmax, percentile, mse, entropy"):
        make_observer("t", "guess")


@pytest.mark.parametrize("budget", [1, 60_000, 1 << 28])
def test_ranges_do_not_depend_on_the_memory_budget(budget: int) -> None:
    model, data = cnn(), batches()
    graph = prepare(import_onnx(model))
    tensors = ["x", "a1", "c2", "gate", "pooled"]
    found = calibrate(graph, tensors, data, progress=False, budget=budget).observers
    values = [run_onnx(model, {"x": batch}, *tensors[1:]) for batch in data]
    for i, name in enumerate(tensors):
        seen = np.concatenate([data[k] if i == 0 else v[i - 1] for k, v in enumerate(values)])
        expected = (min(seen.min(), 0), max(seen.max(), 0))
        assert np.allclose(found[name].range(), expected, rtol=1e-4, atol=1e-5), name


def test_a_generator_is_read_once_and_dicts_and_tuples_work() -> None:
    graph = prepare(import_onnx(cnn()))
    data = batches()

    def stream() -> Iterator[np.ndarray]:
        yield from data

    forms = [stream(), [(b,) for b in data], [{"x": b} for b in data], np.concatenate(data)]
    ranges = [calibrate(graph, ["a3"], f, progress=False).observers["a3"].range() for f in forms]
    assert all(np.allclose(r, ranges[0], rtol=1e-5) for r in ranges)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "at least one batch"),
        (iter(()), "at least one batch"),
        (3, "iterable"),
        ("data", "iterable"),
        ([np.zeros((1, 3, 16), np.float32)], r"'x' must have shape n×3×16×16, not 1×3×16"),
        ([np.zeros((1, 4, 16, 16), np.float32)], "not 1×4×16×16"),
        ([(np.zeros(1), np.zeros(1))], "2 arrays, but the model has 1 input"),
        ([{"y": np.zeros(1)}], "lacks x"),
        ([{"x": np.zeros(1), "y": np.zeros(1)}], "unknown y"),
        ([np.array(["a"])], "must be float32"),
    ],
)
def test_unusable_data_is_named(data: object, message: str) -> None:
    graph = prepare(import_onnx(cnn()))
    with pytest.raises(InputError, match=message):
        calibrate(graph, ["a1"], data, progress=False)
