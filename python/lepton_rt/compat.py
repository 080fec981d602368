"""An inference session with ONNX Runtime's names, so that existing code changes one import.

    from lepton_rt import compat as ort
    session = ort.InferenceSession("model.onnx")
    outputs = session.run(None, {"x": x})

What has no counterpart here (providers, graph optimisation levels, arenas) is accepted and ignored.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from lepton_rt.errors import InputError
from lepton_rt.graph.ir import Array
from lepton_rt.interface import TensorSpec
from lepton_rt.session import Session

PROVIDER = "CPUExecutionProvider"

_TYPE_NAMES = {
    "float32": "float",
    "float64": "double",
    "object": "string",
    "float8_e4m3fn": "float8e4m3fn",
    "float8_e4m3fnuz": "float8e4m3fnuz",
    "float8_e5m2": "float8e5m2",
    "float8_e5m2fnuz": "float8e5m2fnuz",
}


class GraphOptimizationLevel(IntEnum):
    """ORT_DISABLE_ALL keeps every node a step of its own; the other levels are all the same."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(IntEnum):
    """Accepted and ignored: steps run one after another, each on all threads."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


class SessionOptions:
    """Settings of a session: threads, optimisation, profiling. Unknown ones may be set freely."""

    def __init__(self) -> None:
        self.intra_op_num_threads = 0
        self.inter_op_num_threads = 0
        self.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
        self.execution_mode = ExecutionMode.ORT_SEQUENTIAL
        self.enable_profiling = False
        self.profile_file_prefix = "lepton_profile_"
        self.log_severity_level = 2
        self.log_verbosity_level = 0
        self.enable_cpu_mem_arena = True
        self.enable_mem_pattern = True
        self.logid = ""
        self.optimized_model_filepath = ""
        self._entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self._entries[str(key)] = str(value)

    def get_session_config_entry(self, key: str) -> str:
        """Raises KeyError for an entry that was not added."""
        return self._entries[key]


class RunOptions:
    """Accepted and ignored."""

    def __init__(self) -> None:
        self.log_severity_level = 2
        self.log_verbosity_level = 0
        self.logid = ""
        self.terminate = False
        self._entries: dict[str, str] = {}

    def add_run_config_entry(self, key: str, value: str) -> None:
        self._entries[str(key)] = str(value)


class NodeArg:
    """Name, type ("tensor(float)") and shape of an input or output.

    A free dimension is its symbol, or None; the shape of unknown rank is [].
    """

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        name = spec.dtype.name
        self.type = f"tensor({_TYPE_NAMES.get(name, name)})"
        self.shape = list(spec.shape or ())

    def __repr__(self) -> str:
        return f"NodeArg(name={self.name!r}, type={self.type!r}, shape={self.shape})"


class ModelMetadata:
    """What the model says of itself."""

    def __init__(self, graph_name: str, custom: Mapping[str, str]) -> None:
        self.graph_name = graph_name
        self.custom_metadata_map = dict(custom)
        self.producer_name = ""
        self.domain = ""
        self.description = ""
        self.graph_description = ""
        self.version = 0


class OrtValue:
    """A tensor in main memory."""

    def __init__(self, array: Array) -> None:
        self._array = array

    @staticmethod
    def ortvalue_from_numpy(
        numpy_obj: Array, device_type: str = "cpu", device_id: int = 0
    ) -> OrtValue:
        """Shares the array. Raises InputError for a device other than the CPU."""
        if device_type != "cpu":
            raise InputError(f"there is no device {device_type!r}, only 'cpu'")
        return OrtValue(np.asarray(numpy_obj))

    def numpy(self) -> Array:
        return self._array

    def shape(self) -> list[int]:
        return list(self._array.shape)

    def data_type(self) -> str:
        name = self._array.dtype.name
        return f"tensor({_TYPE_NAMES.get(name, name)})"

    def device_name(self) -> str:
        return "cpu"

    def is_tensor(self) -> bool:
        return True

    def has_value(self) -> bool:
        return True


class InferenceSession:
    """A model ready to run; `session` is the `lepton_rt.Session` behind it.

    Args:
        path_or_bytes: an ``.onnx`` or ``.lepton`` file, or the bytes of one.
        sess_options: `SessionOptions`.
        providers, provider_options: accepted; everything runs on the CPU.

    Raises:
        ModelError, UnsupportedError: as `lepton_rt.Session`.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        sess_options: SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        del providers, provider_options, kwargs
        self._options = sess_options or SessionOptions()
        level = int(self._options.graph_optimization_level)
        self.session = Session(
            path_or_bytes,
            threads=int(self._options.intra_op_num_threads) or None,
            optimise=level != GraphOptimizationLevel.ORT_DISABLE_ALL,
        )
        self._events: list[dict[str, Any]] = []
        self._start = time.perf_counter_ns()
        self._profiling = bool(self._options.enable_profiling)

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Any]:
        """The outputs named (None or none: all of them), in that order, as arrays.

        Raises:
            InputError: an unknown output or input, a missing input, a wrong dtype or shape.
        """
        del run_options
        known = [spec.name for spec in self.session.outputs]
        names = list(output_names or known)
        unknown = [str(name) for name in names if name not in known]
        if unknown:
            raise InputError(f"the model has no output {', '.join(unknown)}, only {known}")
        feeds = {
            name: value.numpy() if isinstance(value, OrtValue) else value
            for name, value in input_feed.items()
        }
        began = time.perf_counter_ns()
        results = self.session.run(feeds)
        if self._profiling:
            self._record(began)
        if len(known) == 1:
            return [results for _ in names]
        return [results[name] for name in names]

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """As `run`, with `OrtValue` in and out."""
        return [OrtValue(a) for a in self.run(output_names, input_dict_ort_values, run_options)]

    def get_inputs(self) -> list[NodeArg]:
        return [NodeArg(spec) for spec in self.session.inputs]

    def get_outputs(self) -> list[NodeArg]:
        return [NodeArg(spec) for spec in self.session.outputs]

    def get_overridable_initializers(self) -> list[NodeArg]:
        return []

    def get_providers(self) -> list[str]:
        return [PROVIDER]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {PROVIDER: {}}

    def set_providers(self, providers: Any = None, provider_options: Any = None) -> None:
        """Accepted and ignored."""

    def get_session_options(self) -> SessionOptions:
        return self._options

    def get_modelmeta(self) -> ModelMetadata:
        graph = self.session.graph
        return ModelMetadata(graph.name, graph.metadata)

    def get_profiling_start_time_ns(self) -> int:
        return self._start

    def end_profiling(self) -> str:
        """Writes the runs since the session was made as a trace-event JSON file; its name."""
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        path = Path(f"{self._options.profile_file_prefix}_{stamp}_{os.getpid()}.json")
        path.write_text(json.dumps(self._events))
        self._profiling = False
        return str(path)

    def _record(self, began: int) -> None:
        self._events.append(
            {
                "cat": "Session",
                "name": "model_run",
                "ph": "X",
                "pid": os.getpid(),
                "tid": 0,
                "ts": (began - self._start) // 1000,
                "dur": (time.perf_counter_ns() - began) // 1000,
                "args": {},
            }
        )


def get_available_providers() -> list[str]:
    """What sessions can run on: the CPU."""
    return [PROVIDER]


def get_all_providers() -> list[str]:
    return [PROVIDER]


def get_device() -> str:
    return "CPU"


def set_default_logger_severity(severity: int) -> None:
    """Accepted and ignored."""
