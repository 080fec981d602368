"""The `.lepton` file: a safetensors file whose metadata carries the graph.

Metadata entry "lepton" holds the graph as JSON (`FORMAT_VERSION`); the tensors are the parts of
the constants' encodings. Element types safetensors has no name for are stored as bytes, with the
true type in the JSON; four-bit types two to a byte.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from lepton_rt.custom import custom_domains, registered_domains
from lepton_rt.dtypes import dtype_from_name
from lepton_rt.errors import ModelError, UnsupportedError
from lepton_rt.graph.inference.context import ELEMENT_TYPES
from lepton_rt.graph.ir import (
    LEPTON_DOMAIN,
    OLDEST_OPSET,
    ONNX_DOMAINS,
    OPSET,
    Array,
    Attr,
    Constant,
    Dim,
    Graph,
    Node,
    Value,
)
from lepton_rt.graph.safetensors_file import parse_json, read_tensors, storable, write_tensors
from lepton_rt.graph.types import infer_types
from lepton_rt.graph.verify import MAX_DEPTH, verify

FORMAT_VERSION = 1
_LEPTON_VERSION = 1
_DTYPES = frozenset(ELEMENT_TYPES.values()) | {"void"}
_NIBBLES = ("int4", "uint4", "float4_e2m1fn")


def save_lepton(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Writes graph as a `.lepton` file, replacing path only when complete.

    Raises ModelError for a graph that is not well formed, UnsupportedError for one with operators
    of a foreign domain, and OSError.
    """
    verify(graph)
    writer = _Writer()
    document = {"version": FORMAT_VERSION, "opsets": graph.opsets, "graph": writer.graph(graph)}
    foreign = set(graph.opsets) - {"", LEPTON_DOMAIN} - ONNX_DOMAINS - custom_domains(graph)
    if foreign:
        raise UnsupportedError(f"operators of {sorted(foreign)} cannot be saved as .lepton")
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    write_tensors(Path(path), writer.tensors, {"lepton": text})


def load_lepton(source: str | os.PathLike[str] | bytes) -> Graph:
    """Reads a `.lepton` file (path, mapped, or its bytes) into a Graph, without onnx.

    Raises ModelError for anything but a well-formed file of a version this one knows.
    """
    if isinstance(source, bytes):
        what, tensors_of = "the model", read_tensors(source, "the model")
    else:
        what = repr(Path(source).name)
        tensors_of = read_tensors(Path(source), what)
    tensors, metadata = tensors_of
    if "lepton" not in metadata:
        raise ModelError(f"{what} is a safetensors file without a lepton_rt graph")
    document = parse_json(metadata["lepton"], f"the graph of {what}")
    reader = _Reader(tensors)
    try:
        _check_version(document, what)
        graph = reader.graph(document["graph"], 0)
        graph.opsets = {**document["opsets"], "": OPSET}
    except ModelError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise ModelError(f"the graph of {what} is malformed: {error!r}") from error
    verify(graph)
    return infer_types(graph)


def _check_version(document: Any, what: str) -> None:
    version, opsets = document["version"], document["opsets"]
    if not isinstance(version, int) or not all(isinstance(v, int) for v in opsets.values()):
        raise ModelError(f"the version of {what} is malformed")
    newer = opsets.get("", 0) > OPSET or opsets.get(LEPTON_DOMAIN, 0) > _LEPTON_VERSION
    foreign = set(opsets) - {"", LEPTON_DOMAIN} - ONNX_DOMAINS - registered_domains()
    if foreign:
        raise ModelError(
            f"{what} uses operators of domain {', '.join(sorted(map(str, foreign)))}, which "
            "lepton_rt.register_op must teach first"
        )
    if version > FORMAT_VERSION or newer:
        raise ModelError(f"{what} was made by a newer version of lepton_rt: upgrade to read it")
    if version != FORMAT_VERSION or opsets.get("", 0) < OLDEST_OPSET:
        raise ModelError(f"{what} has the unknown version {version}")


# Writing -------------------------------------------------------------------------------------


