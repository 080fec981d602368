"""Pictures of handwritten digits: MNIST's IDX files from a folder, or scikit-learn's digits."""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lepton_rt.errors import InputError, UnsupportedError

SIDE = 28
_TEST_IMAGES = 2000  # of the 10,000, when there is no training set

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Digits:
    """Images float32 [n, 1, 28, 28] from 0 to 1, labels int64 [n]."""

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels


def load_digits(folder: Path | None, seed: int) -> Digits:
    """MNIST from a folder; scikit-learn's digits without one.

    Raises InputError when the folder lacks the files or they are damaged, UnsupportedError
    without scikit-learn.
    """
    return _mnist(folder) if folder is not None else _sklearn_digits(seed)


def _mnist(folder: Path) -> Digits:
    test = (_read_images(folder, "t10k"), _read_labels(folder, "t10k"))
    if _find(folder, "train-images-idx3-ubyte") is not None:
        train = (_read_images(folder, "train"), _read_labels(folder, "train"))
        return Digits("MNIST", *train, *test)
    images, labels = test
    cut = len(images) - _TEST_IMAGES
    return Digits("MNIST", images[:cut], labels[:cut], images[cut:], labels[cut:])


def _sklearn_digits(seed: int) -> Digits:
    """The 1,797 images of 8 × 8 pixels, enlarged; one in five is kept for the test."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError:
        raise UnsupportedError(
            "the demo needs scikit-learn, or --data with MNIST: pip install 'lepton_rt[demo]'"
        ) from None
    data = load()
    images = _enlarge(np.asarray(data.images, np.float32) / np.float32(16))
    labels = np.asarray(data.target, np.int64)
    order = np.random.default_rng(seed).permutation(len(images))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    return Digits("digits", images[train], labels[train], images[test], labels[test])


def _enlarge(images: npt.NDArray[np.float32]) -> Images:
    """[n, 8, 8] → [n, 1, 28, 28], with linear interpolation between pixel centres."""
    count, side, _ = images.shape
    at = np.clip((np.arange(SIDE) + 0.5) * side / SIDE - 0.5, 0, side - 1)
    low = np.minimum(at.astype(np.int64), side - 2)
    weight = (at - low).astype(np.float32)
    rows = images[:, low] * (1 - weight)[:, None] + images[:, low + 1] * weight[:, None]
    both = rows[:, :, low] * (1 - weight) + rows[:, :, low + 1] * weight
    return np.asarray(both, np.float32).reshape(count, 1, SIDE, SIDE)


def _find(folder: Path, name: str) -> Path | None:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    return None


def _read_images(folder: Path, part: str) -> Images:
    pixels = _read_idx(folder, f"{part}-images-idx3-ubyte", 3)
    if pixels.shape[1:] != (SIDE, SIDE):
        raise InputError(f"the images in {folder} are {pixels.shape[1:]}, not 28 × 28")
    return np.divide(pixels.reshape(-1, 1, SIDE, SIDE), 255, dtype=np.float32)


def _read_labels(folder: Path, part: str) -> Labels:
    return _read_idx(folder, f"{part}-labels-idx1-ubyte", 1).astype(np.int64)


def _read_idx(folder: Path, name: str, rank: int) -> npt.NDArray[np.uint8]:
    """An IDX file of bytes: magic number 0, 0, 8, rank; big-endian sizes; data."""
    path = _find(folder, name)
    if path is None:
        raise InputError(f"there is neither {name} nor {name}.gz in {folder}")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    header = 4 + 4 * rank
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, header, 4))
    if data[:4] != bytes([0, 0, 8, rank]) or len(data) != header + math.prod(shape):
        raise InputError(f"{path} is not an IDX file of bytes with {rank} dimensions")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
