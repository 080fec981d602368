"""A NumPy evaluator of `lepton.Elementwise` programs in float32, for making tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lepton_rt.graph.ir import Array

__all__ = ["evaluate"]

_SQRT_HALF = np.float32(math.sqrt(0.5))


def _erf(x: Array) -> Array:
    return np.array([math.erf(float(v)) for v in x], np.float32)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x.astype(np.float64))), np.float32)


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(np.float64(0), x.astype(np.float64)), np.float32)


def _gelu_tanh(x: Array) -> Array:
    wide = x.astype(np.float64)
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    return np.asarray(0.5 * wide * (1 + np.tanh(inner)), np.float32)


def _quantize(x: Array, s: Array, z: Array, lo: Array, hi: Array) -> Array:
    return np.asarray(np.minimum(np.maximum(np.rint(x / s) + z, lo), hi), np.float32)


_OPS: dict[str, Callable[..., Array]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Ceil": np.ceil,
    "Clip": lambda x, lo, hi: np.minimum(np.maximum(x, lo), hi),
    "Dequantize": lambda x, s, z: (x - z) * s,
    "Div": np.divide,
    "Elu": lambda x, a: np.where(x < 0, a * np.expm1(x), x),
    "Erf": _erf,
    "Exp": np.exp,
    "Floor": np.floor,
    "Gelu": lambda x: np.float32(0.5) * x * (1 + _erf(x * _SQRT_HALF)),
    "GeluTanh": _gelu_tanh,
    "HardSigmoid": lambda x, a, b: np.minimum(np.maximum(a * x + b, np.float32(0)), np.float32(1)),
    "HardSwish": lambda x: x * np.clip(x / np.float32(6) + np.float32(0.5), 0, 1),
    "Identity": lambda x: x,
    "LeakyRelu": lambda x, a: np.where(x < 0, a * x, x),
    "Log": np.log,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mish": lambda x: x * np.tanh(_softplus(x)),
    "Mul": np.multiply,
    "Neg": np.negative,
    "Quantize": _quantize,
    "Reciprocal": lambda x: np.float32(1) / x,
    "Relu": lambda x: np.maximum(x, np.float32(0)),
    "Round": np.rint,
    "Sigmoid": _sigmoid,
    "Sign": np.sign,
    "Softplus": _softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Swish": lambda x, a: x * _sigmoid(a * x),
    "Tanh": np.tanh,
}


def evaluate(program: Sequence[str], inputs: Sequence[Array]) -> Array | None:
    """The result of a program on vectors of equal length; None for an unknown instruction."""
    registers = [np.asarray(x, np.float32) for x in inputs]
    with np.errstate(all="ignore"):
        for instruction in program:
            name, *operands = instruction.split(" ")
            if name not in _OPS:
                return None
            values = [
                np.full_like(registers[0], np.float32(operand[1:]))
                if operand[0] == "#"
                else registers[int(operand[1:])]
                for operand in operands
            ]
            registers.append(np.asarray(_OPS[name](*values), np.float32))
    return registers[-1]
