"""A histogram that grows with the data and never loses a count.

Bins are 2^exponent wide and start at whole multiples of their width. When a value falls outside,
the width doubles and neighbours merge in pairs: floor(x / 2w) = floor(floor(x / w) / 2), so the
counts are exactly those of a histogram that had known the range from the start. One pass over the
data is enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

_MIN_EXPONENT = -120
_CHUNK = 1 << 22  # elements binned at a time, which bounds the memory for indices

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


@dataclass
class Histogram:
    """Counts of float values; the bins always cover zero. Exact zeros are also counted apart."""

    bins: int = 8192
    exponent: int | None = None
    first: int = 0
    counts: Counts = field(default_factory=lambda: np.zeros(1, np.int64))
    zeros: int = 0
    total: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf

    def add(self, array: npt.NDArray[np.floating]) -> None:
        """Counts the elements of a finite float array of any shape."""
        flat = array.reshape(-1)
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.total += flat.size
        self.zeros += flat.size - int(np.count_nonzero(flat))
        self._cover(min(low, 0.0), max(high, 0.0))
        factor = np.asarray(2.0 ** -(self.exponent or 0), flat.dtype)
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK]
            index = np.floor(part * factor).astype(np.int64) - self.first
            self.counts += np.bincount(index, minlength=self.counts.size)

    def edges(self) -> Floats:
        """Lower edges of the bins and, last, the upper edge of the last one."""
        width = 2.0 ** (self.exponent or 0)
        return (self.first + np.arange(self.counts.size + 1)) * width

    def centres(self) -> Floats:
        """Middle of each bin, kept inside the range that was seen."""
        edges = self.edges()
        return np.clip((edges[:-1] + edges[1:]) / 2, self.minimum, self.maximum)

    def nonzero_counts(self) -> Floats:
        """The counts without exact zeros, which every affine quantisation represents exactly."""
        counts = self.counts.astype(np.float64)
        if self.zeros:
            counts[-self.first] -= self.zeros
        return counts

    def share_outside(self, low: float, high: float) -> float:
        """Share of the values below low or above high, to within one bin."""
        if self.total == 0 or (low <= self.minimum and self.maximum <= high):
            return 0.0
        centres = self.centres()
        outside = int(self.counts[(centres < low) | (centres > high)].sum())
        return outside / self.total

    def _cover(self, low: float, high: float) -> None:
        """Widens the bins until they span [low, high] as well as what they span already."""
        if low == high == 0.0:
            return
        exponent = self.exponent if self.exponent is not None else self._start(high - low)
        first, last = self._span(low, high, exponent)
        while last - first >= self.bins:
            exponent += 1
            first, last = self._span(low, high, exponent)
        self._rebin(exponent, first, last)

    def _start(self, extent: float) -> int:
        return max(_MIN_EXPONENT, math.frexp(extent / self.bins)[1] - 1)

    def _span(self, low: float, high: float, exponent: int) -> tuple[int, int]:
        """First and last bin needed at a width, the bins of now included."""
        width = 2.0**exponent
        first, last = min(0, math.floor(low / width)), max(0, math.floor(high / width))
        shift = exponent - (self.exponent if self.exponent is not None else exponent)
        return (
            min(first, self.first >> shift),
            max(last, (self.first + self.counts.size - 1) >> shift),
        )

    def _rebin(self, exponent: int, first: int, last: int) -> None:
        shift = exponent - (self.exponent if self.exponent is not None else exponent)
        index = ((self.first + np.arange(self.counts.size)) >> shift) - first
        counts = np.zeros(last - first + 1, np.int64)
        np.add.at(counts, index, self.counts)
        self.exponent, self.first, self.counts = exponent, first, counts
