"""What `Session.explain()` returns: one row per step, printable as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lepton_rt.plan import HOST

StepRow = tuple[str, str, str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""A step as `_core.Executor` tells it: operator, kernel, name, inputs, outputs, output dtypes."""


@dataclass(frozen=True)
class ExplainedStep:
    """One step of the compiled model."""

    name: str
    op: str
    """Operator as the plan names it: "lepton.QLinearConv"; "lepton.Host" for a host step."""
    kernel: str
    """Chosen kernel of families that have several, else ""."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dtypes: tuple[str, ...]
    """Dtypes of the outputs."""
    note: str
    """Why it is so, and what was proved."""

    @property
    def is_host(self) -> bool:
        return self.op == HOST


class Explanation(Sequence[ExplainedStep]):
    """The steps of a Session in order; `str()` gives a table."""

    def __init__(
        self,
        steps: Sequence[StepRow],
        notes: Sequence[str],
        isa: str,
        object_types: Mapping[str, str],
    ) -> None:
        self.isa = isa
        self._rows = []
        for (op, kernel, name, inputs, outputs, dtypes), note in zip(steps, notes):
            types = tuple(object_types.get(o, dtype) for o, dtype in zip(outputs, dtypes))
            self._rows.append(ExplainedStep(name, op, kernel, inputs, outputs, types, note))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._rows[index]

    def __iter__(self) -> Iterator[ExplainedStep]:
        return iter(self._rows)

    @property
    def host_steps(self) -> list[ExplainedStep]:
        """Steps that run through the reference evaluator."""
        return [row for row in self._rows if row.is_host]

    def __str__(self) -> str:
        header = ("#", "operator", "kernel", "output", "dtype", "note")
        rows = [
            (str(i), r.op, r.kernel, ", ".join(r.outputs), ", ".join(r.dtypes), r.note)
            for i, r in enumerate(self._rows)
        ]
        limits = (6, 28, 28, 40, 16, 80)
        cells = [[_clip(c, n) for c, n in zip(row, limits)] for row in [header, *rows]]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in cells]
        lines.insert(1, "  ".join("-" * w for w in widths))
        return f"instruction set: {self.isa}\n" + "\n".join(lines)

    __repr__ = __str__


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
