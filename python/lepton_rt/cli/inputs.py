"""What the command line feeds to models: random tensors, .npy and .npz files, images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lepton_rt.compress.batches import Feed
from lepton_rt.errors import InputError
from lepton_rt.graph.ir import Array
from lepton_rt.interface import TensorSpec
from lepton_rt.session import Session
from lepton_rt.zoo import preprocess_image

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


def input_shapes(
    specs: Sequence[TensorSpec], batch: int, shapes: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """A shape for every input. shapes: "name=1x3x224x224" for those that need it said."""
    given = dict(_parse_shape(text) for text in shapes)
    unknown = sorted(set(given) - {spec.name for spec in specs})
    if unknown:
        raise InputError(f"--shape names no input of the model: {', '.join(unknown)}")
    return {spec.name: given.get(spec.name) or _concrete_shape(spec, batch) for spec in specs}


def random_feed(session: Session, batch: int, shapes: Sequence[str], seed: int) -> Feed:
    """Random tensors for every input, of `input_shapes`."""
    rng = np.random.default_rng(seed)
    sizes = input_shapes(session.inputs, batch, shapes)
    return {spec.name: _random(rng, spec.dtype, sizes[spec.name]) for spec in session.inputs}


def read_feed(session: Session, path: Path) -> Feed:
    """One feed from a .npy, .npz or image file."""
    if path.suffix == ".npz":
        return _load_npz(path)
    if len(session.inputs) != 1:
        raise InputError("a model with several inputs takes a .npz file with one array for each")
    spec = session.inputs[0]
    array = _load_npy(path) if path.suffix == ".npy" else image_for(spec, path)
    return {spec.name: array}


def calibration_batches(session: Session, path: Path, batch: int, limit: int) -> list[Feed]:
    """Batches from a .npy or .npz file with samples along the first axis, or a folder of images."""
    if path.is_dir():
        return list(_image_batches(session, path, batch, limit))
    feed = read_feed(session, path)
    count = min(min((len(array) for array in feed.values() if array.ndim), default=0), limit)
    if count == 0:
        raise InputError(f"{path.name} holds no samples")
    starts = range(0, count, batch)
    return [
        {name: array[start : min(start + batch, count)] for name, array in feed.items()}
        for start in starts
    ]


def image_for(spec: TensorSpec, path: Path) -> Array:
    """An image cut to what an input takes; 224 × 224 RGB where it leaves that free."""
    shape = spec.shape
    if shape is None or len(shape) != 4 or spec.dtype != np.float32:
        raise InputError(f"the input {spec} does not take an image")
    height, width = (d if isinstance(d, int) else 224 for d in shape[2:])
    channels = shape[1] if isinstance(shape[1], int) else 3
    if channels not in (1, 3):
        raise InputError(f"the input {spec} takes {channels} channels, an image has 1 or 3")
    return preprocess_image(path, size=(height, width), channels=channels)


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _image_batches(session: Session, folder: Path, batch: int, limit: int) -> Iterator[Feed]:
    files = sorted(path for path in folder.rglob("*") if is_image(path))[:limit]
    if not files:
        raise InputError(f"the folder {folder} holds no images")
    if len(session.inputs) != 1:
        raise InputError("images can only calibrate a model with one input")
    spec = session.inputs[0]
    for start in range(0, len(files), batch):
        images = [image_for(spec, path) for path in files[start : start + batch]]
        yield {spec.name: np.concatenate(images)}


def _parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, dims = text.rpartition("=")
    parts = dims.split("x")
    if not name or not all(part.isdigit() for part in parts):
        raise InputError(f"--shape is written name=1x3x224x224, not {text!r}")
    return name, tuple(map(int, parts))


def _concrete_shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    """The shape of an input, with the batch size for a free first dimension."""
    dims = list(spec.shape) if spec.shape is not None else None
    if dims and not isinstance(dims[0], int):
        dims[0] = batch
    if dims is None or any(not isinstance(d, int) for d in dims):
        raise InputError(f"the input {spec} has free dimensions; give --shape {spec.name}=…")
    return tuple(int(d) for d in dims if isinstance(d, int))


def _random(rng: np.random.Generator, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Array:
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind not in "iu":
        raise InputError(f"random values of {dtype} cannot be made; give --input")
    return rng.integers(0, 100, shape).astype(dtype)


def _load_npy(path: Path) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise InputError(f"{path.name} is not a readable .npy file: {error}") from None
    return array


def _load_npz(path: Path) -> Feed:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path.name} is not a readable .npz file: {error}") from None
