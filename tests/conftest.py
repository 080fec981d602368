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


def usable_isas() -> list[str]:
    """ISAs of this machine, up to LEPTON_MAX_ISA."""
    isas = list(_core.machine_isas())
    return isas[: isas.index(_core.max_isa()) + 1]


@pytest.fixture(params=usable_isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Every instruction set this machine can run, in turn."""
    return str(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1234)
