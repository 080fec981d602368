"""Session: a model ready to run."""

from __future__ import annotations

import os
import sys
from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, cast

import numpy as np

from lepton_rt import _core
from lepton_rt.errors import InputError, ModelError, as_model_error
from lepton_rt.explanation import Explanation
from lepton_rt.graph.ir import Array, Dim, Graph, Value
from lepton_rt.host import HostRunner, warn_about
from lepton_rt.lower import lower
from lepton_rt.objects import ObjectTable, checked_object
from lepton_rt.state import State, checked_pairs, from_front, to_front
from lepton_rt.torch_export import import_torch, is_torch_model

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


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of an input or output; a dimension may be a symbol or None (any).

    What is no tensor has its ONNX type in kind ("seq(tensor(float))"), and no shape.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dim, ...] | None
    kind: str = ""

    def __str__(self) -> str:
        if self.kind:
            return f"{self.name}: {self.kind}"
        dims = "any shape" if self.shape is None else f"[{', '.join(map(_dim_text, self.shape))}]"
        return f"{self.name}: {self.dtype} {dims}"


def _dim_text(dim: Dim) -> str:
    return "?" if dim is None else str(dim)


class Outputs:
    """Several outputs: a dict by name that also takes positions, and unpacks in order."""

    def __init__(self, named: dict[str, Any]) -> None:
        self._named = named

    def __getitem__(self, key: str | int) -> Any:
        return list(self._named.values())[key] if isinstance(key, int) else self._named[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._named.values())

    def __len__(self) -> int:
        return len(self._named)

    def __contains__(self, name: object) -> bool:
        return name in self._named

    def keys(self) -> KeysView[str]:
        return self._named.keys()

    def values(self) -> ValuesView[Any]:
        return self._named.values()

    def items(self) -> ItemsView[str, Any]:
        return self._named.items()

    def __repr__(self) -> str:
        return f"Outputs({self._named!r})"


def load_graph(model: Model, example_inputs: Any = None, dynamic: Any = None) -> Graph:
    """The Graph of anything Session takes; example_inputs and dynamic are for PyTorch modules.

    Raises:
        ModelError: the file is missing, malformed or of no known format.
        InputError: example inputs are missing, or given for a model that has no use for them.
        UnsupportedError: PyTorch's exporter cannot express the module.
    """
    if is_torch_model(model):
        return import_torch(model, example_inputs, dynamic)
    if example_inputs is not None or dynamic is not None:
        raise InputError("example_inputs and dynamic are for PyTorch modules only")
    if isinstance(model, Graph):
        return model
    graph = getattr(model, "graph", None)
    if isinstance(graph, Graph):
        return graph
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if not path.is_file():
            raise ModelError(f"there is no model file {path}")
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
        "a model is a path to an .onnx or .lepton file, its bytes, an onnx.ModelProto, a PyTorch "
        f"module or exported program or a lepton_rt Graph, not {type(model).__name__}"
    )


def _looks_like_safetensors(data: bytes) -> bool:
    """safetensors begins with a u64 header length and a JSON object; protobuf never does so."""
    return len(data) > 9 and int.from_bytes(data[:8], "little") <= len(data) and data[8:9] == b"{"


