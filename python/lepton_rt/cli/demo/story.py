"""The demo from beginning to end: train, export, quantise, race, draw."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import lepton_rt
from lepton_rt.cli.demo.digits import Digits, load_digits
from lepton_rt.cli.demo.race import (
    BATCHES,
    Contestant,
    lepton_contestant,
    measure,
    onnxruntime_contestant,
)
from lepton_rt.errors import UnsupportedError

if TYPE_CHECKING:
    from torch.nn import Module

_TRAINING_IMAGES = 64_000  # shown in all, however many different ones there are
_CALIBRATION = 512  # images


def run_demo(
    console: Console,
    data: Path | None,
    output: Path,
    *,
    epochs: int | None = None,
    threads: int = 1,
    seed: int = 0,
) -> list[Contestant]:
    """Runs the demo; files go to the folder `output`. Returns the measurements.

    Raises UnsupportedError when PyTorch is missing, InputError for unusable data.
    """
    try:
        from lepton_rt.cli.demo import network
    except ImportError:
        raise UnsupportedError("the demo needs PyTorch: pip install 'lepton_rt[demo]'") from None
    digits = load_digits(data, seed)
    output.mkdir(parents=True, exist_ok=True)
    model = _train(console, digits, epochs, seed)
    network.set_threads(threads)
    before, after = output / "digits.onnx", output / "digits_int8.onnx"
    network.export(model, before)
    quantized = lepton_rt.quantize(str(before), _calibration(digits))
    quantized.save(after)
    quantized.save(output / "digits_int8.lepton")
    console.print(f"\n{quantized.report}", highlight=False, markup=False, soft_wrap=True)
    entries = [
        Contestant(
            "torch fp32", network.torch_runner(model), memory=network.parameter_bytes(model)
        ),
        onnxruntime_contestant("onnxruntime fp32", before, threads),
        onnxruntime_contestant("onnxruntime int8", after, threads),
        lepton_contestant("lepton_rt fp32", before, threads),
        lepton_contestant("lepton_rt int8", after, threads),
    ]
    contestants = [entry for entry in entries if entry is not None]
    measure(contestants, digits.test_images, digits.test_labels)
    console.print(_table(contestants, threads))
    _draw(console, output / "demo.png", digits, contestants)
    return contestants


def _train(console: Console, digits: Digits, epochs: int | None, seed: int) -> Module:
    from lepton_rt.cli.demo import network

    count = len(digits.train_images)
    passes = epochs or max(1, min(25, round(_TRAINING_IMAGES / count)))
    console.print(
        f"{digits.name}: {count:,} images to train on, {len(digits.test_images):,} to test; "
        f"{passes} epoch{'s' if passes > 1 else ''}",
        highlight=False,
    )
    start = time.perf_counter()

    def report(epoch: int, loss: float) -> None:
        seconds = time.perf_counter() - start
        console.print(f"  epoch {epoch}: loss {loss:.4f}, {seconds:.0f} s", highlight=False)

    return network.train(digits.train_images, digits.train_labels, passes, seed, report)


def _calibration(digits: Digits) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    images = digits.train_images[:_CALIBRATION]
    return [images[start : start + 64] for start in range(0, len(images), 64)]


def _table(contestants: list[Contestant], threads: int) -> Table:
    title = f"{threads} thread{'s' if threads > 1 else ''}; medians of interleaved runs"
    table = Table(title=title, title_style="bold", title_justify="left", box=box.SIMPLE)
    table.add_column("", no_wrap=True)
    for heading in ("accuracy", *(f"ms, batch {b}" for b in BATCHES), "KiB file", "KiB memory"):
        table.add_column(heading, justify="right")
    for entry in contestants:
        table.add_row(
            entry.name,
            f"{entry.accuracy:.2%}",
            *(f"{entry.latency[batch] * 1e3:.3f}" for batch in BATCHES),
            _kib(entry.file),
            _kib(entry.memory),
            style="bold" if entry.name == "lepton_rt int8" else None,
        )
    table.caption = (
        f"memory: weights ready to run; for lepton_rt with working memory at batch {BATCHES[-1]}"
    )
    return table


def _kib(size: int | None) -> str:
    return "–" if size is None else f"{size / 1024:,.0f}"


def _draw(console: Console, path: Path, digits: Digits, contestants: list[Contestant]) -> None:
    try:
        from lepton_rt.cli.demo import picture
    except ImportError:
        console.print("no picture: it needs matplotlib (pip install 'lepton_rt[demo]')")
        return
    quantized = contestants[-1]
    images, labels = digits.test_images[:256], digits.test_labels[:256]
    scores = np.asarray(quantized.run(images), np.float64)
    raised = np.exp(scores - scores.max(1, keepdims=True))
    title = f"lepton_rt on {digits.name}: before and after int8 quantisation"
    picture.draw(path, title, images, labels, raised / raised.sum(1, keepdims=True), contestants)
    console.print(f"picture: {path}", highlight=False, markup=False)
