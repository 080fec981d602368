"""The lepton-rt command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

import lepton_rt
from lepton_rt.cli import main
from small_networks import Builder, batches, cnn, run_onnx


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(cnn(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def failure(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    """(exit code, the one sentence on stderr)."""
    code = main([str(arg) for arg in args])
    captured = capsys.readouterr()
    assert captured.err.startswith("lepton-rt: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.out + captured.err
    return code, captured.err


def output(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main([str(arg) for arg in args]) == 0
    return capsys.readouterr().out


def test_help_lists_the_commands() -> None:
    from lepton_rt.cli.app import app

    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("run", "quantize", "compile", "tune", "explain", "info", "demo"):
        assert command in result.output


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "--version") == f"lepton_rt {lepton_rt.__version__}\n"


def test_run_on_random_and_stored_inputs(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, "run", model, "--batch", 3, "--repeat", 2, "--threads", 1)
    assert "3×10" in text
    assert "median" in text
    x = batches()[0]
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    for name in ("x.npy", "x.npz"):
        output(capsys, "run", model, "-i", tmp_path / name, "-o", tmp_path / "y.npz", "--repeat", 1)
        with np.load(tmp_path / "y.npz") as result:
            assert np.allclose(result["scores"], run_onnx(cnn(), {"x": x})[0], atol=1e-5)


def test_run_on_an_image_lists_classes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "a.png")
    text = output(capsys, "run", model, "--input", tmp_path / "a.png", "--top", 2, "--repeat", 1)
    assert text.count("class ") == 2
    assert "%" in text


@pytest.mark.parametrize("suffix", [".onnx", ".lepton"])
def test_quantize_writes_a_model_and_a_report(
    suffix: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.concatenate(batches()))
    target = tmp_path / f"q{suffix}"
    text = output(
        capsys, "quantize", model, "--data", tmp_path / "x.npy", "-o", target,
        "--method", "mse", "--exclude", "c2", "--batch", 7, "--limit", 20,
    )  # fmt: skip
    assert "SNR dB" in text
    assert "method: mse" in text
    x = batches(seed=4)[0]
    difference = lepton_rt.Session(target).run(x) - run_onnx(cnn(), {"x": x})[0]
    assert 0 < np.abs(difference).max() < 0.03
    assert target.stat().st_size < 3 * model.stat().st_size


def test_quantize_with_a_folder_of_images(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (20, 30, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    output(capsys, "quantize", model, "-d", folder, "-o", tmp_path / "q.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "q.onnx"), full_check=True)


@pytest.mark.parametrize("mode", ["dynamic", "weight_only"])
def test_quantize_without_data(
    mode: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "q.lepton"
    text = output(capsys, "quantize", model, "-o", target, "--mode", mode, "--group-size", 32)
    assert f"method: {mode}" in text
    x = batches(seed=4)[0]
    difference = lepton_rt.Session(target).run(x) - run_onnx(cnn(), {"x": x})[0]
    assert 0 < np.abs(difference).max() < 0.03


def test_static_quantisation_needs_data(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = failure(capsys, "quantize", model, "-o", tmp_path / "q.onnx")
    assert code == 1
    assert "--data" in message


def test_explain_and_info(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "explain", model)
    assert "instruction set" in text
    assert "Conv" in text
    text = output(capsys, "info", model)
    count = sum(int(np.prod(t.dims)) for t in cnn().graph.initializer)
    for expected in (
        "x: float32 [n, 3, 16, 16]",
        "scores: float32",
        "Conv",
        f"{count:,}",
        "scalar",
    ):
        assert expected in text


def test_compile_writes_a_plan(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "net.plan"
    assert f"{plan.name}: " in output(capsys, "compile", model, "-o", plan, "--isa", "scalar")
    text = output(capsys, "info", plan)
    assert "scalar" in text
    assert "lepton.Conv" in text
    assert "3×10" in output(capsys, "run", plan, "--batch", 3, "--repeat", 1)
    half = tmp_path / "half.plan"
    output(capsys, "compile", model, "-o", half, "--isa", "scalar", "--precision", "bf16")
    assert "gemm_bf16" in output(capsys, "explain", half)
    assert half.stat().st_size < plan.stat().st_size
    code, message = failure(capsys, "compile", model, "-o", tmp_path / "net.bin")
    assert (code, "saved as .plan" in message) == (1, True)


def test_tune_measures_once(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "newly measured gain" in output(capsys, "tune", model, "--shape", "x=2x3x16x16")
    kept = [path.read_text() for path in (tmp_path / "cache" / "lepton_rt").glob("*.json")]
    assert len(kept) == 1
    assert "gain: 0" in output(capsys, "tune", model, "--shape", "x=2x3x16x16")
    assert failure(capsys, "tune", model, "--shape", "y=1x3")[0] == 1


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(capsys, "walk")[0] == 2
    assert failure(capsys, "run")[0] == 2
    assert failure(capsys, "run", "m.onnx", "--repeat", "none")[0] == 2


def test_failures_exit_with_1_and_say_why(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = failure(capsys, "run", tmp_path / "missing.onnx")
    assert code == 1
    assert "missing.onnx" in text
    (tmp_path / "bad.onnx").write_bytes(b"\x08\xff garbage")
    assert failure(capsys, "info", tmp_path / "bad.onnx")[0] == 1
    (tmp_path / "bad.npy").write_bytes(b"garbage")
    assert failure(capsys, "run", model, "--input", tmp_path / "bad.npy")[0] == 1
    (tmp_path / "bad.npz").write_bytes(b"garbage")
    assert failure(capsys, "run", model, "--input", tmp_path / "bad.npz")[0] == 1
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    assert "shape" in failure(capsys, "run", model, "--input", tmp_path / "x.npy")[1]
    code, text = failure(
        capsys, "quantize", model, "-d", tmp_path / "x.npy", "-o", tmp_path / "q.onnx"
    )
    assert code == 1
    assert "shape" in text
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no images" in failure(capsys, "quantize", model, "-d", empty, "-o", "q.onnx")[1]
    assert ".onnx" in failure(capsys, "quantize", model, "-d", empty, "-o", "q.pb")[1]


def test_free_dimensions_need_a_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    b = Builder()
    b.node("Relu", ["u"], "v")
    onnx.save(b.model({"u": ["n", "len"]}, {"v": ["n", "len"]}), tmp_path / "m.onnx")
    assert "--shape u=" in failure(capsys, "run", tmp_path / "m.onnx")[1]
    assert "2×5" in output(capsys, "run", tmp_path / "m.onnx", "--shape", "u=2x5", "--repeat", 1)
    assert "w" in failure(capsys, "run", tmp_path / "m.onnx", "--shape", "w=2x5")[1]
    assert failure(capsys, "run", tmp_path / "m.onnx", "--shape", "u=axb")[0] == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(lepton_rt.ModelError):
        main(["run", str(tmp_path / "missing.onnx"), "--debug"])


def test_one_sentence_without_typer() -> None:
    code = (
        "import sys; sys.modules['typer'] = None; from lepton_rt.cli import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "lepton-rt: the command needs typer and rich: pip install 'lepton_rt[cli]'\n"
    )
