"""The three-line use: load a model, prepare an image, read off labels with probabilities."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lepton_rt.errors import InputError, ModelError, UnsupportedError
from lepton_rt.session import Session

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HUB_PREFIX = "hf://"


class Model:
    """A Session that knows the labels of its classes."""

    def __init__(self, session: Session, labels: Sequence[str] | None = None) -> None:
        self.session = session
        self.labels = None if labels is None else list(labels)

    def run(self, *inputs: Any) -> Any:
        """Session.run."""
        return self.session.run(*inputs)

    def predict(self, image: npt.NDArray[np.float32], top: int = 5) -> list[tuple[str, float]]:
        """The most probable classes of one image, best first, as (label, probability).

        image: what the model takes, batch of one: float32 [1, 3, H, W] for most. The model's first
        output must be one score per class; softmax is applied unless the scores are probabilities
        already. Labels are the model's, or "class 0", "class 1", … when it has none. Raises
        InputError when the image does not fit or the output is not one row of scores.
        """
        result = self.session.run(image)
        first = result if hasattr(result, "shape") else next(iter(result))
        scores = np.asarray(first, np.float64)
        if scores.size == 0 or scores.size != max(scores.shape, default=1):
            raise InputError(
                f"predict needs one image and one row of scores; the output is {scores.shape}"
            )
        chances = probabilities(scores.reshape(-1))
        best = np.argsort(-chances, kind="stable")[: max(top, 0)]
        return [(self._label(int(index)), float(chances[index])) for index in best]

    def _label(self, index: int) -> str:
        if self.labels is not None and index < len(self.labels):
            return self.labels[index]
        return f"class {index}"


def probabilities(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Softmax of a vector, unless it sums to one and is nowhere negative already."""
    if scores.min() >= 0 and abs(scores.sum() - 1) < 1e-3:
        return scores
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()  # type: ignore[no-any-return]


def load_model(name_or_path: str | os.PathLike[str], *, threads: int | None = None) -> Model:
    """A model by path (.onnx, .lepton, .plan) or from the Hugging Face hub ("hf://org/repo[/file]").

    Labels come from the model's "labels" metadata (a JSON list), else from `<model>.labels.json`,
    `<model>.labels.txt`, `labels.json` or `labels.txt` (one a line) or a transformers
    `config.json` beside it. Raises ModelError when there is no such model, or the hub cannot be
    reached; UnsupportedError when huggingface_hub is not installed.
    """
    name = os.fspath(name_or_path)
    path = fetch(name) if name.startswith(HUB_PREFIX) else Path(name)
    session = Session(path, threads=threads)
    labels = _labels_of(session.metadata.get("labels"), "its metadata")
    return Model(session, labels or _labels_beside(path))


def fetch(name: str) -> Path:
    """Downloads a model of the hub, with the files that belong to it; returns its local path."""
    parts = name[len(HUB_PREFIX) :].strip("/").split("/")
    if len(parts) < 2 or not all(parts):
        raise ModelError(f"a model of the hub is written hf://org/repo[/file], not {name!r}")
    try:
        import huggingface_hub as hub
    except ImportError:
        raise UnsupportedError(
            f"{name} needs huggingface_hub: pip install 'lepton_rt[hub]'"
        ) from None
    repo, wanted = "/".join(parts[:2]), "/".join(parts[2:])
    # Its own account of every retry is no use to the caller.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        path = Path(hub.hf_hub_download(repo, wanted)) if wanted else None
        try:
            files = list(hub.list_repo_files(repo))
        except Exception:
            if path is None:
                raise
            return path  # from the cache, with what was fetched beside it then
        chosen = wanted or _likely_model(repo, files)
        for companion in _companions(files, chosen):
            hub.hf_hub_download(repo, companion)
        return path or Path(hub.hf_hub_download(repo, chosen))
    except ModelError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{name} could not be downloaded: {reason}") from error


def _likely_model(repo: str, files: Sequence[str]) -> str:
    """The model a repository most likely means."""
    models = [name for name in files if name.endswith((".lepton", ".onnx"))]
    for likely in ("model.lepton", "model.onnx", "onnx/model.onnx"):
        if likely in models:
            return likely
    if len(models) != 1:
        found = f"several models ({', '.join(models[:5])}…); name one" if models else "no model"
        raise ModelError(f"the repository {repo} has {found}")
    return models[0]


