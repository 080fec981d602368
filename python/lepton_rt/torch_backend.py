"""``torch.compile(model, backend="lepton")``: graphs that dynamo captures, run by lepton_rt.

For inference. A captured graph is exported at its first call, its parameters and buffers as
constants; what cannot be exported runs in PyTorch, with a warning. Importing this module registers
the backend; where lepton_rt is installed, PyTorch finds it by its entry point.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from lepton_rt.errors import Error, UnsupportedError
from lepton_rt.session import Session
from lepton_rt.torch_export import export_program

__all__ = ["lepton"]

_MAX_SESSIONS = 64
"""Sessions one captured graph keeps: one for each set of parameters it is called with."""
_warned: set[str] = set()


def lepton(
    module: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """The backend. options: "threads" and "isa", as for `Session`; mode is ignored."""
    del mode
    try:
        captured = _Captured(module, example_inputs)
    except UnsupportedError as error:
        _warn(str(error))
        return module.forward
    return _Compiled(captured, dict(options or {}))


class _Captured:
    """What a captured graph takes and gives, sorted by how a Session can handle it.

    fixed: positions of parameters and buffers; free: of other tensors; dims: which dimensions of
    the free ones vary; symbols: position of a size → (free tensor, dimension) that tells it.
    outputs: for every output a tensor's number ("tensor"), an input's position ("input") or a
    plain value ("value").
    """

    def __init__(self, module: fx.GraphModule, examples: Sequence[Any]) -> None:
        self.module = module
        places = [node for node in module.graph.nodes if node.op == "placeholder"]
        self.fixed = [i for i, e in enumerate(examples) if _is_fixed(e)]
        self.free = [
            i for i, e in enumerate(examples) if isinstance(e, torch.Tensor) and not _is_fixed(e)
        ]
        for i in (*self.fixed, *self.free):
            if examples[i].device.type != "cpu":
                raise UnsupportedError("tensors on another device than the CPU")
        self._sizes = {i: _sizes(places[i], examples[i]) for i in self.free}
        self.dims = [
            [d for d, size in enumerate(self._sizes[i]) if not isinstance(size, int)]
            for i in self.free
        ]
        others = set(range(len(examples))) - set(self.fixed) - set(self.free)
        self.symbols = {i: self._where(examples[i]) for i in others}
        self.count = len(examples)
        self._sort_outputs(places)

    def _where(self, value: Any) -> tuple[int, int]:
        if isinstance(value, torch.SymInt):
            for number, i in enumerate(self.free):
                for dim, size in enumerate(self._sizes[i]):
                    if str(size) == str(value):
                        return number, dim
        raise UnsupportedError(f"an argument that is no tensor ({type(value).__name__})")

    def _sort_outputs(self, places: list[fx.Node]) -> None:
        (made,) = next(node for node in self.module.graph.nodes if node.op == "output").args
        listed = list(made) if isinstance(made, (tuple, list)) else [made]
        self.single = not isinstance(made, (tuple, list))
        self.tensors: list[fx.Node] = []
        self.outputs: list[tuple[str, Any]] = []
        for item in listed:
            if isinstance(item, fx.Node) and item in places:
                self.outputs.append(("input", places.index(item)))
            elif isinstance(item, fx.Node):
                if not isinstance(item.meta.get("example_value"), torch.Tensor):
                    raise UnsupportedError("a result that is no tensor")
                if item not in self.tensors:
                    self.tensors.append(item)
                self.outputs.append(("tensor", self.tensors.index(item)))
            elif item is None or isinstance(item, (bool, int, float)):
                self.outputs.append(("value", item))
            else:
                raise UnsupportedError(f"a result that is no tensor ({type(item).__name__})")
        if not self.tensors:
            raise UnsupportedError("a graph that computes no tensor")

    def results(self, args: Sequence[Any], tensors: Sequence[Any]) -> Any:
        """The graph's results from those of the Session."""
        pick = {"input": args, "tensor": tensors}
        made = tuple(pick[kind][v] if kind in pick else v for kind, v in self.outputs)
        return made[0] if self.single else made