class Session:
    """A model compiled for this machine. Any number of Python threads may call one Session.

    Args:
        model: path to an ``.onnx`` or ``.lepton`` file, the bytes of one, an ``onnx.ModelProto``,
            a `Graph`, what `lepton_rt.quantize` returns, a ``torch.nn.Module`` or a
            ``torch.export.ExportedProgram``.
        example_inputs: what a PyTorch module is called with: a tensor, a tuple of arguments, or a
            dict by argument name. It is exported in eval mode.
        dynamic: which dimensions of a module's inputs may vary: True (the first of each), a dict
            {argument: {dimension: symbol}}, or torch.export's ``dynamic_shapes``; default: none.
        threads: threads a run may use, the caller's included; default: every processor this
            process may use (affinity and cgroup limits respected).
        isa: compile for this instruction set instead of the machine's best (see
            ``LEPTON_MAX_ISA``).
        optimise: False keeps every node a step of its own: slow, for debugging and comparing.
        state: inputs that continue outputs of the run before, by name ({"past": "present"});
            default: those whose names say so (``past_key_values.0.key``, ``present.0.key``).
            See `new_state`.

    Raises:
        InputError: an argument is out of its range, or state names no tensor of the model.
        ModelError: the model is malformed.
        UnsupportedError: it uses something this version cannot run.
    """

    def __init__(
        self,
        model: Model,
        *,
        example_inputs: Any = None,
        dynamic: Any = None,
        threads: int | None = None,
        isa: str | None = None,
        optimise: bool = True,
        state: Mapping[str, str] | None = None,
    ) -> None:
        from lepton_rt.passes import legalise
        from lepton_rt.passes import optimise as optimise_graph

        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}")
        best = _core.max_isa()
        isas = _core.usable_isas()
        if isa is not None and isa not in isas:
            raise InputError(f"isa {isa!r} cannot be used here; usable: {', '.join(isas)}")
        with as_model_error("the model cannot be compiled"):
            self._graph = load_graph(model, example_inputs, dynamic)
            self._state_pairs = checked_pairs(self._graph, state)
            stateful, self._state_axes = _grown(self._graph, self._state_pairs)
            compiled = optimise_graph(stateful) if optimise else legalise(stateful)
            lowered = lower(compiled, isa or best)
        warn_about(lowered.host)
        self._plan = lowered.plan
        self._inputs = tuple(_spec(n, v) for n, v in self._graph.inputs.items())
        self._outputs = tuple(_spec(n, v) for n, v in self._graph.outputs.items())
        self._objects = ObjectTable()
        self._has_objects = any(s.dtype.hasobject for s in (*self._inputs, *self._outputs))
        self._dtype_names = {
            name: value.kind or "string"
            for name in self._plan.dtypes
            if (value := lowered.graph.value(name)) is not None and value.is_object
        }
        self._has_objects |= bool(self._dtype_names)
        host = HostRunner(lowered.host, lowered.graph, self._objects) if lowered.host else None
        self._executor = _core.Executor(*lowered.plan.encode(), threads=threads or 0, host=host)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Names, dtypes and shapes the model takes."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Names, dtypes and shapes the model gives, as far as they are known."""
        return self._outputs

    @property
    def graph(self) -> Graph:
        """The model as given, before optimisation."""
        return self._graph

    @property
    def threads(self) -> int:
        return int(self._executor.threads)

    @property
    def state(self) -> dict[str, str]:
        """Inputs that `new_state` keeps between runs, with the outputs that continue them."""
        return dict(self._state_pairs)

    def new_state(self) -> State:
        """An empty state: run(…, state=it) feeds the model's cache inputs from the run before.

        Caches that grow (key/value caches) live in buffers with room to spare; one more token
        writes one more row.
        """
        return State(self._inputs, self._state_pairs, self._state_axes)

    def run(self, *inputs: Any, out: Any = None, state: State | None = None) -> Any:
        """Runs the model once.

        Args:
            inputs: one value per model input in order, or a single dict by input name. A value is
                a numpy array of exactly the input's dtype (any strides), a torch tensor (shared
                through DLPack, not copied, when contiguous and on the CPU), or numbers and nested
                lists of numbers, which are converted to the input's dtype when every value
                survives the conversion (floats may be rounded). Strings are an array or lists of
                them, a sequence is a list of arrays, an optional may be None, a map is a dict.
            out: where to put the results: an array, or a list or dict of arrays (None = make one),
                C-contiguous, of the results' dtypes and shapes.
            state: feeds and keeps the inputs and outputs that `Session.state` names; the other
                inputs are given and the other outputs returned. Not together with out.

        Returns:
            The output, or `Outputs` when the model has several; torch tensors when any input was
            one, else numpy arrays. They belong to the caller.

        Raises:
            InputError: an input is missing, unknown, or of the wrong dtype or shape.
        """
        if state is not None:
            return self._run_state(inputs, out, state)
        values = self._by_position(inputs, self._inputs)
        arrays = [_as_array(spec, value) for spec, value in zip(self._inputs, values)]
        results = self._run_arrays(arrays, self._out_list(out))
        if any(_is_torch(value) for value in values):
            results = [_to_torch(array) for array in results]
        if len(results) == 1:
            return results[0]
        return Outputs({spec.name: r for spec, r in zip(self._outputs, results)})

    __call__ = run

    def _run_arrays(self, arrays: list[Any], out: list[Any] | None) -> list[Any]:
        """One run with caches as the model's inputs and outputs have them."""
        if self._has_objects:
            return self._run_objects(arrays, out)
        if not self._state_axes:
            return list(self._executor.run(arrays, out))
        presents = {self._state_pairs[past]: axis for past, axis in self._state_axes.items()}
        for i, spec in enumerate(self._inputs):
            if spec.name in self._state_axes:
                moved = to_front(arrays[i], self._state_axes[spec.name])
                arrays[i] = np.ascontiguousarray(moved)
        axes = [presents.get(spec.name) for spec in self._outputs]
        plain = None if out is None else [o if a is None else None for o, a in zip(out, axes)]
        results = list(self._executor.run(arrays, plain))
        for i, axis in enumerate(axes):
            if axis is None:
                continue
            results[i] = from_front(results[i], axis)
            if out is not None and out[i] is not None:
                results[i] = _copied_to(out[i], results[i], self._outputs[i].name)
        return results

    def _run_objects(self, values: list[Any], out: list[Any] | None) -> list[Any]:
        """One run of a model with tensors that only Python can hold."""
        held = [spec.dtype.hasobject for spec in self._outputs]
        if out is not None and any(o is not None and h for o, h in zip(out, held)):
            raise InputError("out is for tensors of numbers only")
        with self._objects.run():
            feeds = [
                self._objects.keep(value) if spec.dtype.hasobject else value
                for spec, value in zip(self._inputs, values)
            ]
            results = self._executor.run(feeds, out)
            return [self._objects.get(r) if h else r for r, h in zip(results, held)]

    def _run_state(self, inputs: tuple[Any, ...], out: Any, state: State) -> Any:
        if out is not None:
            raise InputError("run takes either out or state")
        specs = [spec for spec in self._inputs if spec.name not in self._state_pairs]
        values = self._by_position(inputs, specs)
        given = {spec.name: _as_array(spec, value) for spec, value in zip(specs, values)}
        names = [spec.name for spec in self._outputs]
        executor = self._executor
        results = state.run(given, executor.run, executor.output_shapes, names)
        kept = set(self._state_pairs.values())
        if any(_is_torch(value) for value in values):
            results = [r if n in kept else _to_torch(r) for n, r in zip(names, results)]
        named = {name: r for name, r in zip(names, results) if name not in kept}
        return next(iter(named.values())) if len(named) == 1 else Outputs(named)

    def explain(self) -> Explanation:
        """Which kernel every step uses, and why."""
        dtypes = {name: str(dtype) for name, dtype in self._plan.dtypes.items()}
        dtypes.update(self._dtype_names)
        return Explanation(self._plan.steps, dtypes, self._plan.isa)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model as it was given: portable ``.lepton``, or ``.onnx`` by suffix.

        Raises:
            InputError: the suffix is neither.
        """
        save_graph(self._graph, path)

    def _by_position(self, inputs: tuple[Any, ...], specs: Sequence[TensorSpec]) -> list[Any]:
        names = [spec.name for spec in specs]
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            given = inputs[0]
            unknown = [str(name) for name in given if name not in names]
            missing = [name for name in names if name not in given]
            if unknown or missing:
                raise InputError(_names_message(names, missing, unknown))
            return [given[name] for name in names]
        if len(inputs) == 1 and len(names) > 1 and isinstance(inputs[0], (list, tuple)):
            inputs = tuple(inputs[0])
        if len(inputs) != len(names):
            raise InputError(
                f"the model takes {len(names)} inputs ({', '.join(names)}), got {len(inputs)}"
            )
        return list(inputs)

    def _out_list(self, out: Any) -> list[Any] | None:
        if out is None:
            return None
        names = [spec.name for spec in self._outputs]
        if isinstance(out, Mapping):
            unknown = [str(name) for name in out if name not in names]
            if unknown:
                raise InputError(f"out names no output of the model: {', '.join(unknown)}")
            return [out.get(name) for name in names]
        listed = list(out) if isinstance(out, (list, tuple)) else [out]
        if len(listed) != len(names):
            raise InputError(f"the model has {len(names)} outputs, out has {len(listed)}")
        return listed


def _grown(graph: Graph, pairs: Mapping[str, str]) -> tuple[Graph, dict[str, int]]:
    if not pairs:
        return graph, {}
    from lepton_rt.graph.types import infer_types
    from lepton_rt.passes.grow_in_place import grow_in_place

    return grow_in_place(infer_types(graph), pairs)


def _copied_to(target: Any, result: Array, name: str) -> Array:
    fits = isinstance(target, np.ndarray) and target.dtype == result.dtype
    if not fits or target.shape != result.shape:
        raise InputError(
            f'out for "{name}" must be an array of {result.dtype} of shape {list(result.shape)}'
        )
    target[...] = result
    return np.asarray(target)


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


def _spec(name: str, value: Value) -> TensorSpec:
    return TensorSpec(name, value.dtype, value.shape, value.kind)


def _names_message(names: Sequence[str], missing: Sequence[str], unknown: Sequence[str]) -> str:
    parts = []
    if missing:
        parts.append(f"missing: {', '.join(missing)}")
    if unknown:
        parts.append(f"unknown: {', '.join(unknown)}")
    return f"the model takes the inputs {', '.join(names)}; {'; '.join(parts)}"


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _to_torch(array: Array) -> Any:
    return sys.modules["torch"].from_numpy(array)


def _as_array(spec: TensorSpec, value: Any) -> Any:
    """The value as a C-contiguous array of the input's dtype, its shape checked."""
    if spec.dtype.hasobject:
        return checked_object(spec.name, Value(spec.dtype, spec.shape, spec.kind), value)
    if _is_torch(value):
        value = np.from_dlpack(value.detach().cpu().contiguous())
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype != spec.dtype:
            raise InputError(
                f'input "{spec.name}" expects {spec.dtype}, got an array of {array.dtype}; '
                f"convert it with .astype({spec.dtype.name!r}) if that is what you mean"
            )
    else:
        array = _converted(spec, value)
    if spec.shape is not None:
        fits = len(spec.shape) == array.ndim and all(
            not isinstance(want, int) or want == got for want, got in zip(spec.shape, array.shape)
        )
        if not fits:
            raise InputError(
                f'input "{spec.name}" expects shape '
                f"[{', '.join(map(_dim_text, spec.shape))}], got {list(array.shape)}"
            )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.ascontiguousarray(array) if array.ndim else array


def _converted(spec: TensorSpec, value: Any) -> Array:
    """Numbers or nested lists as an array of the input's dtype, if every value survives."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f'input "{spec.name}" is not a regular array: {error}') from None
    if array.dtype.kind not in "biuf":
        raise InputError(
            f'input "{spec.name}" expects numbers of {spec.dtype}, got {type(value).__name__}'
        )
    with np.errstate(all="ignore"):
        converted = array.astype(spec.dtype)
        exact = spec.dtype.kind not in "biu" or bool((converted == array).all())
    if not exact:
        raise InputError(f'input "{spec.name}" expects {spec.dtype}, and some values do not fit it')
    return converted
