"""recognise_shuffle: Reshape, Transpose, Reshape as a Gather."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_rt.graph.ir import Graph
from lepton_rt.passes.recognise_shuffle import recognise_shuffle
from pass_graphs import Model, assert_same_meaning, keys


def shuffle(split: list[int], perm: list[int], merged: list[int]) -> Graph:
    model = Model(x=("FLOAT", ["n", 6, 4, 5]))
    y = model("Reshape", "x", np.array(split, np.int64))
    y = model("Transpose", y, perm=perm)
    return model.graph(model("Reshape", y, np.array(merged, np.int64)))


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_channel_shuffle(groups: int, rng: np.random.Generator) -> None:
    graph = shuffle([0, groups, 6 // groups, 4, 5], [0, 2, 1, 3, 4], [0, 6, 4, 5])
    after = recognise_shuffle(graph)
    assert keys(after) == ["Gather"]
    assert_same_meaning(graph, after, {"x": rng.standard_normal((2, 6, 4, 5)).astype(np.float32)})


@pytest.mark.parametrize(
    ("split", "perm", "merged"),
    [
        ([0, 2, 3, 4, 5], [0, 1, 2, 4, 3], [0, 6, 4, 5]),
        ([0, 2, 3, 4, 5], [0, 2, 1, 3, 4], [0, 3, 2, 20]),
        ([0, 2, 3, 5, 4], [0, 2, 1, 3, 4], [0, 6, 4, 5]),
    ],
)
def test_others_stay(
    split: list[int], perm: list[int], merged: list[int], rng: np.random.Generator
) -> None:
    graph = shuffle(split, perm, merged)
    assert keys(recognise_shuffle(graph)) == keys(graph)
