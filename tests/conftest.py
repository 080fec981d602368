"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from lepton_rt import _core


@pytest.fixture(params=_core.usable_isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Every instruction set this machine can run, in turn."""
    return str(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1234)
