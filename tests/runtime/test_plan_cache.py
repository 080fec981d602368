"""Session(cache=…): what a plan is kept under, who may write it, what becomes of a damaged one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import lepton_rt
from fuzz.seeds import cnn, objects, qdq_cnn
from lepton_rt import _core, compiler, custom, plan_cache, session
from pass_graphs import Model

PACKAGE = Path(lepton_rt.__file__).parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lepton_rt"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(cnn(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_second_session_compiles_nothing(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = lepton_rt.Session(model, cache=True)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(entries(folder)) == 1

    def refuse(*arguments: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(compiler, "compile_model", refuse)
    monkeypatch.setattr(session, "compile_model", refuse)
    for given in (model, str(model), model.read_bytes()):
        second = lepton_rt.Session(given, cache=True)
        np.testing.assert_array_equal(second.run(image()), first.run(image()))
        assert len(second.graph.nodes) == len(first.graph.nodes)
        assert str(second.explain()) == str(first.explain())
    with pytest.raises(AssertionError, match="compiled again"):
        lepton_rt.Session(model)


def test_a_plan_is_used_for_the_same_thing_only(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grows(**options: object) -> bool:
        before = len(entries(folder)) if folder.is_dir() else 0
        lepton_rt.Session(model, cache=True, **options)
        return len(entries(folder)) > before

    assert grows()
    assert not grows()
    assert not grows(threads=1)
    assert grows(optimise=False)
    assert grows(state={})
    assert grows(precision="bf16")
    assert not grows(precision="bf16")
    if _core.max_isa() != "scalar":
        assert grows(isa="scalar")
    onnx.save(qdq_cnn(), model)
    assert grows()
    monkeypatch.setattr(lepton_rt, "__version__", "9.9")
    assert grows()
    monkeypatch.setattr(_core, "kernel_digest", lambda: "other")
    assert grows()


def test_external_data_belongs_to_the_model(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "split.onnx"
    onnx.save(cnn(), path, save_as_external_data=True, location="data.bin", size_threshold=0)
    before = lepton_rt.Session(path, cache=True).run(image())
    weights = np.frombuffer((tmp_path / "data.bin").read_bytes(), np.float32) * np.float32(2)
    (tmp_path / "data.bin").write_bytes(weights.tobytes())
    after = lepton_rt.Session(path, cache=True).run(image())
    assert len(entries(folder)) == 2
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, lepton_rt.Session(path).run(image()))


@pytest.mark.parametrize("damage", ["bytes", "empty", "other"])
def test_a_damaged_entry_is_written_anew(
    folder: Path, model: Path, damage: str, tmp_path: Path
) -> None:
    expected = lepton_rt.Session(model, cache=True).run(image())
    [name] = entries(folder)
    good = (folder / name).read_bytes()
    broken = bytearray(good)
    broken[len(good) // 2] ^= 255
    bad = {"bytes": bytes(broken), "empty": b"", "other": b"something else"}[damage]
    (folder / name).write_bytes(bad)
    np.testing.assert_array_equal(lepton_rt.Session(model, cache=True).run(image()), expected)
    assert (folder / name).read_bytes() == good


def test_a_folder_of_ones_own(model: Path, tmp_path: Path) -> None:
    lepton_rt.Session(model, cache=tmp_path / "mine")
    assert len(entries(tmp_path / "mine")) == 1
    (tmp_path / "mine").chmod(0o770)
    with pytest.raises(lepton_rt.InputError, match="belong to you"):
        lepton_rt.Session(model, cache=tmp_path / "mine")
    with pytest.raises(lepton_rt.InputError, match="cache needs a model file"):
        lepton_rt.Session(lepton_rt.import_onnx(model), cache=True)
    with pytest.raises(lepton_rt.ModelError, match="no model file"):
        lepton_rt.Session(tmp_path / "missing.onnx", cache=True)


@pytest.mark.filterwarnings("ignore:.*native kernel")
def test_what_runs_through_python_is_not_kept(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lepton_rt.Session(objects().SerializeToString(), cache=True)
    assert entries(folder) == set()
    assert made.explain().host_steps
    monkeypatch.setattr(custom, "_REGISTERED", {})
    lepton_rt.register_op("org.example", "Swirl", lambda x: x)
    lepton_rt.Session(model, cache=True)
    assert entries(folder) == set()


def test_concurrent_writers(folder: Path, model: Path, tmp_path: Path) -> None:
    """Threads and processes that all miss at first, among them some that meet a damaged entry."""
    np.save(tmp_path / "x.npy", image())
    code = (
        "import sys, numpy as np, lepton_rt\n"
        "for _ in range(5):\n"
        "    y = lepton_rt.Session(sys.argv[1], cache=True).run(np.load(sys.argv[2]))\n"
        "    np.save(sys.argv[3], y)\n"
    )
    command = [sys.executable, "-c", code, str(model), str(tmp_path / "x.npy")]
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    others = [subprocess.Popen([*command, str(tmp_path / f"y{i}.npy")], env=env) for i in range(2)]

    def make(i: int) -> np.ndarray:
        return np.array(lepton_rt.Session(model, cache=True).run(image()))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(make, range(12)))
        [name] = [name for name in entries(folder) if name.endswith(".plan")]
        damaged = tmp_path / "damaged"
        damaged.write_bytes((folder / name).read_bytes()[:-1])
        damaged.rename(folder / name)
        results += list(pool.map(make, range(12)))
    assert [process.wait() for process in others] == [0, 0]
    results += [np.load(tmp_path / f"y{i}.npy") for i in range(2)]
    expected = lepton_rt.Session(model).run(image())
    for result in results:
        np.testing.assert_array_equal(result, expected)
    assert entries(folder) == {name}


def variants(tmp_path: Path, count: int) -> list[Path]:
    """Models of a megabyte and more, each of its own weights."""
    paths = []
    for i in range(count):
        weight = np.full((512, 600), i + 1, np.float32)
        graph = Model(x=("FLOAT", ["n", 512]))
        paths.append(tmp_path / f"{i}.onnx")
        onnx.save(graph.proto(graph("MatMul", "x", weight)), paths[-1])
    return paths


def kept(folder: Path, paths: list[Path]) -> list[int]:
    """Which models have an entry, by asking what a session would use."""
    options = compiler.Options(isa=compiler.chosen_isa(None))
    found = [plan_cache.entry(path, options) for path in paths]
    return [i for i, path in enumerate(found) if path is not None and path.is_file()]


def test_plans_used_longest_ago_go_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = variants(tmp_path, 4)
    monkeypatch.setenv("LEPTON_CACHE_MB", "4")  # three of 1.2 MB
    sessions = [lepton_rt.Session(path, cache=True) for path in paths[:3]]
    assert kept(folder, paths) == [0, 1, 2]
    sessions.append(lepton_rt.Session(paths[0], cache=True))  # maps the plan
    sessions.append(lepton_rt.Session(paths[3], cache=True))
    assert kept(folder, paths) == [0, 2, 3]
    monkeypatch.setenv("LEPTON_CACHE_MB", "2")
    onnx.save(cnn(), paths[1])
    lepton_rt.Session(paths[1], cache=True)
    assert kept(folder, paths) == [1, 3]
    # Those whose plans are gone go on.
    x = np.ones((1, 512), np.float32)
    for session_, weight in zip(sessions, (1, 2, 3, 1, 4)):
        np.testing.assert_array_equal(session_.run(x), np.full((1, 600), 512 * weight))


def test_a_plan_larger_than_the_limit_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [path] = variants(tmp_path, 1)
    for limit, count in (("0", 0), ("1", 0), ("2", 1)):
        monkeypatch.setenv("LEPTON_CACHE_MB", limit)
        lepton_rt.Session(path, cache=True)
        assert len(entries(folder)) == count
    for wrong in ("-1", "2.5", "4 GB"):
        monkeypatch.setenv("LEPTON_CACHE_MB", wrong)
        with pytest.raises(lepton_rt.InputError, match="LEPTON_CACHE_MB"):
            lepton_rt.Session(path, cache=True)


def test_only_plans_and_what_their_writers_left_are_removed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir(mode=0o700, parents=True)
    names = ["tuning-1.json", "tuning-1.lock", "a.plan.7.0.tmp", "b.plan.8.0.tmp", "old.plan"]
    for name in names:
        (folder / name).write_bytes(bytes(2 << 20))
        os.utime(folder / name, (1e9, 1e9))
    os.utime(folder / "b.plan.8.0.tmp")  # being written
    monkeypatch.setenv("LEPTON_CACHE_MB", "2")
    [path] = variants(tmp_path, 1)
    lepton_rt.Session(path, cache=True)
    left = entries(folder)
    assert left.issuperset({"tuning-1.json", "tuning-1.lock", "b.plan.8.0.tmp"})
    assert len(left) == 4
    assert kept(folder, [path]) == [0]


def test_a_plan_removed_before_it_is_opened_is_made_again(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = lepton_rt.Session(model, cache=True).run(image())
    opened = compiler.open_plan

    def too_late(path: Path, threads: int) -> compiler.Compiled:
        path.unlink()
        return opened(path, threads)

    monkeypatch.setattr(compiler, "open_plan", too_late)
    np.testing.assert_array_equal(lepton_rt.Session(model, cache=True).run(image()), expected)
    assert len(entries(folder)) == 1


CROWD = """
import sys, numpy, lepton_rt
x = numpy.ones((1, 512), numpy.float32)
for turn in range(2):
    for i, path in enumerate(sys.argv[1:]):
        assert (lepton_rt.Session(path, cache=True).run(x) == 512 * (i + 1)).all()
"""


def test_processes_that_remove_each_others_plans(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(path) for path in variants(tmp_path, 3)]
    monkeypatch.setenv("LEPTON_CACHE_MB", "2")  # one of three
    command = [sys.executable, "-c", CROWD]
    crowd = [subprocess.Popen([*command, *paths]) for _ in range(3)]
    assert [process.wait() for process in crowd] == [0, 0, 0]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2 << 20
