"""`Einsum` as sums, transposes and matrix products, which have kernels.

Operands are contracted from left to right. For a pair, indices of both that are still needed are
batch dimensions of one MatMul, those needed no more its inner dimension; the others of either
operand become its rows and columns.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from lepton_rt.graph.ir import Attr, Dim, Graph, Node, Value

from .editor import Editor

__all__ = ["decompose_einsum"]

_DTYPES = ("float32", "float16", "bfloat16")


class _CannotDecompose(Exception):
    """Several unknown dimensions would have to become one."""


def decompose_einsum(graph: Graph) -> Graph:
    """Rewrites every floating-point Einsum without ellipses, diagonals and broadcast indices."""
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key != "Einsum":
            continue
        terms = _terms(node)
        values = [editor.value(name) for name in node.inputs]
        sizes = _sizes(terms, values)
        if terms is None or sizes is None:
            continue
        dtype = values[0].dtype  # type: ignore[union-attr]
        try:
            steps = _Steps(editor, node, sizes, dtype)
            steps.contract(terms[:-1], terms[-1])
        except _CannotDecompose:
            continue
        steps.put_in_place()
    return editor.finish()


def _terms(node: Node) -> list[str] | None:
    """Indices of every operand and, last, of the result; None where they have no plain form."""
    equation = str(node.attrs.get("equation", "")).replace(" ", "")
    given, arrow, result = equation.partition("->")
    terms = given.split(",")
    if not arrow:
        counts = Counter(given.replace(",", ""))
        result = "".join(sorted(label for label, count in counts.items() if count == 1))
    labels = [*terms, result]
    plain = all((not t or (t.isascii() and t.isalpha())) and len(set(t)) == len(t) for t in labels)
    if not plain or len(terms) != len(node.inputs) or not set(result) <= set("".join(terms)):
        return None
    return labels


def _sizes(terms: list[str] | None, values: list[Value | None]) -> dict[str, Dim] | None:
    """Size of every index; None where operands do not fit, or could broadcast."""
    if terms is None:
        return None
    sizes: dict[str, Dim] = {}
    for term, value in zip(terms, values):
        known = value is not None and value.shape is not None and value.dtype.name in _DTYPES
        if not known or len(value.shape) != len(term):  # type: ignore[arg-type,union-attr]
            return None
        for label, dim in zip(term, value.shape):  # type: ignore[arg-type,union-attr]
            before = sizes.get(label)
            if isinstance(before, int) and isinstance(dim, int) and before != dim:
                return None
            if dim == 0:
                return None
            sizes[label] = dim if before is None or isinstance(dim, int) else before
    return sizes


@dataclass
class _Operand:
    name: str
    labels: str


@dataclass
class _Steps:
    """The nodes that will stand for one Einsum."""

    editor: Editor
    node: Node
    sizes: dict[str, Dim]
    dtype: np.dtype
    made: list[tuple[str, list[str], str, dict[str, Attr]]] = field(default_factory=list)

    def contract(self, terms: list[str], result: str) -> None:
        operands = [_Operand(name, term) for name, term in zip(self.node.inputs, terms)]
        current = operands[0]
        for index, operand in enumerate(operands[1:], start=1):
            needed = set(result).union(*(o.labels for o in operands[index + 1 :]))
            current = self._product(current, operand, needed)
        current = self._summed(current, set(result))
        current = self._transposed(current, result)
        if not self.made:
            self._emit("Identity", [current.name], result)

    def put_in_place(self) -> None:
        op, inputs, _, attrs = self.made.pop()
        for each, operands, output, given in self.made:
            self.editor.add(self.node, each, operands, [output], given)
        self.editor.replace(self.node, op, inputs, self.node.outputs, attrs)

    def _product(self, a: _Operand, b: _Operand, needed: set[str]) -> _Operand:
        a = self._summed(a, needed | set(b.labels))
        b = self._summed(b, needed | set(a.labels))
        shared = [label for label in a.labels if label in b.labels]
        batch = "".join(label for label in shared if label in needed)
        inner = "".join(label for label in shared if label not in needed)
        rows = "".join(label for label in a.labels if label not in b.labels)
        columns = "".join(label for label in b.labels if label not in a.labels)
        lhs = self._grouped(a, batch, rows, inner)
        rhs = self._grouped(b, batch, inner, columns)
        made = self._emit("MatMul", [lhs, rhs], batch, self._count(rows), self._count(columns))
        labels = batch + rows + columns
        if len(rows) != 1 or len(columns) != 1:
            target = [0] * len(batch) + [self._known(label) for label in rows + columns]
            if len(rows) == 1 and target[len(batch)] == -1:
                target[len(batch)] = 0  # it stays where it was
            made = self._reshape(made, target, labels)
        return _Operand(made, labels)

    def _grouped(self, x: _Operand, batch: str, first: str, second: str) -> str:
        """x as batch dimensions, and one dimension for either group of indices."""
        x = self._transposed(x, batch + first + second)
        if len(first) == 1 and len(second) == 1:
            return x.name
        sizes = [self._count(first), self._count(second)]
        target = [-1 if not isinstance(size, int) else size for size in sizes]
        if len(first) == 1 and target[0] == -1:
            target[0] = 0
        return self._reshape(x.name, [0] * len(batch) + target, batch, *sizes)

    def _summed(self, x: _Operand, kept: set[str]) -> _Operand:
        axes = [i for i, label in enumerate(x.labels) if label not in kept]
        if not axes:
            return x
        labels = "".join(label for label in x.labels if label in kept)
        constant = self.editor.constant(np.array(axes, np.int64), "axes")
        return _Operand(self._emit("ReduceSum", [x.name, constant], labels, keepdims=0), labels)

    def _transposed(self, x: _Operand, labels: str) -> _Operand:
        if x.labels == labels:
            return x
        perm = [x.labels.index(label) for label in labels]
        return _Operand(self._emit("Transpose", [x.name], labels, perm=perm), labels)

    def _reshape(self, name: str, target: list[int], labels: str, *more: Dim) -> str:
        if target.count(-1) > 1:
            raise _CannotDecompose
        shape = self.editor.constant(np.array(target, np.int64), "shape")
        return self._emit("Reshape", [name, shape], labels, *more)

    def _known(self, label: str) -> int:
        size = self.sizes[label]
        return size if isinstance(size, int) else -1

    def _count(self, labels: str) -> Dim:
        if len(labels) == 1:
            return self.sizes[labels]
        sizes = [self._known(label) for label in labels]
        return None if -1 in sizes else math.prod(sizes)

    def _emit(self, op: str, inputs: list[str], labels: str, *more: Dim, **attrs: Attr) -> str:
        dims = (*(self.sizes[label] for label in labels), *more)
        name = self.editor.fresh(f"{self.node.outputs[0]}/{op}", Value(self.dtype, dims))
        self.made.append((op, inputs, name, dict(attrs)))
        return name
