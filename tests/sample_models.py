"""Models the tests run: made by script from fixed seeds, never fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]

LIGHT_FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LIGHT_NAMES = sorted(path.stem for path in LIGHT_FOLDER.glob("light_*.onnx"))


def light_model(name: str, seed: int = 0) -> onnx.ModelProto:
    """A `light_*` network with its constant weights replaced by seeded He-normal ones.

    As shipped, every weight is one repeated value, and a constant output would pass.
    """
    model = onnx.load(LIGHT_FOLDER / f"{name}.onnx")
    graph = model.graph
    rng = np.random.default_rng(seed)
    shapes = {init.name: numpy_helper.to_array(init) for init in graph.initializer}
    users: dict[str, tuple[str, int]] = {}
    for node in graph.node:
        for i, tensor in enumerate(node.input):
            users.setdefault(tensor, (node.op_type, i))
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(int(d) for d in shapes[node.input[0]])
        op, position = _real_user(node.output[0], users, graph)
        array = _weight(rng, op, position, shape)
        graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    used = {tensor for node in graph.node for tensor in node.input}
    for item in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(item)
    fixed = {init.name for init in graph.initializer}
    for item in [item for item in graph.input if item.name in fixed or item.name not in used]:
        graph.input.remove(item)
    return model


def _real_user(
    tensor: str, users: dict[str, tuple[str, int]], graph: onnx.GraphProto
) -> tuple[str, int]:
    """The operator that uses a weight, looking through Unsqueeze."""
    op, position = users[tensor]
    if op != "Unsqueeze":
        return op, position
    out = next(n.output[0] for n in graph.node if tensor in n.input and n.op_type == "Unsqueeze")
    return _real_user(out, users, graph)


def _weight(rng: np.random.Generator, op: str, position: int, shape: tuple[int, ...]) -> Array:
    if op in ("Conv", "Gemm") and position == 1:
        fan_in = int(np.prod(shape[1:]))
        return rng.normal(0, np.sqrt(2 / max(fan_in, 1)), shape).astype(np.float32)
    if op in ("BatchNormalization", "Mul") and position in (1, 4):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.normal(0, 0.1, shape).astype(np.float32)


def tame_softmax(model: onnx.ModelProto, logits: Array) -> None:
    """Scales the last layer's weights so that the logits it gave get unit spread.

    Deep random networks otherwise end in a one-hot softmax, which hides every error.
    """
    last = [n for n in model.graph.node if n.op_type in ("Gemm", "Conv")][-1]
    operands = set(last.input[1:])
    for node in model.graph.node:  # one network reshapes its weights
        if node.op_type == "Reshape" and node.output[0] in operands:
            operands.add(node.input[0])
    for init in model.graph.initializer:
        if init.name in operands:
            scaled = numpy_helper.to_array(init) / np.float32(np.std(logits))
            init.CopyFrom(numpy_helper.from_array(scaled, init.name))


def with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy with more tensors as graph outputs (untyped: shape inference gives the dtypes)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(copy)
    types = {v.name: v for v in inferred.graph.value_info}
    present = {v.name for v in copy.graph.output}
    for name in names:
        if name not in present:
            copy.graph.output.append(types[name])
    return copy


def submodel(model: onnx.ModelProto, output: str, frontier: dict[str, Array]) -> onnx.ModelProto:
    """The part of a model between known tensors (`frontier`, by name) and one output.

    The frontier tensors it reads become its graph inputs, of exactly their dtype and shape.
    """
    producers = {out: node for node in model.graph.node for out in node.output}
    initializers = {init.name: init for init in model.graph.initializer}
    needed: list[onnx.NodeProto] = []
    inputs: list[str] = []
    weights: list[str] = []
    seen: set[str] = set()

    def visit(tensor: str) -> None:
        if not tensor or tensor in seen:
            return
        seen.add(tensor)
        if tensor in frontier and tensor != output:
            inputs.append(tensor)
        elif tensor in initializers:
            weights.append(tensor)
        else:
            node = producers[tensor]
            for name in node.input:
                visit(name)
            if node not in needed:
                needed.append(node)

    visit(output)
    typed = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(frontier[name].dtype), frontier[name].shape
        )
        for name in inputs
    ]
    result = helper.make_tensor_value_info(
        output, helper.np_dtype_to_tensor_dtype(frontier[output].dtype), frontier[output].shape
    )
    graph = helper.make_graph(needed, "layer", typed, [result], [initializers[w] for w in weights])
    return helper.make_model(
        graph, opset_imports=list(model.opset_import), ir_version=model.ir_version
    )
