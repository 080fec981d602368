"""What a race shows: ratios to the best peer, as a Markdown table and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .measure import Row, quantiles
from .networks import NETWORKS

OWN = "lepton"
USELESS = 0.45  # a peer whose error is larger is no peer
Record = dict[str, Any]


def clock(row: Row) -> str:
    """One thread is timed by its processor time, which other work on the machine disturbs less."""
    return "cpu_ms" if row["threads"] == 1 else "wall_ms"


def milliseconds(row: Row) -> float:
    return float(row[clock(row)]["median"])


def ratio(peer: Row, own: Row) -> dict[str, float]:
    """The peer's time in own time, round by round: median, p10 and p90; above 1: own is faster."""
    key = f"round_{clock(own)}"
    return quantiles([p / o for p, o in zip(peer[key], own[key], strict=True)])


def pairings(record: Record) -> list[dict[str, Any]]:
    """For each case and precision: the fastest peer, and the fastest of our variants beside it.

    Ours is the fastest of those whose error is not above the peer's, where there is one.
    """
    finished = [row for row in record["rows"] if "wall_ms" in row]
    made = []
    for case, rows in _grouped(finished, ("network", "batch", "threads", "precision")):
        useful = sorted((r for r in rows if r["error"] < USELESS), key=milliseconds)
        ours = [row for row in useful if row["runtime"] == OWN]
        peers = [row for row in useful if row["runtime"] != OWN]
        if not ours or not peers:
            continue
        peer = peers[0]
        own = next((r for r in ours if r["error"] <= max(peer["error"], 1e-4)), ours[0])
        made.append({**case, "own": own, "peer": peer, "ratio": ratio(peer, own)})
    return made


def same_file(record: Record) -> list[dict[str, Any]]:
    """The file quantised by ONNX Runtime in both runtimes: its default and its exact mode."""
    made = []
    finished = [row for row in record["rows"] if "wall_ms" in row]
    for case, rows in _grouped(finished, ("network", "batch", "threads")):
        by_name = {(r["runtime"], r["variant"]): r for r in rows}
        own = by_name.get((OWN, "ort-qdq"))
        if own is None:
            continue
        ratios = {
            mode: ratio(by_name["ort", mode], own)
            for mode in ("qdq", "qdq-exact")
            if ("ort", mode) in by_name
        }
        made.append({**case, "own": own, "ratios": ratios})
    return made


def sparse(record: Record) -> list[dict[str, Any]]:
    """Our pruned int8 variants beside the fastest dense int8 of ours and of the peers.

    Random weights bear no pruning, so errors say nothing here; they choose among the dense ones.
    """
    dense = {
        (p["network"], p["batch"], p["threads"]): p
        for p in pairings(record)
        if p["precision"] == "int8"
    }
    made = []
    for row in record["rows"]:
        pair = dense.get((row["network"], row.get("batch"), row.get("threads")))
        if pair and row["precision"] == "sparse int8" and "wall_ms" in row:
            to_own, to_peer = ratio(pair["own"], row), ratio(pair["peer"], row)
            made.append({**pair, "sparse": row, "to_own": to_own, "to_peer": to_peer})
    return made


