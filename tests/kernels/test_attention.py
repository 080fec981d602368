"""Attention against the onnx package's reference and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from harness import run_op
from lepton_rt import InputError, ModelError

Rng = np.random.Generator
Array = np.ndarray[Any, Any]
NAMES = ("Q", "K", "V", "mask", "past_key", "past_value", "nonpad")
TYPES = {"float32": TensorProto.FLOAT, "bool": TensorProto.BOOL, "int64": TensorProto.INT64}


def reference(
    inputs: list[Array | None], attrs: dict[str, Any], outputs: int = 1, opset: int = 24
) -> list[Array]:
    names = [n if x is not None else "" for n, x in zip(NAMES, inputs)]
    made = [f"y{i}" for i in range(outputs)]
    node = helper.make_node("Attention", names, made, **attrs)
    feeds = {n: x for n, x in zip(NAMES, inputs) if x is not None}
    graph = helper.make_graph(
        [node],
        "attention",
        [helper.make_tensor_value_info(n, TYPES[x.dtype.name], None) for n, x in feeds.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in made],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(model).run(None, feeds))


def total_keys(inputs: list[Any]) -> int:
    past = inputs[4].shape[2] if len(inputs) > 4 and inputs[4] is not None else 0
    return int(inputs[1].shape[2] + past)


def check(
    inputs: list[Any],
    attrs: dict[str, Any],
    isa: str,
    *,
    outputs: int = 1,
    threads: int = 2,
    opset: int = 24,
) -> None:
    full: list[Array | None] = list(inputs)
    if len(inputs) > 3 and inputs[3] is not None:  # the reference broadcasts not every mask
        shape = (inputs[0].shape[0], inputs[0].shape[1], inputs[0].shape[2], total_keys(inputs))
        full[3] = np.broadcast_to(inputs[3], shape)
    expected = reference(full, attrs, outputs, opset)
    got = run_op(
        "Attention", inputs, attrs, outputs=["float32"] * outputs, isa=isa, threads=threads
    )
    for a, b in zip(got, expected):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def heads(rng: Rng, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("depth", [1, 7, 8, 64, 80])
@pytest.mark.parametrize("seq_q, seq_k", [(1, 1), (1, 200), (8, 9), (9, 17), (33, 300), (130, 128)])
def test_sizes(seq_q: int, seq_k: int, depth: int, isa: str, rng: Rng) -> None:
    inputs = [heads(rng, 2, 3, seq_q, depth)] + [heads(rng, 2, 3, seq_k, depth) for _ in "kv"]
    check(inputs, {}, isa)


@pytest.mark.parametrize("depth_v", [1, 5, 16, 72])
@pytest.mark.parametrize("seq_q", [3, 40])
def test_values_of_another_depth(seq_q: int, depth_v: int, isa: str, rng: Rng) -> None:
    inputs = [heads(rng, 1, 2, seq_q, 24), heads(rng, 1, 2, 50, 24), heads(rng, 1, 2, 50, depth_v)]
    check(inputs, {"scale": 0.3}, isa)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("seq", [1, 2, 29])
def test_grouped_query_heads(kv_heads: int, seq: int, isa: str, rng: Rng) -> None:
    inputs = [heads(rng, 2, 6, seq, 16)] + [heads(rng, 2, kv_heads, seq, 16) for _ in "kv"]
    check(inputs, {"is_causal": 1}, isa)


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("seq", [2, 140])
def test_heads_side_by_side(kv_heads: int, seq: int, isa: str, rng: Rng) -> None:
    inputs = [heads(rng, 2, seq, 4 * 12)] + [heads(rng, 2, seq + 3, kv_heads * 12) for _ in "kv"]
    check(inputs, {"q_num_heads": 4, "kv_num_heads": kv_heads}, isa)


MASKS = [(5, 9), (9,), (2, 1, 5, 9), (1, 3, 1, 9), (2, 3, 5, 9), (3, 5, 9), (5, 1), (2, 1, 1, 1)]


@pytest.mark.parametrize("kind", ["bool", "float32"])
@pytest.mark.parametrize("shape", MASKS, ids=str)
@pytest.mark.parametrize("repeat", [1, 20])
def test_masks(shape: tuple[int, ...], kind: str, repeat: int, isa: str, rng: Rng) -> None:
    """Small (unpacked) and large; the mask's sizes of 5 and 9 grow with the sequences."""
    shape = tuple(n * repeat if n in (5, 9) else n for n in shape)
    mask: Array = rng.random(shape) < 0.6
    if kind == "float32":
        mask = np.where(mask, rng.standard_normal(shape), -np.inf).astype(np.float32)
    seq_q, seq_k = 5 * repeat, 9 * repeat
    inputs = [heads(rng, 2, 3, seq_q, 8), heads(rng, 2, 3, seq_k, 8), heads(rng, 2, 3, seq_k, 8)]
    check([*inputs, mask], {}, isa)
    check([*inputs, mask], {"is_causal": 1, "softcap": 0.7}, isa)


