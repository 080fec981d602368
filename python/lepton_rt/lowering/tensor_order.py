"""Follows the dimensions of a tensor through Transpose and Reshape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from lepton_rt.plan import Step

__all__ = ["Order", "follow"]

Order = list[list[int]]
"""For each dimension of a tensor, the dimensions of another one that it holds, outermost first."""


def follow(step: Step, dims: Order, sizes: Sequence[Any], made: Sequence[Any]) -> Order | None:
    """The order after a Transpose or Reshape; None when dimensions are cut apart.

    sizes: of the dimensions that are followed (a number or a name). made: the shape of the result.
    """
    if step.op == "Transpose":
        perm = step.attrs.get("perm")
        if perm is None:
            return dims[::-1]
        return [dims[i] for i in cast(Sequence[int], perm)]
    atoms = [atom for group in dims for atom in group]
    front: Order = []
    back: Order = []
    left = list(made)
    while left and _take(atoms, sizes, left[0], front, 0):
        left.pop(0)
    while left and _take(atoms, sizes, left[-1], back, -1):
        left.pop()
    if len(left) > 1 or (atoms and not left):
        return None
    return front + ([atoms] if left else []) + back[::-1]


def _take(atoms: list[int], sizes: Sequence[Any], size: Any, groups: Order, end: int) -> bool:
    """Moves the atoms whose product is `size` from one end into a group; False if none do."""
    taken: list[int] = []
    product: Any = 1
    rest = list(atoms)
    while rest and (not taken or product != size):
        atom = rest.pop(end)
        taken.append(atom)
        if len(taken) == 1:
            product = sizes[atom]
        elif isinstance(product, int) and isinstance(sizes[atom], int):
            product *= sizes[atom]
        else:
            return False
    if not taken or product is None or product != size:
        return False
    groups.append(taken if end == 0 else taken[::-1])
    atoms[:] = rest
    return True