def summary(record: Record) -> str:
    """A row per network and batch size: the ratios to the best peer, and the errors in int8."""
    lines = [heading(record, "`make race`, arguments in docs/performance.md"), ""]
    columns = sorted({(p["precision"], p["threads"]) for p in pairings(record)})
    titles = [f"{precision}, {_threads(threads)}" for precision, threads in columns]
    lines += [
        f"| network | batch | {' | '.join(titles)} | int8 error, ours / peer's |",
        "|---" * (len(columns) + 3) + "|",
    ]
    ratios: dict[tuple[str, int], list[float]] = {column: [] for column in columns}
    for case, found in _grouped(pairings(record), ("network", "batch")):
        pairs = {(p["precision"], p["threads"]): p for p in found}
        cells = []
        for column in columns:
            if column in pairs:
                ratios[column].append(pairs[column]["ratio"]["median"])
                cells.append(f"{ratios[column][-1]:.2f} ({pairs[column]['peer']['runtime']})")
            else:
                cells.append("–")
        int8 = next((p for p in found if p["precision"] == "int8"), None)
        errors = f"{int8['own']['error']:.2g} / {int8['peer']['error']:.2g}" if int8 else "–"
        title = NETWORKS[case["network"]].title
        lines.append(f"| {title} | {case['batch']} | {' | '.join(cells)} | {errors} |")
    means = [f"**{statistics.geometric_mean(ratios[column]):.2f}**" for column in columns]
    lines.append(f"| geometric mean | | {' | '.join(means)} | |")
    return "\n".join(lines)


def table(record: Record) -> str:
    """A heading, a table per precision and number of threads, and what was absent."""
    parts = [heading(record)]
    for case, pairs in _grouped(pairings(record), ("precision", "threads")):
        parts.append(f"{case['precision']}, {_threads(case['threads'])}:\n\n{_pair_table(pairs)}")
    shared = same_file(record)
    if shared:
        parts.append(
            "The same 8×8-bit file, quantised by ONNX Runtime, in both; lepton_rt computes it "
            f"exactly:\n\n{_same_file_table(shared)}"
        )
    pruned = sparse(record)
    if pruned:
        parts.append(
            "Layers but the first and the last pruned by blocks, int8, beside dense int8 (random "
            f"weights: speed alone):\n\n{_sparse_table(pruned)}"
        )
    return "\n\n".join(parts)


def heading(record: Record, command: str = "") -> str:
    """What was measured, where, and how; command: in other words than the record's."""
    versions = ", ".join(f"{p['package']} {p['version']}" for p in record["packages"].values())
    return (
        f"{record['cpu']}, {record['cores']} cores; instruction sets: {record['isa']}; "
        f"{record['date']}; load average at the start {record['load']:.1f}; {versions}; "
        f"{command or '`' + record['command'] + '`'}. Medians of {record['rounds']} "
        "interleaved rounds; one thread in processor time, more by the clock. Ratio: the peer's "
        "time in lepton_rt's, above 1 lepton_rt is faster (p10 to p90 of the rounds). Error: "
        "‖y − y₀‖ / ‖y₀‖ against torch in float32."
    )


