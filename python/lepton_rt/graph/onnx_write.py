"""Writing ONNX files, with their weights inside or in a data file beside."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from lepton_rt.errors import UnsupportedError
from lepton_rt.graph.ir import Constant, Graph
from lepton_rt.graph.onnx_export import SMALL_BYTES, build_model, element_type

EXTERNAL_ABOVE = 1_500_000_000
"""Total bytes of weights from which they go into a file beside (protobuf ends at 2 GB)."""
_ALIGNMENT = 4096


def write_model(graph: Graph, path: Path, opset: int, external: bool | None) -> None:
    """Writes graph to path; its weights to ``<name>.data`` beside when external."""
    if external is None:
        external = sum(c.nbytes for c in graph.constants.values()) > EXTERNAL_ABOVE
    data_path = path.with_name(path.name + ".data")
    # Written under another name first: the old files may be mapped by this very graph.
    pending = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pending_data = path.with_name(f".{data_path.name}.{os.getpid()}.tmp")
    try:
        if external:
            with pending_data.open("wb") as file:
                model = build_model(graph, opset, _DataFile(file, data_path.name).store)
        else:
            model = build_model(graph, opset)
        pending.write_bytes(_serialize(model))
        if external:
            os.replace(pending_data, data_path)
        os.replace(pending, path)
    finally:
        for left in (pending, pending_data):
            with suppress(FileNotFoundError):
                left.unlink()


def _serialize(model: ModelProto) -> bytes:
    try:
        data: bytes = model.SerializeToString()
    except Exception as error:  # protobuf has no one exception for a message over 2 GB
        raise UnsupportedError(
            "the model is too large for one ONNX file: write it with external_data=True"
        ) from error
    return data


class _DataFile:
    """Appends weights to a data file, aligned so that readers can map them."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self._end = 0

    def store(self, name: str, constant: Constant) -> TensorProto:
        tensor = TensorProto(name=name, dims=constant.shape)
        tensor.data_type = element_type(constant.dtype)
        raw = _raw_bytes(constant)
        gap = -self._end % (_ALIGNMENT if len(raw) > SMALL_BYTES else 64)
        self._file.write(b"\0" * gap)
        self._file.write(raw)
        offset = self._end + gap
        self._end = offset + len(raw)
        tensor.data_location = TensorProto.EXTERNAL
        fields = {"location": self._name, "offset": str(offset), "length": str(len(raw))}
        for key, value in fields.items():
            tensor.external_data.add(key=key, value=value)
        return tensor


def _raw_bytes(constant: Constant) -> memoryview | bytes:
    array: np.ndarray[Any, Any] = np.ascontiguousarray(constant.dense())
    if array.dtype.hasobject:
        raise UnsupportedError("string tensors cannot be stored as external data")
    if array.dtype.name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn"):
        packed: bytes = onnx.numpy_helper.from_array(array).raw_data
        return packed
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)
