"""What quantisation did to each tensor, as rows that can be printed or stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class TensorReport:
    """One quantised activation tensor.

    snr_db: power of the float model's tensor over that of the quantised model's error, all layers
    up to here quantised. clipped: share of the calibration values outside the range.
    """

    tensor: str
    op: str
    low: float
    high: float
    scale: float
    zero_point: int
    clipped: float
    snr_db: float


@dataclass(frozen=True)
class DynamicReport:
    """A tensor of a statically quantised model each of whose rows has a range of its own.

    products: outputs of the products that read it. static_db, dynamic_db: a row's power in them
    over that of its error from rounding the tensor, one range for all rows or one for each; from
    the mean of the rows' noise-to-signal ratios.
    """

    tensor: str
    products: list[str]
    static_db: float
    dynamic_db: float


@dataclass(frozen=True)
class Report:
    """The quantised tensors in graph order, and sizes of all constants in bytes.

    dynamic: tensors that mode "static" left to dynamic rows.
    """

    method: str
    tensors: list[TensorReport]
    bytes_before: int
    bytes_after: int
    dynamic: list[DynamicReport] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON (an infinite ratio becomes None)."""
        data = asdict(self)
        for row in [*data["tensors"], *data["dynamic"]]:
            row.update({k: None for k, v in row.items() if v in (math.inf, -math.inf)})
        return data

    def __str__(self) -> str:
        header = ("tensor", "op", "SNR dB", "low", "high", "scale", "zero", "clipped")
        rows = [
            (
                shorten(row.tensor),
                row.op,
                f"{row.snr_db:.1f}",
                f"{row.low:.4g}",
                f"{row.high:.4g}",
                f"{row.scale:.4g}",
                str(row.zero_point),
                f"{row.clipped:.3%}",
            )
            for row in self.tensors
        ]
        sizes = f"constants: {self.bytes_before:,} → {self.bytes_after:,} bytes"
        return f"{text_table(header, rows)}\n{self._dynamic()}method: {self.method}; {sizes}"

    def _dynamic(self) -> str:
        if not self.dynamic:
            return ""
        header = ("dynamic rows", "read by", "static dB", "dynamic dB")
        rows = [
            (
                shorten(row.tensor),
                ", ".join(map(shorten, row.products)),
                f"{row.static_db:.1f}",
                f"{row.dynamic_db:.1f}",
            )
            for row in self.dynamic
        ]
        return f"{text_table(header, rows)}\n"


def shorten(name: str, width: int = 40) -> str:
    """A long tensor name with its middle left out."""
    if len(name) <= width:
        return name
    return f"{name[: width // 2 - 1]}…{name[-(width // 2) :]}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded with spaces; the first two to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), *(line(row) for row in rows)])
