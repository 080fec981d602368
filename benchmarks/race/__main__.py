"""Whole networks in lepton_rt and other CPU runtimes, in one interleaved run.

    PYTHONPATH=benchmarks python -m race [--networks resnet50] [--runtimes lepton ort] [--rounds 5]
    PYTHONPATH=benchmarks python -m race --render RESULT.json [--into README.md]

Models are made from fixed seeds with random weights and kept in a cache folder. Every entrant (a
network in a variant of a runtime) has a process of its own, stopped while others run. Writes JSON
and a picture to benchmarks/results, and prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import report
from .hiding import hiding_environment
from .measure import Options, Row, build, race
from .networks import NETWORKS, pretrained_minilm
from .runtimes import NAMES, Absent, installed_mb, runtime, version
from .store import default_cache
from .workers import BENCHMARKS, Worker

SHOWN = {"summary": report.summary, "table": report.table, "all": report.all_rows}
AS_AVX2 = "AVX2 only, by hiding the others"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="race", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    add("--runtimes", nargs="+", default=list(NAMES), choices=NAMES)
    add("--variants", nargs="+", help="of all runtimes' variants only these, by name")
    add("--batches", nargs="+", type=int, help="default: each network's own")
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=0.5, help="of running per entrant and round")
    add("--inputs", type=int, default=32, help="random samples that outputs are compared on")
    add("--cache", type=Path, default=default_cache(), help="of built models")
    add("--results", type=Path, default=BENCHMARKS / "results", help="folder for JSON and picture")
    add("--add", action="store_true", help="keep what today's result has of other networks")
    add("--as-avx2", action="store_true", help="hide AVX-512, VNNI and AMX (x86-64 Linux)")
    add("--render", nargs="+", type=Path, help="only print the tables of these results")
    add("--show", default="table", choices=SHOWN, help="how much to print")
    add("--into", type=Path, help="put the tables between the markers of this Markdown file")
    return parser.parse_args(arguments)


def cpu_name() -> str:
    """The model name the kernel gives; its numbers beside it, as virtual machines hide the name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(
        re.findall(r"^(vendor_id|model name|cpu family|model|stepping)\s*: (.*)$", text, re.M)
    )
    if "model name" not in found:
        return platform.machine()
    return f"{found['model name']} (family {found['cpu family']}, model {found['model']})"


def describe(chosen: argparse.Namespace) -> dict[str, Any]:
    """The record of a race before its rows."""
    packages = {}
    for name in chosen.runtimes:
        try:
            packages[name] = {
                "package": runtime(name).PACKAGE,
                "version": version(name),
                "installed_mb": installed_mb(name),
            }
        except Absent as error:
            print(f"absent: {error}", file=sys.stderr)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": os.getloadavg()[0],
        "isa": AS_AVX2 if chosen.as_avx2 else "all that the CPU has",
        "command": "python -m race " + shlex.join(_repeatable(chosen.given)),
        "rounds": chosen.rounds,
        "pretrained_minilm": pretrained_minilm() is not None,
        "python": platform.python_version(),
        "packages": packages,
        "rows": [],
    }


def _repeatable(arguments: list[str]) -> list[str]:
    """The arguments without the folders of this machine, which change no figure."""
    kept, skip = [], False
    for argument in arguments:
        folder = argument.split("=")[0] in ("--cache", "--results")
        if not (folder or skip):
            kept.append(argument)
        skip = folder and "=" not in argument
    return kept


def run(chosen: argparse.Namespace) -> Path:
    """Races; the JSON is written after every case. Returns its path."""
    entrants = [
        (name, variant)
        for name in chosen.runtimes
        for variant in runtime(name).VARIANTS
        if not chosen.variants or variant in chosen.variants
    ]
    chosen.cache.mkdir(parents=True, exist_ok=True)
    chosen.results.mkdir(parents=True, exist_ok=True)
    options = Options(
        networks=chosen.networks,
        entrants=entrants,
        batches=chosen.batches,
        threads=chosen.threads,
        rounds=chosen.rounds,
        seconds=chosen.seconds,
        inputs=chosen.inputs,
        cache=chosen.cache,
        env=hiding_environment(chosen.cache) if chosen.as_avx2 else {},
    )
    record = describe(chosen)
    record["features"] = features(options)
    slug = re.sub(r"[^a-z0-9]+", "-", record["cpu"].lower()).strip("-")
    isa = "_avx2-by-hiding" if chosen.as_avx2 else ""
    path = Path(chosen.results / f"race_{slug}{isa}_{record['date']}.json")
    if chosen.add and path.exists():
        _add_to(record, json.loads(path.read_text()), options)
    _race_all(options, record, path)
    report.draw(record, path.with_suffix(".png"))
    return path


def _add_to(record: dict[str, Any], earlier: dict[str, Any], options: Options) -> None:
    """Puts the rows of an earlier race before the new ones, and its command and packages, too."""

    def raced_anew(row: Row) -> bool:
        return (
            row["network"] in options.networks
            and row.get("threads", options.threads[0]) in options.threads
            and (options.batches is None or row.get("batch") in (None, *options.batches))
        )

    record["rows"] = [row for row in earlier["rows"] if not raced_anew(row)]
    record["packages"] = {**earlier["packages"], **record["packages"]}
    if earlier["command"] != record["command"]:
        record["command"] = f"{earlier['command']}; {record['command']}"


def features(options: Options) -> list[str]:
    """The vector extensions that workers see; raises RuntimeError when hiding did not work."""
    name, variant = options.entrants[0]
    with Worker(options.cache, options.networks[0], name, variant, options.env, options.log) as one:
        seen: list[str] = one.ask("features")["seen"]
    if options.env and any(feature.startswith("AVX512") for feature in seen):
        raise RuntimeError("the processor does not let its features be hidden")
    return seen


def _race_all(options: Options, record: dict[str, Any], path: Path) -> None:
    cases = [
        (name, batch)
        for name in options.networks
        for batch in NETWORKS[name].batches
        if options.batches is None or batch in options.batches
    ]
    builds = len(options.networks) * len(options.entrants)
    turns = len(cases) * len(options.entrants) * len(options.threads) * (options.rounds + 1)
    with tqdm(total=builds + turns, disable=None, leave=False) as bar:

        def step(what: str) -> None:
            bar.set_description(what)
            bar.update()

        for name in options.networks:
            rows = build(options, name, step)
            record["rows"] += [row for row in rows if "absent" in row or "failed" in row]
            ready = [row for row in rows if "absent" not in row and "failed" not in row]
            for _, batch in (case for case in cases if case[0] == name):
                record["rows"] += race(options, ready, batch, step)
                path.write_text(json.dumps(record, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    chosen = parse(given)
    chosen.given = given
    paths = chosen.render or [run(chosen)]
    records = [json.loads(path.read_text()) for path in paths]
    text = "\n\n".join(SHOWN[chosen.show](record) for record in records)
    if chosen.into:
        report.put_between_markers(text, chosen.into)
    else:
        print(text)


if __name__ == "__main__":
    main()
