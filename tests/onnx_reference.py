"""One operator evaluated by the onnx package's reference evaluator: an independent oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

Array = npt.NDArray[Any]


def reference(
    op: str,
    inputs: Sequence[Array | None],
    attrs: dict[str, Any] | None = None,
    outputs: int = 1,
    opset: int = 23,
) -> list[Array]:
    """Outputs of main-domain operator `op`; None inputs are omitted."""
    names = ["" if array is None else f"x{i}" for i, array in enumerate(inputs)]
    made = [f"y{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, made, **(attrs or {}))],
        "one_step",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in zip(names, inputs)
            if a is not None
        ],
        [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in made],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    feeds = {n: a for n, a in zip(names, inputs) if a is not None}
    return [np.asarray(y) for y in ReferenceEvaluator(model).run(None, feeds)]
