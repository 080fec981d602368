"""TensorProto → numpy array, checking every claim of the file before believing it.

Nothing is allocated from a declared size: the bytes must be there first. External data is mapped,
not read, so a model larger than memory can be opened.
"""

from __future__ import annotations

import math
import mmap
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from lepton_rt.errors import ModelError, UnsupportedError
from lepton_rt.graph.ir import Array

_PACKED_BITS = {
    getattr(TensorProto, name): bits
    for name, bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4), ("INT2", 2), ("UINT2", 2))
    if hasattr(TensorProto, name)
}
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
# A sparse initialiser may expand to this many times its stored bytes (plus a page), no more.
_MAX_SPARSE_EXPANSION = 4096


def numpy_dtype(elem_type: int, what: str) -> np.dtype[Any]:
    """numpy dtype of an ONNX element type; `what` names the tensor in the error."""
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except (KeyError, ValueError, TypeError):
        raise ModelError(f"{what} has the unknown element type {elem_type}") from None


class TensorReader:
    """Reads the tensors of one model; `folders` are where external data may lie."""

    def __init__(self, folders: tuple[Path, ...] = ()) -> None:
        self._folders = tuple(folder.resolve() for folder in folders)
        self._maps: dict[Path, mmap.mmap | bytes] = {}

    def read(self, tensor: TensorProto) -> Array:
        """The tensor's contents, as a read-only view of mapped or message bytes where possible."""
        what = f"tensor {tensor.name!r}"
        dims = tuple(tensor.dims)
        if any(d < 0 for d in dims):
            raise ModelError(f"{what} has a negative dimension: {list(dims)}")
        if tensor.HasField("segment"):
            raise ModelError(f"{what} is stored in segments, which ONNX models may not use")
        dtype = numpy_dtype(tensor.data_type, what)
        if tensor.data_location == TensorProto.EXTERNAL:
            return self._external(tensor, dtype, dims, what)
        if tensor.HasField("raw_data"):
            if dtype.hasobject:
                raise ModelError(f"{what} holds strings as raw data")
            return _decode(tensor.raw_data, tensor.data_type, dtype, dims, what)
        return _typed(tensor, dims, what)

    def read_sparse(self, sparse: onnx.SparseTensorProto) -> Array:
        """Dense expansion of a sparse tensor."""
        what = f"sparse tensor {sparse.values.name!r}"
        values, indices = self.read(sparse.values), self.read(sparse.indices)
        dims = tuple(sparse.dims)
        if any(d < 0 for d in dims) or values.ndim != 1 or values.dtype.hasobject:
            raise ModelError(f"{what} is malformed")
        size = math.prod(dims)
        limit = _MAX_SPARSE_EXPANSION * (values.nbytes + 1024)
        if size * values.itemsize > limit:
            raise ModelError(f"{what} of shape {list(dims)} is far larger than its contents")
        flat = _sparse_positions(indices, values.size, dims, what)
        dense = np.zeros(size, values.dtype)
        dense[flat] = values
        return dense.reshape(dims)

    def _external(
        self, tensor: TensorProto, dtype: np.dtype[Any], dims: tuple[int, ...], what: str
    ) -> Array:
        fields = {entry.key: entry.value for entry in tensor.external_data}
        if not all(isinstance(text, str) for text in fields.values()):
            raise ModelError(f"the external data of {what} is not described in UTF-8 text")
        path = self._resolve(fields.get("location", ""), what)
        buffer = self._map(path, what)
        needed = _stored_bytes(tensor.data_type, dtype, math.prod(dims))
        offset = _natural(fields.get("offset", "0"), f"offset of {what}")
        length = _natural(fields.get("length", str(needed)), f"length of {what}")
        if length != needed:
            raise ModelError(
                f"{what} of shape {list(dims)} and type {dtype.name} needs {needed} bytes, "
                f"its external data has {length}"
            )
        if offset > len(buffer) or length > len(buffer) - offset:
            raise ModelError(f"external data of {what} lies beyond the end of {path.name!r}")
        view = memoryview(buffer)[offset : offset + length]
        return _decode(view, tensor.data_type, dtype, dims, what)

    def _resolve(self, location: str, what: str) -> Path:
        parts = PurePosixPath(location).parts
        windows = PureWindowsPath(location)
        unsafe = not parts or ".." in parts or ".." in windows.parts or "\0" in location
        if unsafe or location.startswith("/") or windows.drive or windows.root:
            raise ModelError(
                f"{what} names the external data file {location!r}, which is not "
                "a plain path inside the model's folder"
            )
        if not self._folders:
            raise ModelError(
                f"{what} is in the external data file {location!r}: give the model's "
                "path, or base_dir, so that it can be found"
            )
        for folder in self._folders:
            path = folder / location
            if path.exists():
                # A link may lead on to another folder of the model, never out of them.
                real = path.resolve()
                if any(real.is_relative_to(root) for root in self._folders):
                    return real
                raise ModelError(f"external data file {location!r} is outside the model's folder")
        raise ModelError(f"external data file {location!r} of {what} does not exist")

    def _map(self, path: Path, what: str) -> mmap.mmap | bytes:
        if path not in self._maps:
            try:
                if not stat.S_ISREG(path.stat().st_mode):
                    raise ModelError(f"external data {path.name!r} of {what} is not a regular file")
                with path.open("rb") as file:
                    empty = path.stat().st_size == 0
                    self._maps[path] = (
                        b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                    )
            except OSError as error:
                reason = error.strerror or str(error)
                raise ModelError(f"external data {path.name!r} cannot be read: {reason}") from error
        return self._maps[path]


