"""PyTorch, eager."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import networks
from . import Absent, Array, Run, Source

PACKAGE = "torch"
MODULE = "torch"
VARIANTS = {"fp32": "fp32", "dynamic": "int8"}
SAME_FILE: dict[str, tuple[str, str]] = {}


def suffix(variant: str) -> str:
    return ""


def build(variant: str, source: Source, path: Path) -> None:
    raise Absent("made when it is loaded")


def load(variant: str, source: Source, path: Path, batch: int, threads: int) -> Run:
    import torch

    torch.set_num_threads(threads)
    module = networks.module(source.name)
    if variant == "dynamic":
        if source.network.kind == "cnn":
            raise Absent("no layer to quantise dynamically")
        layers = {torch.nn.Linear, torch.nn.LSTM}
        quantize: Any = torch.ao.quantization.quantize_dynamic
        module = quantize(module, layers, torch.qint8)

    def run(x: Array) -> Array:
        with torch.inference_mode():
            made: Array = module(torch.from_numpy(x)).numpy()
            return made

    return run
