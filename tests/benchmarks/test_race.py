"""The race's machinery on its smallest network: every step of a race, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
from race import __main__ as race
from race import networks, report, runtimes
from race.hiding import hiding_environment
from race.measure import quantiles
from race.workers import Lost, Worker


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that models are built once."""
    return tmp_path_factory.mktemp("race")


def arguments(cache: Path, results: Path) -> list[str]:
    return [
        *("--networks", "lenet", "--batches", "1", "--runtimes", "lepton", "ort"),
        *("--rounds", "3", "--seconds", "0.01", "--inputs", "8"),
        *("--cache", str(cache), "--results", str(results)),
    ]


def test_a_race(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    race.main(arguments(cache, tmp_path))
    shown = capsys.readouterr().out
    (path,) = tmp_path.glob("race_*.json")
    record = json.loads(path.read_text())
    assert path.with_suffix(".png").stat().st_size > 1000
    finished = {
        (r["runtime"], r["variant"], r["threads"]): r for r in record["rows"] if "wall_ms" in r
    }
    for threads in (1, 2):
        assert {
            ("lepton", "fp32", threads),
            ("lepton", "int8", threads),
            ("lepton", "int8-minmax", threads),
            ("lepton", "int8-7bit", threads),
            ("lepton", "ort-qdq", threads),
            ("lepton", "sparse75", threads),
            ("lepton", "sparse75-7bit", threads),
            ("lepton", "sparse90", threads),
            ("lepton", "sparse90-7bit", threads),
            ("ort", "fp32", threads),
            ("ort", "qdq", threads),
            ("ort", "qdq-exact", threads),
            ("ort", "qdq-reduced", threads),
        } == {entrant for entrant in finished if entrant[2] == threads}
    for row in finished.values():
        times = row["wall_ms"]
        assert 0 < times["p10"] <= times["median"] <= times["p90"]
        assert len(row["round_wall_ms"]) == len(row["round_cpu_ms"]) == 3
        assert row["load_ms"] > 0
        assert row["first_run_ms"] > 0
        assert row["peak_rss_mb"] > 0
        if row["precision"] != "sparse int8":
            assert row["error"] < (1e-5 if row["variant"] == "fp32" else 0.2)
    errors = [finished["lepton", v, 1]["error"] for v in ("int8", "sparse75", "sparse90")]
    assert errors[0] < errors[1] < errors[2], "pruned variants are not what ran"
    assert finished["lepton", "int8", 1]["error"] > 1e-4, "int8 is not what ran"
    assert all("no layer" in r["absent"] for r in record["rows"] if "dynamic" in r["variant"])
    assert set(record["packages"]) == {"lepton", "ort"}
    assert record["command"].endswith("--seconds 0.01 --inputs 8"), "folders change no figure"
    # Precisions × threads, the same file × threads, sparsities × bits × threads.
    assert shown.count("| LeNet-size CNN | 1 |") == 4 + 2 + 8
    assert shown.count("| 90 % |") == shown.count("| 90 %, 7-bit weights |") == 2
    assert "geometric mean" in shown
    race.main(["--render", str(path), "--show", "summary"])
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("| LeNet")]
    assert line.count("(ort)") == 4
    race.main(["--render", str(path), "--show", "all"])
    assert capsys.readouterr().out.count("\n| lenet | 1 |") == 26


def test_a_missing_runtime_is_a_row(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes.runtime("ort"), "PACKAGE", "no-such-package")
    monkeypatch.setattr(runtimes.runtime("ort"), "MODULE", "no_such_module")
    race.main([*arguments(cache, tmp_path), "--variants", "fp32", "--threads", "1"])
    (path,) = tmp_path.glob("race_*.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row.get("absent") for row in rows] == ["no-such-package is not installed", None]
    monkeypatch.undo()
    again = ["--variants", "fp32", "--threads", "2", "--add"]
    race.main([*arguments(cache, tmp_path), *again])
    rows = json.loads(path.read_text())["rows"]
    assert sorted((row["runtime"], row["threads"]) for row in rows if "wall_ms" in row) == [
        ("lepton", 1),
        ("lepton", 2),
        ("ort", 2),
    ]


def test_a_worker_that_dies_is_a_row(cache: Path) -> None:
    with Worker(cache, "lenet", "lepton", "fp32", {}, cache / "log") as worker:
        worker._process.kill()
        with pytest.raises(Lost, match="died"):
            worker.ask("load", batch=1, threads=1)


def test_hidden_features_stay_hidden(cache: Path) -> None:
    try:
        env = hiding_environment(cache)
    except RuntimeError as error:
        pytest.skip(f"cannot hide CPU features here: {error}")
    with Worker(cache, "lenet", "lepton", "fp32", env, cache / "log") as worker:
        seen = worker.ask("features")["seen"]
    assert "AVX2" in seen
    assert not [name for name in seen if name.startswith("AVX512")]


def row(
    runtime: str, variant: str, ms: list[float], error: float, precision: str = "int8"
) -> dict[str, object]:
    times = {"wall_ms": quantiles(ms), "cpu_ms": quantiles(ms)}
    rounds = {"round_wall_ms": ms, "round_cpu_ms": ms}
    case = {"network": "lenet", "batch": 1, "threads": 1, "precision": precision}
    return {**case, "runtime": runtime, "variant": variant, "error": error, **times, **rounds}


def test_ours_is_the_fastest_variant_that_is_no_less_accurate() -> None:
    rows = [
        row("lepton", "rough", [1.0, 1.0, 1.0], 0.3),
        row("lepton", "fine", [2.0, 2.0, 2.0], 0.1),
        row("ort", "slow", [9.0, 9.0, 9.0], 0.0),
        row("ort", "qdq", [4.0, 6.0, 8.0], 0.2),
        row("ort", "broken", [0.1, 0.1, 0.1], 0.9),
    ]
    (pair,) = report.pairings({"rows": rows})
    assert (pair["own"]["variant"], pair["peer"]["variant"]) == ("fine", "qdq")
    assert pair["ratio"]["median"] == 3.0
    assert pair["ratio"]["p10"] == pytest.approx(2.2)


def test_pruned_variants_have_a_table_of_their_own() -> None:
    """They are no candidates in the int8 table, however fast, and ignore their own error."""
    rows = [
        row("lepton", "sparse90", [1.0, 1.0, 1.0], 1.2, "sparse int8"),
        row("lepton", "int8", [3.0, 3.0, 3.0], 0.1),
        row("ort", "qdq", [4.0, 5.0, 6.0], 0.2),
        row("mnn", "broken", [0.1, 0.1, 0.1], 0.9),
    ]
    (pair,) = report.pairings({"rows": rows})
    assert pair["own"]["variant"] == "int8"
    (case,) = report.sparse({"rows": rows})
    assert (case["own"]["variant"], case["peer"]["variant"]) == ("int8", "qdq")
    assert (case["to_own"]["median"], case["to_peer"]["median"]) == (3.0, 5.0)


def test_samples_are_the_same_every_time() -> None:
    for network in networks.NETWORKS.values():
        first, again = network.samples(2, seed=5), network.samples(2, seed=5)
        assert (first == again).all()
        assert (first != network.samples(2, seed=6)).any()
        assert first.shape == (2, *network.shape)


def test_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- race: begin -->\nold\n<!-- race: end -->\nz\n")
    report.put_between_markers("new", page)
    assert page.read_text() == "a\n<!-- race: begin -->\nnew\n<!-- race: end -->\nz\n"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="lacks the markers"):
        report.put_between_markers("new", page)
