"""Conformance: the node cases in passing.txt pass, stay native, and are all that do."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from conformance.node_cases import node_cases, outcome, run_case

LIST = Path(__file__).parent / "passing.txt"
HEADER, *LINES = LIST.read_text().splitlines()
PASSING = {name: kind for kind, name in (line.split() for line in LINES)}


@pytest.mark.parametrize("name", PASSING)
def test_passes(name: str) -> None:
    if name not in node_cases():
        pytest.skip(f"onnx {onnx.__version__} has no such case")
    for optimise in (True, False):
        native = run_case(node_cases()[name], optimise=optimise)
        assert native or PASSING[name] == "host", f"{name} fell back to the reference evaluator"


def test_list_is_complete() -> None:
    if f"onnx {onnx.__version__}:" not in HEADER:
        pytest.skip(f"passing.txt is of another version of onnx than {onnx.__version__}")
    found = [name for name, case in node_cases().items() if name not in PASSING and outcome(case)]
    assert not found, "these pass too: add them to passing.txt (see node_cases.py)"
