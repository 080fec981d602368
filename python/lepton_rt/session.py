"""Session: a model ready to run."""

from __future__ import annotations

import os
from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from pathlib import Path
from typing import Any

import numpy as np

from lepton_rt.arrays import as_array, copied_to, is_torch, to_torch
from lepton_rt.compiler import (
    Options,
    chosen_isa,
    compile_cached,
    compile_model,
    open_plan,
)
from lepton_rt.errors import InputError, UnsupportedError
from lepton_rt.explanation import Explanation
from lepton_rt.graph.ir import Graph
from lepton_rt.interface import TensorSpec
from lepton_rt.loading import Model, is_plan, load_graph, save_graph
from lepton_rt.state import State, from_front, to_front

PRECISIONS = ("f32", "bf16")

__all__ = ["Model", "Outputs", "Session", "TensorSpec", "load_graph", "save_graph"]


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


class Session:
    """A model compiled for this machine. Any number of Python threads may call one Session.

    Args:
        model: path to an ``.onnx``, ``.lepton`` or ``.plan`` file, the bytes of one, an
            ``onnx.ModelProto``, a `Graph`, what `lepton_rt.quantize` returns, a
            ``torch.nn.Module`` or a ``torch.export.ExportedProgram``.
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
        cache: True keeps the compiled plan in ``$XDG_CACHE_HOME/lepton_rt`` (or
            ``~/.cache/lepton_rt``), a path in that folder, and uses it the next time: for model
            files, their bytes and ``onnx.ModelProto``. A plan is used again only for the same
            model, options, library and instruction set. Plans of a folder take at most
            ``$LEPTON_CACHE_MB`` (4096); those used longest ago are removed.
        tune: choose kernels by measuring instead of by rule: True for inputs whose free dimensions
            are 1, or shapes by input name. Takes seconds the first time; choices are kept in the
            cache folder, for this processor, library and its kernels only.
        precision: "bf16" keeps the constant weights of float32 MatMul, Gemm and Conv as bfloat16,
            rounded to nearest (a relative error of at most 2^-8 a weight, 2^-9.2 on average):
            half the memory, and up to twice the speed of products of a few rows. Sums are
            float32; inputs are, too, but where the processor has AVX512-BF16 or AMX-BF16 those of
            convolutions and of products of more than 12 rows are rounded likewise. Depthwise and
            transposed convolutions, those that run by Winograd, recurrent layers and sparse
            weights stay float32 as a whole; `explain` names the kernels. Not together with tune.

    Raises:
        InputError: an argument is out of its range, or state names no tensor of the model.
        ModelError: the model is malformed.
        UnsupportedError: it uses something this version cannot run, or a plan was made for
            another version, build or instruction set.
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
        cache: bool | str | os.PathLike[str] = False,
        tune: bool | Mapping[str, Sequence[int]] = False,
        precision: str = "f32",
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}")
        _check_precision(precision, tune)
        if is_plan(model):
            given = (example_inputs, dynamic, isa, state)
            changed = not optimise or cache or tune or precision != "f32"
            if any(option is not None for option in given) or changed:
                raise InputError("a .plan is compiled already: it takes no option but threads")
            made = open_plan(model, threads or 0)
        else:
            shapes = {} if tune is True else tune or None
            options = Options(chosen_isa(isa), optimise, state, shapes, precision)
            folder = Path(cache) if isinstance(cache, (str, os.PathLike)) else None
            if cache is False:
                made = compile_model(model, options, threads or 0, example_inputs, dynamic)
            elif example_inputs is not None or dynamic is not None:
                raise InputError("cache is for model files, not for PyTorch modules")
            else:
                made = compile_cached(model, options, threads or 0, folder)
        self._made = made
        self._executor = made.executor
        self._inputs, self._outputs = made.interface.inputs, made.interface.outputs
        self._state_pairs = made.interface.state
        self._state_axes = made.interface.state_axes
        self._objects, self._has_objects = made.objects, made.has_objects
        self._is_plain = not self._state_axes and not self._has_objects

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
        """The model as given, before optimisation. A model file is read again for it.

        Raises:
            UnsupportedError: the session was opened from a `.plan`, which has no graph.
            ModelError: the model file was changed or removed since.
        """
        if self._made.source is None:
            raise UnsupportedError("a session opened from a .plan has no graph")
        return self._made.source.graph()

    @property
    def metadata(self) -> dict[str, str]:
        """The model's own metadata."""
        return dict(self._made.interface.metadata)

    @property
    def threads(self) -> int:
        """Threads a run may use, the caller's included."""
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
        if state is None and out is None and self._is_plain:
            plain = self._executor.run_plain(inputs)
            if plain is not None:
                return self._named(plain) if isinstance(plain, list) else plain
        if state is not None:
            return self._run_state(inputs, out, state)
        values = self._by_position(inputs, self._inputs)
        arrays = [as_array(spec, value) for spec, value in zip(self._inputs, values)]
        results = self._run_arrays(arrays, self._out_list(out))
        if any(is_torch(value) for value in values):
            results = [to_torch(array) for array in results]
        return results[0] if len(results) == 1 else self._named(results)

    __call__ = run

    def _named(self, results: list[Any]) -> Outputs:
        return Outputs({spec.name: r for spec, r in zip(self._outputs, results)})

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
                results[i] = copied_to(out[i], results[i], self._outputs[i].name)
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
        given = {spec.name: as_array(spec, value) for spec, value in zip(specs, values)}
        names = [spec.name for spec in self._outputs]
        executor = self._executor
        results = state.run(given, executor.run, executor.output_shapes, names)
        kept = set(self._state_pairs.values())
        if any(is_torch(value) for value in values):
            results = [r if n in kept else to_torch(r) for n, r in zip(names, results)]
        named = {name: r for name, r in zip(names, results) if name not in kept}
        return next(iter(named.values())) if len(named) == 1 else Outputs(named)

    def explain(self) -> Explanation:
        """Which kernel every step uses, and why."""
        made = self._made
        return Explanation(
            made.executor.steps, made.interface.notes, made.executor.isa, made.object_types
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model as it was given: portable ``.lepton``, or ``.onnx`` by suffix.

        Raises:
            InputError: the suffix is neither.
            UnsupportedError: the session was opened from a `.plan`.
        """
        save_graph(self.graph, path)

    def save_plan(self, path: str | os.PathLike[str]) -> None:
        """Writes the compiled model: a ``.plan`` for this library version and instruction set.

        It opens at once (nothing is compiled, weights are used where the file is mapped), from
        Python or from C (``include/lepton_rt.h`` in the package). The file is replaced as a whole.

        Raises:
            InputError: the suffix is not ``.plan``, or the file cannot be written.
            UnsupportedError: steps run through Python; the message lists them.
        """
        if Path(path).suffix != ".plan":
            raise InputError(f"a compiled model is saved as .plan; {os.fspath(path)!r} is not")
        self._made.save(path)

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


def _check_precision(precision: str, tune: Any) -> None:
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "f32" and tune:
        raise InputError("tune measures kernels of float32 weights: not together with precision")


def _names_message(names: Sequence[str], missing: Sequence[str], unknown: Sequence[str]) -> str:
    parts = []
    if missing:
        parts.append(f"missing: {', '.join(missing)}")
    if unknown:
        parts.append(f"unknown: {', '.join(unknown)}")
    return f"the model takes the inputs {', '.join(names)}; {'; '.join(parts)}"