class _Writer:
    """Turns a graph into JSON values, and its arrays into named tensors."""

    def __init__(self) -> None:
        self.tensors: dict[str, Array] = {}

    def graph(self, graph: Graph) -> dict[str, Any]:
        return {
            "name": graph.name,
            "inputs": [_value_json(n, v) for n, v in graph.inputs.items()],
            "outputs": [_value_json(n, v) for n, v in graph.outputs.items()],
            "values": [_value_json(n, v) for n, v in graph.values.items()],
            "constants": {n: self._constant(n, c) for n, c in graph.constants.items()},
            "nodes": [self._node(node) for node in graph.nodes],
            "metadata": dict(graph.metadata),
        }

    def _constant(self, name: str, constant: Constant) -> dict[str, Any]:
        parts = {
            part: self._array(name if part == "data" else f"{name}/{part}", array)
            for part, array in constant.parts.items()
        }
        return {
            "dtype": constant.dtype.name,
            "shape": list(constant.shape),
            "encoding": constant.encoding,
            "parts": parts,
            "meta": constant.meta,
        }

    def _node(self, node: Node) -> dict[str, Any]:
        hint = f"{next(o for o in node.outputs if o)}/"
        entry: dict[str, Any] = {"op": node.op, "inputs": node.inputs, "outputs": node.outputs}
        if node.domain:
            entry["domain"] = node.domain
        if node.name:
            entry["name"] = node.name
        if node.attrs:
            entry["attrs"] = {k: self._attr(hint + k, v) for k, v in node.attrs.items()}
        return entry

    def _attr(self, hint: str, value: Attr) -> dict[str, Any]:
        if isinstance(value, Graph):
            return {"graph": self.graph(value)}
        if isinstance(value, np.ndarray):
            return {"tensor": self._array(hint, value)}
        if isinstance(value, str):
            return {"str": value}
        if isinstance(value, int):
            return {"int": int(value)}
        if isinstance(value, float):
            return {"float": _number(value)}
        if all(isinstance(v, str) for v in value) and value:
            return {"strs": list(value)}
        if all(isinstance(v, int) for v in value):
            return {"ints": [int(v) for v in value]}
        return {"floats": [_number(float(v)) for v in value]}

    def _array(self, hint: str, array: Array) -> dict[str, Any]:
        entry: dict[str, Any] = {"dtype": array.dtype.name, "shape": list(array.shape)}
        if array.dtype.hasobject:
            entry["strings"] = [str(text) for text in array.reshape(-1)]
            return entry
        key, serial = hint, 0
        while key in self.tensors or key == "__metadata__":
            serial += 1
            key = f"{hint}#{serial}"
        entry["tensor"] = key
        self.tensors[key] = _stored(array)
        return entry


def _number(value: float) -> float | str:
    # JSON has no names for these.
    return value if math.isfinite(value) else repr(value)


def _value_json(name: str, value: Value) -> list[Any]:
    entry = [name, value.dtype.name, None if value.shape is None else list(value.shape)]
    return [*entry, value.kind] if value.kind else entry


def _stored(array: Array) -> Array:
    if storable(array.dtype):
        return array
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if array.dtype.name not in _NIBBLES:
        return raw
    even = raw if raw.size % 2 == 0 else np.append(raw, np.uint8(0))
    return (even[0::2] & 15) | (even[1::2] << 4)


