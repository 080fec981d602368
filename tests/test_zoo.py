"""load_model, preprocess_image and predict."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import lepton_rt
from lepton_rt.zoo import Model, probabilities
from small_networks import Builder, batches, cnn, run_onnx


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards; blue is 50."""
    x = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    y = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([x, y, np.full_like(x, 50)], 2).astype(np.uint8))


def test_preprocess_normalises_channels_first(tmp_path: Path) -> None:
    Image.new("RGB", (320, 240), (255, 0, 51)).save(tmp_path / "a.png")
    image = lepton_rt.preprocess_image(tmp_path / "a.png")
    assert image.shape == (1, 3, 224, 224)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    expected = (np.array([1, 0, 0.2]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.allclose(image[0, :, 100, 100], expected, atol=1e-5)


def test_preprocess_resizes_the_shorter_side_and_cuts_the_centre() -> None:
    picture = gradient(400, 200)
    image = lepton_rt.preprocess_image(picture, size=(80, 60), resize=100, mean=0, std=1)
    assert image.shape == (1, 3, 80, 60)
    expected = np.asarray(picture.resize((200, 100), Image.Resampling.BILINEAR), np.float32) / 255
    assert np.allclose(image[0].transpose(1, 2, 0), expected[10:90, 70:130], atol=1e-6)
    default = lepton_rt.preprocess_image(picture, size=100, mean=0, std=1)
    assert default.shape == (1, 3, 100, 100)
    assert default[0, 0].min() > 0.25  # the left quarter is cut off
    assert default[0, 1].min() < 0.08  # an eighth of the height in all


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3)])
def test_preprocess_of_odd_shapes(size: tuple[int, int]) -> None:
    image = lepton_rt.preprocess_image(Image.new("L", size, 128), size=32)
    assert image.shape == (1, 3, 32, 32)
    assert np.isfinite(image).all()


def test_preprocess_applies_the_exif_orientation(tmp_path: Path) -> None:
    picture = gradient(60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    picture.save(tmp_path / "a.png", exif=exif)
    turned = picture.transpose(Image.Transpose.ROTATE_270)
    options: dict[str, Any] = {"size": (60, 40), "resize": 40, "mean": 0, "std": 1}
    image = lepton_rt.preprocess_image(tmp_path / "a.png", **options)
    assert np.allclose(image, lepton_rt.preprocess_image(turned, **options))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_preprocess_of_other_modes(mode: str, tmp_path: Path) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.full((40, 40), 51 * 257, np.uint16))
    else:
        picture = Image.new("L", (40, 40), 51 if mode != "1" else 255).convert(mode)
    image = lepton_rt.preprocess_image(picture, size=32, mean=0, std=1)
    assert np.allclose(image, 1.0 if mode == "1" else 0.2, atol=0.01)
    grey = lepton_rt.preprocess_image(picture, size=(28, 20), channels=1)
    assert grey.shape == (1, 1, 28, 20)
    assert np.allclose(grey, 1.0 if mode == "1" else 0.2, atol=0.01)


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image at all")
    with pytest.raises(lepton_rt.InputError, match="cannot be read as an image"):
        lepton_rt.preprocess_image(tmp_path / "a.png")
    with pytest.raises(lepton_rt.InputError, match=r"no image file .*missing\.png"):
        lepton_rt.preprocess_image(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="channels"):
        lepton_rt.preprocess_image(gradient(9, 9), channels=2)
    with pytest.raises(ValueError, match="std"):
        lepton_rt.preprocess_image(gradient(9, 9), std=(1, 0, 1))


def saved(folder: Path, labels: str | None = None) -> Path:
    model = cnn()
    if labels is not None:
        onnx.helper.set_model_props(model, {"labels": labels})
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def names(model: Model) -> list[str]:
    image = batches()[0][:1]
    return [label for label, _ in model.predict(image, top=10)]


def test_predict(tmp_path: Path) -> None:
    model = lepton_rt.load_model(saved(tmp_path))
    image = batches()[0][:1]
    scores = run_onnx(cnn(), {"x": image})[0][0]
    found = model.predict(image, top=3)
    order = np.argsort(-scores)[:3]
    assert [label for label, _ in found] == [f"class {i}" for i in order]
    assert np.allclose([chance for _, chance in found], scores[order], atol=1e-5)
    with pytest.raises(lepton_rt.InputError, match="one image"):
        model.predict(batches()[0])


