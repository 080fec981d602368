"""Matrix products that are given their rows in one dimension take them in the dimensions of their
reader, so that residuals and splits, which come after the Reshape, follow the product itself.
"""

from __future__ import annotations

import math

import numpy as np

from lepton_rt.graph.ir import Graph, Node, Value

from .editor import Editor
from .eliminate import eliminate

__all__ = ["move_reshape"]

_PRODUCTS = {"lepton.MatMul", "lepton.DynamicQuantizeMatMul", "lepton.MatMulNBits"}
_RESIDUAL = {"lepton.MatMul": 3}


def move_reshape(graph: Graph) -> Graph:
    """Reshape(product(A)) to [-1, rows…, n] becomes product(Reshape(A)), for constant 2-D B."""
    editor = Editor(graph)
    for node in editor.nodes():
        if node.key in _PRODUCTS and not any(node.inputs[_RESIDUAL.get(node.key, 5) :]):
            _move(editor, node)
    return eliminate(editor.finish())


def _move(editor: Editor, product: Node) -> None:
    reshape = editor.only_reader(product.outputs[0])
    rhs = editor.array(product.inputs[1])
    a, dtype = editor.shape(product.inputs[0]), editor.dtype(product.inputs[0])
    if reshape is None or reshape.key != "Reshape" or rhs is None or rhs.ndim != 2:
        return
    target = editor.array(reshape.inputs[1])
    if a is None or len(a) != 2 or dtype is None or target is None or target.ndim != 1:
        return
    sizes = [int(size) for size in target]
    k, n = rhs.shape
    if len(sizes) < 3 or sizes[0] != -1 or min(k, *sizes[1:]) < 1 or sizes[-1] != n:
        return
    source, shape = _source(editor, product.inputs[0], [*sizes[:-1], k])
    if editor.shape(source) == shape:
        rows = source
    else:
        rows = editor.fresh(f"{product.outputs[0]}.rows", Value(dtype, shape))
        given = editor.constant(np.array([*sizes[:-1], k], np.int64), f"{rows}.shape")
        editor.add(product, "Reshape", [source, given], [rows])
    output = reshape.outputs[0]
    result = editor.dtype(output)
    inputs = [rows, *product.inputs[1:]]
    editor.replace([product, reshape], product.op, inputs, [output], product.attrs, lepton=True)
    if result is not None and output not in editor.graph.outputs:
        editor.graph.values[output] = Value(result, (*shape[:-1], n))


def _source(
    editor: Editor, name: str, sizes: list[int]
) -> tuple[str, tuple[int | str | None, ...]]:
    """What a tensor was before it was reshaped, and the shape that `sizes` (-1 first) gives it."""
    maker = editor.producer(name)
    source = maker.inputs[0] if maker is not None and maker.key == "Reshape" else name
    shape = editor.shape(source)
    first = None
    if shape is not None and len(shape) > 1:
        rest = [size for size in shape[1:] if isinstance(size, int)]
        if len(rest) + 1 == len(shape) and math.prod(rest) == math.prod(sizes[1:]):
            first = shape[0]
    return source, (first, *sizes[1:])
