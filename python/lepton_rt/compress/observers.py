"""Observers: what range of values a tensor should be quantised over, learnt from batches of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lepton_rt.compress.histogram import Floats, Histogram
from lepton_rt.compress.qparams import affine_parameters
from lepton_rt.errors import InputError

METHODS = ("minmax", "percentile", "mse", "entropy")

Loss = Callable[[float, float], float]
"""Cost of quantising over [low, high]; smaller is better."""

_SMALLEST_SHARE = 1 / 16  # of the seen range: no narrower one is tried
_MAX_CLIPPED = (
    0.01  # of the values, by entropy: the divergence of next to no values is next to none
)


_MANY_VALUES = 100_000  # extremes of so many are those of more
_MOST_WIDENED = 1.5


class Observer(Protocol):
    """Sees every batch of one tensor once, then names the range. count: values seen."""

    count: int

    def observe(self, array: npt.NDArray[np.float32]) -> None:
        """Takes in one batch. Raises InputError when it holds NaN or infinity."""

    def range(self) -> tuple[float, float]:
        """(low, high), low <= 0 <= high."""

    def share_clipped(self, low: float, high: float) -> float:
        """Share of the values seen that lie outside [low, high]."""


def make_observer(name: str, method: str, percentile: float = 99.99) -> Observer:
    """The observer of one tensor. Raises ValueError for a method that is not in METHODS."""
    if method == "minmax":
        return MinMaxObserver(name)
    if method == "percentile":
        if not 50 < percentile <= 100:
            raise ValueError(f"percentile must be above 50 and at most 100, not {percentile}")
        return PercentileObserver(name, percentile)
    if method == "mse":
        return SearchObserver(name, mse_loss)
    if method == "entropy":
        return SearchObserver(name, entropy_loss)
    raise ValueError(f"unknown calibration method {method!r}; choose one of {', '.join(METHODS)}")


def widen(low: float, high: float, count: int) -> tuple[float, float]:
    """A range seen in few values, as wide as it might be in many.

    The extremes of n values of a normal distribution grow as sqrt(2 log n). A fully connected layer
    of 48 outputs shows 768 values on 16 samples, and exceeds their range by a quarter on others.
    """
    if not 1 < count < _MANY_VALUES:
        return low, high
    factor = min(math.sqrt(math.log(_MANY_VALUES) / math.log(count)), _MOST_WIDENED)
    return low * factor, high * factor


class MinMaxObserver:
    """The range that was seen."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.low = 0.0
        self.high = 0.0
        self.count = 0

    def observe(self, array: npt.NDArray[np.float32]) -> None:
        self.count += array.size
        if array.size == 0:
            return
        low, high = _finite_extent(self.name, array)
        self.low, self.high = min(self.low, low), max(self.high, high)

    def range(self) -> tuple[float, float]:
        return self.low, self.high

    def share_clipped(self, low: float, high: float) -> float:
        return 0.0


class _HistogramObserver:
    def __init__(self, name: str) -> None:
        self.name = name
        self.histogram = Histogram()
        self.count = 0

    def observe(self, array: npt.NDArray[np.float32]) -> None:
        self.count += array.size
        if array.size:
            _finite_extent(self.name, array)
            self.histogram.add(array)

    def extent(self) -> tuple[float, float]:
        """The range that was seen, zero included."""
        return min(self.histogram.minimum, 0.0), max(self.histogram.maximum, 0.0)

    def share_clipped(self, low: float, high: float) -> float:
        return self.histogram.share_outside(low, high)


class PercentileObserver(_HistogramObserver):
    """The range that leaves out (100 - percentile) % of the values on either side."""

    def __init__(self, name: str, percentile: float) -> None:
        super().__init__(name)
        self.percentile = percentile

    def range(self) -> tuple[float, float]:
        low, high = self.extent()
        if self.histogram.total == 0:
            return low, high
        ranks = np.concatenate([[0], np.cumsum(self.histogram.counts)]) / self.histogram.total
        tail = 1 - self.percentile / 100
        found = np.interp([tail, 1 - tail], ranks, self.histogram.edges())
        return min(0.0, max(low, float(found[0]))), max(0.0, min(high, float(found[1])))


class SearchObserver(_HistogramObserver):
    """The range with the smallest loss: both ends shrunk together, then each end alone."""

    def __init__(self, name: str, loss: Callable[[Histogram], Loss]) -> None:
        super().__init__(name)
        self.loss = loss

    def range(self) -> tuple[float, float]:
        low, high = self.extent()
        if low == high:
            return low, high
        loss = self.loss(self.histogram)
        shares = np.linspace(1, _SMALLEST_SHARE, 61)
        low, high = min(((low * s, high * s) for s in shares), key=lambda r: loss(*r))
        if low < 0 < high:
            widest_low, widest_high = self.extent()
            low = min((widest_low * s for s in shares), key=lambda end: loss(end, high))
            high = min((widest_high * s for s in shares), key=lambda end: loss(low, end))
        return float(low), float(high)


def mse_loss(histogram: Histogram) -> Loss:
    """Mean squared error of quantising and dequantising."""
    centres, counts = _occupied(histogram)

    def loss(low: float, high: float) -> float:
        level, scale = _levels(centres, low, high)
        return float(np.dot(counts, np.square(level * scale - centres)))

    return loss


def entropy_loss(histogram: Histogram) -> Loss:
    """Kullback-Leibler divergence of the quantised from the true distribution.

    The true one has its clipped tails piled onto the outermost bins. The quantised one spreads the
    mass of each level evenly over the occupied bins of that level. Ranges that clip more than 1 %
    are not considered.
    """
    centres, counts = _occupied(histogram)
    fewest = (1 - _MAX_CLIPPED) * counts.sum()

    def loss(low: float, high: float) -> float:
        inside = (centres >= low) & (centres <= high)
        kept = counts[inside]
        if kept.size == 0 or kept.sum() < fewest:
            return math.inf
        level, _ = _levels(centres[inside], low, high)
        true = kept.copy()
        true[0] += counts[centres < low].sum()
        true[-1] += counts[centres > high].sum()
        index = (level - level.min()).astype(np.int64)
        spread = (np.bincount(index, kept) / np.maximum(np.bincount(index), 1))[index]
        p, q = true / true.sum(), spread / spread.sum()
        return float(np.sum(p * np.log(p / q)))

    return loss


def _occupied(histogram: Histogram) -> tuple[Floats, Floats]:
    counts = histogram.nonzero_counts()
    occupied = counts > 0
    return histogram.centres()[occupied], counts[occupied]


def _levels(values: Floats, low: float, high: float) -> tuple[Floats, float]:
    """(q - zero_point of each value, scale) when quantised to 8 bits over [low, high]."""
    scale, zero_point = affine_parameters(low, high, 0, 255)
    level = np.clip(np.rint(values / scale), -zero_point, 255 - zero_point)
    return level, float(scale)


def _finite_extent(name: str, array: npt.NDArray[np.float32]) -> tuple[float, float]:
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        what = "NaN" if math.isnan(low) or math.isnan(high) else "infinity"
        raise InputError(f"tensor {name!r} holds {what} on the calibration data")
    return low, high
