"""Random networks through all passes: sharing, branching and inner outputs in every combination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lepton_rt
from lepton_rt.passes import PASSES
from pass_graphs import Model, dequantize, fake, meaning

Rng = np.random.Generator
SHAPE = (2, 4, 6, 5)
STEP = 0.0517  # no multiple of the weights' scale: exact ties would round either way


def normal(rng: Rng, *shape: int) -> Any:
    return (rng.standard_normal(shape) / 4).astype(np.float32)


def quantised_conv(m: Model, x: str, rng: Rng) -> str:
    weights = rng.integers(-63, 64, (4, 4, 3, 3)).astype(np.int8)
    w = dequantize(m, weights, np.full(4, 0.00413), np.zeros(4, np.int8), axis=0)
    return str(m("Conv", fake(m, x, STEP, 120), w, pads=[1, 1, 1, 1]))


def conv(m: Model, x: str, rng: Rng) -> str:
    group = int(rng.choice([1, 2, 4]))
    weights = normal(rng, 4, 4 // group, 3, 3)
    return str(m("Conv", x, weights, normal(rng, 4), pads=[1, 1, 1, 1], group=group))


def norm(m: Model, x: str, rng: Rng) -> str:
    return str(m("BatchNormalization", x, *[rng.uniform(0.5, 1, 4).astype(np.float32)] * 4))


def shuffle(m: Model, x: str, rng: Rng) -> str:
    y = m("Reshape", x, np.array([0, 2, 2, 6, 5], np.int64))
    y = m("Transpose", y, perm=[0, 2, 1, 3, 4])
    return str(m("Reshape", y, np.array([0, 4, 6, 5], np.int64)))


def halves(m: Model, x: str, rng: Rng) -> str:
    a, b = m("Split", x, axis=1, num_outputs=2, outputs=2)
    return str(m("Concat", b, m("Relu", a), axis=1))


def gate(m: Model, x: str, rng: Rng) -> str:
    mean = m("ReduceMean", x, np.array([2, 3], np.int64), keepdims=1)
    return str(m("Mul", x, m("Sigmoid", mean)))


def there_and_back(m: Model, x: str, rng: Rng) -> str:
    y = m("MatMul", m("Transpose", x, perm=[0, 2, 3, 1]), normal(rng, 4, 4))
    y = m("Add", y, normal(rng, 4))
    return str(m("Transpose", y, perm=[0, 3, 1, 2]))


ONE: list[Callable[[Model, str, Rng], str]] = [
    conv,
    conv,
    quantised_conv,
    quantised_conv,
    norm,
    shuffle,
    halves,
    gate,
    there_and_back,
    lambda m, x, r: m("Relu", x),
    lambda m, x, r: m("Clip", x, np.float32(-0.5), np.float32(0.7)),
    lambda m, x, r: m("HardSwish", x),
    lambda m, x, r: m("Mul", x, normal(r, 4, 1, 1)),
    lambda m, x, r: m("Add", normal(r, 1, 4, 1, 1), x),
    lambda m, x, r: fake(m, x, STEP, 120),
    lambda m, x, r: fake(m, x, STEP / 2, 3, np.int8),
    lambda m, x, r: m("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    lambda m, x, r: m("AveragePool", x, kernel_shape=[3, 1], pads=[1, 0, 1, 0]),
    lambda m, x, r: m("Softmax", x, axis=1),
    lambda m, x, r: m("Gather", x, np.array([3, 0, 0, 2], np.int64), axis=1),
]


def random_graph(seed: int) -> tuple[Model, list[str]]:
    rng = np.random.default_rng(seed)
    model = Model(x=("FLOAT", ["n", *SHAPE[1:]]))
    tensors = ["x"]
    for _ in range(int(rng.integers(3, 14))):
        recent = tensors[-4:]
        x = str(rng.choice(recent))
        if rng.random() < 0.25:
            made = model("Add", x, str(rng.choice(recent)))
        else:
            made = ONE[rng.integers(len(ONE))](model, x, rng)
        tensors.append(str(made))
    outputs = [tensors[-1]]
    if rng.random() < 0.3 and len(tensors) > 2:
        outputs.append(str(rng.choice(tensors[1:-1])))
    return model, outputs


def close(want: Any, got: Any) -> None:
    """Equal but where a float difference tips a rounding: few elements, by few steps."""
    difference = np.abs(want.astype(np.float64) - got)
    tolerance = 1e-4 * (float(np.std(want)) or 1.0)
    assert np.mean(difference > tolerance) < 0.02, float(difference.max())
    assert difference.max() < 8 * STEP


@pytest.mark.parametrize("seed", range(60))
def test_passes_keep_the_meaning(seed: int) -> None:
    model, outputs = random_graph(seed)
    start = graph = model.graph(*outputs)
    feeds = {"x": np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)}
    want = meaning(start, feeds)
    for run in PASSES:
        graph = run(graph)
    got = meaning(graph, feeds)
    for name in outputs:
        close(want[name], got[name])


@pytest.mark.parametrize("seed", range(60, 120))
def test_sessions_agree(seed: int) -> None:
    model, outputs = random_graph(seed)
    proto = model.proto(*outputs)
    feeds = {"x": np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)}
    want = meaning(model.graph(*outputs), feeds)
    for fused in (True, False):
        made = lepton_rt.Session(proto, optimise=fused).run(feeds)
        arrays = made.values() if len(outputs) > 1 else [made]
        for name, array in zip(outputs, arrays):
            close(want[name], np.asarray(array))
