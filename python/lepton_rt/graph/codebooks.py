"""Codebooks whose values are integers of 8 bits times a power of two."""

from __future__ import annotations

import numpy as np

from .ir import Array

__all__ = ["table_unit"]


def table_unit(table: Array) -> float:
    """The power of two of which the largest of `table` (float32, finite) holds 64 to below 128.

    1 for a table of zeros. What is a whole multiple of it is an 8-bit integer to a kernel.
    """
    largest = float(np.abs(table).max(initial=0))
    return float(2.0 ** (np.frexp(largest)[1] - 7)) if largest > 0 else 1.0
