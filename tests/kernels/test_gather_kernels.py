"""The kernels that gather rows of windows, operands against guard pages."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lepton_rt import _core

BEHIND = 31  # bytes that a kernel may touch behind a stretch


@pytest.mark.parametrize(
    "kernel",
    [i["name"] for i in _core.kernels() if i["available"] and i["family"] == "gather_rows"],
)
@pytest.mark.parametrize("at_start", [False, True])
def test_gather_rows(kernel: str, at_start: bool, rng: np.random.Generator) -> None:
    widths = (1, 5, 15, 16, 17, 31, 32, 33, 64, 65, 96, 97, 128, 129, 160, 321)
    for m, stretches, width in itertools.product((1, 2, 7), (1, 3, 5), widths):
        step, line, stride = 3, width + 11, stretches * width + 2
        src = rng.integers(
            0, 256, (m - 1) * step + (stretches - 1) * line + width + BEHIND, dtype=np.uint8
        )
        dst = np.zeros((m - 1) * stride + stretches * width + BEHIND, np.uint8)
        got = _core.testing.gather_rows(
            kernel, m, stretches, width, src, step, line, dst, stride, at_start
        )
        for i, j in itertools.product(range(m), range(stretches)):
            at, to = i * step + j * line, i * stride + j * width
            np.testing.assert_array_equal(got[to : to + width], src[at : at + width])
