"""Graph → executor: passes, lowering, packing; and plans from files and from the cache."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_rt import _core
from lepton_rt.errors import Error, InputError, UnsupportedError, as_model_error
from lepton_rt.interface import Interface, TensorSpec
from lepton_rt.loading import GraphSource, Model, existing, load_graph
from lepton_rt.objects import ObjectTable

if TYPE_CHECKING:
    from lepton_rt.graph.ir import Graph
    from lepton_rt.lower import Choose, HostStep, Prepare
    from lepton_rt.tuning import TunedNode


@dataclass(frozen=True)
class Options:
    """How to compile: what `Session` takes."""

    isa: str
    optimise: bool = True
    state: Mapping[str, str] | None = None
    tune: Mapping[str, Sequence[int]] | None = None
    """Shapes of inputs to choose kernels for by measuring; None: the preferred kernels."""
    precision: str = "f32"
    """Of float32 layers' constant weights: "f32" or "bf16"."""


@dataclass
class Compiled:
    """What a session runs."""

    executor: _core.Executor
    interface: Interface
    source: GraphSource | None = None
    """None for a plan."""
    host: list[HostStep] = field(default_factory=list)
    objects: ObjectTable = field(default_factory=ObjectTable)
    """What only Python can hold, during a run."""
    object_types: dict[str, str] = field(default_factory=dict)
    """Tensor that a handle stands for → what it is."""
    gains: list[TunedNode] = field(default_factory=list)
    """What was measured to be faster, just now."""

    @property
    def has_objects(self) -> bool:
        specs = (*self.interface.inputs, *self.interface.outputs)
        return bool(self.object_types) or any(spec.dtype.hasobject for spec in specs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a `.plan`. Raises UnsupportedError that lists the host steps, if there are any."""
        if self.host:
            listed = ", ".join(f'{step.node.key} "{step.node.name}"' for step in self.host)
            raise UnsupportedError(f"a plan cannot hold steps that run through Python: {listed}")
        if self.has_objects:
            raise UnsupportedError("a plan cannot hold strings, sequences, optionals and maps")
        self.executor.save(os.fspath(path), self.interface.encode())


def chosen_isa(isa: str | None) -> str:
    """The instruction set to compile for. Raises InputError when it cannot be used here."""
    best = _core.max_isa()
    isas = _core.usable_isas()
    if isa is not None and isa not in isas:
        raise InputError(f"isa {isa!r} cannot be used here; usable: {', '.join(isas)}")
    return isa or best


def open_plan(model: Any, threads: int) -> Compiled:
    """A plan by path, or its bytes.

    Raises:
        ModelError: it is missing, damaged or malformed.
        UnsupportedError: it was made for another version, build or instruction set.
    """
    if isinstance(model, (str, os.PathLike)):
        executor = _core.Executor.open(os.fspath(existing(model)), threads)
    else:
        executor = _core.Executor.load(bytes(model), threads)
    return Compiled(executor, Interface.decode(executor.annotations, executor))


def compile_model(
    model: Model,
    options: Options,
    threads: int,
    example_inputs: Any = None,
    dynamic: Any = None,
    folder: Path | None = None,
) -> Compiled:
    """Compiles anything `Session` takes; warns about host steps.

    folder: where measured choices are kept; None: the user's own.

    Raises:
        ModelError: the model is malformed.
        InputError: example inputs or state do not fit it.
        UnsupportedError: it uses something this version cannot run.
    """
    from lepton_rt.host import HostRunner, warn_about
    from lepton_rt.lower import lower
    from lepton_rt.lowering.attention_heads import absorb_heads
    from lepton_rt.lowering.conv_bands import join_convolutions
    from lepton_rt.lowering.qlinear_attention import fuse_qlinear_attention
    from lepton_rt.lowering.row_blocks import join_rows
    from lepton_rt.passes import legalise, optimise
    from lepton_rt.state import checked_pairs

    with as_model_error("the model cannot be compiled"):
        graph = load_graph(model, example_inputs, dynamic)
        pairs = checked_pairs(graph, options.state)
        stateful, axes = _grown(graph, pairs)
        prepare = optimise if options.optimise else legalise
        prepared = prepare(stateful)
        choose, gains = _chosen(prepared, options, prepare, threads, folder)
        lowered = lower(prepared, options.isa, prepare, choose, options.precision)
        if options.optimise:
            # Held by nothing else: its constants are freed below.
            lowered.plan = fuse_qlinear_attention(lowered.plan, lowered.graph)
            lowered.plan = absorb_heads(lowered.plan, lowered.graph)
            lowered.plan = join_rows(lowered.plan, lowered.graph)
            lowered.plan = join_convolutions(lowered.plan)
    warn_about(lowered.host)
    interface = Interface(
        tuple(TensorSpec.of(name, value) for name, value in graph.inputs.items()),
        tuple(TensorSpec.of(name, value) for name, value in graph.outputs.items()),
        pairs,
        axes,
        dict(graph.metadata),
        tuple(step.note for step in lowered.plan.all_steps()),
    )
    types = {
        name: value.kind or "string"
        for graph_of_steps in (lowered.graph, *(step.graph for step in lowered.host))
        for name in graph_of_steps.values
        if (value := graph_of_steps.value(name)) is not None and value.is_object
    }
    objects = ObjectTable()
    host = HostRunner(lowered.host, objects) if lowered.host else None
    executor = _core.Executor(*lowered.plan.encode(), threads=threads, host=host)
    source, hosted = GraphSource(model, graph), lowered.host
    del graph, stateful, prepared, lowered
    _core.release_memory()
    executor.use_large_pages()
    return Compiled(executor, interface, source, hosted, objects, types, gains)


def compile_cached(model: Model, options: Options, threads: int, folder: Path | None) -> Compiled:
    """The plan of a model from the cache in `folder` (None: the user's own), else made and kept.

    An entry that cannot be used is written anew; then those used longest ago are removed until the
    folder holds no more than $LEPTON_CACHE_MB. Raises as `compile_model`, and InputError when the
    model is no file and no bytes, when others could write to the folder, or when that variable is
    no number.
    """
    from lepton_rt.plan_cache import entry, mark_used, remove_oldest, size_limit

    size_limit()  # refused before the work, not after it
    path = entry(model, options, folder)
    if path is None:
        return compile_model(model, options, threads, folder=folder)
    if path.is_file():
        try:
            found = open_plan(path, threads)
        except (Error, MemoryError):
            pass
        else:
            mark_used(path)
            found.source = GraphSource(model, None)
            return found
    compiled = compile_model(model, options, threads, folder=folder)
    if not compiled.host and not compiled.has_objects:
        compiled.save(path)
        remove_oldest(path.parent)
    return compiled


def _chosen(
    graph: Graph, options: Options, prepare: Prepare, threads: int, folder: Path | None
) -> tuple[Choose | None, list[TunedNode]]:
    if options.tune is None:
        return None, []
    from lepton_rt.tuning import tuned
    from lepton_rt.tuning_store import TuningStore

    return tuned(graph, options.isa, prepare, threads, options.tune, TuningStore(folder))


def _grown(graph: Graph, pairs: Mapping[str, str]) -> tuple[Graph, dict[str, int]]:
    if not pairs:
        return graph, {}
    from lepton_rt.graph.types import infer_types
    from lepton_rt.passes.grow_in_place import grow_in_place

    return grow_in_place(infer_types(graph), pairs)
