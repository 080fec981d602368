"""Session(tune=…): measured choices of kernels, and where they are kept."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
import lepton_rt
from fuzz.seeds import attention
from lepton_rt import _core, tuning, tuning_store
from lepton_rt.graph.ir import Graph
from lepton_rt.plan import Step
from lepton_rt.tuning_store import TuningStore
from small_networks import batches, cnn

PACKAGE = Path(lepton_rt.__file__).parent
SHAPES = {"x": (2, 3, 16, 16)}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lepton_rt"


@pytest.fixture(scope="module")
def integers() -> Graph:
    return lepton_rt.quantize(cnn(), batches(), progress=False).graph


def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SHAPES["x"]).astype(np.float32)


def test_results_stay(integers: Graph, folder: Path) -> None:
    plain, tuned = lepton_rt.Session(integers), lepton_rt.Session(integers, tune=SHAPES)
    np.testing.assert_array_equal(tuned.run(image()), plain.run(image()))
    [file] = folder.glob("*.json")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    choices = json.loads(file.read_text())["choices"]
    assert len(choices) >= 4
    floats = lepton_rt.Session(cnn(), tune=True)
    expected = lepton_rt.Session(cnn()).run(image())
    np.testing.assert_allclose(floats.run(image()), expected, rtol=1e-4, atol=1e-5)


def test_a_choice_is_measured_once(
    integers: Graph, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    honest = tuning._measured

    def counted(*arguments: Any) -> dict[str, tuning.Measured]:
        measured.append("")
        return honest(*arguments)

    monkeypatch.setattr(tuning, "_measured", counted)

    def measures(**options: Any) -> bool:
        measured.clear()
        lepton_rt.Session(integers, **options)
        return bool(measured)

    assert measures(tune=SHAPES)
    assert not measures(tune=SHAPES)
    assert measures(tune={"x": (1, 3, 16, 16)})
    assert not measures(tune=True)
    assert measures(tune=SHAPES, threads=_core.usable_processors() + 1)
    if len(_core.usable_isas()) > 1:
        assert measures(tune=SHAPES, isa="scalar")
    monkeypatch.setattr(tuning_store, "processor", lambda: "another processor")
    assert measures(tune=SHAPES)
    monkeypatch.setattr(_core, "kernel_digest", lambda: "another build")
    assert measures(tune=SHAPES)
    monkeypatch.setattr(lepton_rt, "__version__", "9.9")
    assert measures(tune=SHAPES)
    assert not measures(tune=SHAPES)
    assert len(list(folder.glob("*.json"))) == 4


def test_the_faster_kernel_is_used(integers: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every alternative is said to be faster, every node changes its kernel."""

    def claimed(plans: Any, times: np.ndarray) -> dict[str, tuning.Measured]:
        return honest(plans, np.where(np.arange(len(times))[:, None] == 0, 100, times * 0 + 10))

    honest = tuning._faster
    monkeypatch.setattr(tuning, "_faster", claimed)
    plain, tuned = lepton_rt.Session(integers), lepton_rt.Session(integers, tune=SHAPES)
    changed = [
        (old, new) for old, new in zip(plain.explain(), tuned.explain()) if old.kernel != new.kernel
    ]
    if not any(choice.get("gemm_s8") for choice in tuning.alternatives(_core.max_isa())[:-2]):
        assert changed == []
        pytest.skip("there is one kernel of each family here")
    assert changed
    assert all("measured to be faster" in new.note for _, new in changed)
    np.testing.assert_array_equal(tuned.run(image()), plain.run(image()))


def test_only_a_clear_gain_counts() -> None:
    def steps(*kernels: str) -> list[Step]:
        return [Step("op", [], [], kernel=k, node=f"n{i}") for i, k in enumerate(kernels)]

    plans = [
        ({}, steps("a", "a", "a", "a")),
        ({"f": "b"}, steps("b", "b", "a", "b")),
        ({"f": "c"}, steps("c", "c", "c", "c")),
    ]
    times = np.array([[100, 100, 100, 0], [96, 80, 10, 10], [97, 70, 120, 10]])
    assert tuning._faster(plans, times) == {"n1": ({"f": "c"}, 100.0, 70.0)}


def test_what_cannot_be_tuned(integers: Graph) -> None:
    with pytest.raises(lepton_rt.InputError, match="names no input"):
        lepton_rt.Session(integers, tune={"z": (1,)})
    with pytest.raises(lepton_rt.InputError, match="cannot be run for tuning"):
        lepton_rt.Session(integers, tune={"x": (1, 5, 16, 16)})
    assert lepton_rt.Session(attention(), tune={"ids": (2, 3)}).run(
        np.zeros((2, 3), np.int64)
    ).shape == (2, 3, 8)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"of": {}, "choices": {"a": {}}}', '{"choices": 3}', "null"]
)
def test_a_damaged_file_counts_as_empty(text: str) -> None:
    store = TuningStore()
    store.add({"k": {"gemm_s8": "kernel"}})
    assert TuningStore().read() == {"k": {"gemm_s8": "kernel"}}
    store.path.write_text(text)
    assert store.read() == {}
    assert store.add({"l": {}}) == {"l": {}}
    assert TuningStore().read() == {"l": {}}


def test_a_choice_nobody_knows_is_ignored(integers: Graph) -> None:
    """Kernels that are not there, and entries of another form."""
    lepton_rt.Session(integers, tune=SHAPES)
    store = TuningStore()
    store.add({key: {"gemm_s8": "nothing", "conv": "other"} for key in store.read()})
    session = lepton_rt.Session(integers, tune=SHAPES)
    expected = lepton_rt.Session(integers)
    assert [s.kernel for s in session.explain()] == [s.kernel for s in expected.explain()]
    store.add({"bad": 3})  # type: ignore[dict-item]
    assert "bad" not in store.read()


def test_concurrent_writers(folder: Path) -> None:
    code = (
        "import sys\n"
        "from lepton_rt.tuning_store import TuningStore\n"
        "for i in range(20): TuningStore().add({f'{sys.argv[1]}-{i}': {}})\n"
    )
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    writers = [subprocess.Popen([sys.executable, "-c", code, str(w)], env=env) for w in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert set(TuningStore().read()) == {f"{w}-{i}" for w in range(4) for i in range(20)}
    assert not list(folder.glob("*.tmp"))


def test_cached_plans_know_what_they_were_tuned_for(tmp_path: Path) -> None:
    lepton_rt.save_lepton(lepton_rt.import_onnx(cnn()), tmp_path / "model.lepton")
    kept = tmp_path / "mine"
    for options in ({}, {"tune": SHAPES}, {"tune": SHAPES}, {"tune": True}):
        lepton_rt.Session(tmp_path / "model.lepton", cache=kept, **options)
    assert len(list(kept.glob("*.plan"))) == 3
    assert len(list(kept.glob("*.json"))) == 1


def test_zeros_of_floats_are_part_of_the_signature() -> None:
    """A choice measured for dense weights must not be taken for pruned ones."""
    signatures = []
    for sparsity in (0.0, 0.5):
        graph = lepton_rt.prune(cnn(), sparsity, block=(2, 1), ends=True).graph
        node = next(node for node in graph.nodes if node.op == "Conv")
        signatures.append(tuning.signature(node, graph, {}, 1, "avx2"))
    assert signatures[0] != signatures[1]
