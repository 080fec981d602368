"""RotaryEmbedding against the onnx package's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx.reference.ops.op_rotary_embedding import rotary_embedding

from harness import run_op
from lepton_rt import InputError

Rng = np.random.Generator
Array = np.ndarray[Any, Any]


def operands(rng: Rng, shape: tuple[int, ...], half: int) -> list[Array]:
    x = rng.standard_normal(shape).astype(np.float32)
    rows = shape[2] if len(shape) == 4 else shape[1]
    angles = rng.standard_normal((shape[0], rows, half))
    return [x, np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)]


def check(inputs: list[Array], attrs: dict[str, Any], isa: str) -> None:
    named = dict(zip(("position_ids",), inputs[3:]))
    want = rotary_embedding(*inputs[:3], **named, **attrs)
    (got,) = run_op("RotaryEmbedding", inputs, attrs, isa=isa, threads=2)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("dim", [2, 6, 16, 26, 64])
@pytest.mark.parametrize("rest", [0, 5])
def test_whole_and_partial(dim: int, rest: int, interleaved: int, isa: str, rng: Rng) -> None:
    inputs = operands(rng, (2, 3, 7, dim + rest), dim // 2)
    check(inputs, {"interleaved": interleaved, "rotary_embedding_dim": dim if rest else 0}, isa)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_heads_side_by_side(interleaved: int, isa: str, rng: Rng) -> None:
    inputs = operands(rng, (2, 5, 3 * 12), 6)
    check(inputs, {"interleaved": interleaved, "num_heads": 3}, isa)


@pytest.mark.parametrize("shape", [(2, 3, 5, 12), (2, 300, 36)], ids=str)
def test_positions(shape: tuple[int, ...], isa: str, rng: Rng) -> None:
    x = operands(rng, shape, 6)[0]
    angles = rng.standard_normal((40, 6))
    ids = rng.integers(0, 40, (2, shape[-2]))
    caches = [f(angles).astype(np.float32) for f in (np.cos, np.sin)]
    check([x, *caches, ids], {"num_heads": 3}, isa)


def test_one_batch_of_angles_serves_all(isa: str, rng: Rng) -> None:
    x, cos, sin = operands(rng, (3, 2, 5, 12), 6)
    want = rotary_embedding(x, *(np.repeat(a[:1], 3, axis=0) for a in (cos, sin)))
    (got,) = run_op("RotaryEmbedding", [x, cos[:1], sin[:1]], isa=isa)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [-41, 40, 2**62])
def test_position_out_of_range(bad: int, isa: str, rng: Rng) -> None:
    x = operands(rng, (1, 1, 2, 4), 2)[0]
    cache = np.ones((40, 2), np.float32)
    with pytest.raises(InputError):
        run_op("RotaryEmbedding", [x, cache, cache, np.array([[0, bad]])], isa=isa)


@pytest.mark.parametrize(
    "shape, angles, attrs",
    [
        ((1, 2, 3, 5), (1, 3, 2), {}),  # an odd depth
        ((1, 2, 3, 4), (1, 2, 2), {}),
        ((1, 2, 3, 4), (1, 3, 3), {}),
        ((1, 2, 3, 4), (3, 2), {}),
        ((1, 3, 8), (1, 3, 4), {}),  # heads unknown
        ((1, 2, 3, 4), (1, 3, 4), {"rotary_embedding_dim": 8}),
        ((1, 2, 3, 4), (1, 3, 2), {"rotary_embedding_dim": -4}),
    ],
)
def test_what_does_not_fit(
    shape: tuple[int, ...], angles: tuple[int, ...], attrs: dict[str, Any]
) -> None:
    turns = np.zeros(angles, np.float32)
    with pytest.raises(InputError):
        run_op("RotaryEmbedding", [np.zeros(shape, np.float32), turns, turns], attrs)