def test_scores_become_probabilities() -> None:
    scores = np.array([1000.0, 999.0, -5.0])
    assert np.allclose(probabilities(scores), [1 / (1 + np.exp(-1)), 1 / (1 + np.e), 0])
    already = np.array([0.7, 0.3, 0.0])
    assert np.array_equal(probabilities(already), already)


LABELS = [f"animal {i}" for i in range(10)]


def test_labels_from_the_model_or_beside_it(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    found = names(lepton_rt.load_model(saved(own, json.dumps(LABELS))))
    assert sorted(found) == LABELS
    path = saved(tmp_path)
    sidecars = {
        "net.labels.json": json.dumps({str(i): name for i, name in enumerate(LABELS)}),
        "labels.txt": "\n".join(LABELS) + "\n",
        "config.json": json.dumps({"id2label": {str(i): n for i, n in enumerate(LABELS)}}),
    }
    for name, text in sidecars.items():
        (tmp_path / name).write_text(text)
        assert names(lepton_rt.load_model(path)) == found, name
        (tmp_path / name).unlink()
    (tmp_path / "config.json").write_text("{}")
    assert names(lepton_rt.load_model(path))[0].startswith("class ")
    (tmp_path / "labels.json").write_text("not json")
    with pytest.raises(lepton_rt.ModelError, match=r"labels\.json"):
        lepton_rt.load_model(path)


def test_labels_survive_quantisation(tmp_path: Path) -> None:
    path = saved(tmp_path, json.dumps(LABELS))
    made = lepton_rt.quantize(path, batches(), progress=False)
    for suffix in (".onnx", ".lepton"):
        made.save(tmp_path / f"q{suffix}")
        assert lepton_rt.load_model(tmp_path / f"q{suffix}").labels == LABELS


def fake_hub(monkeypatch: pytest.MonkeyPatch, folder: Path, *files: str) -> None:
    hub = types.ModuleType("huggingface_hub")
    hub.list_repo_files = lambda repo: list(files)  # type: ignore[attr-defined]

    def download(repo: str, name: str) -> str:
        if name not in files:
            raise FileNotFoundError(f"{repo} has no {name}")
        return str(folder / name)

    hub.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


def test_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    fake_hub(monkeypatch, tmp_path, "README.md", "net.onnx", "labels.txt")
    for name in ("hf://org/repo", "hf://org/repo/net.onnx"):
        assert sorted(names(lepton_rt.load_model(name))) == LABELS
    with pytest.raises(lepton_rt.ModelError, match=r"org/repo has no other\.onnx"):
        lepton_rt.load_model("hf://org/repo/other.onnx")
    with pytest.raises(lepton_rt.ModelError, match="hf://org/repo"):
        lepton_rt.load_model("hf://org")
    fake_hub(monkeypatch, tmp_path, "a.onnx", "b.onnx")
    with pytest.raises(lepton_rt.ModelError, match="several models"):
        lepton_rt.load_model("hf://org/repo")


def test_hub_failures_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = types.ModuleType("huggingface_hub")

    def offline(repo: str) -> list[str]:
        raise ConnectionError("no route to host\nmore detail")

    hub.list_repo_files = offline  # type: ignore[attr-defined]
    hub.hf_hub_download = lambda repo, name: str(saved(tmp_path))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert names(lepton_rt.load_model("hf://org/repo/cached.onnx"))
    with pytest.raises(lepton_rt.ModelError, match=r"could not be downloaded: no route to host$"):
        lepton_rt.load_model("hf://org/repo")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(lepton_rt.UnsupportedError, match="pip install"):
        lepton_rt.load_model("hf://org/repo")


def test_several_outputs_use_the_first(tmp_path: Path) -> None:
    b = Builder()
    b.node("Relu", ["u"], "v")
    b.node("Neg", ["u"], "w")
    onnx.save(b.model({"u": [1, 3]}, {"v": [1, 3], "w": [1, 3]}), tmp_path / "m.onnx")
    model = lepton_rt.load_model(tmp_path / "m.onnx")
    assert model.predict(np.array([[0, 9, 1]], np.float32), top=1)[0][0] == "class 1"
