"""One file per runtime, each with the names of `Runtime`."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy.typing as npt

from ..networks import Network

Array = npt.NDArray[Any]
Run = Callable[[Array], Array]


class Absent(Exception):
    """The runtime is not installed, or this variant of the network cannot be made for it."""


class Source(Protocol):
    """What a runtime may make its model from; see `store.Store`."""

    name: str
    network: Network
    onnx: Path
    """The float32 model; its batch size is free."""

    def calibration(self) -> Array:
        """Samples for quantisers, [count, *shape]."""

    def model(self, name: str, variant: str) -> Path:
        """The file of a runtime's variant."""

    def folder(self, label: str) -> Path:
        """A folder that is kept, for files other than a variant's model."""


class Runtime(Protocol):
    """An adapter: a module that has these names. It imports the runtime inside its functions."""

    PACKAGE: str
    """The distribution whose version and size are reported."""
    MODULE: str
    """What is imported before memory and load time are measured."""
    VARIANTS: Mapping[str, str]
    """Variant → the precision it races in: "fp32", "int8", or "sparse int8" for pruned weights."""

    SAME_FILE: Mapping[str, tuple[str, str]]
    """Variants that run the file of another (runtime, variant)."""

    def suffix(self, variant: str) -> str:
        """Of the variant's model file; "" where it needs none but the float32 ONNX file."""

    def build(self, variant: str, source: Source, path: Path) -> None:
        """Makes the variant's model file with the runtime's own tools. Raises Absent."""

    def load(self, variant: str, source: Source, path: Path, batch: int, threads: int) -> Run:
        """A model ready to run batches of one size. Raises Absent."""


NAMES = ("lepton", "ort", "openvino", "mnn", "ncnn", "ctranslate2", "litert", "torch_eager")


def runtime(name: str) -> Runtime:
    """The adapter of that name."""
    return cast(Runtime, importlib.import_module(f"{__name__}.{name}"))


def version(name: str) -> str:
    """The version of a runtime, installed or in a source tree; raises Absent."""
    adapter = runtime(name)
    try:
        return importlib.metadata.version(adapter.PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        if importlib.util.find_spec(adapter.MODULE) is None:
            raise Absent(f"{adapter.PACKAGE} is not installed") from None
        return str(importlib.import_module(adapter.MODULE).__version__)


def installed_mb(name: str) -> float:
    """Size of the package's files, without those it depends on, in MB; raises Absent."""
    adapter = runtime(name)
    try:
        listed = importlib.metadata.files(adapter.PACKAGE) or []
        files = [Path(str(file.locate())) for file in listed]
    except importlib.metadata.PackageNotFoundError:
        spec = importlib.util.find_spec(adapter.MODULE)
        if spec is None or spec.origin is None:
            raise Absent(f"{adapter.PACKAGE} is not installed") from None
        files = list(Path(spec.origin).parent.rglob("*"))
    sizes = [file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc"]
    return sum(sizes) / 1e6
