"""LiteRT (XNNPACK): float32, and int8 weights with activations quantised at run time.

litert-torch, which converts, asks for older packages than this tree's: `pip install --no-deps` it
and what it needs into an environment of its own to race it.
"""

from __future__ import annotations

from pathlib import Path

from .. import networks
from . import Absent, Array, Run, Source

PACKAGE = "ai-edge-litert"
MODULE = "ai_edge_litert.interpreter"
VARIANTS = {"fp32": "fp32", "dynamic": "int8"}
SAME_FILE: dict[str, tuple[str, str]] = {}


def suffix(variant: str) -> str:
    return ".tflite"


def build(variant: str, source: Source, path: Path) -> None:
    if source.network.kind == "recurrent":
        raise Absent("its converter unrolls recurrent layers")
    if variant == "fp32":
        import litert_torch
        import torch

        sample = torch.from_numpy(source.network.samples(1, seed=1))
        litert_torch.convert(networks.module(source.name), (sample,)).export(str(path))
        return
    from ai_edge_quantizer import quantizer, recipe

    made = quantizer.Quantizer(str(source.model("litert", "fp32")), recipe.dynamic_wi8_afp32())
    made.quantize().export_model(str(path))


def load(variant: str, source: Source, path: Path, batch: int, threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    if batch != 1:
        raise Absent("converted for one sample")
    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (into,) = interpreter.get_input_details()
    (out,) = interpreter.get_output_details()

    def run(x: Array) -> Array:
        interpreter.set_tensor(into["index"], x.astype(into["dtype"], copy=False))
        interpreter.invoke()
        made: Array = interpreter.get_tensor(out["index"])
        return made

    return run
