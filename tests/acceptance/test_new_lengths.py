"""A length not seen before is bound in C++ alone, and tokens need no memory but their cache's."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxscript")

import lepton_rt
from acceptance.torch_models import CASES, gpt2_config
from decoder_models import export_decoder

Array = npt.NDArray[Any]
EXECUTOR = {"run", "run_plain"}
"""Methods of `_core.Executor` that run a model."""


def python_calls(work: Callable[..., object], *args: Any) -> tuple[Counter[Any], list[str]]:
    """Python functions that work(*args) calls, and the names of those that the executor calls."""
    calls: Counter[Any] = Counter()
    inside: list[str] = []
    runs: list[bool] = []  # True while one is under way

    def watch(frame: Any, event: str, arg: Any) -> None:
        if event == "c_call" and arg.__name__ in EXECUTOR:
            runs.append(True)
        elif event == "c_return" and arg.__name__ in EXECUTOR:
            runs[-1] = False
        elif event == "call":
            calls[frame.f_code] += 1
            if any(runs):
                inside.append(frame.f_code.co_name)

    sys.setprofile(watch)
    try:
        work(*args)
    finally:
        sys.setprofile(None)
    assert runs == [False]
    return calls, inside


def test_new_length_runs_no_python() -> None:
    torch.manual_seed(0)
    case = CASES["bert"](False)
    session = lepton_rt.Session(
        case.module.eval(), example_inputs=case.inputs, dynamic=case.dynamic, threads=1
    )

    def feeds(length: int) -> list[Array]:
        ids = np.random.default_rng(length).integers(3, 99, (1, length))
        return [ids, np.ones_like(ids)]

    short, long = feeds(5), feeds(23)
    session.run(*short)
    known, inside = python_calls(session.run, *short)
    assert not inside
    new, inside = python_calls(session.run, *long)
    assert not inside
    assert new == known


class MallInfo(ctypes.Structure):
    """What glibc's mallinfo2 says."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    ]  # fmt: skip


def allocated() -> int:
    """Bytes that malloc has handed out and not got back, in this process."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("this C library does not say what it has allocated")
    libc.mallinfo2.restype = MallInfo
    info = libc.mallinfo2()
    return int(info.uordblks + info.hblkhd)


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_a_token_needs_no_memory_but_its_cache(full: bool) -> None:
    """64 tokens of GPT-2: what is allocated grows by the cache's rows alone."""
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(gpt2_config(full))
    session = lepton_rt.Session(export_decoder(model, cache=True), threads=1)
    token = np.array([[7]])
    state = session.new_state()
    session.run({"input_ids": np.arange(8)[None]}, state=state)
    for _ in range(16):  # as many lengths as the session remembers, and more
        session.run({"input_ids": token}, state=state)
    gc.collect()
    before, cache = allocated(), state.nbytes
    for _ in range(64):
        session.run({"input_ids": token}, state=state)
    gc.collect()
    assert state.length == 88
    # A few vectors of as many elements as there are tokens: positions, masks.
    assert allocated() - before - (state.nbytes - cache) < 64 * 1024
