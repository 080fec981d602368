"""The demo on scikit-learn's digits, and the reading of MNIST's files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import lepton_rt
from lepton_rt.cli.demo.digits import load_digits


def test_demo_on_digits(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from lepton_rt.cli.demo import run_demo

    with (tmp_path / "log.txt").open("w") as log:
        contestants = {c.name: c for c in run_demo(Console(file=log), None, tmp_path, epochs=14)}
    before, after = contestants["lepton_rt fp32"], contestants["lepton_rt int8"]
    assert before.accuracy >= 0.97
    assert after.accuracy >= 0.97
    assert before.predictions == contestants["torch fp32"].predictions
    assert after.file is not None
    assert before.file is not None
    assert after.file < 0.4 * before.file
    assert all(c.latency[1] > 0 and c.latency[64] > 0 for c in contestants.values())
    text = (tmp_path / "log.txt").read_text()
    assert "lepton_rt int8" in text
    assert "demo.png" in text
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert lepton_rt.Session(tmp_path / "digits_int8.lepton").explain().host_steps == []


def write_idx(path: Path, array: np.ndarray) -> None:
    data = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    raw = data + array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_files(suffix: str, tmp_path: Path, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (2100, 28, 28)).astype(np.uint8)
    labels = rng.integers(0, 10, 2100).astype(np.uint8)
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", images)
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", labels)
    digits = load_digits(tmp_path, seed=0)
    assert digits.train_images.shape == (100, 1, 28, 28)
    assert np.allclose(digits.test_images[5, 0] * 255, images[105], atol=1e-3)
    assert np.array_equal(digits.test_labels, labels[100:])
    write_idx(tmp_path / f"train-images-idx3-ubyte{suffix}", images[:7])
    write_idx(tmp_path / f"train-labels-idx1-ubyte{suffix}", labels[:7])
    digits = load_digits(tmp_path, seed=0)
    assert len(digits.train_labels) == 7
    assert len(digits.test_labels) == 2100


def test_damaged_mnist_files(tmp_path: Path) -> None:
    with pytest.raises(lepton_rt.InputError, match="t10k-images"):
        load_digits(tmp_path, seed=0)
    path = tmp_path / "t10k-images-idx3-ubyte"
    for data in (b"", b"\0\0\x08\x03", b"\0\0\x08\x03" + struct.pack(">3I", 9, 28, 28)):
        path.write_bytes(data)
        with pytest.raises(lepton_rt.InputError, match="IDX"):
            load_digits(tmp_path, seed=0)
    path.unlink()
    path.with_suffix(".gz").write_bytes(b"not gzip")
    with pytest.raises(lepton_rt.InputError, match="cannot be read"):
        load_digits(tmp_path, seed=0)