def _restored(stored: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    if storable(dtype):
        return stored
    if dtype.name in _NIBBLES:
        raw = np.stack([stored & 15, stored >> 4], -1).reshape(-1)[: math.prod(shape)]
        if dtype.name == "int4":
            # ml_dtypes keeps int4 sign-extended in its byte.
            raw = ((raw ^ 8).astype(np.int8) - 8).view(np.uint8)
        stored = raw.astype(np.uint8)
    restored: Array = np.ascontiguousarray(stored).view(dtype).reshape(shape)
    return restored


# Reading -------------------------------------------------------------------------------------


class _Reader:
    """Builds a Graph from JSON values; whatever has another form than `_Writer` gave is refused."""

    def __init__(self, tensors: dict[str, Array]) -> None:
        self._tensors = tensors

    def graph(self, entry: Any, depth: int) -> Graph:
        if depth > MAX_DEPTH:
            raise ModelError(f"graphs are nested more than {MAX_DEPTH} deep")
        graph = Graph(name=_text(entry["name"]))
        tables = (("inputs", graph.inputs), ("outputs", graph.outputs), ("values", graph.values))
        for key, table in tables:
            for name, dtype, shape, *kind in entry[key]:
                if _text(name) in table:
                    raise ModelError(f"{name!r} is listed twice among the {key}")
                dims = None if shape is None else _shape(shape)
                table[name] = Value(_dtype(dtype), dims, *map(_text, kind))
        for name, constant in entry["constants"].items():
            graph.constants[name] = self._constant(constant)
        graph.nodes = [self._node(node, depth) for node in entry["nodes"]]
        graph.metadata = {_text(k): _text(v) for k, v in entry["metadata"].items()}
        return graph

    def _constant(self, entry: Any) -> Constant:
        shape = _static_shape(entry["shape"])
        parts = {_text(name): self._array(part) for name, part in entry["parts"].items()}
        meta = entry["meta"]
        if not isinstance(meta, dict):
            raise ModelError("the meta of a constant is malformed")
        return Constant(_dtype(entry["dtype"]), shape, _text(entry["encoding"]), parts, meta)

    def _node(self, entry: Any, depth: int) -> Node:
        return Node(
            _text(entry["op"]),
            [_text(name) for name in entry["inputs"]],
            [_text(name) for name in entry["outputs"]],
            {_text(k): self._attr(v, depth) for k, v in entry.get("attrs", {}).items()},
            _text(entry.get("domain", "")),
            _text(entry.get("name", "")),
        )

    def _attr(self, entry: Any, depth: int) -> Attr:
        if not isinstance(entry, dict) or len(entry) != 1:
            raise ModelError("an attribute is malformed")
        (kind, value), *_ = entry.items()
        if kind == "graph":
            return self.graph(value, depth + 1)
        if kind == "tensor":
            return self._array(value)
        if kind in _SCALARS:
            scalar: Attr = _SCALARS[kind](value)
            return scalar
        if kind in ("ints", "floats", "strs") and isinstance(value, list):
            return [_SCALARS[kind[:-1]](v) for v in value]
        raise ModelError(f"an attribute has the unknown kind {kind!r}")

    def _array(self, entry: Any) -> Array:
        dtype, shape = _dtype(entry["dtype"]), _static_shape(entry["shape"])
        count = math.prod(shape)
        if dtype.hasobject:
            texts = [_text(text) for text in entry["strings"]]
            if len(texts) != count:
                raise ModelError("a tensor of strings does not fit its shape")
            return np.array(texts, object).reshape(shape)
        stored = self._tensors.get(_text(entry["tensor"]))
        if stored is None:
            raise ModelError(f"the file has no tensor {entry['tensor']!r}")
        if storable(dtype):
            fits = stored.dtype == dtype and stored.shape == shape
        else:
            size = (count + 1) // 2 if dtype.name in _NIBBLES else count * dtype.itemsize
            fits = stored.dtype == np.uint8 and stored.shape == (size,)
        if not fits:
            raise ModelError(
                f"tensor {entry['tensor']!r} is not the {dtype.name} {list(shape)} "
                "that the graph says"
            )
        return _restored(stored, dtype, shape)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ModelError(f"{value!r:.60} should be text")
    return value


def _int(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise ModelError(f"{value!r:.60} should be an integer")
    return value


def _float(value: Any) -> float:
    if value in ("inf", "-inf", "nan"):
        return float(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ModelError(f"{value!r:.60} should be a number")
    return float(value)


_SCALARS: dict[str, Any] = {"int": _int, "float": _float, "str": _text}


def _dtype(name: Any) -> np.dtype[Any]:
    if not isinstance(name, str) or name not in _DTYPES:
        raise ModelError(f"{name!r:.60} is not a tensor type")
    return np.dtype("V") if name == "void" else dtype_from_name(name)


def _shape(dims: Any) -> tuple[Dim, ...]:
    if not isinstance(dims, list):
        raise ModelError(f"{dims!r:.60} is not a shape")
    return tuple(d if d is None or isinstance(d, str) else _int(d) for d in dims)


def _static_shape(dims: Any) -> tuple[int, ...]:
    shape = _shape(dims)
    if not all(isinstance(d, int) and d >= 0 for d in shape):
        raise ModelError(f"{dims!r:.60} is not the shape of a constant")
    return shape  # type: ignore[return-value]
