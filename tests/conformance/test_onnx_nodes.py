"""Conformance: the node cases in passing.txt pass, stay native, and are all that do."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from conformance.node_cases import node_cases, outcome, run_case

FOLDER = Path(__file__).parent
HEADER, *LINES = (FOLDER / "passing.txt").read_text().splitlines()
PASSING = {name: kind for kind, name in (line.split() for line in LINES)}
NOT_PASSING = dict(
    line.split(": ", 1) for line in (FOLDER / "not_passing.txt").read_text().splitlines()
)
"""Case name → why it does not pass."""
MIN_PASSING, MIN_NATIVE = 1_870, 1_200


@pytest.mark.parametrize("name", PASSING)
def test_passes(name: str) -> None:
    if name not in node_cases():
        pytest.skip(f"onnx {onnx.__version__} has no such case")
    for optimise in (True, False):
        native = run_case(node_cases()[name], optimise=optimise)
        assert native or PASSING[name] == "host", f"{name} fell back to the reference evaluator"


def test_lists_cover_the_suite() -> None:
    assert not PASSING.keys() & NOT_PASSING.keys()
    assert all(NOT_PASSING.values()), "every case that does not pass has a reason"
    assert len(PASSING) >= MIN_PASSING
    assert list(PASSING.values()).count("native") >= MIN_NATIVE
    if f"onnx {onnx.__version__}:" not in HEADER:
        pytest.skip(f"passing.txt is of another version of onnx than {onnx.__version__}")
    assert PASSING.keys() | NOT_PASSING.keys() == node_cases().keys()


@pytest.mark.parametrize("name", NOT_PASSING)
def test_does_not_pass_yet(name: str) -> None:
    if name not in node_cases():
        pytest.skip(f"onnx {onnx.__version__} has no such case")
    assert not outcome(node_cases()[name]), "it passes: move it to passing.txt"