class _Exported(nn.Module):
    """The captured graph as a module of the free tensors alone."""

    def __init__(self, captured: _Captured, fixed: Sequence[Any]) -> None:
        super().__init__()
        graph = fx.Graph()
        copies: dict[fx.Node, Any] = {}
        graph.graph_copy(captured.module.graph, copies)
        graph.output(tuple(copies[node] for node in captured.tensors))
        self.inner = fx.GraphModule(captured.module, graph)
        self._captured = captured
        for i, tensor in zip(captured.fixed, fixed):
            self.register_buffer(f"fixed_{i}", tensor.detach())

    def forward(self, *free: Any) -> Any:
        captured = self._captured
        args: list[Any] = [None] * captured.count
        for i in captured.fixed:
            args[i] = getattr(self, f"fixed_{i}")
        for i, tensor in zip(captured.free, free):
            args[i] = tensor
        for i, (number, dim) in captured.symbols.items():
            args[i] = free[number].shape[dim]
        return self.inner(*args)


class _Compiled:
    """What dynamo calls in place of the captured graph."""

    def __init__(self, captured: _Captured, options: dict[str, Any]) -> None:
        self._captured = captured
        self._options = options
        self._sessions: dict[tuple[int, ...], tuple[list[Any], list[int], Session]] = {}
        self._eager = False
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        captured = self._captured
        if self._eager:
            return captured.module(*args)
        if torch.is_grad_enabled() and any(
            isinstance(a, torch.Tensor) and a.requires_grad for a in args
        ):
            _warn("gradients may be wanted: call the model under torch.no_grad()")
            return captured.module(*args)
        try:
            session = self._session([args[i] for i in captured.fixed], args)
            made = session.run(*(args[i] for i in captured.free))
        except Error as error:
            _warn(str(error))
            self._eager = True
            return captured.module(*args)
        tensors = [made] if len(captured.tensors) == 1 else list(made)
        return captured.results(args, tensors)

    def _session(self, fixed: list[Any], args: Sequence[Any]) -> Session:
        """The Session of these parameters, as they are now."""
        key = tuple(map(id, fixed))
        versions = [0 if tensor.is_inference() else tensor._version for tensor in fixed]
        found = self._sessions.get(key)
        if found is not None and found[1] == versions:
            return found[2]
        with self._lock:
            session = self._compile(fixed, args)
            if len(self._sessions) >= _MAX_SESSIONS:
                self._sessions.clear()
            self._sessions[key] = (fixed, versions, session)
        return session

    def _compile(self, fixed: list[Any], args: Sequence[Any]) -> Session:
        captured = self._captured
        free = tuple(args[i].detach() for i in captured.free)
        if not free:
            raise UnsupportedError("a graph without tensor arguments")
        dynamic = torch.export.Dim.DYNAMIC
        shapes = [dict.fromkeys(dims, dynamic) for dims in captured.dims]
        module = _Exported(captured, fixed).eval()
        return Session(export_program(module, free, (tuple(shapes),)), **self._options)


def _is_fixed(value: Any) -> bool:
    return isinstance(value, nn.Parameter) or (
        isinstance(value, torch.Tensor)
        and getattr(value, "_dynamo_static_input_type", None) is not None
    )


def _sizes(place: fx.Node, example: Any) -> list[Any]:
    """The tensor's sizes as dynamo sees them: numbers and symbols."""
    fake = place.meta.get("example_value")
    return list(fake.shape if isinstance(fake, torch.Tensor) else example.shape)


def _warn(reason: str) -> None:
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"part of the model runs in PyTorch: {reason}", RuntimeWarning, stacklevel=3)


torch._dynamo.register_backend(compiler_fn=lepton, name="lepton")
