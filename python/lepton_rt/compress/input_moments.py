"""First and second moments of what a layer's weights are multiplied by, learnt from calibration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_rt.errors import InputError
from lepton_rt.graph.inference.windows import same_pads
from lepton_rt.graph.ir import Array, Graph, Node

FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

WIDEST_BLOCK = 512
"""Inputs further apart count as uncorrelated, which bounds time and memory."""
_FLOOR = 1e-6  # of the mean power: what rounding may have taken off the covariance


@dataclass
class Moments:
    """Sums over rows of inputs cut into blocks: the groups of a convolution, or parts of k.

    total: of the inputs, [blocks, width]. products: of their pairs, [blocks, width, width].
    """

    total: Doubles
    products: Doubles
    rows: int

    def mean(self) -> Doubles:
        """[blocks, width]."""
        return np.asarray(self.total / max(self.rows, 1))

    def second(self) -> Doubles:
        """Mean products of two inputs, [blocks, width, width]."""
        return np.asarray(self.products / max(self.rows, 1))

    def covariance(self) -> Doubles:
        """[blocks, width, width]."""
        mean, second = self.mean(), self.second()
        floor = _FLOOR * np.diagonal(second, axis1=1, axis2=2).mean(axis=1)
        centred: Doubles = second - mean[:, :, None] * mean[:, None, :]
        centred += floor[:, None, None] * np.eye(mean.shape[1])
        return centred


class InputMoments:
    """Collects the moments of every layer's input, by the name of the layer's weight.

    Transposed convolutions and stacked matrices among the layers are left out. Layers that share a
    weight add to the same moments.
    """

    def __init__(self, graph: Graph, layers: Iterable[Node]) -> None:
        self.found: dict[str, Moments] = {}
        self._layers = [
            (node, graph.constants[node.inputs[1]].shape)
            for node in layers
            if _is_plain(graph, node)
        ]

    @property
    def tensors(self) -> list[str]:
        """The activations that `add` wants to see."""
        return list(dict.fromkeys(node.inputs[0] for node, _ in self._layers))

    def add(self, arrays: dict[str, Array]) -> None:
        """Takes in one batch. arrays: at least `tensors`, by name.

        Raises InputError when one of them holds NaN or infinity.
        """
        for name in self.tensors:
            if not np.isfinite(arrays[name]).all():
                raise InputError(f"tensor {name!r} holds NaN or infinity on the calibration data")
        for node, shape in self._layers:
            x = arrays[node.inputs[0]]
            if node.op != "Conv":
                self._add(node.inputs[1], x.reshape(1, -1, x.shape[-1]))
                continue
            for sample in x:
                self._add(node.inputs[1], conv_rows(sample, node, shape))

    def _add(self, name: str, rows: FloatArray) -> None:
        """rows: [groups, rows, k]."""
        if rows.size == 0:
            return
        found = _moments(_blocks(rows))
        old = self.found.setdefault(name, found)
        if old is not found:
            old.total += found.total
            old.products += found.products
            old.rows += found.rows


def _blocks(rows: FloatArray) -> FloatArray:
    """[1, rows, k] as [blocks, rows, width]; several groups as they are."""
    groups, count, k = rows.shape
    if groups > 1:
        return rows
    parts = next(n for n in range(1, k + 1) if k % n == 0 and k // n <= WIDEST_BLOCK)
    blocks: FloatArray = rows.reshape(count, parts, k // parts).transpose(1, 0, 2)
    return blocks


def _moments(blocks: FloatArray) -> Moments:
    """The products are summed around the mean, which float32 would otherwise drown them in."""
    count = blocks.shape[1]
    mean = blocks.mean(axis=1, dtype=np.float64)
    centred = blocks - mean[:, None, :].astype(np.float32)
    products = np.stack([part.T @ part for part in centred]).astype(np.float64)
    products += count * mean[:, :, None] * mean[:, None, :]
    return Moments(count * mean, products, count)


def _is_plain(graph: Graph, node: Node) -> bool:
    shape = graph.constants[node.inputs[1]].shape
    if node.op == "ConvTranspose" or 0 in shape:
        return False
    return node.op == "Conv" or len(shape) == 2


def conv_rows(sample: FloatArray, node: Node, weight: tuple[int, ...]) -> FloatArray:
    """The windows of a convolution over sample [C, spatial…] as [groups, positions, C/g · taps].

    weight: the shape [M, C/g, taps…], whose last dimensions the last of the result are in order.
    """
    kernel = weight[2:]
    rank = len(kernel)
    strides = _ints(node, "strides", rank, 1)
    dilations = _ints(node, "dilations", rank, 1)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
    pads = _pads(node, sample.shape[1:], reach, strides)
    padded = np.pad(sample, [(0, 0), *pads])
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(1, rank + 1)))
    steps = tuple(slice(None, None, s) for s in strides)
    taps = tuple(slice(None, None, d) for d in dilations)
    index = (slice(None), *steps, *taps)
    windows = windows[index]
    groups = int(node.attrs.get("group", 1))  # type: ignore[arg-type]
    cut = windows.reshape(groups, weight[1], -1, int(np.prod(kernel)))
    return np.ascontiguousarray(cut.transpose(0, 2, 1, 3)).reshape(groups, cut.shape[2], -1)


def _ints(node: Node, name: str, length: int, default: int) -> list[int]:
    given: Any = node.attrs.get(name)
    return list(given) if given else [default] * length


def _pads(
    node: Node, sizes: tuple[int, ...], reach: list[int], strides: list[int]
) -> list[tuple[int, int]]:
    """(begin, end) of each spatial dimension."""
    rank = len(sizes)
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = same_pads(sizes, reach, strides, lower=auto == "SAME_LOWER")
    else:
        pads = [0] * (2 * rank) if auto == "VALID" else _ints(node, "pads", 2 * rank, 0)
    return list(zip(pads[:rank], pads[rank:]))
