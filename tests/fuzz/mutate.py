"""Mutations of model files: of bytes, of ONNX messages, of `.lepton` headers, of `.plan` files."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from xxh64 import HEADER, sealed

HUGE = [0, 1, -1, -2, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63), 255, 65537]


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16, 64])):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def splice(data: bytes, rng: random.Random) -> bytes:
    """Copies a stretch of the file over, or into, another place of it."""
    length = rng.randrange(1, max(2, len(data) // 4))
    start, to = rng.randrange(len(data)), rng.randrange(len(data))
    end = to + length if rng.random() < 0.5 else to
    return data[:to] + data[start : start + length] + data[end:]


def overwrite_integer(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    at = rng.randrange(max(1, len(out) - 8))
    out[at : at + 8] = struct.pack("<q", rng.choice(HUGE))
    return bytes(out[: len(data)])


BYTES: list[Callable[[bytes, random.Random], bytes]] = [
    truncate, flip_bits, flip_bits, splice, overwrite_integer,
]  # fmt: skip


def huge_dims(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = model.graph
    if rng.random() < 0.5 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        if tensor.dims and rng.random() < 0.8:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(HUGE)
        else:
            tensor.dims.append(rng.choice(HUGE))
    else:
        value = rng.choice([*graph.input, *graph.output])
        value.type.tensor_type.shape.dim.add().dim_value = rng.choice(HUGE)
        rng.choice(value.type.tensor_type.shape.dim).dim_value = rng.choice(HUGE)


def change_constant(model: onnx.ModelProto, rng: random.Random) -> None:
    """Integer constants are shapes, axes, pads and indices: give them values no one wants."""
    tensor = rng.choice(model.graph.initializer)
    raw = bytearray(tensor.raw_data)
    if tensor.data_type == onnx.TensorProto.INT64 and len(raw) >= 8:
        at = rng.randrange(len(raw) // 8) * 8
        raw[at : at + 8] = struct.pack("<q", rng.choice([*HUGE, *range(-5, 9)]))
    elif tensor.data_type == onnx.TensorProto.FLOAT and len(raw) >= 4:
        at = rng.randrange(len(raw) // 4) * 4
        bad = [0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan"), -0.0]
        raw[at : at + 4] = struct.pack("<f", rng.choice(bad))
    tensor.raw_data = bytes(raw)


def cycle(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = model.graph.node
    early, late = sorted((rng.randrange(len(nodes)), rng.randrange(len(nodes))))
    if nodes[early].input:
        place = rng.randrange(len(nodes[early].input))
        nodes[early].input[place] = nodes[late].output[0]


def rewire(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = model.graph
    names = [t.name for t in graph.initializer] + [v.name for v in graph.input] + ["", "nowhere"]
    names += [name for n in graph.node for name in n.output]
    node = rng.choice(graph.node)
    place = rng.randrange(3)
    if place == 0 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif place == 1:
        node.output[0] = rng.choice(names)
    else:
        node.input.append(rng.choice(names))


def change_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    attributes = [a for n in model.graph.node for a in n.attribute]
    attribute = rng.choice(attributes)
    if attribute.ints:
        if rng.random() < 0.3:
            attribute.ints.append(rng.choice(HUGE))
        elif rng.random() < 0.3:
            del attribute.ints[-1]
        else:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice([*HUGE, *range(-4, 9)])
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = rng.choice([*HUGE, *range(-4, 25)])
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = rng.choice([b"", b"\xff\xfe", b"reflect", b"wrap", b"SAME_UPPER", b"cubic"])
    else:
        attribute.type = rng.choice(list(onnx.AttributeProto.AttributeType.values()))


def add_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    name = rng.choice([
        "axis", "pads", "strides", "dilations", "group", "kernel_shape", "perm", "auto_pad",
        "ceil_mode", "to", "transA", "epsilon", "output_padding",
    ])  # fmt: skip
    value: Any = rng.choice(HUGE[1:])
    if name in ("pads", "strides", "dilations", "kernel_shape", "perm", "output_padding"):
        value = [rng.choice([*HUGE, 1, 1, 2, 2, 3]) for _ in range(rng.randrange(1, 6))]
    elif name == "auto_pad":
        value = rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID", "other"])
    node = rng.choice(model.graph.node)
    for attribute in list(node.attribute):
        if attribute.name == name:
            node.attribute.remove(attribute)
    node.attribute.append(onnx.helper.make_attribute(name, value))


def change_type(model: onnx.ModelProto, rng: random.Random) -> None:
    types = [int(v) for v in onnx.TensorProto.DataType.values()] + [99, -1]
    tensors = [v.type.tensor_type for v in (*model.graph.input, *model.graph.output)]
    if rng.random() < 0.6 and model.graph.initializer:
        rng.choice(model.graph.initializer).data_type = rng.choice(types)
    else:
        rng.choice(tensors).elem_type = rng.choice(types)


def change_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    names = [n.op_type for n in model.graph.node] + [
        "Loop", "Scan", "Einsum", "TopK", "Identity", "ScatterND", "GatherND", "CumSum", "Range",
        "OneHot", "Compress", "Nothing", "Max", "Where", "Pow", "Mod", "BitShift", "LSTM",
        "Constant",
    ]  # fmt: skip
    node = rng.choice(model.graph.node)
    if rng.random() < 0.1:
        node.domain = rng.choice(["com.microsoft", "lepton", "nobody"])
    node.op_type = rng.choice(names)


def drop_or_double(model: onnx.ModelProto, rng: random.Random) -> None:
    place = rng.choice([model.graph.node, model.graph.initializer, model.graph.input,
                        model.graph.output, model.opset_import])  # fmt: skip
    if not place:
        return
    if rng.random() < 0.5:
        del place[rng.randrange(len(place))]
    else:
        place.append(rng.choice(place))


def external_data(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    location = rng.choice(["/etc/passwd", "../../../../etc/passwd", "missing.bin", "", "."])
    for key, value in {"location": location, "offset": "-1", "length": str(2**62)}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def opset(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.opset_import:
        model.opset_import[0].version = rng.choice([0, -1, 1, 6, 7, 11, 13, 22, 25, 99, 2**40])
    model.ir_version = rng.choice([0, 3, 10, 13, 99])


def nest(model: onnx.ModelProto, rng: random.Random) -> None:
    """If inside If inside If…"""
    graph = leaf = onnx.helper.make_graph([], "leaf", [], [])
    for _ in range(rng.choice([3, 20, 45])):
        node = onnx.helper.make_node("If", ["flag"], ["f"], then_branch=graph, else_branch=leaf)
        graph = onnx.helper.make_graph([node], "level", [], [])
    model.graph.node.extend(graph.node)


MESSAGE: list[Callable[[onnx.ModelProto, random.Random], None]] = [
    huge_dims, change_constant, change_constant, cycle, rewire, change_attribute, change_attribute,
    add_attribute, change_type, change_operator, drop_or_double, external_data, opset, nest,
]  # fmt: skip


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Replaces one random place of a JSON tree, large branches more often."""
    if isinstance(value, dict) and value and rng.random() < 0.98:
        sizes = [len(json.dumps(inner)) for inner in value.values()]
        [key] = rng.choices(list(value), sizes)
        if rng.random() < 0.05:
            del value[key]
        else:
            value[key] = mutate_json(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.97:
        i = rng.randrange(len(value))
        if rng.random() < 0.1:
            value.append(value[i])
        else:
            value[i] = mutate_json(value[i], rng)
        return value
    if isinstance(value, str) and value[:1] in "{[" and value and rng.random() < 0.95:
        try:
            return json.dumps(mutate_json(json.loads(value), rng))
        except ValueError:
            return value
    if isinstance(value, bool) or rng.random() < 0.2:  # something of another type
        return rng.choice([None, "", "x", -1, 0, 1.5, 2**63, [], {}, [[]], True, "F32", "int8"])
    if isinstance(value, int):
        return rng.choice([*HUGE, *range(-4, 9)])
    if isinstance(value, float):
        return rng.choice([0.0, -1.0, 1e30, 1e-30, value * 2])
    if isinstance(value, str):
        return rng.choice(
            ["", "x", "y", "w0", "Relu", "Transpose", "float32", "int64", "uint8", "n"]
        )
    return rng.choice([[], {}, [1], [-1, 2**40], {"x": 1}])


def mutate_lepton_header(data: bytes, rng: random.Random) -> bytes:
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    metadata = header["__metadata__"]
    for _ in range(rng.choice([1, 1, 2])):
        if rng.random() < 0.8:  # the graph
            metadata["lepton"] = json.dumps(mutate_json(json.loads(metadata["lepton"]), rng))
        else:
            header = mutate_json(header, rng)
            break
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def overwrite(data: bytearray, first: int, end: int, rng: random.Random) -> None:
    """An integer somewhere in [first, end): a count, an id, a dimension, an attribute, a string."""
    width = rng.choice([1, 4, 4, 8])
    if end - first < width:
        return
    at = rng.randrange(first, end - width + 1)
    old = int.from_bytes(data[at : at + width], "little")
    near = [old + 1, old - 1, old + rng.randrange(-9, 10), *range(9), old ^ 1 << rng.randrange(8)]
    value = rng.choice([*HUGE, *near, *near])
    data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")


def mutate_plan(data: bytes, rng: random.Random) -> bytes:
    """Alters the parts of a `.plan` file and makes its checksum right again."""
    out = bytearray(data)
    fields = HEADER.unpack_from(data)
    meta, meta_bytes, annotations, annotations_bytes, table, blobs = fields[7:]
    places = {
        "header": (HEADER.size - 48, HEADER.size),
        "meta": (meta, meta + meta_bytes),
        "table": (table, table + 16 * blobs),
        "blobs": (table + 16 * blobs, len(data)),
    }
    if rng.random() < 0.15:
        text = data[annotations : annotations + annotations_bytes].decode()
        changed = json.dumps(mutate_json(json.loads(text), rng)).encode()
        HEADER.pack_into(out, 0, *fields[:9], len(out), len(changed), table, blobs)
        out += changed
    else:
        names = rng.choices([*places], [1, 20, 1, 4], k=rng.choice([1, 1, 1, 2, 3]))
        for name in names:
            overwrite(out, *places[name], rng)
    if rng.random() < 0.05:
        del out[rng.randrange(HEADER.size, len(out)) :]
    return sealed(bytes(out))


def mutant(kind: str, data: bytes, rng: random.Random) -> bytes:
    """One mutated file. kind: "onnx", "lepton" or "plan"."""
    if rng.random() < (0.05 if kind == "plan" else 0.3):
        return rng.choice(BYTES)(data, rng)
    if kind == "plan":
        return mutate_plan(data, rng)
    if kind == "lepton":
        return mutate_lepton_header(data, rng)
    model = onnx.load_from_string(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        # An integer that no field holds, nesting that protobuf refuses, nothing to choose from.
        with suppress(ValueError, IndexError, DecodeError):
            rng.choice(MESSAGE)(model, rng)
    return model.SerializeToString()
