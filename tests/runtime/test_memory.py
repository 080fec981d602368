"""Working memory is laid out tightly; weights are in memory once."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper

import lepton_rt
from lepton_rt import _core
from pass_graphs import Model, dequantize, fake
from small_networks import cnn

PACKAGE = Path(lepton_rt.__file__).parent
Tensor = tuple[int, int, int]  # first step, last step, bytes


def random_tensors(rng: np.random.Generator, kind: str) -> list[Tensor]:
    """Lifetimes of a chain, of a chain with long skips, or any."""
    count = int(rng.choice([1, 5, 20, 60, 150]))
    tensors = []
    for step in range(count):
        first = int(rng.integers(count)) if kind == "any" else step
        spans = {"chain": [1, 1, 1, 2, 3], "skips": [1, 1, 2, 20], "any": [*range(1, count + 1)]}
        last = min(count, first + int(rng.choice(spans[kind])))
        sizes = [0, 64, int(rng.integers(1, 10_000)), 100_352, 401_408]
        tensors.append((first, last, int(rng.choice(sizes))))
    return tensors


def live_bytes(tensors: list[Tensor]) -> int:
    steps = range(1 + max(last for _, last, _ in tensors))
    return max(
        sum(-(-b // 64) * 64 for first, last, b in tensors if first <= s <= last) for s in steps
    )


def test_layout_of_random_lifetimes(rng: np.random.Generator) -> None:
    ratios = []
    for round_ in range(300):
        tensors = random_tensors(rng, ["chain", "skips", "any"][round_ % 3])
        total, offsets = _core.testing.lay_out(tensors)
        placed = [(o, o + b, *t) for (*t, b), o in zip(tensors, offsets, strict=True) if b]
        for i, (start, end, first, last) in enumerate(placed):
            assert start % 64 == 0
            assert end <= total
            for other_start, other_end, other_first, other_last in placed[:i]:
                alive_together = other_first <= last and first <= other_last
                assert not alive_together or end <= other_start or other_end <= start
        least = live_bytes(tensors)
        assert total >= least
        ratios.append(total / max(least, 1))
    # The best layout is NP-hard to find, and may need more than the largest live set.
    assert np.mean(ratios) < 1.01
    assert np.quantile(ratios, 0.97) <= 1.1


def check_arena(session: lepton_rt.Session, shape: list[int]) -> None:
    arena, least = session._executor.bind([shape])
    assert arena <= 1.1 * least + 128


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_arena_of_a_small_network(batch: int, threads: int) -> None:
    check_arena(lepton_rt.Session(cnn(), threads=threads), [batch, 3, 16, 16])


@pytest.mark.parametrize("shortcut", ["another tensor", "its own input", "read later"])
@pytest.mark.parametrize("integer", [False, True])
def test_residual_is_overwritten_where_nothing_else_reads_it(
    rng: np.random.Generator, shortcut: str, integer: bool
) -> None:
    """conv(x) + r in the memory of r, but not where r is x, or is read again."""
    channels = 160  # more columns than one panel of any kernel
    model = Model(x=("FLOAT", [1, channels, 12, 12]))

    def rounded(name: str) -> str:
        return fake(model, name, 0.05, 100) if integer else name

    weights = (rng.integers(-2, 3, (2, channels, channels, 1, 1)) / 16).astype(np.float32)
    zeros = np.zeros(channels, np.int8)
    steps = np.full(channels, 1 / 16, np.float32)
    w = [
        dequantize(model, (each * 16).astype(np.int8), steps, zeros, axis=0) if integer else each
        for each in weights
    ]
    start = rounded(model("Relu", rounded("x")))
    inner = start if shortcut == "its own input" else rounded(model("Conv", start, w[0]))
    total = rounded(model("Add", rounded(model("Conv", inner, w[1])), start))
    if shortcut == "read later":
        total = rounded(model("Add", total, start))
    graph = model.graph(total)
    session = lepton_rt.Session(graph, threads=1)
    convolutions = [step.op for step in session.explain() if "Conv" in step.op]
    assert len(convolutions) == (1 if shortcut == "its own input" else 2)
    x = rng.standard_normal((1, channels, 12, 12)).astype(np.float32)
    want = lepton_rt.Session(graph, threads=1, optimise=False).run(x)
    # Floats on either side of a tie round to neighbouring integers.
    np.testing.assert_allclose(session.run(x), want, rtol=1e-5, atol=0.051 if integer else 1e-5)


def test_memory_serves_one_shape_after_the_other(rng: np.random.Generator) -> None:
    """More shapes than are remembered: results stay right, and small shapes keep little memory."""
    session = lepton_rt.Session(cnn(), threads=1)
    batches = [*range(1, 13), 40, *range(12, 0, -1), 40, 1]
    images = rng.standard_normal((40, 3, 16, 16)).astype(np.float32)
    whole = session.run(images)
    for batch in batches:
        np.testing.assert_array_equal(session.run(images[:batch]), whole[:batch])
    for batch in range(1, 10):
        arena, least = session._executor.bind([[batch, 3, 16, 16]])
        assert arena <= 2.2 * least + 128


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "bert_base"])
def test_arena_of_whole_networks(name: str) -> None:
    pytest.importorskip("transformers")
    from race import networks

    shape = list(networks.NETWORKS[name].shape)
    session = lepton_rt.Session(networks.export(name))
    for batch in (1, 8):
        check_arena(session, [batch, *shape])


def wide_model(path: Path, layers: int = 6, width: int = 1024) -> None:
    """y = x times `layers` matrices of 4 MiB."""
    rng = np.random.default_rng(0)
    names = [f"t{i}" for i in range(layers + 1)]
    weights = [
        numpy_helper.from_array(rng.standard_normal((width, width)).astype(np.float32), f"w{i}")
        for i in range(layers)
    ]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(layers)]
    info = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", width])
        for n in (names[0], names[-1])
    ]
    graph = helper.make_graph(nodes, "wide", info[:1], info[1:], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path
    )


MEASURE = """
import json, sys, numpy as np, onnx, lepton_rt
def anonymous(kind="Anonymous:"):
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(kind))
warm = lepton_rt.Session(sys.argv[2], threads=1)
x = np.ones((1, warm.inputs[0].shape[1]), np.float32)
warm.run(x)
before = anonymous(), anonymous("AnonHugePages:")
session = lepton_rt.Session(sys.argv[1], threads=1)
session.run(x)
grown = anonymous() - before[0], anonymous("AnonHugePages:") - before[1]
print(json.dumps([*grown, session._executor.constant_bytes]))
"""


def memory_of(model: Path, warm: Path) -> tuple[int, int, int]:
    """Bytes of a session that has run: its memory, that in large pages, and its constants."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(model), str(warm)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    grown, large, constants = json.loads(done.stdout)
    return grown, large, constants


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer keeps memory of its own")
@pytest.mark.parametrize("suffix", ["onnx", "lepton", "plan"])
def test_weights_are_in_memory_once(suffix: str, tmp_path: Path) -> None:
    wide_model(tmp_path / "warm.onnx", layers=1)
    wide_model(tmp_path / "wide.onnx")
    if suffix == "lepton":
        graph = lepton_rt.import_onnx(tmp_path / "wide.onnx")
        lepton_rt.save_lepton(graph, tmp_path / "wide.lepton")
    elif suffix == "plan":
        lepton_rt.Session(tmp_path / "wide.onnx").save_plan(tmp_path / "wide.plan")
    grown, _, constants = memory_of(tmp_path / f"wide.{suffix}", tmp_path / "warm.onnx")
    assert constants >= 6 * 4 * 2**20
    assert grown < (0.1 if suffix == "plan" else 1.15) * constants


def has_large_pages() -> bool:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    release = platform.release().split(".")
    return (
        enabled.exists()
        and "[never]" not in enabled.read_text()
        and (int(release[0]), int(release[1])) >= (6, 1)
    )


@pytest.mark.skipif(not has_large_pages(), reason="needs Linux from 6.1 on with large pages")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer keeps memory of its own")
def test_weights_move_to_large_pages(tmp_path: Path) -> None:
    wide_model(tmp_path / "warm.onnx", layers=1, width=512)
    wide_model(tmp_path / "wide.onnx", layers=16, width=512)
    grown, large, constants = memory_of(tmp_path / "wide.onnx", tmp_path / "warm.onnx")
    assert constants >= 16 * 2**20
    assert large >= constants / 2
    assert grown < 1.3 * constants
