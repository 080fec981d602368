"""The Python examples of README.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import lepton_rt
from fuzz.seeds import F32, build, cnn, f32

README = Path(__file__).parents[2] / "README.md"


def python_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def classifier() -> onnx.ModelProto:
    """An image classifier with three classes."""
    rng = np.random.default_rng(0)
    node = onnx.helper.make_node
    return build(
        [
            node("Conv", ["x", "w"], ["c"], strides=[16, 16]),
            node("GlobalAveragePool", ["c"], ["p"]),
            node("Flatten", ["p"], ["y"]),
        ],
        [onnx.helper.make_tensor_value_info("x", F32, ["n", 3, 224, 224])],
        [onnx.helper.make_tensor_value_info("y", F32, ["n", 3])],
        {"w": f32(rng, 3, 3, 16, 16)},
    )


def test_quantize_save_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = python_blocks()[0]
    assert len([line for line in block.splitlines() if line]) == 5
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    onnx.save(cnn(), "model.onnx")
    np.save("sample.npy", rng.standard_normal((8, 3, 12, 12)).astype(np.float32))
    image = rng.standard_normal((1, 3, 12, 12)).astype(np.float32)
    np.save("image.npy", image)
    names: dict[str, np.ndarray] = {}
    exec(block, names)
    np.testing.assert_allclose(names["y"], lepton_rt.Session("model.onnx").run(image), atol=0.05)


def test_three_lines_for_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pillow = pytest.importorskip("PIL.Image")
    block = python_blocks()[1]
    assert len(block.strip().splitlines()) == 3
    monkeypatch.chdir(tmp_path)
    lepton_rt.save_lepton(lepton_rt.import_onnx(classifier()), "model.lepton")
    Path("labels.txt").write_text("cat\ndog\nfish\n")
    pixels = np.random.default_rng(2).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    pillow.fromarray(pixels).save("cat.jpg")
    exec("import lepton_rt\n" + block)
    shown = capsys.readouterr().out
    assert all(label in shown for label in ("cat", "dog", "fish"))


def test_environment_variables_are_documented() -> None:
    """Every LEPTON_… variable that the sources read is in the table, and nothing else."""
    root = README.parent
    sources = [*(root / "python").rglob("*.py"), *(root / "csrc").rglob("*.cc")]
    pattern = re.compile(r"""(?:environ[^\n]*|getenv\()["'](LEPTON_[A-Z_]+)["']""")
    read = {name for path in sources for name in pattern.findall(path.read_text())}
    documented = set(re.findall(r"^\| `(LEPTON_[A-Z_]+)` \|", README.read_text(), re.MULTILINE))
    assert read == documented