@pytest.mark.parametrize("seq", [4, 60])
@pytest.mark.parametrize("kind", ["bool", "float32"])
def test_mask_of_fewer_keys(seq: int, kind: str, isa: str, rng: Rng) -> None:
    mask: Array = rng.random((2, 1, seq, seq - 2)) < 0.6
    if kind == "float32":
        mask = np.where(mask, rng.standard_normal(mask.shape), -np.inf).astype(np.float32)
    inputs: list[Any] = [heads(rng, 2, 2, seq, 8) for _ in "qkv"]
    expected = reference([*inputs, mask], {})[0]
    (got,) = run_op("Attention", [*inputs, mask], isa=isa)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("seq", [4, 60])
def test_finite_large_masks(seq: int, isa: str, rng: Rng) -> None:
    """What transformers writes for -infinity, with whole rows of it."""
    mask = np.where(rng.random((seq, seq)) < 0.5, 0, np.finfo(np.float32).min).astype(np.float32)
    mask[1] = np.finfo(np.float32).min
    inputs = [heads(rng, 1, 2, seq, 8) for _ in "qkv"]
    check([*inputs, mask], {}, isa)


@pytest.mark.parametrize("seq", [3, 50])
def test_infinite_scores_under_a_mask_do_no_harm(seq: int, isa: str, rng: Rng) -> None:
    q, k, v = (heads(rng, 1, 2, seq, 8) for _ in "qkv")
    k[:, :, 1] = np.inf
    mask = np.ones((seq, seq), bool)
    mask[:, 1] = False
    mask[0] = False
    (got,) = run_op("Attention", [q, k, v, mask], isa=isa)
    k[:, :, 1] = 0
    np.testing.assert_allclose(got, reference([q, k, v, mask], {})[0], rtol=2e-5, atol=2e-5)
    assert (got[:, :, 0] == 0).all()


@pytest.mark.parametrize("past", [0, 1, 150])
@pytest.mark.parametrize("seq", [1, 3, 40])
@pytest.mark.parametrize("outputs", [1, 3])
def test_past_keys(past: int, seq: int, outputs: int, isa: str, rng: Rng) -> None:
    q = heads(rng, 2, 4, seq, 8)
    k, v = heads(rng, 2, 2, seq, 8), heads(rng, 2, 2, seq, 6)
    cache = [heads(rng, 2, 2, past, 8), heads(rng, 2, 2, past, 6)]
    mask = rng.random((seq, past + seq)) < 0.7
    attrs = {"is_causal": 1}
    check([q, k, v, None, *cache], attrs, isa, outputs=outputs)
    check([q, k, v, mask, *cache], attrs, isa, outputs=outputs)


@pytest.mark.parametrize("seq", [2, 40])
def test_present_without_past(seq: int, isa: str, rng: Rng) -> None:
    inputs = [heads(rng, 2, seq, 24) for _ in "qkv"]
    check(inputs, {"q_num_heads": 3, "kv_num_heads": 3}, isa, outputs=3)


@pytest.mark.parametrize("seq_q, causal", [(1, 1), (4, 1), (30, 1), (4, 0)])
def test_external_cache(seq_q: int, causal: int, isa: str, rng: Rng) -> None:
    inputs = [heads(rng, 3, 2, seq_q, 8)] + [heads(rng, 3, 2, 64, 8) for _ in "kv"]
    nonpad = np.array([64, 30, 2], np.int64)
    check([*inputs, None, None, None, nonpad], {"is_causal": causal}, isa)


