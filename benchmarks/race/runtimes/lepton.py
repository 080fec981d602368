"""lepton_rt, with its own quantiser and pruned, and on the file quantised by ONNX Runtime.

"int8-minmax" takes ranges as calibration saw them, the others those of the smallest squared error.
Variants with 7-bit weights stand beside those of peers whose quantisers leave out a bit, too (ORT's
reduced and dynamic ones, NNCF's on processors without VNNI).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import Absent, Run, Source

PACKAGE = "lepton_rt"
MODULE = "lepton_rt"
SPARSITY = {"sparse75": 0.75, "sparse75-7bit": 0.75, "sparse90": 0.9, "sparse90-7bit": 0.9}
VARIANTS = {
    "fp32": "fp32",
    "int8": "int8",
    "int8-minmax": "int8",
    "int8-dynamic": "int8",
    "int8-7bit": "int8",
    "int8-7bit-dynamic": "int8",
    "ort-qdq": "int8",
    **dict.fromkeys(SPARSITY, "sparse int8"),
}
SAME_FILE = {"ort-qdq": ("ort", "qdq")}


def suffix(variant: str) -> str:
    return "" if variant == "fp32" else ".lepton"


def build(variant: str, source: Source, path: Path) -> None:
    import lepton_rt

    bits = 7 if "7bit" in variant else 8
    batches = [sample[None] for sample in source.calibration()]
    if variant.endswith("dynamic"):
        if source.network.kind == "cnn":
            raise Absent("no layer to quantise dynamically")
        made = lepton_rt.quantize(
            str(source.onnx), batches, mode="dynamic", bits=bits, progress=False
        )
        return made.save(path)
    if source.network.kind == "recurrent":
        raise Absent("recurrent layers are quantised dynamically")
    model: Any = str(source.onnx)
    options: dict[str, Any] = {"method": "minmax" if variant.endswith("minmax") else "mse"}
    if variant in SPARSITY:
        model = lepton_rt.prune(model, SPARSITY[variant])
        # Random weights bear no pruning: what its noise makes of ranges is nothing to act on.
        options["dynamic_below"] = None
    return lepton_rt.quantize(model, batches, bits=bits, progress=False, **options).save(path)


def load(variant: str, source: Source, path: Path, batch: int, threads: int) -> Run:
    import lepton_rt

    session = lepton_rt.Session(str(path), threads=threads)
    return lambda x: session.run(x)
