"""Reading and writing safetensors files: a JSON header, then the tensors' bytes.

Read through one mapping, every claim checked; tensors are views of it.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from lepton_rt.dtypes import dtype_from_name
from lepton_rt.errors import ModelError
from lepton_rt.graph.ir import Array

MAX_HEADER = 100_000_000
"""Longest header the format allows."""

_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_CODES = {name: code for code, name in _NAMES.items()}


def storable(dtype: np.dtype[Any]) -> bool:
    """Whether the format has a name for dtype."""
    return dtype.name in _CODES


def write_tensors(path: Path, tensors: dict[str, Array], metadata: dict[str, str]) -> None:
    """Writes a safetensors file, replacing path only when complete."""
    # Widest elements first: then every tensor is aligned without gaps, which are not allowed.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in names:
        array = tensors[name]
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    if len(encoded) > MAX_HEADER:
        raise ModelError("the graph is too large for a .lepton file")
    pending = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pending.open("wb") as file:
            file.write(struct.pack("<Q", len(encoded)))
            file.write(encoded)
            for name in names:
                flat: Any = np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8)
                file.write(memoryview(flat))
        os.replace(pending, path)
    finally:
        with suppress(FileNotFoundError):
            pending.unlink()


def read_tensors(source: Path | bytes, what: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Tensors (read-only views) and metadata of a safetensors file; ModelError if malformed."""
    buffer = source if isinstance(source, bytes) else _map(source)
    header, start = _header(buffer, what)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelError(f"the metadata of {what} is malformed")
    data = memoryview(buffer)[start:]
    tensors: dict[str, Array] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        tensors[name] = _tensor(name, entry, data, spans)
    spans.sort()
    ends = [0, *(end for _, end in spans)]
    if [begin for begin, _ in spans] != ends[:-1] or ends[-1] != len(data):
        raise ModelError(f"the tensors of {what} overlap, leave gaps or do not fill the file")
    return tensors, metadata


def _map(path: Path) -> mmap.mmap | bytes:
    try:
        if not path.is_file():
            raise ModelError(f"there is no model file {str(path)!r}")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error


def _header(buffer: mmap.mmap | bytes, what: str) -> tuple[dict[str, Any], int]:
    if len(buffer) < 8:
        raise ModelError(f"{what} is not a .lepton file: it has {len(buffer)} bytes")
    (length,) = struct.unpack("<Q", buffer[:8])
    if length > min(MAX_HEADER, len(buffer) - 8):
        raise ModelError(f"{what} is not a .lepton file, or it is cut short")
    header = parse_json(buffer[8 : 8 + length], f"the header of {what}")
    if not isinstance(header, dict):
        raise ModelError(f"the header of {what} is malformed")
    return header, 8 + length


def parse_json(text: bytes | str, what: str) -> Any:
    """JSON as Python values; ModelError for anything that is not, or is nested too deep."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError(f"{what} is not JSON that can be read") from None


def _tensor(name: str, entry: Any, data: memoryview, spans: list[tuple[int, int]]) -> Array:
    broken = ModelError(f"the header entry of tensor {name!r} is malformed")
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        raise broken
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2 or len(shape) > 64:
        raise broken
    if entry["dtype"] not in _NAMES:
        raise ModelError(f"tensor {name!r} has the unknown type {entry['dtype']!r}")
    dtype = dtype_from_name(_NAMES[entry["dtype"]])
    begin, end = offsets
    if not begin <= end <= len(data) or math.prod(shape) * dtype.itemsize != end - begin:
        raise ModelError(f"tensor {name!r} of shape {shape} does not fit its bytes in the file")
    spans.append((begin, end))
    array: Array
    try:
        if dtype == np.bool_:
            array = np.frombuffer(data[begin:end], np.uint8) != 0
            return array.reshape(shape)
        array = np.frombuffer(data[begin:end], dtype).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise broken from error
    return array if array.flags.aligned else array.copy()


def _naturals(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values
    )
