"""Measured choice of kernels: each eligible one runs in the whole model, timed step by step.

A node's *choice* maps a kernel family to the kernel to use instead of the preferred one; "conv" →
"direct", "gemm_s8_sparse" → "dense" and "gemm_f32_sparse" → "dense" decline a form that the rules
would take. Every alternative is compiled for the whole model at once, so caches and neighbours are
those of the real thing, and the rounds are interleaved. A choice leaves the preferred kernel only
for a clear gain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lepton_rt import _core
from lepton_rt.errors import Error, InputError
from lepton_rt.graph.ir import Array, Graph, Node
from lepton_rt.lower import Choice, Lowered, Prepare, lower
from lepton_rt.plan import Step
from lepton_rt.tuning_store import TuningStore

FAMILIES = ("gemm_s8", "gemm_f32", "depthwise_s8", "depthwise_f32")
GAIN = 0.95
"""An alternative must take less than this share of the preferred kernel's time."""
ROUNDS = 14
"""Runs of every alternative; the first ones also settle which steps use several threads."""


@dataclass(frozen=True)
class TunedNode:
    """A node that runs faster with another kernel than the preferred one."""

    name: str
    op: str
    choice: Choice
    preferred_us: float
    tuned_us: float


def alternatives(isa: str) -> list[Choice]:
    """What to try instead of the preferred kernels, each a choice for all nodes at once."""
    later: dict[str, list[str]] = {}
    for family in FAMILIES:
        names = [str(k["name"]) for k in _core.kernels() if k["family"] == family and _is_fit(k)]
        preferred = _core.select_kernel(family, isa)
        if preferred in names:
            later[family] = names[names.index(preferred) + 1 :]
    most = max((len(names) for names in later.values()), default=0)
    kernels = [{f: names[i] for f, names in later.items() if i < len(names)} for i in range(most)]
    # The preferred kernel itself is tried where the rules found that it would not pay.
    dense = dict.fromkeys(("gemm_s8_sparse", "gemm_f32_sparse"), "dense")
    preferred_anyway = {"gemm_s8": _core.select_kernel("gemm_s8", isa)}
    return [*kernels, {**preferred_anyway, "conv": "direct"}, dense]


def _is_fit(kernel: Mapping[str, Any]) -> bool:
    return bool(kernel["available"]) and kernel["isa"] != "scalar"


def tuned(
    graph: Graph,
    isa: str,
    prepare: Prepare,
    threads: int,
    shapes: Mapping[str, Sequence[int]],
    store: TuningStore,
) -> tuple[Callable[[Node], Choice], list[TunedNode]]:
    """The choice for every node of a prepared graph, measured unless the store has it.

    shapes: of inputs whose size is not fixed, by name; a free dimension is 1 without.

    Raises:
        InputError: shapes names no input, or the model does not run on random inputs of them.
    """
    feeds = _feeds(graph, shapes)
    sizes = _sizes(graph, feeds)
    threads = threads or _core.usable_processors()
    preferred = lower(graph, isa, prepare)
    if preferred.host:  # slow beside any choice, and free to do what must not be repeated
        return lambda node: {}, []
    nodes = {node.outputs[0]: node for node in graph.nodes if node.outputs}
    kernels = {step.node for step in preferred.plan.steps if step.kernel}
    keys = {
        name: signature(nodes[name], graph, sizes, threads, isa)
        for name in kernels
        if name in nodes
    }
    known = store.read()
    gains: list[TunedNode] = []
    if any(key not in known for key in keys.values()):
        measured = _measured(graph, isa, prepare, threads, list(feeds.values()), preferred)
        gains = [_gain(nodes[name], *found) for name, found in measured.items() if name in keys]
        chosen = {keys[name]: measured[name][0] for name in measured if name in keys}
        known = store.add({key: chosen.get(key, {}) for key in keys.values()})
    offered = {pair for choice in alternatives(isa) for pair in choice.items()}
    choices = {
        name: {f: k for f, k in known.get(key, {}).items() if (f, k) in offered}
        for name, key in keys.items()
    }
    return lambda node: choices.get(node.outputs[0] if node.outputs else "", {}), gains