def _pair_table(pairs: list[dict[str, Any]]) -> str:
    lines = [
        "| network | batch | lepton_rt, ms | best peer, ms | ratio | error, ours | error, peer's |",
        "|---|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        own, peer = pair["own"], pair["peer"]
        lines.append(
            f"| {NETWORKS[pair['network']].title} | {pair['batch']} "
            f"| {milliseconds(own):.3g} ({own['variant']}) "
            f"| {milliseconds(peer):.3g} ({peer['runtime']} {peer['variant']}) "
            f"| {_spread(pair['ratio'])} | {own['error']:.2g} | {peer['error']:.2g} |"
        )
    mean = statistics.geometric_mean(pair["ratio"]["median"] for pair in pairs)
    lines.append(f"| geometric mean | | | | **{mean:.2f}** | | |")
    return "\n".join(lines)


def _same_file_table(shared: list[dict[str, Any]]) -> str:
    lines = [
        "| network | batch | threads | lepton_rt, ms | to its default mode | to its exact mode |",
        "|---|---|---|---|---|---|",
    ]
    for case in shared:
        cells = [
            _spread(case["ratios"][mode]) if mode in case["ratios"] else "–"
            for mode in ("qdq", "qdq-exact")
        ]
        lines.append(
            f"| {NETWORKS[case['network']].title} | {case['batch']} | {case['threads']} "
            f"| {milliseconds(case['own']):.3g} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _pruning(variant: str) -> str:
    share, _, bits = variant.removeprefix("sparse").partition("-")
    return f"{share} %{', 7-bit weights' if bits == '7bit' else ''}"


def _sparse_table(pruned: list[dict[str, Any]]) -> str:
    lines = [
        "| network | batch | threads | pruned | lepton_rt, ms | to its own dense int8 "
        "| to the best peer's dense int8 |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in pruned:
        row, own, peer = case["sparse"], case["own"], case["peer"]
        lines.append(
            f"| {NETWORKS[case['network']].title} | {case['batch']} | {case['threads']} "
            f"| {_pruning(row['variant'])} | {milliseconds(row):.3g} "
            f"| {_spread(case['to_own'])} of {milliseconds(own):.3g} ms ({own['variant']}) "
            f"| {_spread(case['to_peer'])} of {milliseconds(peer):.3g} ms "
            f"({peer['runtime']} {peer['variant']}) |"
        )
    return "\n".join(lines)


def all_rows(record: Record) -> str:
    """Every entrant, fastest first, and the absent ones with their reasons."""
    lines = [
        "| network | batch | threads | runtime | median (p10–p90), ms | error | top-1 | load, ms "
        "| first run, ms | PSS above import, MB | peak RSS, MB | file, MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    finished = [row for row in record["rows"] if "wall_ms" in row]
    for _, rows in _grouped(finished, ("network", "batch", "threads")):
        for row in sorted(rows, key=milliseconds):
            times = row[clock(row)]
            lines.append(
                f"| {row['network']} | {row['batch']} | {row['threads']} "
                f"| {row['runtime']} {row['variant']} "
                f"| {times['median']:.3g} ({times['p10']:.3g}–{times['p90']:.3g}) "
                f"| {row['error']:.2g} | {row['top1']:.3f} | {row['load_ms']:.0f} "
                f"| {row['first_run_ms']:.3g} | {row['pss_mb']:.0f} | {row['peak_rss_mb']:.0f} "
                f"| {row['file_mb']:.2f} |"
            )
    missing = {
        f"{r['runtime']} {r['variant']} on {r['network']}: {r.get('absent') or r.get('failed')}"
        for r in record["rows"]
        if "absent" in r or "failed" in r
    }
    return "\n".join([*lines, "", *(f"- {line}" for line in sorted(missing))])


def draw(record: Record, path: Path) -> None:
    """A bar per case: the ratio to the best peer, with its spread."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pairs = pairings(record)
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.24 * len(pairs)), layout="constrained")
    for i, pair in enumerate(reversed(pairs)):
        spread = pair["ratio"]
        whiskers = [[spread["median"] - spread["p10"]], [spread["p90"] - spread["median"]]]
        colour = "tab:blue" if pair["precision"] == "int8" else "tab:orange"
        axes.barh(i, spread["median"], xerr=whiskers, color=colour, height=0.75)
    labels = [
        f"{p['network']} b{p['batch']} {p['precision']} {p['threads']}T" for p in reversed(pairs)
    ]
    axes.set_yticks(range(len(pairs)), labels, fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("time of the best peer / time of lepton_rt (right of 1: lepton_rt is faster)")
    axes.set_title(f"{record['cpu']}, {record['isa']}, {record['date']}", fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def put_between_markers(text: str, path: Path) -> None:
    """Replaces what stands between the markers of a Markdown file. Raises ValueError without."""
    begin, end = "<!-- race: begin -->", "<!-- race: end -->"
    head, found, rest = path.read_text().partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path} lacks the markers {begin} and {end}")
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def _grouped(rows: Iterable[Row], keys: tuple[str, ...]) -> list[tuple[Row, list[Row]]]:
    """(the common values, rows), in the order of first appearance."""
    order: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        order.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [(dict(zip(keys, values, strict=True)), group) for values, group in order.items()]


def _spread(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} ({values['p10']:.2f}–{values['p90']:.2f})"


def _threads(count: int) -> str:
    return f"{count} thread" + ("s" if count > 1 else "")
