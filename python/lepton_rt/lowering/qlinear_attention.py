"""Attention between integers as one step.

Quantisers leave attention as two integer products with a softmax, its mask and several roundings
between them, and transposes, reshapes and tables around them. `lepton.QLinearAttention` does the
same arithmetic, number for number, head by head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lepton_rt.graph.ir import Graph, Value
from lepton_rt.passes.programs import literal
from lepton_rt.plan import DTYPE_CODES, Plan, Step, StepAttr

from .attention_heads import splits_rows
from .tensor_order import Order, follow

__all__ = ["fuse_qlinear_attention"]

_PRODUCT = "lepton.QLinearMatMul"
_MOVES = {"Reshape", "Transpose"}
_BYTES = {"uint8", "int8"}
_LAYOUTS = {"BHSD", "BSHD", "SBHD"}


def fuse_qlinear_attention(plan: Plan, graph: Graph) -> Plan:
    """The plan with such steps. graph: what it was lowered from; types of new tensors are added."""
    fuser = _Fuser(plan, graph)
    for step in list(plan.steps):
        if step.op == "Softmax":
            fuser.fuse(step)
    return Plan(plan.isa, plan.inputs, plan.outputs, fuser.steps(), plan.constants, plan.dtypes)


@dataclass
class _Operand:
    """What stands for Q, K or V: a tensor in a layout, and tables to apply to it first."""

    name: str
    layout: str
    heads: int = 0
    """Of a tensor [batch, rows, heads · depth]; 0 for one of four dimensions."""
    tables: list[Step] = field(default_factory=list)


@dataclass
class _Pattern:
    """The steps from the first product to the second."""

    product: Step
    scores: Step | None
    softmax: Step
    probabilities: Step
    result: Step
    mask: str = ""


class _Fuser:
    def __init__(self, plan: Plan, graph: Graph) -> None:
        self.plan, self.graph = plan, graph
        self.makers = {out: step for step in plan.steps for out in step.outputs}
        self.readers: dict[str, list[Step]] = {}
        for step in plan.steps:
            for name in step.inputs:
                self.readers.setdefault(name, []).append(step)
        self.after: dict[int, list[Step]] = {}
        self.replaced: dict[int, Step | None] = {}

    def steps(self) -> list[Step]:
        """The steps as they stand now, without those whose results nothing reads any more."""
        made: list[Step] = []
        for step in self.plan.steps:
            new = self.replaced.get(id(step), step)
            made += [new] if new is not None else []
            made += self.after.get(id(step), [])
        read = set(self.plan.outputs)
        kept: list[Step] = []
        for step in reversed(made):
            movement = step.op in _MOVES or step.op == "lepton.Lookup"
            if not movement or not read.isdisjoint(step.outputs):
                kept.append(step)
                read.update(step.inputs)
        return kept[::-1]

    def fuse(self, softmax: Step) -> None:
        pattern = self._pattern(softmax)
        if pattern is None:
            return
        operands = [
            self._operand(pattern.product.inputs[0], "BHSD"),
            self._operand(pattern.product.inputs[1], "BHDS"),
            self._operand(pattern.result.inputs[1], "BHSD"),
        ]
        found = [operand for operand in operands if operand is not None]
        if len(found) < 3 or found[1].heads != found[2].heads:
            return
        self._replace(pattern, found)

    def _only_reader(self, name: str) -> Step | None:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.plan.outputs else None

    def _shape(self, name: str) -> tuple[Any, ...]:
        value = self.graph.value(name) if name else None
        return () if value is None or value.shape is None else tuple(value.shape)

    def _dtype(self, name: str) -> str:
        return np.dtype(self.plan.dtypes[name]).name if name in self.plan.dtypes else ""

    def _pattern(self, softmax: Step) -> _Pattern | None:
        rank = len(self._shape(softmax.inputs[0]))
        if rank != 4 or softmax.attrs.get("axis", -1) not in (-1, 3):
            return None
        above = self.makers.get(softmax.inputs[0])
        probabilities = self._only_reader(softmax.outputs[0])
        if above is None or probabilities is None or not self._is_quantising(probabilities):
            return None
        if self._only_reader(above.outputs[0]) is not softmax:
            return None
        result = self._only_reader(probabilities.outputs[0])
        if result is None or result.inputs[0] != probabilities.outputs[0]:
            return None
        pattern = _Pattern(above, None, softmax, probabilities, result)
        if above.op != _PRODUCT and not self._read_scores(pattern, above):
            return None
        products = (pattern.product, result)
        return pattern if all(self._is_plain_product(step) for step in products) else None

    def _is_quantising(self, step: Step) -> bool:
        """Whether a step makes bytes of the softmax alone, by a program or QuantizeLinear."""
        if self._dtype(step.outputs[0]) not in _BYTES:
            return False
        if step.op == "QuantizeLinear":
            return all(self._scalar(name) is not None for name in step.inputs[1:])
        return step.op == "lepton.Elementwise" and len(step.inputs) == 1

    def _read_scores(self, pattern: _Pattern, step: Step) -> bool:
        """Takes in what stands between the first product and the softmax."""
        products = [name for name in step.inputs if self._makes_scores(name)]
        if len(products) != 1 or self._only_reader(products[0]) is not step:
            return False
        step = self._with_literal(step)
        others = [name for name in step.inputs if name != products[0]]
        pattern.scores, pattern.product = step, self.makers[products[0]]
        if step.op in ("lepton.Lookup", "DequantizeLinear"):
            scalars = all(self._scalar(name) is not None for name in step.inputs[1:])
            return step.op == "lepton.Lookup" or scalars
        if step.op != "lepton.Elementwise" or len(others) > 1:
            return False
        pattern.mask = others[0] if others else ""
        return not others or self._is_mask(others[0], self._shape(products[0]))

    def _with_literal(self, step: Step) -> Step:
        """A program of one instruction, with its constant operand in the text."""
        program = str(step.attrs.get("program", ""))
        scalars = [self._scalar(name) for name in step.inputs]
        if step.op != "lepton.Elementwise" or len(scalars) != 2 or ";" in program:
            return step
        at = next((i for i, value in enumerate(scalars) if value is not None), None)
        if at is None or self.plan.constants[step.inputs[at]].ndim > 4:
            return step
        words = {f"r{at}": literal(float(scalars[at])), f"r{1 - at}": "r0"}
        text = " ".join(words.get(word, word) for word in program.split())
        attrs = {**step.attrs, "program": text}
        return Step(step.op, [step.inputs[1 - at]], step.outputs, attrs, step.kernel, step.name)

    def _makes_scores(self, name: str) -> bool:
        maker = self.makers.get(name)
        return maker is not None and maker.op == _PRODUCT

    def _is_mask(self, name: str, scores: tuple[Any, ...]) -> bool:
        """Whether a float32 tensor names every key, and is broadcast in front of them only."""
        constant = self.plan.constants.get(name)
        shape = self._shape(name) if constant is None else constant.shape
        dtype = self._dtype(name) if constant is None else constant.dtype.name
        if name in self.plan.inputs:
            dtype = np.dtype(self.plan.inputs[name].dtype).name
        if dtype != "float32" or not 1 <= len(shape) <= 4 or None in (*shape, *scores):
            return False
        if shape[-1] != scores[-1] or shape[-1] == 1:
            return False
        return all(mine in (1, want) for mine, want in zip(shape[::-1], scores[::-1]))

    def _scalar(self, name: str) -> Any:
        array = self.plan.constants.get(name)
        return array.reshape(-1)[0] if array is not None and array.size == 1 else None

    def _is_plain_product(self, step: Step) -> bool:
        if step.op != _PRODUCT or step.attrs.get("packed"):
            return False
        operands = [*step.inputs, *[""] * 7][:7]
        if operands[3] or operands[4] or operands[6] or self._scalar(operands[2]) is None:
            return False
        if any(len(self._shape(name)) != 4 for name in operands[:2]):
            return False
        return not operands[5] or self._scalar(operands[5]) is not None

    def _operand(self, name: str, order: str) -> _Operand | None:
        """Walks up from an operand of a product, whose dimensions are in `order`."""
        chain: list[Step] = []
        tables: list[Step] = []
        best: _Operand | None = None
        reader_alone = self._only_reader(name) is not None
        while True:
            best = self._read_at(name, order, chain, tables) or best
            maker = self.makers.get(name)
            if maker is None or maker.op not in (*_MOVES, "lepton.Lookup") or not reader_alone:
                return best
            if maker.op == "lepton.Lookup":
                tables.insert(0, maker)
            else:
                chain.insert(0, maker)
            name = maker.inputs[0]
            reader_alone = self._only_reader(name) is not None

    def _read_at(
        self, name: str, order: str, chain: list[Step], tables: list[Step]
    ) -> _Operand | None:
        shape = self._shape(name)
        if len(shape) == 4:
            layout = self._layout(shape, order, chain)
            return _Operand(name, layout, 0, list(tables)) if layout in _LAYOUTS else None
        if len(shape) != 3 or not chain or chain[0].op != "Reshape":
            return None
        split = self._shape(chain[0].outputs[0])
        if not splits_rows(shape, split) or self._layout(split, order, chain[1:]) != "BSHD":
            return None
        return _Operand(name, "BSHD", int(split[2]), list(tables))

    def _layout(self, shape: tuple[Any, ...], order: str, chain: list[Step]) -> str:
        """The dimensions of a tensor that the chain turns into `order`, by their letters."""
        dims: Order | None = [[0], [1], [2], [3]]
        for step in chain:
            assert dims is not None
            dims = follow(step, dims, shape, self._shape(step.outputs[0]))
            if dims is None:
                return ""
        if len(dims or ()) != 4 or any(len(group) != 1 for group in dims or ()):
            return ""
        letters = {group[0]: letter for group, letter in zip(dims or (), order)}
        return "".join(letters[i] for i in range(4))

    def _mapped(self, operand: _Operand) -> str:
        """The operand's tensor after its tables, which move to where it is made."""
        name = operand.name
        maker = self.makers.get(name)
        for table in operand.tables:
            value = self.graph.value(operand.name)
            made = self.graph.fresh_name(f"{name}/table")
            dtype = self.plan.dtypes[table.outputs[0]]
            self.graph.values[made] = Value(dtype, None if value is None else value.shape)
            self.plan.dtypes[made] = dtype
            step = Step(table.op, [name, *table.inputs[1:]], [made], table.attrs, "", table.name)
            assert maker is not None
            self.after.setdefault(id(maker), []).append(step)
            name = made
        return name

    def _replace(self, pattern: _Pattern, operands: list[_Operand]) -> None:
        if any(operand.tables and operand.name not in self.makers for operand in operands):
            return
        product, result = pattern.product, pattern.result
        gone = [product, pattern.scores, pattern.softmax, pattern.probabilities, result]
        attrs: dict[str, StepAttr] = {
            "scores_dtype": DTYPE_CODES[self._dtype(product.outputs[0])],
            "p_dtype": DTYPE_CODES[self._dtype(pattern.probabilities.outputs[0])],
        }
        for role, operand in zip("qkv", operands):
            attrs[f"{role}_layout"] = operand.layout
        if operands[0].heads:
            attrs["q_num_heads"] = operands[0].heads
        if operands[1].heads:
            attrs["kv_num_heads"] = operands[1].heads
        attrs.update(self._product_attrs("product", product))
        attrs.update(self._product_attrs("result", result))
        attrs.update(self._program_attrs("probabilities", pattern.probabilities))
        table, product_scale = "", self._scaled(pattern)
        if pattern.scores is not None and pattern.scores.op == "lepton.Lookup":
            table = pattern.scores.inputs[1]
        elif pattern.scores is not None:
            attrs.update(self._program_attrs("scores", pattern.scores))
            attrs["scores_input"] = pattern.scores.inputs.index(product.outputs[0])
        output, last = result.outputs[0], result
        turn = self._only_reader(output)
        attrs["y_layout"] = "BHSD"
        if turn is not None and turn.op == "Transpose" and turn.attrs.get("perm") == [0, 2, 1, 3]:
            output, last = turn.outputs[0], turn
            attrs["y_layout"] = "BSHD"
        inputs = [*map(self._mapped, operands), pattern.mask, "", "", ""]
        inputs += [product_scale, result.inputs[2], table]
        while not inputs[-1]:
            inputs.pop()
        fused = Step("lepton.QLinearAttention", inputs, [output], attrs, "", result.name)
        for step in gone:
            if step is not None:
                self.replaced[id(self.makers[step.outputs[0]])] = None
        self.replaced[id(last)] = fused

    def _scaled(self, pattern: _Pattern) -> str:
        """The first product's scale; a power of two that multiplies float scores goes into it.

        That leaves every bit as it is: the exponent alone changes.
        """
        product, scores = pattern.product, pattern.scores
        scale = self.plan.constants[product.inputs[2]].astype(np.float32)
        words = str(scores.attrs.get("program", "")).split() if scores is not None else []
        if self._dtype(product.outputs[0]) != "float32" or len(words) != 3 or pattern.mask:
            return product.inputs[2]
        if words[:2] != ["Mul", "r0"] or words[2][0] != "#" or "min" in product.attrs:
            return product.inputs[2]
        factor = np.float32(float(words[2][1:]))
        if np.frexp(factor)[0] != 0.5 or not 1e-20 < float(scale.reshape(-1)[0]) * factor < 1e20:
            return product.inputs[2]
        pattern.scores = None
        name = self.graph.fresh_name(f"{product.inputs[2]}/scaled")
        self.plan.constants[name] = scale * factor
        return name

    def _product_attrs(self, prefix: str, step: Step) -> dict[str, StepAttr]:
        zero = [*step.inputs, *[""] * 6][5]
        point = int(self._scalar(zero)) if zero else 0
        return {f"{prefix}.{k}": v for k, v in {**step.attrs, "b_zero_point": point}.items()}

    def _program_attrs(self, prefix: str, step: Step) -> dict[str, StepAttr]:
        """A program's attributes; QuantizeLinear and DequantizeLinear are programs of one line."""
        if step.op == "lepton.Elementwise":
            return {f"{prefix}.{name}": value for name, value in step.attrs.items()}
        parameters = [literal(float(self._scalar(step.inputs[1])))]
        zero = int(self._scalar(step.inputs[2])) if len(step.inputs) > 2 else 0
        parameters.append(literal(zero))
        op = "Dequantize"
        if step.op == "QuantizeLinear":
            op = "Quantize"
            limits = np.iinfo(self._dtype(step.outputs[0]))
            parameters += [literal(limits.min), literal(limits.max)]
        return {
            f"{prefix}.program": " ".join([op, "r0", *parameters]),
            f"{prefix}.compute": "f32",
        }
