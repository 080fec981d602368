"""Bodies of lepton.Elementwise and lepton.Lookup."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lepton_rt.errors import ModelError
from lepton_rt.graph.ir import Attr, Node
from lepton_rt.graph.lepton_body import Body

_COMPUTE: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "i64": np.dtype(np.int64),
}
_FLOATS = {"float32", "float16", "bfloat16"}
_BOOL = np.dtype(np.bool_)
_LOGICAL = {"And", "Or", "Xor", "Not"}
_COMPARE = {"Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "IsNaN", "IsInf"}
# Literal operands that the standard operator has as attributes, with their defaults.
_ATTRIBUTES: dict[str, list[tuple[str, float]]] = {
    "LeakyRelu": [("alpha", 0.01)],
    "Elu": [("alpha", 1.0)],
    "Selu": [("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875)],
    "Celu": [("alpha", 1.0)],
    "HardSigmoid": [("alpha", 0.2), ("beta", 0.5)],
    "ThresholdedRelu": [("alpha", 1.0)],
    "Shrink": [("lambd", 0.5), ("bias", 0.0)],
    "IsInf": [("detect_negative", 1), ("detect_positive", 1)],
}


class _Machine:
    """The registers of one program, as tensor names."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.compute = _compute(body)
        self.registers = [(name, body.dtype(name)) for name in body.node.inputs]

    def step(self, instruction: str) -> None:
        op, *operands = instruction.split()
        special = _SPECIAL.get(op)
        if special is not None:
            self.registers.append((special(self, operands), self.compute))
            return
        if op == "Identity":
            self.registers.append(self._register(operands[0]))
            return
        attrs: dict[str, Attr] = {}
        if op in _ATTRIBUTES:
            attrs, operands = self._attributes(op, operands[1:]), operands[:1]
        if op in _LOGICAL:
            names = [self.boolean(o) for o in operands]
        elif op == "Where":
            names = [self.boolean(operands[0]), *(self.number(o) for o in operands[1:])]
        else:
            names = [self.number(o) for o in operands]
        dtype = _BOOL if op in _LOGICAL or op in _COMPARE else self.compute
        self.registers.append((self.body(op, *names, **attrs), dtype))

    def number(self, operand: str) -> str:
        """The operand in the compute type; "" for an infinite literal, which bounds nothing."""
        if operand.startswith("#"):
            value = _literal(operand)
            if math.isinf(value) and self.compute.kind == "i":
                return ""
            return self.body.constant(np.array(value, self.compute), "literal")
        name, dtype = self._register(operand)
        return name if dtype == self.compute else self.body.cast(name, self.compute)

    def boolean(self, operand: str) -> str:
        if operand.startswith("#"):
            return self.body.constant(np.array(_literal(operand) != 0), "literal")
        name, dtype = self._register(operand)
        return name if dtype == _BOOL else self.body.cast(name, _BOOL)

    def _register(self, operand: str) -> tuple[str, np.dtype[Any]]:
        if not operand.startswith("r") or not operand[1:].isdigit():
            raise ModelError(f"{operand!r} is not an operand of an elementwise program")
        index = int(operand[1:])
        if index >= len(self.registers):
            raise ModelError(f"an elementwise program reads {operand} before it is set")
        return self.registers[index]

    def _attributes(self, op: str, literals: list[str]) -> dict[str, Attr]:
        attrs: dict[str, Attr] = {}
        for i, (name, default) in enumerate(_ATTRIBUTES[op]):
            value = _literal(literals[i]) if i < len(literals) else default
            attrs[name] = int(value) if op == "IsInf" else value
        return attrs


def _literal(text: str) -> float | int:
    if not text.startswith("#"):
        raise ModelError(f"{text!r} should be a literal")
    try:
        return int(text[1:])
    except ValueError:
        pass
    try:
        return float(text[1:])
    except ValueError:
        raise ModelError(f"{text!r} is not a number") from None


def _compute(body: Body) -> np.dtype[Any]:
    stated = body.node.attrs.get("compute")
    if stated is not None:
        if not isinstance(stated, str) or stated not in _COMPUTE:
            raise ModelError(f"{body.node.key} computes in the unknown type {stated!r}")
        return _COMPUTE[stated]
    # As the kernel decides: the widest float read or made, be it between Dequantize and Quantize.
    names = {body.dtype(name).name for name in body.node.inputs}
    made = body.graph.value(body.node.outputs[0])
    names.add(made.dtype.name if made is not None else "")
    if "float64" in names:
        return _COMPUTE["f64"]
    quantizes = "uantize" in str(body.node.attrs.get("program"))
    return _COMPUTE["f32" if quantizes or names & _FLOATS else "i64"]


