"""PyTorch modules and exported programs as Graphs, through PyTorch's own ONNX exporter.

Nothing here imports torch before it has been given something of torch's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lepton_rt.errors import Error, InputError, UnsupportedError
from lepton_rt.graph.ir import Graph
from lepton_rt.torch_quantized import holds_narrow_ranges, with_clamps
from lepton_rt.torch_recurrent import holds_recurrent_layers, translations, whole_layers

_OPSET = 23
"""What PyTorch is asked for: its exporter lags behind ONNX."""

NAME = "torch.export"


def is_torch_model(model: object) -> bool:
    """Whether model is a `torch.nn.Module` or a `torch.export.ExportedProgram`."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    if isinstance(model, torch.nn.Module):
        return True
    export = sys.modules.get(NAME)
    return export is not None and isinstance(model, export.ExportedProgram)


def import_torch(model: Any, example_inputs: Any = None, dynamic: Any = None) -> Graph:
    """The Graph of a PyTorch model.

    Args:
        model: an ``nn.Module``, exported in eval mode (its mode is restored), or an
            ``ExportedProgram``.
        example_inputs: what a module is called with: a tensor or array, a tuple of positional
            arguments, or a dict by argument name. An ExportedProgram needs none.
        dynamic: which dimensions vary. None: none. True: the first of every input. A dict, argument
            name → {dimension: symbol}, or anything torch.export takes as ``dynamic_shapes``.

    Raises:
        InputError: a module without example inputs, or ``dynamic`` names no argument.
        UnsupportedError: onnxscript is missing, or the exporter cannot express the model.
    """
    if importlib.util.find_spec("onnxscript") is None:
        raise UnsupportedError("PyTorch models need onnxscript: pip install 'lepton_rt[torch]'")
    if not _is_module(model):
        if example_inputs is not None or dynamic is not None:
            raise InputError(
                "an ExportedProgram brings its own example inputs and dynamic dimensions"
            )
        return _exported(model)
    if example_inputs is None:
        raise InputError(
            "a PyTorch module needs example inputs: Session(module, example_inputs=(x,))"
        )
    args, kwargs = _arguments(example_inputs)
    shapes = _dynamic_shapes(model, args, kwargs, dynamic)
    if shapes is not None:
        args, kwargs = _without_ones(model, args, kwargs, shapes)
    if _is_quantised(model):  # its own modes were settled when it was converted
        return _exported(_program(model, args, kwargs, shapes))
    with _eval_mode(model):
        if holds_recurrent_layers(model):
            return _exported(_program(model, args, kwargs, shapes))
        return _exported(model, args=args, kwargs=kwargs or None, dynamic_shapes=shapes)


def export_program(module: Any, args: tuple[Any, ...], dynamic_shapes: Any) -> Any:
    """`torch.export.export` for graphs that compute, and do nothing else.

    Raises:
        UnsupportedError: the module cannot be exported, writes to its inputs or buffers, or draws
            random numbers.
    """
    import torch

    try:
        with _silenced(), torch.no_grad():
            program = torch.export.export(module, args, dynamic_shapes=dynamic_shapes)
            program = program.run_decompositions({})
    except (Error, MemoryError):
        raise
    except Exception as error:
        raise UnsupportedError(f"PyTorch cannot export the model: {_cause(error)}") from error
    signature = program.graph_signature
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
        raise UnsupportedError("the model changes its inputs or buffers in place")
    for node in program.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and _draws(node):
            raise UnsupportedError(f"the model draws random numbers ({node.target})")
    return program


def _draws(node: Any) -> bool:
    """Whether an operator that can draw random numbers does: attention without dropout does not."""
    schema = node.target._schema
    given = {argument.name: argument.default_value for argument in schema.arguments}
    given.update(zip(given, node.args))
    given.update(node.kwargs)
    return bool(given.get("dropout_p", 1.0) != 0.0)


def _is_module(model: Any) -> bool:
    return isinstance(model, sys.modules["torch"].nn.Module)