def _natural(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise ModelError(f"the {what} is not a number: {text[:40]!r}")
    return int(text)


def _stored_bytes(elem_type: int, dtype: np.dtype[Any], count: int) -> int:
    bits = _PACKED_BITS.get(elem_type)
    return count * dtype.itemsize if bits is None else (count * bits + 7) // 8


def _decode(
    data: bytes | memoryview,
    elem_type: int,
    dtype: np.dtype[Any],
    dims: tuple[int, ...],
    what: str,
) -> Array:
    needed = _stored_bytes(elem_type, dtype, math.prod(dims))
    if dtype.hasobject or needed != len(data):
        raise ModelError(
            f"{what} of shape {list(dims)} and type {dtype.name} needs {needed} bytes of data, "
            f"the file has {len(data)}"
        )
    if elem_type in _PACKED_BITS:
        packed = TensorProto(dims=dims, data_type=elem_type, raw_data=bytes(data))
        return onnx.numpy_helper.to_array(packed)
    array: Array
    if dtype == np.bool_:
        # Any other byte than 0 and 1 in a bool array would break numpy and the kernels.
        array = np.frombuffer(data, np.uint8) != 0
        return array.reshape(dims)
    array = np.frombuffer(data, dtype).reshape(dims)
    return array if array.flags.aligned else array.copy()


def _typed(tensor: TensorProto, dims: tuple[int, ...], what: str) -> Array:
    count = math.prod(dims)
    if tensor.data_type == TensorProto.STRING:
        needed, found = count, len(tensor.string_data)
    else:
        bits = _PACKED_BITS.get(tensor.data_type)
        needed = count if bits is None else (count * bits + 7) // 8
        if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
            needed *= 2
        found = sum(len(getattr(tensor, name)) for name in _TYPED_FIELDS)
    if needed != found:
        raise ModelError(
            f"{what} of shape {list(dims)} needs {needed} values, the file has {found}"
        )
    try:
        array = np.asarray(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError, OverflowError, UnicodeDecodeError, KeyError) as error:
        raise ModelError(f"{what} cannot be read: {error}") from error
    if array.shape != dims:
        raise ModelError(f"{what} of shape {list(dims)} does not fit its data")
    return array


def _sparse_positions(indices: Array, count: int, dims: tuple[int, ...], what: str) -> Array:
    if indices.dtype != np.int64 or indices.ndim not in (1, 2) or indices.shape[0] != count:
        raise ModelError(f"the indices of {what} do not fit its values")
    if indices.ndim == 2 and indices.shape[1] != len(dims):
        raise ModelError(f"the indices of {what} do not fit its {len(dims)} dimensions")
    bounds = np.array([math.prod(dims)] if indices.ndim == 1 else dims, np.int64)
    if count and ((indices < 0).any() or (indices.reshape(count, -1) >= bounds).any()):
        raise ModelError(f"{what} has an index outside its shape")
    if indices.ndim == 1 or not count:
        return indices.reshape(-1)[:count]
    positions: Array = np.asarray(np.ravel_multi_index(tuple(indices.T), dims))
    return positions


def string_attribute(data: bytes, what: str) -> str:
    """Text of a string attribute."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UnsupportedError(f"{what} is not UTF-8 text") from None
