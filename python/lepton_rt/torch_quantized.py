"""PT2E-quantised programs: the ranges that PyTorch's ONNX exporter forgets.

`quantize_per_tensor(x, scale, zero_point, quant_min, quant_max, dtype)` clamps to its own range,
which may be narrower than the dtype's; QuantizeLinear clamps to the dtype's alone. A clamp between
the two says the rest.
"""

from __future__ import annotations

from typing import Any


def holds_narrow_ranges(graph: Any) -> bool:
    """Whether an fx graph quantises to less than the whole range of a dtype."""
    return any(_narrow(node) is not None for node in graph.nodes)


def with_clamps(program: Any) -> Any:
    """The exported program with narrow ranges as clamps; itself where it has none."""
    if not holds_narrow_ranges(program.graph):
        return program
    import torch

    program = program.run_decompositions({})  # a copy that may be changed
    graph = program.graph
    for node in list(graph.nodes):
        bounds = _narrow(node)
        if bounds is None:
            continue
        with graph.inserting_after(node):
            clamp = graph.call_function(torch.ops.aten.clamp.default, (node, *bounds))
        clamp.meta = dict(node.meta)
        node.replace_all_uses_with(clamp, delete_user_cb=lambda user, own=clamp: user is not own)
    program.graph_module.recompile()
    return program


def _narrow(node: Any) -> tuple[int, int] | None:
    """The range of a quantising node, where the dtype's is wider."""
    import torch

    name = str(node.target)
    if node.op != "call_function" or not name.startswith("quantized_decomposed.quantize_per_"):
        return None
    schema = node.target._schema if hasattr(node.target, "_schema") else node.target.default._schema
    given = dict(zip((argument.name for argument in schema.arguments), node.args))
    given.update(node.kwargs)
    low, high, dtype = (given.get(key) for key in ("quant_min", "quant_max", "dtype"))
    if not isinstance(low, int) or not isinstance(high, int) or dtype is None:
        return None
    limits = torch.iinfo(dtype)
    return (low, high) if low > limits.min or high < limits.max else None
