"""Dtypes by name, those that NumPy lacks included."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["dtype_from_name"]


def dtype_from_name(name: str) -> np.dtype[Any]:
    """The dtype called `name`; ml_dtypes supplies what NumPy lacks ("bfloat16", "uint4", …).

    Raises:
        AttributeError: neither has it.
    """
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found
