"""Recurrent layers on their way through PyTorch's exporter: kept whole, for any length.

torch.export learns the shapes of a layer's results by unrolling it over the example's sequence,
which makes the example's length part of the program: the export fails, or the model is right for
that length only. While `whole_layers` holds, the layers say their shapes instead, and reach the
ONNX translation as one operator each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lepton_rt.errors import UnsupportedError


def holds_recurrent_layers(module: Any) -> bool:
    """Whether a part of the module is a `torch.nn.RNN`, `LSTM` or `GRU`.

    Raises:
        UnsupportedError: an LSTM projects its state, which ONNX's does not.
    """
    import torch

    layers = [part for part in module.modules() if isinstance(part, torch.nn.RNNBase)]
    if any(layer.proj_size for layer in layers):
        raise UnsupportedError("an LSTM with proj_size has no counterpart in ONNX")
    return bool(layers)


@contextlib.contextmanager
def whole_layers() -> Iterator[None]:
    """PyTorch's recurrent operators answer with their shapes only: trace, do not compute."""
    import torch
    from torch._decomp import decomposition_table

    aten = torch.ops.aten
    keys = (torch._C.DispatchKey.CompositeImplicitAutograd, torch._C.DispatchKey.Autograd)
    saved = []
    for op in (aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input):
        saved.append((op, dict(op.py_kernels), decomposition_table.get(op)))
        shapes = _lstm_shapes if op is aten.lstm.input else _shapes
        op.py_kernels.update(dict.fromkeys(keys, shapes))
        decomposition_table[op] = shapes
        op._dispatch_cache.clear()  # it remembers the kernels of exports before
    try:
        yield
    finally:
        for op, kernels, decomposition in saved:
            op.py_kernels.clear()
            op.py_kernels.update(kernels)
            if decomposition is None:
                del decomposition_table[op]
            else:
                decomposition_table[op] = decomposition
            op._dispatch_cache.clear()


def _shapes(
    x: Any, hx: Any, params: Any, biases: bool, layers: int, dropout: float, train: bool,
    bidirectional: bool, batch_first: bool,
) -> tuple[Any, Any]:  # fmt: skip
    """Y and the last states of GRU and RNN, uninitialised."""
    width = hx.shape[2] * (2 if bidirectional else 1)
    return x.new_empty((x.shape[0], x.shape[1], width)), hx.new_empty(hx.shape)


def _lstm_shapes(x: Any, hx: Sequence[Any], *rest: Any) -> tuple[Any, Any, Any]:
    y, h = _shapes(x, hx[0], *rest)
    return y, h, hx[1].new_empty(hx[1].shape)


def translations() -> dict[Any, Callable[..., Any]]:
    """ONNX translations of recurrent operators that PyTorch's exporter lacks."""
    import torch

    aten = torch.ops.aten
    return {aten.rnn_tanh.input: _rnn("Tanh"), aten.rnn_relu.input: _rnn("Relu")}


def _rnn(activation: str) -> Callable[..., Any]:
    import onnxscript

    op: Any = onnxscript.opset18

    def translate(
        x: Any, hx: Any, params: Sequence[Any], biases: bool, layers: int, dropout: float,
        train: bool, bidirectional: bool, batch_first: bool,
    ) -> tuple[Any, Any]:  # fmt: skip
        directions, hidden = (2 if bidirectional else 1), hx.shape[2]
        parts = 4 if biases else 2
        y = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
        states = []
        for layer in range(layers):
            first = layer * directions
            own = [params[i * parts : (i + 1) * parts] for i in range(first, first + directions)]
            W, R = (op.Concat(*[op.Unsqueeze(p[i], [0]) for p in own], axis=0) for i in (0, 1))
            B = None
            if biases:
                rows = [op.Unsqueeze(op.Concat(p[2], p[3], axis=0), [0]) for p in own]
                B = op.Concat(*rows, axis=0)
            y, state = op.RNN(
                y, W, R, B, None, op.Slice(hx, [first], [first + directions], [0]),
                activations=[activation] * directions, hidden_size=hidden,
                direction="bidirectional" if bidirectional else "forward",
            )  # fmt: skip
            # [length, directions, batch, hidden] → [length, batch, directions · hidden]
            y = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])
            states.append(state)
        y = op.Transpose(y, perm=[1, 0, 2]) if batch_first else y
        return y, op.Concat(*states, axis=0)

    return translate
