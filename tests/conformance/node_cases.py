"""The onnx package's node test cases, run through a Session. As a script it lists which ones pass.

python tests/conformance/node_cases.py > tests/conformance/passing.txt

What it names on the error output belongs in not_passing.txt, with a reason.
"""

from __future__ import annotations

import sys
import warnings
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

import lepton_rt

Array = npt.NDArray[Any]

BERNOULLI = "test_bernoulli"
"""Beginning of the names of cases whose outputs are random: ones and zeros."""


@cache
def node_cases() -> dict[str, Any]:
    """Case name → case: every one that the package makes in memory."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reference computes overflows on purpose
        cases = collect_testcases(None)
    return {case.name: case for case in cases}


def run_case(case: Any, *, optimise: bool) -> bool:
    """Runs a case and checks its outputs; returns whether every step was native.

    Raises:
        AssertionError: an output differs; lepton_rt.Error: the model is not supported.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = lepton_rt.Session(case.model, threads=1, optimise=optimise)
        for inputs, outputs in case.data_sets:
            got = session.run(*map(_plain, inputs))
            results = [got] if len(session.outputs) == 1 else list(got)
            for result, want in zip(results, outputs, strict=True):
                if case.name.startswith(BERNOULLI):
                    check_bernoulli(result, _plain(inputs[0]), _plain(want))
                else:
                    check(result, _plain(want), case.rtol, case.atol)
    return not any(step.is_host for step in session.explain())


def check(got: Any, want: Any, rtol: float, atol: float) -> None:
    """Compares an output; sequences item by item."""
    if want is None or isinstance(want, list):
        assert type(got) is type(want)
        if want is not None:
            assert len(got) == len(want)
            for g, w in zip(got, want):
                check(np.asarray(g), w, rtol, atol)
        return
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    if want.dtype.kind in "iubO":
        np.testing.assert_array_equal(got, want)
    else:
        # Intermediate results may keep more bits than the expected outputs had: two units.
        rtol = max(rtol, {"float16": 2**-9, "bfloat16": 2**-6}.get(want.dtype.name, 0))
        wide = np.complex128 if want.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol, max(atol, 1e-5))


def check_bernoulli(got: Array, probability: Array, example: Array) -> None:
    """Checks what is defined of a random output: its type, and values that are possible at all."""
    assert got.dtype == example.dtype
    assert got.shape == example.shape
    assert np.isin(got, (0, 1)).all()
    assert (got[probability == 0] == 0).all()
    assert (got[probability == 1] == 1).all()


def outcome(case: Any) -> str:
    """How a case passes: "native", "host" (some step is a host step), or "" where it does not."""
    try:
        native = [run_case(case, optimise=optimise) for optimise in (True, False)]
    except (lepton_rt.Error, AssertionError):
        return ""
    return "native" if all(native) else "host"


def _plain(value: Any) -> Any:
    """Arrays, lists of them, or None."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if value is None or isinstance(value, (list, tuple)):
        return None if value is None else [_plain(item) for item in value]
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "UST" else array


def main() -> None:
    print(f"# onnx {onnx.__version__}: node cases that pass, by whether every step was native")
    for name, case in sorted(node_cases().items()):
        result = outcome(case)
        if result:
            print(result, name)
        else:
            print(f"not passing: {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