@pytest.mark.parametrize("left, right", [(3, -1), (-1, 2), (4, 1), (0, 0)])
@pytest.mark.parametrize("seq", [4, 200])
def test_windows(left: int, right: int, seq: int, isa: str, rng: Rng) -> None:
    q, k, v = (heads(rng, 1, 2, seq, 8) for _ in "qkv")
    i, j = np.arange(seq)[:, None], np.arange(seq)[None]
    mask = np.ones((seq, seq), bool)
    mask &= (j >= i - left) if left >= 0 else True
    mask &= (j <= i + right) if right >= 0 else True
    attrs = {"left_window_size": left, "right_window_size": right}
    (got,) = run_op("Attention", [q, k, v], attrs, isa=isa)
    np.testing.assert_allclose(got, reference([q, k, v, mask], {})[0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_scores_as_an_output(mode: int, isa: str, rng: Rng) -> None:
    inputs = [heads(rng, 2, 4, 5, 8)] + [heads(rng, 2, 2, 7, 8) for _ in "kv"]
    mask = rng.random((5, 7)) < 0.7
    mask[2] = False
    attrs: dict[str, Any] = {"qk_matmul_output_mode": mode}
    if mode > 0:
        attrs["softcap"] = 1.5
    expected = reference([*inputs, mask], attrs, 4)
    outputs = ["float32"] * 4
    got = run_op("Attention", [*inputs, mask], attrs, outputs=outputs, isa=isa)
    np.testing.assert_allclose(got[0], expected[0], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(got[3], expected[3], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("seq_q, seq_k", [(5, 5), (1, 40), (30, 90)])
def test_layouts_and_causal_frontier_at_the_last_key(
    seq_q: int, seq_k: int, isa: str, rng: Rng
) -> None:
    q, k, v = heads(rng, 2, 4, seq_q, 8), heads(rng, 2, 2, seq_k, 8), heads(rng, 2, 2, seq_k, 12)
    frontier = torch.ones(seq_q, seq_k, dtype=torch.bool).tril(seq_k - seq_q)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *map(torch.from_numpy, (q, k, v)), attn_mask=frontier, enable_gqa=True
    )
    attrs = {"q_layout": "BSHD", "k_layout": "SBHD", "v_layout": "SBHD", "y_layout": "BSHD"}
    inputs: list[Array | None] = [
        np.ascontiguousarray(q.transpose(0, 2, 1, 3)),
        np.ascontiguousarray(k.transpose(2, 0, 1, 3)),
        np.ascontiguousarray(v.transpose(2, 0, 1, 3)),
    ]
    attrs_now = {**attrs, "is_causal": 1, "bottom_right": 1}
    (got,) = run_op("lepton.Attention", inputs, attrs_now, isa=isa, threads=3)
    np.testing.assert_allclose(got.transpose(0, 2, 1, 3), expected.numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_result_does_not_depend_on_the_threads(kv_heads: int, isa: str, rng: Rng) -> None:
    inputs = [heads(rng, 1, 4, 200, 32)] + [heads(rng, 1, kv_heads, 333, 32) for _ in "kv"]
    results = [
        run_op("Attention", inputs, {"is_causal": 1}, isa=isa, threads=n)[0] for n in (1, 2, 5)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)], ids=str)
def test_nothing_to_compute(shape: tuple[int, ...], isa: str, rng: Rng) -> None:
    q = np.zeros(shape, np.float32)
    k = np.zeros((shape[0], 2, 5, shape[3]), np.float32)
    (got,) = run_op("Attention", [q, k, k], {"scale": 1.0}, isa=isa)
    assert got.shape == shape


def test_no_keys_at_all(isa: str, rng: Rng) -> None:
    none = np.zeros((1, 2, 0, 4), np.float32)
    (got,) = run_op("Attention", [heads(rng, 1, 2, 3, 4), none, none], isa=isa)
    np.testing.assert_array_equal(got, np.zeros((1, 2, 3, 4)))


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 3, 2, 4), (1, 2, 2, 4), (1, 2, 2, 4)],  # 3 heads over 2
        [(1, 2, 2, 4), (1, 2, 2, 5), (1, 2, 2, 4)],
        [(1, 2, 2, 4), (1, 2, 3, 4), (1, 2, 2, 4)],
        [(2, 2, 2, 4), (1, 2, 2, 4), (1, 2, 2, 4)],
        [(1, 2, 2, 4), (1, 0, 2, 4), (1, 0, 2, 4)],
        [(2, 8), (2, 8), (2, 8)],
        [(1, 2, 8), (1, 2, 8), (1, 2, 8)],  # without q_num_heads
        [(1, 2, 2, 4), (1, 2, 2, 4), (1, 2, 2, 4), (3, 2)],
        [(1, 2, 2, 4), (1, 2, 2, 4), (1, 2, 2, 4), (2, 3)],
    ],
    ids=str,
)
def test_operands_that_do_not_fit(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(InputError):
        run_op("Attention", [np.zeros(s, np.float32) for s in shapes])


def test_unknown_layout() -> None:
    zeros = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(ModelError):
        run_op("lepton.Attention", [zeros] * 3, {"k_layout": "DSBH"})


def test_the_reference_is_of_this_onnx() -> None:
    """Fully masked rows are zeros from onnx 1.23 on; an older reference would give NaN."""
    assert tuple(map(int, onnx.__version__.split(".")[:2])) >= (1, 19)
