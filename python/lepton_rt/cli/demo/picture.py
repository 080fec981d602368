"""The demo's picture: sample images with predictions above, bars of the measurements below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lepton_rt.cli.demo.digits import Images, Labels
from lepton_rt.cli.demo.race import BATCHES, Contestant

_INK, _MUTED, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_OTHERS, _BEFORE, _AFTER, _WRONG = "#b8c2cc", "#7aa5d8", "#1f6feb", "#c0362c"
_SAMPLES = 12


def draw(
    path: Path,
    title: str,
    images: Images,
    labels: Labels,
    chances: np.ndarray[Any, Any],
    contestants: Sequence[Contestant],
) -> None:
    """Writes a PNG. chances: the int8 model's probabilities [n, 10] of the images."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, 1, height_ratios=(1, 2.1), left=0.115, right=0.98, top=0.87, bottom=0.03, hspace=0.2
    )
    figure.text(0.02, 0.94, title, fontsize=17, fontweight="bold", color=_INK)
    subtitle = "the int8 model's answers with their probabilities; wrong ones in red"
    figure.text(0.02, 0.902, subtitle, fontsize=10.5, color=_MUTED)
    _draw_samples(figure, grid[0], images, labels, chances)
    bars = grid[1].subgridspec(1, 4, wspace=0.12, width_ratios=(1, 1.15, 1.15, 1))
    axes = [figure.add_subplot(bars[0, column]) for column in range(4)]
    accuracies = [c.accuracy * 100 for c in contestants]
    _draw_bars(axes[0], "accuracy, %", contestants, accuracies, "{:.2f}")
    for axis, batch in zip(axes[1:3], BATCHES):
        values = [c.latency[batch] * 1e3 for c in contestants]
        _draw_bars(axis, f"latency, batch {batch}, ms (median)", contestants, values, "{:.3f}")
    sizes = [None if c.file is None else c.file / 1024 for c in contestants]
    _draw_bars(axes[3], "file, KiB", contestants, sizes, "{:.0f}")
    for axis in axes[1:]:
        axis.set_yticklabels([])
    figure.savefig(path)


def _draw_samples(
    figure: Any, cell: Any, images: Images, labels: Labels, chances: np.ndarray[Any, Any]
) -> None:
    answers = chances.argmax(1)
    chosen = _choose(answers, labels)
    strip = cell.subgridspec(1, _SAMPLES, wspace=0.12)
    for column, index in enumerate(chosen):
        axis = figure.add_subplot(strip[column])
        axis.imshow(images[index, 0], cmap="gray_r", interpolation="nearest", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        right = answers[index] == labels[index]
        for spine in axis.spines.values():
            spine.set_color(_GRID if right else _WRONG)
            spine.set_linewidth(1 if right else 2)
        text = str(answers[index]) if right else f"{answers[index]} (is {labels[index]})"
        axis.set_title(text, fontsize=13, color=_INK if right else _WRONG, pad=5)
        axis.set_xlabel(f"{chances[index].max():.1%}", fontsize=9.5, color=_MUTED, labelpad=4)


def _choose(answers: np.ndarray[Any, Any], labels: Labels) -> list[int]:
    """One image of each digit that the model gets right, then some that it gets wrong."""
    right = answers == labels
    chosen = [
        int(np.flatnonzero(right & (labels == digit))[0]) for digit in np.unique(labels[right])
    ]
    chosen += [int(index) for index in np.flatnonzero(~right)]
    chosen += [int(index) for index in np.flatnonzero(right) if index not in chosen]
    return chosen[:_SAMPLES]


def _draw_bars(
    axis: Any,
    title: str,
    contestants: Sequence[Contestant],
    values: Sequence[float | None],
    form: str,
) -> None:
    rows = range(len(contestants))
    known = [0.0 if value is None else value for value in values]
    axis.barh(rows, known, color=[_colour(c.name) for c in contestants], height=0.62)
    longest = max(known) or 1.0
    for row, value in zip(rows, values):
        text = "–" if value is None else form.format(value)
        inside = value is not None and value > 0.6 * longest
        axis.text(
            (value or 0.0) + (-0.02 if inside else 0.02) * longest,
            row,
            text,
            va="center",
            ha="right" if inside else "left",
            fontsize=10,
            color="white" if inside and "lepton" in contestants[row].name else _INK,
        )
    axis.set_yticks(rows, [c.name for c in contestants], fontsize=10.5, color=_INK)
    axis.set_title(title, fontsize=11.5, color=_INK, loc="left", pad=8)
    axis.invert_yaxis()
    axis.set_xlim(0, longest * 1.04)
    axis.set_xticks([])
    axis.tick_params(length=0)
    for side in ("top", "right", "bottom", "left"):
        axis.spines[side].set_visible(side == "left")
    axis.spines["left"].set_color(_MUTED)


def _colour(name: str) -> str:
    if "lepton" not in name:
        return _OTHERS
    return _AFTER if "int8" in name else _BEFORE
