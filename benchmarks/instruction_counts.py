"""Instructions that the hot kernels execute, counted by callgrind: a guard against regressions.

    PYTHONPATH=build/counts/python python benchmarks/instruction_counts.py [--record]

Times are noisy, counts are not: one layer after the other runs under `valgrind --tool=callgrind`,
which knows AVX2 at most, on one thread, and the instructions of the extension module alone are
compared with instruction_counts.json beside this file. More than 3 % away, either way, is an
error: a gain is recorded with --record. Another compiler's counts mean nothing here, so with one
the comparison is skipped, as it is without valgrind. Needs an extension that was not stripped (the
CMake preset "counts").
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

RECORD = Path(__file__).with_suffix(".json")
TOLERANCE = 0.03
# Counting starts anew at the first of these bindings, and is written out at the second. (Valgrind
# 3.19 does not write at the end of the first.)
ZERO = "*PyExecutor::run_plain(*"
DUMP = "*PyExecutor::output_shapes(*"

Array = npt.NDArray[Any]
Layer = tuple[str, dict[str, Any], list[tuple[int, ...]]]
"""Operator, attributes, shapes of its weights."""


def _layers() -> dict[str, tuple[tuple[int, ...], Layer]]:
    """Name → (input shape, layer). Products also run in 8 bits, matrices' with bfloat16 weights."""
    image = {"pads": [1, 1, 1, 1]}
    return {
        "matmul_64x256x256": ((64, 256), ("MatMul", {}, [(256, 256)])),
        "matvec_1x512x512": ((1, 512), ("MatMul", {}, [(512, 512)])),
        "conv_1x1_14x14_64_128": ((1, 64, 14, 14), ("Conv", {}, [(128, 64, 1, 1)])),
        "conv_3x3_14x14_64_64": ((1, 64, 14, 14), ("Conv", image, [(64, 64, 3, 3)])),
        "conv_3x3s2_28x28_32_64": (
            (1, 32, 28, 28),
            ("Conv", {**image, "strides": [2, 2]}, [(64, 32, 3, 3)]),
        ),
        "conv_first_56x56_3_32": (
            (1, 3, 56, 56),
            ("Conv", {**image, "strides": [2, 2]}, [(32, 3, 3, 3)]),
        ),
        "depthwise_3x3_28x28_64": (
            (1, 64, 28, 28),
            ("Conv", {**image, "group": 64}, [(64, 1, 3, 3)]),
        ),
        "maxpool_28x28_64": (
            (1, 64, 28, 28),
            ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}, []),
        ),
        "softmax_128x128": ((128, 128), ("Softmax", {"axis": -1}, [])),
        "layernorm_64x256": ((64, 256), ("LayerNormalization", {"axis": -1}, [(256,), (256,)])),
        "gelu_64x256": ((64, 256), ("Gelu", {}, [])),
        "lstm_8x64": (
            (8, 1, 64),
            ("LSTM", {"hidden_size": 64}, [(1, 256, 64), (1, 256, 64), (1, 512)]),
        ),
        "attention_4x64x32": (
            (1, 64, 128),
            ("Attention", {"q_num_heads": 4, "kv_num_heads": 4}, []),
        ),
    }


def _model(shape: tuple[int, ...], layer: Layer) -> Any:
    """The layer as a model with random weights."""
    from onnx import TensorProto, helper, numpy_helper

    operator, attributes, weights = layer
    rng = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array((rng.normal(size=s) * 0.05).astype(np.float32), f"w{i}")
        for i, s in enumerate(weights)
    ]
    inputs = ["x"] * 3 if operator == "Attention" else ["x", *(c.name for c in constants)]
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"], **attributes)],
        operator,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    opset = helper.make_opsetid("", 23)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def _write_cases(folder: Path) -> list[str]:
    """Makes <name>.lepton and <name>.npy of every case; returns the names in order."""
    import lepton_rt

    names = []
    rng = np.random.default_rng(1)

    def write(name: str, save: Callable[[Path], None], x: Array) -> None:
        save(folder / f"{name}.lepton")
        np.save(folder / f"{name}.npy", x)
        names.append(name)

    for name, (shape, layer) in _layers().items():
        x = rng.normal(size=shape).astype(np.float32)
        model = _model(shape, layer)
        graph = lepton_rt.import_onnx(model)
        write(f"{name}_f32", lambda path, g=graph: lepton_rt.save_lepton(g, path), x)
        if layer[0] == "MatMul":
            write(f"{name}_bf16", lambda path, g=graph: lepton_rt.save_lepton(g, path), x)
        if layer[0] in ("MatMul", "Conv"):
            made = lepton_rt.quantize(model, [x], progress=False)
            write(f"{name}_s8", made.save, x)
        if name.startswith("matvec"):
            made = lepton_rt.quantize(model, mode="weight_only", bits=4, group_size=32)
            write(f"{name}_4bit", made.save, x)
        if layer[0] in ("MatMul", "LSTM"):
            made = lepton_rt.quantize(model, mode="dynamic")
            write(f"{name}_dynamic", made.save, x)
    return names


