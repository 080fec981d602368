"""Anything a Session takes → Graph, and graphs → files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, cast

from lepton_rt.errors import InputError, ModelError, UnsupportedError
from lepton_rt.graph.ir import Graph

if TYPE_CHECKING:
    import onnx
    import torch

    from lepton_rt.compress.quantize import QuantizedModel

Model = Union[
    str,
    "os.PathLike[str]",
    bytes,
    "onnx.ModelProto",
    Graph,
    "QuantizedModel",
    "torch.nn.Module",
    "torch.export.ExportedProgram",
]

PLAN_MAGIC = b"\x89LEPTPLN"
"""How a `.plan` file begins (csrc/runtime/plan_file.h)."""


def load_graph(model: Model, example_inputs: Any = None, dynamic: Any = None) -> Graph:
    """The Graph of anything Session compiles; example_inputs and dynamic are for PyTorch modules.

    Raises:
        ModelError: the file is missing, malformed or of no known format.
        InputError: example inputs are missing, or given for a model that has no use for them.
        UnsupportedError: PyTorch's exporter cannot express the module, or the model is a `.plan`.
    """
    from lepton_rt.torch_export import import_torch, is_torch_model

    if is_torch_model(model):
        return import_torch(model, example_inputs, dynamic)
    if example_inputs is not None or dynamic is not None:
        raise InputError("example_inputs and dynamic are for PyTorch modules only")
    if isinstance(model, Graph):
        return model
    graph = getattr(model, "graph", None)
    if isinstance(graph, Graph):
        return graph
    if is_plan(model):
        raise UnsupportedError(
            "a .plan holds a compiled model only: give the .onnx or .lepton file it was made from"
        )
    if isinstance(model, (str, os.PathLike)):
        path = existing(model)
        if path.suffix == ".lepton":
            from lepton_rt.graph.lepton_io import load_lepton

            return load_lepton(path)
        from lepton_rt.graph.onnx_io import import_onnx

        return import_onnx(path)
    if isinstance(model, (bytes, bytearray, memoryview)):
        data = bytes(model)
        if _looks_like_safetensors(data):
            from lepton_rt.graph.lepton_io import load_lepton

            return load_lepton(data)
        from lepton_rt.graph.onnx_io import import_onnx

        return import_onnx(data)
    if type(model).__name__ == "ModelProto":
        from lepton_rt.graph.onnx_io import import_onnx

        return import_onnx(cast("onnx.ModelProto", model))
    raise ModelError(
        "a model is a path to an .onnx, .lepton or .plan file, its bytes, an onnx.ModelProto, a "
        "PyTorch module or exported program or a lepton_rt Graph, not " + type(model).__name__
    )


def is_plan(model: object) -> bool:
    """Whether model is the path of a `.plan` file, by suffix, or the bytes of one."""
    if isinstance(model, (str, os.PathLike)):
        return Path(model).suffix == ".plan"
    if isinstance(model, (bytes, bytearray, memoryview)):
        return bytes(model[: len(PLAN_MAGIC)]) == PLAN_MAGIC
    return False


def existing(model: str | os.PathLike[str]) -> Path:
    """The path of a file that is there. Raises ModelError."""
    path = Path(model)
    if not path.is_file():
        raise ModelError(f"there is no model file {path}")
    return path


def _looks_like_safetensors(data: bytes) -> bool:
    """safetensors begins with a u64 header length and a JSON object; protobuf never does so."""
    return len(data) > 9 and int.from_bytes(data[:8], "little") <= len(data) and data[8:9] == b"{"


class GraphSource:
    """Where the graph of a session is: a file is read again, so that weights are not held twice."""

    def __init__(self, model: Model, graph: Graph | None) -> None:
        self._model = model
        self._graph = graph
        self._stamp: tuple[int, int] | None = None
        if isinstance(model, (str, os.PathLike)):
            self._model = Path(model).absolute()
            self._graph = None
            self._stamp = _stamp(self._model)

    def graph(self) -> Graph:
        """Raises ModelError when the file is gone or was changed."""
        if self._graph is not None:
            return self._graph
        if self._stamp is None:
            self._graph = load_graph(self._model)
            return self._graph
        path = cast(Path, self._model)
        if _stamp(path) != self._stamp:
            raise ModelError(f"the model file {path} was changed since the session was made")
        return load_graph(path)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of the last change; None for a file that is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def save_graph(graph: Graph, path: str | os.PathLike[str], opset: int = 21) -> None:
    """Writes a graph as ``.lepton`` or ``.onnx``, by suffix.

    Raises:
        InputError: the suffix is neither.
    """
    suffix = Path(path).suffix
    if suffix == ".lepton":
        from lepton_rt.graph.lepton_io import save_lepton

        save_lepton(graph, path)
    elif suffix == ".onnx":
        from lepton_rt.graph.onnx_io import save_onnx

        save_onnx(graph, path, opset=opset)
    else:
        raise InputError(f"a model is saved as .lepton or .onnx; {str(path)!r} is neither")
