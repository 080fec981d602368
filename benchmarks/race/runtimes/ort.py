"""ONNX Runtime: float32, its static quantiser (8-bit, 7-bit weights), its dynamic one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import Absent, Array, Run, Source

PACKAGE = "onnxruntime"
MODULE = "onnxruntime"
VARIANTS = {
    "fp32": "fp32",
    "qdq": "int8",
    "qdq-exact": "int8",
    "qdq-reduced": "int8",
    "dynamic": "int8",
}
SAME_FILE = {"qdq-exact": ("ort", "qdq")}


def suffix(variant: str) -> str:
    return "" if variant == "fp32" else ".onnx"


def build(variant: str, source: Source, path: Path) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = source.folder("ort-prepared") / "model.onnx"
    if not prepared.exists():
        quant_pre_process(str(source.onnx), str(prepared), skip_symbolic_shape=True)
    if variant == "dynamic":
        if source.network.kind == "cnn":
            raise Absent("no layer to quantise dynamically")
        quantize_dynamic(str(prepared), str(path), per_channel=True, reduce_range=True)
        return
    products = ["MatMul", "Gemm"] if source.network.kind == "transformer" else None
    quantize_static(
        str(prepared),
        str(path),
        _reader(source.calibration()),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=variant == "qdq-reduced",
        op_types_to_quantize=products,
        extra_options={"MatMulConstBOnly": True},
    )


def _reader(samples: Array) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        """One sample at a time."""

        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> dict[str, Array] | None:
            sample = next(self.left, None)
            return None if sample is None else {"x": sample[None]}

    return Samples()


def load(variant: str, source: Source, path: Path, batch: int, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_free_dimension_override_by_name("batch", batch)
    if variant == "qdq-exact":
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]
