"""The sub-commands of `lepton-rt`."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import lepton_rt
from lepton_rt.cli.inputs import (
    calibration_batches,
    input_shapes,
    is_image,
    random_feed,
    read_feed,
)
from lepton_rt.compress.observers import METHODS
from lepton_rt.errors import InputError
from lepton_rt.graph.ir import Array
from lepton_rt.session import Session

app = typer.Typer(
    help="Compress neural networks and run them fast.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# What is not a terminal has no width; tables need room for long tensor names there.
console = Console(width=None if sys.stdout.isatty() else 160)

ModelPath = Annotated[
    str, typer.Argument(help="An .onnx, .lepton or .plan file, or hf://org/repo.")
]
Threads = Annotated[int, typer.Option(min=0, help="Threads to use; 0 for all processors.")]


@app.callback(invoke_without_command=True)
def common(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Compress neural networks and run them fast."""
    if version:
        console.print(f"lepton_rt {lepton_rt.__version__}", highlight=False)
        raise typer.Exit


@app.command()
def run(
    model: ModelPath,
    input: Annotated[
        Path | None, typer.Option("--input", "-i", help="A .npy, .npz or image file.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save the outputs as .npz.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size of random inputs.")] = 1,
    shape: Annotated[
        list[str] | None, typer.Option(help="Shape of an input: name=1x3x224x224.")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Timed runs.")] = 20,
    threads: Threads = 0,
    seed: Annotated[int, typer.Option(help="Seed of random inputs.")] = 0,
    top: Annotated[int, typer.Option(min=0, help="Classes to list for an image.")] = 5,
) -> None:
    """Run a model on a file or on random inputs; print its outputs and its latency."""
    loaded = lepton_rt.load_model(model, threads=threads or None)
    session = loaded.session
    if input is not None:
        feed = read_feed(session, input)
    else:
        feed = random_feed(session, batch, shape or [], seed)
    outputs = _named_outputs(session, session.run(feed))
    console.print(_outputs_table(outputs))
    if input is not None and is_image(input):
        for label, probability in loaded.predict(next(iter(feed.values())), top):
            console.print(f"{probability:8.2%}  {label}", highlight=False, markup=False)
    if output is not None:
        np.savez(output, allow_pickle=False, **outputs)
    times = _timings(session, feed, repeat)
    console.print(
        f"latency: median {np.median(times) * 1e3:.3f} ms, minimum {min(times) * 1e3:.3f} ms "
        f"({repeat} runs, {session.threads} thread{'s' if session.threads > 1 else ''})",
        highlight=False,
    )


@app.command()
def quantize(
    model: ModelPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="An .onnx or .lepton file.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Calibration: .npy, .npz or a folder of images."),
    ] = None,
    mode: Annotated[
        str, typer.Option(help="static (needs --data), dynamic or weight_only.")
    ] = "static",
    bits: Annotated[int, typer.Option(help="Of the weights: 8, 7, or 4 of weight_only.")] = 8,
    group_size: Annotated[int, typer.Option(help="Rows per scale of weight_only.")] = 128,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "minmax",
    exclude: Annotated[
        list[str] | None, typer.Option(help="A node, tensor or operator type to leave float.")
    ] = None,
    per_channel: Annotated[bool, typer.Option(help="Weight scales per output channel.")] = True,
    per_row: Annotated[
        bool, typer.Option(help="Ranges of dynamic: one per row, or one per tensor.")
    ] = True,
    activation: Annotated[str, typer.Option(help="uint8 or int8.")] = "uint8",
    percentile: Annotated[float, typer.Option(help="For the percentile method.")] = 99.99,
    rounding: Annotated[str, typer.Option(help="Of calibrated weights: gptq or nearest.")] = "gptq",
    batch: Annotated[int, typer.Option(min=1, help="Calibration batch size.")] = 32,
    limit: Annotated[int, typer.Option(min=1, help="Calibration samples at most.")] = 512,
    opset: Annotated[int, typer.Option(help="ONNX opset of an .onnx output.")] = 21,
) -> None:
    """Quantise a model to 8 or 4 bits and print what that did to each tensor."""
    if output.suffix not in {".onnx", ".lepton"}:
        raise InputError(f"the output must be an .onnx or .lepton file, not {output.name!r}")
    if mode == "static" and data is None:
        raise InputError("static quantisation needs calibration data: --data")
    session = lepton_rt.load_model(model).session
    batches = None if data is None else calibration_batches(session, data, batch, limit)
    quantized = lepton_rt.quantize(
        session.graph,
        batches,
        mode=mode,
        bits=bits,
        group_size=group_size,
        method=method,
        exclude=exclude or (),
        per_channel=per_channel,
        per_row=per_row,
        activation=activation,
        percentile=percentile,
        rounding=rounding,
    )
    quantized.save(output, opset=opset)
    console.print(str(quantized.report), highlight=False, markup=False, soft_wrap=True)
    console.print(f"saved {output}", highlight=False, markup=False)


@app.command("compile")
def compile_plan(
    model: ModelPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .plan file.")],
    isa: Annotated[
        str | None, typer.Option(help="Instruction set to compile for, one of this machine.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of float32 layers' weights: f32, or bf16 for half the memory.")
    ] = "f32",
) -> None:
    """Compile a model for this machine: the .plan opens at once and holds packed weights."""
    session = Session(_path(model), isa=isa, precision=precision)
    session.save_plan(output)
    console.print(
        f"saved {output}: {output.stat().st_size:,} bytes for {session.explain().isa}",
        highlight=False,
        markup=False,
    )


