"""MNN: float32, and with weights stored in 8 bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from . import Array, Run, Source

PACKAGE = "MNN"
MODULE = "MNN"
VARIANTS = {"fp32": "fp32", "weights8": "int8"}
SAME_FILE: dict[str, tuple[str, str]] = {}


def suffix(variant: str) -> str:
    return ".mnn"


def build(variant: str, source: Source, path: Path) -> None:
    code = "from MNN.tools.mnnconvert import main; main()"
    options = ["-f", "ONNX", "--modelFile", str(source.onnx), "--MNNModel", str(path)]
    if variant == "weights8":
        options += ["--weightQuantBits", "8"]
    if source.network.kind == "recurrent":
        options.append("--useOriginRNNImpl")
    command = [sys.executable, "-c", code, *options]
    # It leaves files where it is called.
    made = subprocess.run(command, cwd=path.parent, capture_output=True, text=True)
    if not path.exists():
        raise RuntimeError(f"mnnconvert: {made.stdout[-200:]}")
    for left in path.parent.iterdir():
        if left != path:
            left.unlink()


def load(variant: str, source: Source, path: Path, batch: int, threads: int) -> Run:
    from MNN import expr, nn

    settings = {"backend": "CPU", "precision": "high", "numThread": threads}
    if variant == "weights8":
        settings["memory"] = "low"
    manager = nn.create_runtime_manager((settings,))
    net = nn.load_module_from_file(str(path), ["x"], ["y"], runtime_manager=manager)

    def run(x: Array) -> Array:
        number = expr.float if x.dtype == np.float32 else expr.int
        fed = x if x.dtype == np.float32 else x.astype(np.int32)
        given = expr.const(fed, list(fed.shape), expr.NCHW, number)
        made: Array = expr.convert(net.forward([given])[0], expr.NCHW).read()
        return made

    return run