def expand_elementwise(body: Body) -> list[Node]:
    """Body of lepton.Elementwise."""
    program = body.node.attrs.get("program")
    if isinstance(program, str):
        program = [part for part in program.split(";") if part.strip()]
    if not isinstance(program, list) or not program:
        raise ModelError("lepton.Elementwise has no program")
    machine = _Machine(body)
    for instruction in program:
        if not isinstance(instruction, str) or len(instruction.split()) < 2:
            raise ModelError(f"{instruction!r} is not an instruction")
        machine.step(instruction)
    name, dtype = machine.registers[-1]
    stated = body.graph.value(body.node.outputs[0])
    if stated is not None and stated.dtype != dtype:
        name = body.cast(name, stated.dtype)
    return body.finish(name)


def _silu(machine: _Machine, operands: list[str]) -> str:
    x = machine.number(operands[0])
    inner = x
    if len(operands) > 1:
        inner = machine.body("Mul", x, machine.number(operands[1]))
    return machine.body("Mul", x, machine.body("Sigmoid", inner))


def _gelu_tanh(machine: _Machine, operands: list[str]) -> str:
    return machine.body("Gelu", machine.number(operands[0]), approximate="tanh")


def _mod(machine: _Machine, operands: list[str]) -> str:
    a, b = (machine.number(o) for o in operands)
    if machine.compute.kind == "i":
        return machine.body("Mod", a, b)
    whole = machine.body("Floor", machine.body("Div", a, b))
    return machine.body("Sub", a, machine.body("Mul", whole, b))


def _fmod(machine: _Machine, operands: list[str]) -> str:
    return machine.body("Mod", *(machine.number(o) for o in operands), fmod=1)


def _shift(direction: str) -> Callable[[_Machine, list[str]], str]:
    def expand_shift(machine: _Machine, operands: list[str]) -> str:
        unsigned = np.dtype(np.uint64)
        names = [machine.body.cast(machine.number(o), unsigned) for o in operands]
        shifted = machine.body("BitShift", *names, direction=direction)
        return machine.body.cast(shifted, machine.compute)

    return expand_shift


def _clip(machine: _Machine, operands: list[str]) -> str:
    return machine.body("Clip", *(machine.number(o) for o in operands))


def _dequantize(machine: _Machine, operands: list[str]) -> str:
    x = machine.number(operands[0])
    if len(operands) > 2:
        x = machine.body("Sub", x, machine.number(operands[2]))
    return machine.body("Mul", x, machine.number(operands[1]))


def _quantize(machine: _Machine, operands: list[str]) -> str:
    scaled = machine.body("Div", machine.number(operands[0]), machine.number(operands[1]))
    q = machine.body("Round", scaled)
    if len(operands) > 2:
        q = machine.body("Add", q, machine.number(operands[2]))
    if len(operands) > 3:
        q = machine.body("Clip", q, *(machine.number(o) for o in operands[3:]))
    return q


_SPECIAL: dict[str, Callable[[_Machine, list[str]], str]] = {
    "Silu": _silu,
    "Swish": _silu,
    "GeluTanh": _gelu_tanh,
    "Mod": _mod,
    "Fmod": _fmod,
    "BitShiftLeft": _shift("LEFT"),
    "BitShiftRight": _shift("RIGHT"),
    "Clip": _clip,
    "Dequantize": _dequantize,
    "Quantize": _quantize,
}


def expand_lookup(body: Body) -> list[Node]:
    """Body of lepton.Lookup: Gather by the byte's unsigned value."""
    x, table = body.input(0), body.node.attrs.get("table")
    stated = body.graph.value(body.node.outputs[0])
    dtype = stated.dtype if stated is not None else None
    if isinstance(table, np.ndarray) and dtype is None:
        dtype = table.dtype
    array = np.asarray(table, dtype or np.float32)
    if array.shape != (256,):
        raise ModelError("lepton.Lookup needs a table of 256 entries")
    index = body.cast(x, np.dtype(np.int32))
    if body.dtype(x) == np.int8:
        # The table is in the order of the byte's bits: −1 is entry 255.
        turn = body.constant(np.array(256, np.int32), "turn")
        index = body("Mod", body("Add", index, turn), turn)
    return body.finish(body("Gather", body.constant(array, "table"), index))