def signature(node: Node, graph: Graph, sizes: Mapping[str, int], threads: int, isa: str) -> str:
    """A digest of all that a node's speed depends on: operator, types, sizes, 8-bit weights, and
    how many of the others are not zero."""

    def typed(name: str) -> Any:
        value = graph.value(name) if name else None
        if value is None:
            return None
        dims = [sizes.get(d, d) if isinstance(d, str) else d for d in value.shape or ()]
        array = graph.array(name)
        if array is None:
            return [value.dtype.name, dims, None]
        held = _digest(array) if value.dtype.itemsize == 1 else int(np.count_nonzero(array))
        return [value.dtype.name, dims, held]

    attrs = {key: node.attrs[key] for key in sorted(node.attrs)}
    parts = [node.key, attrs, [typed(n) for n in node.inputs], [typed(n) for n in node.outputs]]
    text = json.dumps([*parts, threads, isa], default=_digest)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(value: Any) -> str:
    data = np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value)
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()


Measured = tuple[Choice, float, float]
"""The faster choice, and nanoseconds with the preferred kernel and with it."""


def _measured(
    graph: Graph,
    isa: str,
    prepare: Prepare,
    threads: int,
    feeds: list[Array],
    preferred: Lowered,
) -> dict[str, Measured]:
    """Nodes, by their first output, that gain by an alternative."""
    plans: list[tuple[Choice, list[Step]]] = [({}, preferred.plan.steps)]
    executors = [_core.Executor(*preferred.plan.encode(), threads=threads)]
    for choice in alternatives(isa):
        plan = lower(graph, isa, prepare, partial(_always, choice)).plan
        forms = [_form(step) for step in plan.steps]
        old_forms = [_form(step) for step in preferred.plan.steps]
        if len(forms) == len(old_forms) and forms != old_forms:
            plans.append((choice, plan.steps))
            executors.append(_core.Executor(*plan.encode(), threads=threads))
    try:
        times = [[executor.profile(feeds) for executor in executors] for _ in range(ROUNDS)]
    except Error as error:
        raise InputError(f"the model cannot be run for tuning: {error}") from error
    best = np.array([[min(runs) for runs in zip(*column)] for column in zip(*times)])
    return _faster(plans, best)


def _always(choice: Choice, node: Node) -> Choice:
    return choice


def _faster(plans: list[tuple[Choice, list[Step]]], times: Array) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for i, old in enumerate(plans[0][1]):
        for (choice, steps), row in zip(plans[1:], times[1:]):
            least = found.get(old.node, ({}, 0.0, float(times[0][i]) * GAIN))[2]
            if _form(steps[i]) != _form(old) and 0 < row[i] < least:
                used = {f: kernel for f, kernel in choice.items() if kernel == steps[i].kernel}
                found[old.node] = (used or choice, float(times[0][i]), float(row[i]))
    return found


def _form(step: Step) -> tuple[str, str, tuple[str, ...]]:
    return step.op, step.kernel, tuple(sorted(step.attrs))


def _gain(node: Node, choice: Choice, before: float, after: float) -> TunedNode:
    return TunedNode(node.name or node.outputs[0], node.key, choice, before / 1e3, after / 1e3)


def _feeds(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> dict[str, Array]:
    unknown = sorted(set(shapes) - set(graph.inputs))
    if unknown:
        raise InputError(f"tune names no input of the model: {', '.join(unknown)}")
    rng = np.random.default_rng(0)
    feeds = {}
    for name, value in graph.inputs.items():
        if value.is_object:
            raise InputError(f'input "{name}" holds no numbers: such models are not tuned')
        given = shapes.get(name)
        shape = [d if isinstance(d, int) else 1 for d in value.shape or ()]
        shape = shape if given is None else [int(d) for d in given]
        is_float = value.dtype.kind not in "biu"
        array = rng.standard_normal(shape) if is_float else rng.integers(0, 2, shape)
        feeds[name] = np.asarray(array.astype(value.dtype))
    return feeds


def _sizes(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, int]:
    """What the symbols of the inputs' shapes stand for."""
    sizes: dict[str, int] = {}
    for name, array in feeds.items():
        dims = graph.inputs[name].shape or ()
        sizes.update({d: n for d, n in zip(dims, array.shape) if isinstance(d, str)})
    return sizes