def _companions(files: Sequence[str], chosen: str) -> list[str]:
    """External data and labels that belong to a model file."""
    folder = chosen.rpartition("/")[0]
    stem = chosen.rpartition(".")[0]
    labels = {f"{stem}.labels.json", f"{stem}.labels.txt"}
    for name in ("labels.json", "labels.txt", "config.json"):
        labels |= {name, f"{folder}/{name}" if folder else name}
    return [
        name
        for name in files
        if name != chosen
        and (name.startswith((f"{chosen}_data", f"{chosen}.data")) or name in labels)
    ]


def _labels_beside(path: Path) -> list[str] | None:
    candidates = [
        path.with_name(f"{path.stem}.labels.json"),
        path.with_name(f"{path.stem}.labels.txt"),
        *(path.with_name(name) for name in ("labels.json", "labels.txt", "config.json")),
        path.parent.parent / "config.json",
    ]
    for candidate in candidates:
        if not candidate.is_file():
            continue
        text = candidate.read_text("utf-8", errors="replace")
        if candidate.suffix == ".txt":
            return [line.strip() for line in text.splitlines() if line.strip()]
        labels = _labels_of(text, repr(candidate.name), lenient=candidate.name == "config.json")
        if labels:
            return labels
    return None


def _labels_of(text: str | None, where: str, lenient: bool = False) -> list[str] | None:
    """Labels in JSON: a list, or an object from index to label, also under "id2label"."""
    if not text:
        return None
    try:
        data = json.loads(text)
        if isinstance(data, dict):
            data = data.get("id2label", {} if lenient else data)
            data = [data[key] for key in sorted(data, key=int)]
        return [str(label) for label in data]
    except (ValueError, TypeError, AttributeError):
        if lenient:
            return None
        raise ModelError(f"the labels in {where} are not a JSON list of names") from None


def preprocess_image(
    image: str | os.PathLike[str] | IO[bytes] | Any,
    *,
    size: int | tuple[int, int] = 224,
    resize: int | None = None,
    channels: int = 3,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
) -> npt.NDArray[np.float32]:
    """An image as a network takes it: float32 [1, channels, H, W].

    image: path, open binary file, or PIL image. Its EXIF orientation is applied; it is converted to
    RGB (channels=3) or grey (channels=1), resized so that the shorter side is `resize` (by default
    8/7 of `size`, the usual 256 for 224), cut to `size` ([height, width] or one number) at the
    centre, scaled to 0 … 1, and normalised: (x - mean) / std, by default ImageNet's for RGB and
    none for grey. Raises InputError when it is no image; UnsupportedError without Pillow.
    """
    height, width = (size, size) if isinstance(size, int) else size
    shorter = resize if resize is not None else round(min(height, width) * 8 / 7)
    if channels not in (1, 3) or min(height, width) < 1:
        raise ValueError("channels must be 1 or 3, and size at least 1")
    picture = _open(image, "RGB" if channels == 3 else "L")
    picture = _resize(picture, max(shorter, 1), height, width)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    picture = picture.crop((left, top, left + width, top + height))
    pixels = np.asarray(picture, np.float32).reshape(height, width, channels) / np.float32(255)
    default_mean, default_std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else (0.0, 1.0)
    offset = np.asarray(default_mean if mean is None else mean, np.float32)
    scale = np.asarray(default_std if std is None else std, np.float32)
    if offset.size not in (1, channels) or scale.size not in (1, channels) or not scale.all():
        raise ValueError(f"mean and std need 1 or {channels} values, and std none that is zero")
    normal = (pixels - offset) / scale
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32)


def _open(image: Any, mode: str) -> Any:
    """A PIL image, upright, in a mode."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise UnsupportedError(
            "preprocess_image needs Pillow: pip install 'lepton_rt[image]'"
        ) from None
    try:
        opened = image if isinstance(image, Image.Image) else Image.open(image)
        upright = ImageOps.exif_transpose(opened)
        if upright.mode.startswith("I;16"):
            upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
        return upright.convert(mode)
    except FileNotFoundError:
        raise InputError(f"there is no image file {str(image)!r}") from None
    except (
        OSError,
        ValueError,
        SyntaxError,
        AttributeError,
        Image.DecompressionBombError,
    ) as error:
        what = repr(str(image)) if isinstance(image, (str, os.PathLike)) else "the given object"
        raise InputError(f"{what} cannot be read as an image: {error}") from error


def _resize(picture: Any, shorter: int, height: int, width: int) -> Any:
    """Scaled so that the shorter side is `shorter`, and nothing is smaller than the cut."""
    from PIL import Image

    scale = max(
        shorter / min(picture.width, picture.height), height / picture.height, width / picture.width
    )
    target = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    if target == picture.size:
        return picture
    return picture.resize(target, Image.Resampling.BILINEAR)
