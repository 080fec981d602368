"""Typed access to node attributes."""

from __future__ import annotations

from typing import Any, cast

from lepton_rt.graph.ir import Node

__all__ = ["float_attr", "has_window", "int_attr", "ints_attr"]


def int_attr(node: Node, name: str, default: int) -> int:
    """An integer attribute."""
    return int(cast(Any, node.attrs.get(name, default)))


def float_attr(node: Node, name: str, default: float) -> float:
    """A float attribute."""
    return float(cast(Any, node.attrs.get(name, default)))


def ints_attr(node: Node, name: str, default: list[int]) -> list[int]:
    """A list of integers."""
    return [int(item) for item in cast(Any, node.attrs.get(name, default))]


def has_window(node: Node) -> bool:
    """Whether an Attention node looks at a window of the keys only."""
    return any(int_attr(node, f"{side}_window_size", -1) >= 0 for side in ("left", "right"))
