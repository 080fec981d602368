"""ONNX element-wise operators as instructions of `lepton.Elementwise` programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lepton_rt.graph.ir import Node

from .attributes import float_attr

__all__ = [
    "MAX_INPUTS",
    "MAX_INSTRUCTIONS",
    "Program",
    "compute_type",
    "literal",
    "node_compute",
    "single",
    "translatable",
    "translate",
]

MAX_INPUTS = 32
MAX_INSTRUCTIONS = 128
"""What one program may hold (csrc/ops/elementwise_program.h)."""

_PLAIN = frozenset(
    [
        "Abs",
        "Acos",
        "Acosh",
        "Add",
        "And",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Ceil",
        "Cos",
        "Cosh",
        "Div",
        "Equal",
        "Erf",
        "Exp",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "HardSwish",
        "Identity",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "Log",
        "Mish",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Pow",
        "Reciprocal",
        "Relu",
        "Round",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Tan",
        "Tanh",
        "Where",
        "Xor",
    ]
)
_WITH_NUMBERS: dict[str, list[tuple[str, float]]] = {
    "Celu": [("alpha", 1.0)],
    "Elu": [("alpha", 1.0)],
    "HardSigmoid": [("alpha", 0.2), ("beta", 0.5)],
    "IsInf": [("detect_negative", 1), ("detect_positive", 1)],
    "LeakyRelu": [("alpha", 0.01)],
    "Selu": [("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875)],
    "Shrink": [("lambd", 0.5), ("bias", 0.0)],
    "Swish": [("alpha", 1.0)],
    "ThresholdedRelu": [("alpha", 1.0)],
}
"""Operators whose attributes follow their operand as literals, in this order."""

_COMPUTES = {"float32": "f32", "float64": "f64", "float16": "f32", "bfloat16": "f32"}
_INTEGERS = frozenset(["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])


def literal(value: float) -> str:
    """A number as a program spells it: exact for float32, float64 and small integers."""
    if isinstance(value, (int, np.integer)):
        return f"#{int(value)}"
    number = float(value)
    short = number.is_integer() and 0 < abs(number) < 2**53
    return f"#{int(number)}" if short else f"#{number!r}"


def compute_type(dtypes: list[np.dtype]) -> str | None:
    """The type an operator computes in; boolean operands have no say."""
    names = {dtype.name for dtype in dtypes} - {"bool"}
    if not names:
        return "i64"
    kinds = {_COMPUTES.get(name, "i64" if name in _INTEGERS else "") for name in names}
    return kinds.pop() if len(kinds) == 1 and "" not in kinds else None


@dataclass
class Program:
    """A program under construction: input tensors and instructions."""

    inputs: list[str] = field(default_factory=list)
    steps: list[tuple[str, list[str]]] = field(default_factory=list)

    def input(self, name: str) -> str:
        """The operand that stands for an input tensor; inputs are numbered when rendered."""
        if name not in self.inputs:
            self.inputs.append(name)
        return f"i{self.inputs.index(name)}"

    def emit(self, op: str, *operands: str) -> str:
        """Appends an instruction; returns the operand that stands for its result."""
        self.steps.append((op, list(operands)))
        return f"t{len(self.steps) - 1}"

    def render(self) -> list[str]:
        """The instructions as text, registers numbered inputs first."""
        return [
            " ".join([op, *(self._register(operand) for operand in operands)])
            for op, operands in self.steps
        ]

    def _register(self, operand: str) -> str:
        if operand[0] == "#":
            return operand
        offset = len(self.inputs) if operand[0] == "t" else 0
        return f"r{offset + int(operand[1:])}"


def translatable(node: Node) -> bool:
    """Whether `translate` has a rule for the node."""
    return not node.domain and (
        node.op in _PLAIN or node.op in _WITH_NUMBERS or node.op in _SPECIAL
    )


def translate(program: Program, node: Node, operands: list[str]) -> str:
    """Appends the node's instructions; "" stands for an omitted operand. Returns its result."""
    if node.op in _PLAIN:
        return program.emit(node.op, *operands)
    if node.op in _WITH_NUMBERS:
        numbers = [
            literal(np.float32(float_attr(node, name, default)))
            for name, default in _WITH_NUMBERS[node.op]
        ]
        return program.emit(node.op, *operands, *numbers)
    return _SPECIAL[node.op](program, node, operands)


def _chain(op: str) -> Callable[[Program, Node, list[str]], str]:
    """A variadic operator as a chain of binary ones, from left to right."""

    def rule(program: Program, node: Node, operands: list[str]) -> str:
        if len(operands) == 1:
            return program.emit("Identity", operands[0])
        result = operands[0]
        for operand in operands[1:]:
            result = program.emit(op, result, operand)
        return result

    return rule


def _mean(program: Program, node: Node, operands: list[str]) -> str:
    total = _chain("Add")(program, node, operands)
    return program.emit("Div", total, literal(len(operands)))


def _clip(program: Program, node: Node, operands: list[str]) -> str:
    padded = (operands + ["", ""])[:3]
    return program.emit("Clip", padded[0], padded[1] or "#-inf", padded[2] or "#inf")


def _mod(program: Program, node: Node, operands: list[str]) -> str:
    return program.emit("Fmod" if node.attrs.get("fmod", 0) else "Mod", *operands)


def _gelu(program: Program, node: Node, operands: list[str]) -> str:
    tanh = node.attrs.get("approximate", "none") == "tanh"
    return program.emit("GeluTanh" if tanh else "Gelu", *operands)


def _shift(program: Program, node: Node, operands: list[str]) -> str:
    left = node.attrs.get("direction") == "LEFT"
    return program.emit("BitShiftLeft" if left else "BitShiftRight", *operands)


_SPECIAL: dict[str, Callable[[Program, Node, list[str]], str]] = {
    "BitShift": _shift,
    "Clip": _clip,
    "Gelu": _gelu,
    "Max": _chain("Max"),
    "Mean": _mean,
    "Min": _chain("Min"),
    "Mod": _mod,
    "Sum": _chain("Add"),
}


def node_compute(node: Node, dtypes: list[np.dtype]) -> str | None:
    """The compute type of one node, given the dtypes of its present operands."""
    if node.op == "Pow":
        return compute_type(dtypes[:1])  # the exponent may be of another type
    return compute_type(dtypes)


def single(node: Node) -> Program:
    """The program of one node alone; literals only from its attributes."""
    program = Program()
    operands = [program.input(name) if name else "" for name in node.inputs]
    translate(program, node, operands)
    return program
