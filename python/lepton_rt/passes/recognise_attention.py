"""Attention spelt out as products and a softmax, as one `Attention`.

The pattern, read from its Softmax: upwards additive masks, softcap and scale down to Q Kᵀ;
downwards the guard that exporters put behind a masked softmax (IsNaN, Where), and the product
with V.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lepton_rt.graph.ir import Graph, Node, Value, static_dims

from .attributes import int_attr, ints_attr
from .editor import Editor
from .eliminate import eliminate

__all__ = ["recognise_attention"]


def recognise_attention(graph: Graph) -> Graph:
    """Makes `Attention` of float32 attention over operands of rank 3 or 4."""
    editor = Editor(graph)
    sums: dict[tuple[str, str], str] = {}
    for node in editor.nodes():
        if node.key == "Softmax":
            _recognise(editor, node, sums)
    return eliminate(editor.finish())


@dataclass
class _Scores:
    """What stands between Q, Kᵀ and the softmax."""

    q: str = ""
    k_transposed: str = ""
    scale: float = 1.0
    softcap: float = 0.0
    biases: list[str] = field(default_factory=list)


def _recognise(editor: Editor, softmax: Node, sums: dict[tuple[str, str], str]) -> None:
    shape = editor.shape(softmax.inputs[0])
    if shape is None or len(shape) not in (3, 4):
        return
    if int_attr(softmax, "axis", -1) not in (-1, len(shape) - 1):
        return
    product = _product_with_values(editor, softmax)
    scores = _Scores()
    if product is None or not _read_scores(editor, softmax, softmax.inputs[0], scores):
        return
    operands = (scores.q, scores.k_transposed, product.inputs[1])
    ranks = [len(editor.shape(name) or ()) for name in operands]
    if ranks != [len(shape)] * 3 or any(editor.dtype(n) != np.float32 for n in operands):
        return
    if not _fit(editor, scores, product.inputs[1]):
        return
    _replace(editor, product, scores, len(shape), sums)


def _product_with_values(editor: Editor, softmax: Node) -> Node | None:
    """The MatMul that reads the probabilities, past a guard against NaN."""
    name = softmax.outputs[0]
    readers = editor.readers(name)
    if editor.pinned(name):
        return None
    if len(readers) == 2:
        by_key = {reader.key: reader for reader in readers}
        test, guard = by_key.get("IsNaN"), by_key.get("Where")
        if test is None or guard is None or editor.only_reader(test.outputs[0]) is not guard:
            return None
        if [guard.inputs[0], guard.inputs[2]] != [test.outputs[0], name]:
            return None
        if editor.scalar(guard.inputs[1]) != 0:
            return None
        name = guard.outputs[0]
    product = editor.only_reader(name)
    if product is None or product.key != "MatMul" or product.inputs[0] != name:
        return None
    return product


def _read_scores(editor: Editor, reader: Node, name: str, scores: _Scores) -> bool:
    """Walks up from the softmax; False where the pattern breaks."""
    while True:
        node = editor.producer(name)
        if node is None or editor.only_reader(name) is not reader:
            return False
        if node.key == "MatMul":
            scores.q, scores.k_transposed = node.inputs
            return True
        step = _step_up(editor, node, scores)
        if step is None:
            return False
        reader, name = step


def _step_up(editor: Editor, node: Node, scores: _Scores) -> tuple[Node, str] | None:
    """Absorbs one node above the softmax; returns the reader and name to go on with."""
    plain = scores.scale == 1 and scores.softcap == 0
    if node.key == "Add" and plain:
        for i in (0, 1):
            if _leads_to_product(editor, node.inputs[i]):
                scores.biases.append(node.inputs[1 - i])
                return node, node.inputs[i]
    if node.key == "Where" and plain:
        return _masked_fill(editor, node, scores)
    if node.key in ("Mul", "Div"):
        return _scaled(editor, node, scores)
    return None


def _leads_to_product(editor: Editor, name: str) -> bool:
    """Whether the scores come from here: the other operand of the addition is the mask."""
    for _ in range(8):
        node = editor.producer(name)
        if node is None or node.key not in ("MatMul", "Add", "Mul", "Div", "Tanh", "Where"):
            return False
        if node.key == "MatMul":
            return True
        if node.key == "Add" and not _leads_to_product(editor, node.inputs[0]):
            name = node.inputs[1]
        elif node.key == "Where":
            name = node.inputs[1] if editor.scalar(node.inputs[2]) is not None else node.inputs[2]
        else:
            name = node.inputs[1] if editor.scalar(node.inputs[0]) is not None else node.inputs[0]
    return False


def _masked_fill(editor: Editor, node: Node, scores: _Scores) -> tuple[Node, str] | None:
    """Where(mask, scores, low) or Where(mask, low, scores): adds low where it is put."""
    for kept, filled in ((1, 2), (2, 1)):
        low = editor.scalar(node.inputs[filled])
        if low is None or low > -1e4 or editor.dtype(node.inputs[filled]) != np.float32:
            continue
        zero = editor.constant(np.zeros((), np.float32), "zero")
        operands = [node.inputs[0], zero, node.inputs[filled]]
        if kept == 2:
            operands[1:] = operands[:0:-1]
        mask = editor.value(node.inputs[0])
        value = Value(np.dtype(np.float32), None if mask is None else mask.shape)
        bias = editor.fresh(f"{node.outputs[0]}.bias", value)
        editor.add(node, "Where", operands, [bias])
        scores.biases.append(bias)
        return node, node.inputs[kept]
    return None


def _scaled(editor: Editor, node: Node, scores: _Scores) -> tuple[Node, str] | None:
    by = 1
    factor = editor.scalar(node.inputs[1])
    if factor is None and node.key == "Mul":
        by, factor = 0, editor.scalar(node.inputs[0])
    if factor is None or factor == 0 or len(editor.shape(node.inputs[by]) or ()) > 1:
        return None
    inner = node.inputs[1 - by]
    capped = editor.producer(inner)
    if node.key == "Mul" and capped is not None and capped.key == "Tanh" and factor > 0:
        if scores.scale != 1 or scores.softcap != 0 or editor.only_reader(inner) is not node:
            return None
        scores.softcap = scores.scale = factor
        return capped, capped.inputs[0]
    scores.scale *= factor if node.key == "Mul" else 1 / factor
    return node, inner


def _fit(editor: Editor, scores: _Scores, v: str) -> bool:
    """Whether batch and heads agree everywhere, so that no operand is broadcast but the masks."""
    q, k, values = (editor.shape(n) or () for n in (scores.q, scores.k_transposed, v))
    lead = len(q) - 2
    if q[:lead] != k[:lead] or q[:lead] != values[:lead] or None in q[:lead]:
        return False
    for bias in scores.biases:
        shape = editor.shape(bias)
        if shape is None or len(shape) > len(q) or len(shape) < 1:
            return False
        if editor.dtype(bias) != np.float32:
            return False
        padded = (1,) * (len(q) - len(shape)) + tuple(shape)
        if any(size not in (1, want) for size, want in zip(padded[:lead], q[:lead])):
            return False
    return True


def _replace(
    editor: Editor, product: Node, scores: _Scores, rank: int, sums: dict[tuple[str, str], str]
) -> None:
    bias = ""
    for other in scores.biases:
        bias = _sum(editor, product, bias, other, sums) if bias else other
    q, scale = _without_scale(editor, product, scores.q)
    k, k_scale = _keys(editor, product, scores.k_transposed)
    operands = [q, k, product.inputs[1]]
    output = product.outputs[0]
    if rank == 3:
        operands = [_reshaped(editor, product, "Unsqueeze", name) for name in operands]
        shape = editor.shape(output)
        whole = None if shape is None else (1, *shape)
        output = editor.fresh(f"{output}.heads", Value(np.dtype(np.float32), whole))
        axis = editor.constant(np.zeros(1, np.int64), "axis")
        after = editor.replace(product, "Squeeze", [output, axis], product.outputs)
    else:
        after = product
    attrs: dict[str, object] = {"scale": float(scores.scale * scale * k_scale)}
    if scores.softcap:
        attrs["softcap"] = float(scores.softcap)
    operands += [bias] if bias else []
    if after is product:
        editor.replace(product, "Attention", operands, [output], attrs)  # type: ignore[arg-type]
    else:
        editor.add(after, "Attention", operands, [output], attrs)  # type: ignore[arg-type]


def _sum(editor: Editor, at: Node, a: str, b: str, sums: dict[tuple[str, str], str]) -> str:
    """The sum of two masks, computed once for all layers."""
    key = (min(a, b), max(a, b))
    if key not in sums:
        name = editor.fresh(f"{a}.mask", Value(np.dtype(np.float32), _broadcast(editor, a, b)))
        editor.add(at, "Add", [a, b], [name])
        sums[key] = name
    return sums[key]


def _broadcast(editor: Editor, a: str, b: str) -> tuple[int | str | None, ...] | None:
    first, second = editor.shape(a), editor.shape(b)
    if first is None or second is None:
        return None
    rank = max(len(first), len(second))
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in (first, second)]
    return tuple(y if x == 1 else x for x, y in zip(*padded))


def _reshaped(editor: Editor, at: Node, op: str, name: str) -> str:
    shape = editor.shape(name)
    value = Value(np.dtype(np.float32), None if shape is None else (1, *shape))
    axis = editor.constant(np.zeros(1, np.int64), "axis")
    made = editor.fresh(f"{name}.heads", value)
    editor.add(at, op, [name, axis], [made])
    return made


def _without_scale(editor: Editor, at: Node, name: str) -> tuple[str, float]:
    """An operand without the constant it is multiplied by, and that constant.

    Looks through the reshapes and transposes of a tensor that has no other reader.
    """
    chain: list[Node] = []
    current = name
    while True:
        node = editor.producer(current)
        if node is None or (chain and editor.only_reader(current) is not chain[-1]):
            return name, 1.0
        if node.key in ("Mul", "Div"):
            break
        if node.key not in ("Transpose", "Reshape", "Unsqueeze") or (
            not chain and editor.only_reader(current) is None
        ):
            return name, 1.0
        chain.append(node)
        current = node.inputs[0]
    by = 1 if editor.scalar(node.inputs[1]) is not None else 0
    factor = editor.scalar(node.inputs[by])
    plain = len(editor.shape(node.inputs[by]) or ()) <= 1
    if factor is None or factor == 0 or not plain or (node.key == "Div" and by == 0):
        return name, 1.0
    factor = factor if node.key == "Mul" else 1 / factor
    if not chain:
        return node.inputs[1 - by], factor
    editor.set_input(chain[-1], 0, node.inputs[1 - by])
    editor.drop_unread(node)
    return name, factor


def _keys(editor: Editor, at: Node, name: str) -> tuple[str, float]:
    """K of the Kᵀ that the product reads, and a constant it was multiplied by."""
    name, scale = _without_scale(editor, at, name)
    node = editor.producer(name)
    shape = editor.shape(name) or ()
    rank = len(shape)
    swap = [*range(rank - 2), rank - 1, rank - 2]
    source = _flattened_transpose(editor, node) if node is not None else None
    if source is not None:
        return source, scale
    if node is not None and node.key == "Transpose":
        perm = ints_attr(node, "perm", list(range(rank))[::-1])
        perm = [perm[i] for i in swap]
        name = node.inputs[0]
    else:
        perm = swap
    if perm == list(range(rank)):
        return name, scale
    value = Value(np.dtype(np.float32), tuple(shape[i] for i in swap))
    made = editor.fresh(f"{name}.keys", value)
    editor.add(at, "Transpose", [name], [made], {"perm": perm})
    return made, scale


def _flattened_transpose(editor: Editor, node: Node) -> str | None:
    """x of Reshape(Transpose(Reshape(x))) that swaps the last two of four dimensions."""
    if node is None or node.key != "Reshape":
        return None
    turn = editor.producer(node.inputs[0])
    if turn is None or turn.key != "Transpose" or ints_attr(turn, "perm", []) != [0, 2, 1]:
        return None
    flat = editor.producer(turn.inputs[0])
    if flat is None or flat.key != "Reshape":
        return None
    before, after = editor.shape(flat.inputs[0]), editor.shape(node.outputs[0])
    middle = editor.shape(flat.outputs[0])
    if before is None or after is None or middle is None or len(before) != 4 or len(after) != 4:
        return None
    swapped = (*before[:2], before[3], before[2])
    if after != swapped or None in after[1:] or static_dims(before[3:]) is None:
        return None
    return flat.inputs[0] if tuple(middle[1:]) == tuple(before[2:]) else None
