"""Built models, kept in a cache folder so that a race that was stopped goes on where it was."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np

from . import networks
from .networks import Array, Network
from .runtimes import runtime, version

CALIBRATION_SAMPLES = 16


def default_cache() -> Path:
    """Outside the source tree."""
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(base).expanduser() / "lepton_rt" / "race"


class Store:
    """The files of one network. They are made on first use, and appear only when complete."""

    def __init__(self, cache: Path, name: str) -> None:
        self.name = name
        self.network: Network = networks.NETWORKS[name]
        packages = [f"{p}-{importlib.metadata.version(p)}" for p in ("torch", "transformers")]
        pretrained = name.startswith("minilm") and networks.pretrained_minilm() is not None
        label = f"{name}-pretrained" if pretrained else name
        self._root = cache / "-".join([*packages, str(networks.REVISION)]) / label
        self.onnx = self._root / "model.onnx"

    def prepare(self) -> None:
        """Exports the network; the other files are made from it."""
        self._make(self.onnx, lambda path: path.write_bytes(networks.export(self.name)))

    def calibration(self) -> Array:
        return self.network.samples(CALIBRATION_SAMPLES, seed=2)

    def reference(self, count: int) -> tuple[Array, Array]:
        """(samples, torch's float32 outputs for them, one sample at a time)."""
        samples = self.network.samples(count, seed=3)
        path = self._root / f"reference_{count}.npy"
        self._make(path, lambda made: np.save(made, _torch_outputs(self.name, samples)))
        return samples, np.load(path)

    def folder(self, label: str) -> Path:
        path = self._root / label
        path.mkdir(parents=True, exist_ok=True)
        return path

    def model(self, name: str, variant: str) -> Path:
        """The file (or folder) of a runtime's variant, built unless it is there."""
        self.prepare()
        adapter = runtime(name)
        if variant in adapter.SAME_FILE:
            return self.model(*adapter.SAME_FILE[variant])
        suffix = adapter.suffix(variant)
        if not suffix:
            return self.onnx
        label = f"{name}-{_build_version(name)}-{variant}"
        path = self._root / f"{label}{suffix}"
        self._make(path, lambda made: adapter.build(variant, self, made))
        return path

    def _make(self, path: Path, build: Callable[[Path], object]) -> None:
        if path.exists():
            return
        scratch = path.parent / f"making-{os.getpid()}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            build(scratch / path.name)
            for made in scratch.iterdir():
                made.replace(path.parent / made.name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _build_version(name: str) -> str:
    """lepton_rt's version does not tell its sources apart."""
    if name != "lepton":
        return version(name)
    import lepton_rt

    root = Path(lepton_rt.__file__).parent
    return f"{lepton_rt.__version__}-{_digest(*sorted(root.rglob('*.py')))}"


def _digest(*files: Path) -> str:
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _torch_outputs(name: str, samples: Array) -> Array:
    import torch

    module = networks.module(name)
    with torch.inference_mode():
        outputs = [module(torch.from_numpy(sample[None])).numpy() for sample in samples]
    return np.concatenate(outputs)
