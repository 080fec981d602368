"""ncnn, for CNNs one sample at a time: float32. (Its int8 tools are not in the wheel.)"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import networks
from . import Absent, Array, Run, Source

PACKAGE = "ncnn"
MODULE = "ncnn"
VARIANTS = {"fp32": "fp32"}
SAME_FILE: dict[str, tuple[str, str]] = {}


def suffix(variant: str) -> str:
    return ".ncnn"


def build(variant: str, source: Source, path: Path) -> None:
    if source.network.kind != "cnn":
        raise Absent("converted for CNNs only")
    import pnnx
    import torch

    path.mkdir()
    sample = torch.from_numpy(source.network.samples(1, seed=1))
    pnnx.export(networks.module(source.name), str(path / "model.pt"), sample, fp16=False)
    for file in path.iterdir():
        if not file.name.startswith("model.ncnn."):
            file.unlink()


def load(variant: str, source: Source, path: Path, batch: int, threads: int) -> Run:
    import ncnn

    if batch != 1:
        raise Absent("it has no batches")
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.load_param(str(path / "model.ncnn.param"))
    net.load_model(str(path / "model.ncnn.bin"))

    def run(x: Array) -> Array:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(x[0]))
        return np.array(extractor.extract("out0")[1])[None]

    return run