@app.command()
def tune(
    model: ModelPath,
    batch: Annotated[int, typer.Option(min=1, help="Batch size to tune for.")] = 1,
    shape: Annotated[
        list[str] | None, typer.Option(help="Shape of an input: name=1x3x224x224.")
    ] = None,
    threads: Threads = 0,
    isa: Annotated[str | None, typer.Option(help="Instruction set, one of this machine.")] = None,
) -> None:
    """Measure which kernels suit this machine; Session(tune=…) of the same shapes uses them."""
    path = _path(model)
    shapes = input_shapes(Session(path).inputs, batch, shape or [])
    session = Session(path, threads=threads or None, isa=isa, tune=shapes)
    table = _table("node", "operator", "choice", "before, µs", "after, µs")
    for node in session._made.gains:
        choice = ", ".join(f"{family}: {kernel}" for family, kernel in node.choice.items())
        times = (f"{node.preferred_us:.1f}", f"{node.tuned_us:.1f}")
        _add_row(table, node.name, node.op, choice, *times)
    if session._made.gains:
        console.print(table)
    saved = sum(node.preferred_us - node.tuned_us for node in session._made.gains)
    console.print(f"newly measured gain: {saved:.0f} µs a run", highlight=False)


@app.command()
def explain(model: ModelPath, threads: Threads = 0) -> None:
    """List the steps a model runs as, with the kernel of each and why."""
    explanation = Session(_path(model), threads=threads or None).explain()
    table = _table("#", "operator", "kernel", "output", "dtype", "note")
    for index, step in enumerate(explanation):
        _add_row(
            table,
            str(index),
            step.op,
            step.kernel,
            ", ".join(step.outputs),
            " ".join(step.dtypes),
            step.note,
        )
    console.print(f"instruction set: {explanation.isa}", highlight=False)
    console.print(table)
    if explanation.host_steps:
        names = sorted({step.name or step.op for step in explanation.host_steps})
        console.print(Text(f"steps without a native kernel: {', '.join(names)}", "yellow"))


@app.command()
def info(model: ModelPath) -> None:
    """Print a model's inputs, outputs, operators and size, and this machine's instruction sets."""
    from lepton_rt import _core

    path = _path(model)
    session = Session(path)
    table = _table("", "")
    table.show_header = False
    for spec in session.inputs:
        _add_row(table, "input", str(spec))
    for spec in session.outputs:
        _add_row(table, "output", str(spec))
    if path.suffix == ".plan":
        steps = session.explain()
        _add_row(table, "steps", _counted(step.op for step in steps))
        _add_row(table, "compiled for", steps.isa)
    else:
        graph = session.graph
        _add_row(table, "operators", _counted(node.key for node in graph.nodes))
        weights = [c for c in graph.constants.values() if c.dtype.kind in "fiu"]
        _add_row(table, "parameters", f"{sum(int(np.prod(c.shape)) for c in weights):,}")
        _add_row(table, "constants", f"{sum(c.nbytes for c in graph.constants.values()):,} bytes")
    _add_row(table, "file", f"{path.stat().st_size:,} bytes")
    _add_row(table, "machine", f"{', '.join(_core.machine_isas())} (using {_core.max_isa()})")
    console.print(table)


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="Folder of MNIST IDX files; else scikit-learn's digits.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("lepton_demo"),
    epochs: Annotated[
        int, typer.Option(min=0, help="Passes over the training data; 0 for a fitting number.")
    ] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every runtime.")] = 1,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Train a small network on digits, quantise it, race it, and draw a picture of it all."""
    from lepton_rt.cli.demo import run_demo

    run_demo(console, data, output, epochs=epochs or None, threads=threads, seed=seed)


def _counted(names: Iterable[str]) -> str:
    counts = collections.Counter(names)
    return ", ".join(f"{name} × {n}" for name, n in counts.most_common())


def _path(model: str) -> Path:
    from lepton_rt.zoo import HUB_PREFIX, fetch

    return fetch(model) if model.startswith(HUB_PREFIX) else Path(model)


def _named_outputs(session: Session, result: Any) -> dict[str, Array]:
    arrays = [result] if isinstance(result, np.ndarray) else list(result)
    return dict(zip((spec.name for spec in session.outputs), arrays))


def _outputs_table(outputs: dict[str, Array]) -> Table:
    table = _table("output", "dtype", "shape", "min", "mean", "max")
    for name, array in outputs.items():
        numbers = ["", "", ""]
        if array.size and array.dtype.kind in "fiub":
            values = array.astype(np.float64)
            numbers = [f"{v:.5g}" for v in (values.min(), values.mean(), values.max())]
        _add_row(table, name, str(array.dtype), "×".join(map(str, array.shape)), *numbers)
    return table


def _timings(session: Session, feed: dict[str, Array], repeat: int) -> list[float]:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        session.run(feed)
        times.append(time.perf_counter() - start)
    return times


def _add_row(table: Table, *cells: str) -> None:
    """A row as it stands: brackets in it are no markup."""
    table.add_row(*(Text(cell) for cell in cells))


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