def _run_cases(folder: Path, names: list[str]) -> None:
    """The child under valgrind. A case's first run binds, its second one is counted."""
    import lepton_rt

    for name in names:
        precision = "bf16" if name.endswith("_bf16") else "f32"
        session = lepton_rt.Session(folder / f"{name}.lepton", threads=1, precision=precision)
        x = np.load(folder / f"{name}.npy")
        session.run(x)
        session.run(x)
        session._executor.output_shapes([list(x.shape)])


def _count(folder: Path, names: list[str]) -> dict[str, int]:
    out = folder / "callgrind.out"
    command = [
        *("valgrind", "--tool=callgrind", f"--zero-before={ZERO}", f"--dump-before={DUMP}"),
        *(f"--callgrind-out-file={out}", sys.executable, __file__, "--child", str(folder), *names),
    ]
    environment = {**os.environ, "LEPTON_MAX_ISA": "avx2", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the run under valgrind failed:\n{done.stderr[-2000:]}")
    dumps = sorted(folder.glob("callgrind.out.*"), key=lambda path: int(path.suffix[1:]))
    if len(dumps) != len(names):
        raise RuntimeError(f"{len(dumps)} dumps instead of {len(names)}: is it stripped?")
    return {name: own_instructions(dump.read_text()) for name, dump in zip(names, dumps)}


def own_instructions(dump: str) -> int:
    """Instructions in functions of the extension module, of a file in callgrind's format.

    "ob=" says to which object the functions that follow belong, "cob=" the same of a callee; a name
    is spelled out the first time. The last number of a line of numbers is its cost. The line after
    "calls=" is the cost of the callee, which is counted there already.
    """
    names: dict[str, str] = {}
    own = False
    total = 0
    lines = iter(dump.splitlines())
    for line in lines:
        if line.startswith("calls="):
            next(lines)
        elif line.startswith(("ob=", "cob=")):
            key, _, value = line.partition("=")
            number, _, name = value.partition(" ")
            name = names.setdefault(number, name)
            own = "/_core." in name if key == "ob" else own
        elif own and re.match(r"[0-9+*-]", line):
            total += int(line.split()[-1])
    return total


def compiler() -> str:
    """What the extension says it was compiled with."""
    from lepton_rt import _core

    found = re.search(
        rb"(GCC|clang)[^\0]*? ([0-9]+\.[0-9]+\.[0-9]+)", Path(_core.__file__).read_bytes()
    )
    return b" ".join(found.groups()).decode() if found else "unknown"


def compare(counted: dict[str, int], expected: dict[str, int]) -> list[str]:
    """Sentences about the cases that differ by more than the tolerance, or are not in both."""
    wrong = [f"{name}: not recorded yet" for name in counted.keys() - expected.keys()]
    wrong += [
        f"{name}: recorded, but no case any more" for name in expected.keys() - counted.keys()
    ]
    for name in counted.keys() & expected.keys():
        change = counted[name] / expected[name] - 1
        if abs(change) > TOLERANCE:
            wrong.append(f"{name}: {expected[name]} → {counted[name]} instructions ({change:+.1%})")
    return sorted(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write the counts, compare nothing")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _run_cases(Path(options.child[0]), options.child[1:])
        return 0
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {"compiler": "", "counts": {}}
    if shutil.which("valgrind") is None:
        print("skipped: valgrind is not installed")
        return 0
    if not options.record and recorded["compiler"] != compiler():
        print(f"skipped: recorded with {recorded['compiler'] or 'none'}, this is {compiler()}")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counted = _count(folder, _write_cases(folder))
    for case, count in counted.items():
        print(f"{case:34} {count:12,}")
    if options.record:
        RECORD.write_text(json.dumps({"compiler": compiler(), "counts": counted}, indent=1) + "\n")
        return 0
    wrong = compare(counted, recorded["counts"])
    print("\n".join(wrong) if wrong else f"all within {TOLERANCE:.0%}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
