"""OpenVINO: float32, and quantised by NNCF."""

from __future__ import annotations

from pathlib import Path

from . import Run, Source

PACKAGE = "openvino"
MODULE = "openvino"
VARIANTS = {"fp32": "fp32", "nncf": "int8"}
SAME_FILE: dict[str, tuple[str, str]] = {}


def suffix(variant: str) -> str:
    return ".xml" if variant == "nncf" else ""


def build(variant: str, source: Source, path: Path) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(source.onnx)
    samples = [sample[None] for sample in source.calibration()]
    transformer = source.network.kind == "transformer"
    quantised = nncf.quantize(
        model,
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        subset_size=len(samples),
    )
    openvino.save_model(quantised, path, compress_to_fp16=False)


def load(variant: str, source: Source, path: Path, batch: int, threads: int) -> Run:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape([batch, *source.network.shape])
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda x: request.infer([x], share_inputs=True, share_outputs=True)[0]
