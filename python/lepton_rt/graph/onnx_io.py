"""Reading and writing ONNX models."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Union

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from lepton_rt.custom import custom_domains
from lepton_rt.errors import ModelError, UnsupportedError
from lepton_rt.graph.ir import OPSET, Graph
from lepton_rt.graph.onnx_export import build_model
from lepton_rt.graph.onnx_import import Importer
from lepton_rt.graph.onnx_schema import check_graph, infer_by_schema
from lepton_rt.graph.onnx_tensors import TensorReader
from lepton_rt.graph.onnx_upgrade import Upgrader
from lepton_rt.graph.onnx_write import write_model
from lepton_rt.graph.topology import sort_nodes
from lepton_rt.graph.types import infer_types
from lepton_rt.graph.verify import verify

ModelSource = Union[str, "os.PathLike[str]", bytes, ModelProto]
_PROTOBUF_LIMIT = 2**31 - 1


def import_onnx(
    model: ModelSource,
    *,
    base_dir: str | os.PathLike[str] | None = None,
    domains: frozenset[str] = frozenset(),
) -> Graph:
    """Reads an ONNX model into a Graph at opset `OPSET`.

    model: path, serialised bytes, or ModelProto. base_dir: where the external data of a model
    given as bytes or message lies. domains: operator domains accepted beside ONNX's own.
    Functions are inlined; weights become constants, mapped from their files where external.
    Raises ModelError for a malformed model or an operator of an unknown domain, UnsupportedError
    for ONNX that lepton_rt has no counterpart of (sequence inputs, for instance).
    """
    proto, folders = _load(model, base_dir)
    importer = Importer(proto, TensorReader(folders), domains)
    graph = importer.run()
    sort_nodes(graph)
    _check_opsets(importer)
    upgrader = Upgrader(importer.opset, importer.versions, graph.tensor_names())
    graph = infer_types(graph, partial(infer_by_schema, opsets=graph.opsets), upgrader)
    graph.opsets.update(dict.fromkeys(domains | custom_domains(graph), 1))
    verify(graph)
    check_graph(graph)
    return graph


def _check_opsets(importer: Importer) -> None:
    newest = max([importer.opset, *importer.versions.values()])
    if newest > OPSET:
        raise UnsupportedError(f"the model uses opset {newest}; {OPSET} is the newest one known")
    if min([importer.opset, *importer.versions.values()]) < 1:
        raise ModelError("the model states an opset below 1")


def export_onnx(graph: Graph, opset: int = 21) -> ModelProto:
    """The graph as a ModelProto of main-domain opset `opset`, weights inside, checked.

    lepton operators are written as their ONNX bodies, encoded constants as dense tensors. Raises
    UnsupportedError where the opset has no words for the graph, ModelError for a broken graph.
    """
    return build_model(graph, opset)


def save_onnx(
    graph: Graph,
    path: str | os.PathLike[str],
    opset: int = 21,
    external_data: bool | None = None,
) -> None:
    """Writes the graph as an ONNX file, replacing it only when complete.

    external_data: weights in ``<name>.data`` beside the model; None decides by size (models over
    1.5 GB). Raises as `export_onnx`, and OSError.
    """
    write_model(graph, Path(path), opset, external_data)


def _load(
    model: ModelSource, base_dir: str | os.PathLike[str] | None
) -> tuple[ModelProto, tuple[Path, ...]]:
    folders = () if base_dir is None else (Path(base_dir),)
    if isinstance(model, ModelProto):
        return model, folders
    if isinstance(model, (bytes, bytearray, memoryview)):
        return _parse(bytes(model), "the model"), folders
    path = Path(model)
    try:
        if not path.is_file():
            raise ModelError(f"there is no model file {str(path)!r}")
        if path.stat().st_size > _PROTOBUF_LIMIT:
            raise ModelError(
                f"{path.name!r} is larger than 2 GB, which no ONNX file can be; "
                "larger models keep their weights in external data"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    # Beside the path as given and beside what it links to (download caches link both files).
    return _parse(data, repr(path.name)), (*folders, path.parent, path.resolve().parent)


def _parse(data: bytes, what: str) -> ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"{what} is not an ONNX file, or it is damaged") from None
    return proto