def _arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    import torch

    def tensor(value: Any) -> Any:
        return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

    if isinstance(example_inputs, Mapping):
        return (), {str(name): tensor(value) for name, value in example_inputs.items()}
    if not isinstance(example_inputs, (tuple, list)):
        example_inputs = (example_inputs,)
    return tuple(tensor(value) for value in example_inputs), {}


def _by_name(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by the names of the module's forward; *args and **kwargs stay together."""
    try:
        return dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise InputError(f"the example inputs do not fit the module: {error}") from None


def _dynamic_shapes(model: Any, args: Any, kwargs: Any, dynamic: Any) -> Any:
    """`dynamic` in the form of torch.export's dynamic_shapes; None for a static export."""
    if dynamic is None or dynamic is False:
        return None
    import torch
    from torch.utils import _pytree as pytree

    named = _by_name(model, args, kwargs)
    if dynamic is True:
        return pytree.tree_map(
            lambda v: {0: "batch"} if isinstance(v, torch.Tensor) and v.ndim else None, named
        )
    if not isinstance(dynamic, Mapping):
        return dynamic
    unknown = [str(name) for name in dynamic if name not in named]
    if unknown:
        raise InputError(
            f"dynamic names {', '.join(unknown)}; the module is given {', '.join(named)}"
        )
    nothing = {name: pytree.tree_map(lambda _: None, value) for name, value in named.items()}
    return {**nothing, **dynamic}


def _without_ones(
    model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with every named dynamic dimension of size 1 doubled.

    torch.export takes a dimension of 1 for a constant, whatever is said of it.
    """
    import torch

    def enlarged(value: Any, dims: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not isinstance(dims, Mapping):
            return value
        for dim, symbol in dims.items():
            if symbol is not None and value.shape[dim] == 1:
                value = value.repeat_interleave(2, dim)
        return value

    if not isinstance(shapes, Mapping):
        pairs = zip(args, shapes) if len(shapes) == len(args) else ()
        return tuple(enlarged(value, dims) for value, dims in pairs) or args, kwargs
    names = list(_by_name(model, args, kwargs))[: len(args)]
    args = tuple(enlarged(v, shapes.get(n)) for n, v in zip(names, args)) + args[len(names) :]
    return args, {name: enlarged(value, shapes.get(name)) for name, value in kwargs.items()}


@contextlib.contextmanager
def _eval_mode(module: Any) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    with contextlib.suppress(NotImplementedError):  # exported modules have settled their mode
        module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _is_quantised(module: Any) -> bool:
    from torch import fx

    return isinstance(module, fx.GraphModule) and holds_narrow_ranges(module.graph)


def _program(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any) -> Any:
    import torch
    from torch.utils import _pytree as pytree

    free = torch.export.Dim.DYNAMIC
    shapes = pytree.tree_map(lambda s: free if isinstance(s, str) else s, shapes)
    try:
        with _silenced(), torch.no_grad(), whole_layers():
            return torch.export.export(module, args, kwargs or None, dynamic_shapes=shapes)
    except Exception as error:
        raise UnsupportedError(f"PyTorch cannot export the model: {_cause(error)}") from error


def _exported(model: Any, **arguments: Any) -> Graph:
    import torch

    from lepton_rt.graph.onnx_io import import_onnx

    if "dynamic_shapes" in arguments and arguments["dynamic_shapes"] is None:
        del arguments["dynamic_shapes"]
    try:
        with _silenced(), torch.no_grad(), whole_layers():
            if not _is_module(model):
                model = with_clamps(model)
            program = torch.onnx.export(
                model, dynamo=True, opset_version=_OPSET, verbose=False,
                custom_translation_table=translations(), **arguments,
            )  # fmt: skip
            assert program is not None
            proto = program.model_proto
    except (Error, MemoryError):
        raise
    except Exception as error:
        raise UnsupportedError(f"PyTorch cannot export the model: {_cause(error)}") from error
    return import_onnx(proto)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keeps the exporter's progress messages, advice and deprecation warnings off the screen."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _cause(error: BaseException) -> str:
    """The first sentence of the innermost error: the outer ones are advice on reporting bugs."""
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no reason given'}"
