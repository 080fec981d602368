"""Recurrent layers in plain numpy, step by step and in float64, from the equations of ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Function = Callable[[Array], Array]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}

FUNCTIONS: dict[str, Callable[..., Array]] = {
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "Relu": lambda x: np.maximum(x, 0),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "LeakyRelu": lambda x, a=0.01: np.where(x < 0, a * x, x),
    "ThresholdedRelu": lambda x, a=1.0: np.where(x > a, x, 0),
    "Elu": lambda x, a=1.0: np.where(x < 0, a * (np.exp(x) - 1), x),
    "HardSigmoid": lambda x, a=0.2, b=0.5: np.clip(a * x + b, 0, 1),
    "Affine": lambda x, a=1.0, b=0.0: a * x + b,
    "ScaledTanh": lambda x, a=1.0, b=1.0: a * np.tanh(b * x),
}
CONSTANTS = {
    "LeakyRelu": 1,
    "ThresholdedRelu": 1,
    "Elu": 1,
    "HardSigmoid": 2,
    "Affine": 2,
    "ScaledTanh": 2,
}


def functions(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[Any]:
    """The functions, each with its constants from the two lists."""
    alpha, beta = iter(alphas), iter(betas)
    made: list[Any] = []
    for name in names:
        values: list[float] = []
        if CONSTANTS.get(name, 0) > 0:
            values += [v for v in [next(alpha, None)] if v is not None]
        if CONSTANTS.get(name, 0) > 1:
            values += [v for v in [next(beta, None)] if v is not None]
        made.append(lambda x, f=FUNCTIONS[name], v=tuple(values): f(x, *v))
    return made


def recurrent(
    op: str,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    p: Array | None = None,
    *,
    direction: str = "forward",
    layout: int = 0,
    clip: float = 0.0,
    activations: Sequence[str] = (),
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    input_forget: int = 0,
    linear_before_reset: int = 0,
    rounded: Function = lambda v: v,
) -> list[Array]:
    """Y, Y_h and (LSTM) Y_c. rounded: what happens to each vector before it meets W or R."""
    if layout == 1:
        x = x.swapaxes(0, 1)
        initial_h = None if initial_h is None else initial_h.swapaxes(0, 1)
        initial_c = None if initial_c is None else initial_c.swapaxes(0, 1)
    steps, batch, _ = x.shape
    directions, _, hidden = r.shape
    per = len(DEFAULTS[op])
    names = list(activations) or DEFAULTS[op] * directions
    made = functions(names, activation_alpha, activation_beta)
    y = np.zeros((steps, directions, batch, hidden))
    y_h, y_c = np.zeros((2, directions, batch, hidden))
    bounded = (lambda v: np.clip(v, -clip, clip)) if clip else (lambda v: v)
    for d in range(directions):
        backwards = direction == "reverse" or d == 1
        cell = Cell(
            op, w[d], r[d], b, p, d, made[d * per : (d + 1) * per], bounded,
            bool(input_forget), bool(linear_before_reset), rounded,
        )  # fmt: skip
        for i in range(batch):
            length = steps if lengths is None else int(lengths[i])
            h = np.zeros(hidden) if initial_h is None else initial_h[d, i].astype(np.float64)
            c = np.zeros(hidden) if initial_c is None else initial_c[d, i].astype(np.float64)
            order = range(length)[::-1] if backwards else range(length)
            for t in order:
                h, c = cell(x[t, i].astype(np.float64), h, c)
                y[t, d, i] = h
            y_h[d, i], y_c[d, i] = h, c
    if layout == 1:
        y, y_h, y_c = y.transpose(2, 0, 1, 3), y_h.swapaxes(0, 1), y_c.swapaxes(0, 1)
    return [y, y_h, y_c] if op == "LSTM" else [y, y_h]


class Cell:
    """One step of one direction for one sequence."""

    def __init__(
        self,
        op: str,
        w: Array,
        r: Array,
        b: Array | None,
        p: Array | None,
        direction: int,
        made: list[Function],
        bounded: Function,
        input_forget: bool,
        linear_before_reset: bool,
        rounded: Function,
    ) -> None:
        n = r.shape[1]
        rows = GATES[op] * n
        biases = np.zeros(2 * rows) if b is None else b[direction].astype(np.float64)
        self.w, self.r = w.astype(np.float64), r.astype(np.float64)
        self.wb, self.rb, self.n = biases[:rows], biases[rows:], n
        self.p = np.zeros(3 * n) if p is None else p[direction].astype(np.float64)
        self.functions, self.bounded, self.rounded = made, bounded, rounded
        self.input_forget, self.linear_before_reset = input_forget, linear_before_reset
        self.step = {"LSTM": self.lstm, "GRU": self.gru, "RNN": self.rnn}[op]

    def __call__(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        return self.step(self.w @ self.rounded(x) + self.wb, h, c)

    def rnn(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        return self.functions[0](self.bounded(x + self.r @ self.rounded(h) + self.rb)), c

    def lstm(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        f, g, last = self.functions
        i, o, forget, cell = np.split(x + self.r @ self.rounded(h) + self.rb, 4)
        pi, po, pf = np.split(self.p, 3)
        i = f(self.bounded(i + pi * c))
        forget = 1 - i if self.input_forget else f(self.bounded(forget + pf * c))
        c = forget * c + i * g(self.bounded(cell))
        o = f(self.bounded(o + po * c))
        return o * last(c), c

    def gru(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        f, g = self.functions
        n = self.n
        zr = f(self.bounded(x[: 2 * n] + self.r[: 2 * n] @ self.rounded(h) + self.rb[: 2 * n]))
        z, r = zr[:n], zr[n:]
        if self.linear_before_reset:
            candidate = x[2 * n :] + r * (self.r[2 * n :] @ self.rounded(h) + self.rb[2 * n :])
        else:
            candidate = x[2 * n :] + self.r[2 * n :] @ self.rounded(r * h) + self.rb[2 * n :]
        candidate = g(self.bounded(candidate))
        return (1 - z) * candidate + z * h, c
