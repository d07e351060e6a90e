"""What metrics cost: seconds per second of audio, and memory.

    python -m benchmarks.speed --out benchmarks/results/speed

All metrics are timed in one process in turn, warmed up: medians and quartiles of the rounds. A clip is a 16 kHz
FLAC file that is read and scored; a batch is clips of 8 s in memory (metrics without batches score one by one).
Memory is the growth of the peak by one task, in a fresh process after loading; `data_mb` is without the code of
libraries that comes in at its first use. What fails there, or takes longer than the limit, is not timed and says so,
and is not asked for more of the same. The floor is decoding and one STFT.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import plots, report, timing
from benchmarks.baselines import Unavailable
from benchmarks.worker import Worker, WorkError

_LOAD_S = 120
_CANNOT = "cannot run:"
_MEMORY = ["memory_mb", "data_mb", "loaded_mb"]
_SHOWN = ["metric", "cost", "quartiles", "hours per second", "NISQA's cost over this", *_MEMORY, "note"]


def measure(names: list[str], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each metric, task and number of cores."""
    tasks = [("clip", seconds) for seconds in sorted(args.seconds)]
    tasks += [("batch", size) for size in sorted(args.batches)]
    stopped: dict[tuple[str, str], str] = {}
    for kind, size in tasks:
        rows: dict[str, dict[str, Any]] = {}
        for name in names:
            known = stopped.get((name, kind))
            rows[name] = {"note": known} if known else _memory(name, kind, size, args)
            note = rows[name].get("note", "")
            if note.startswith(_CANNOT):
                stopped |= {(name, "clip"): note, (name, "batch"): note}
            elif note and not known:
                stopped[name, kind] = f"not tried: with {size:g}, {note}"
        print(f"{kind} {size:g}: {sum('note' not in row for row in rows.values())} metrics", file=sys.stderr)
        for cores in args.threads:
            yield from _timed(rows, kind, size, cores, args)


def _memory(name: str, kind: str, size: float, args: argparse.Namespace) -> dict[str, Any]:
    with Worker(timing.measure_memory) as worker:
        try:
            row: dict[str, Any] = worker.call(
                name, kind, size, max(args.threads), args.device, args.memory_gb, timeout=_LOAD_S + args.limit
            )
        except WorkError as error:
            text = str(error)
            reason = text.removeprefix(f"{Unavailable.__name__}: ")
            return {"note": f"{_CANNOT} {reason}" if reason != text else text[:160]}
    if row["first_s"] > args.limit:
        row["note"] = f"not timed: one took {row['first_s']:.0f} s"
    return row


def _timed(
    rows: dict[str, dict[str, Any]], kind: str, size: float, cores: int, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    able = [name for name, row in rows.items() if "note" not in row]
    costs: dict[str, dict[str, float]] = {}
    note = ""
    if able:
        with Worker(timing.time_in_turn) as worker:
            try:
                costs = worker.call(
                    able, kind, size, cores, args.device, args.rounds, args.limit,
                    timeout=len(able) * (_LOAD_S + 8 * args.limit),
                )  # fmt: skip
            except WorkError as error:
                note = str(error)
    place = {"kind": kind, "seconds": size if kind == "clip" else timing.BATCH_SECONDS}
    place |= {"batch": 1 if kind == "clip" else int(size), "threads": cores, "device": args.device}
    for name, row in rows.items():
        shown = timing.get(name).name
        yield place | {"metric": shown} | {"note": note} | row | costs.get(name, {})


def tables(table: pd.DataFrame) -> list[str]:
    """A section for each task and number of cores, the cheapest first."""
    sections = []
    for (kind, seconds, batch, cores), part in table.groupby(["kind", "seconds", "batch", "threads"], sort=False):
        what = f"One clip of {seconds:g} s" if kind == "clip" else f"{batch} clips of {seconds:g} s at once"
        part = part.sort_values("cost").assign(quartiles="–")
        timed = part["cost"].notna()
        low, high = part.loc[timed, "low"], part.loc[timed, "high"]
        part.loc[timed, "quartiles"] = [f"{a:.5f} to {b:.5f}" for a, b in zip(low, high, strict=True)]
        part["hours per second"] = 1 / part["cost"] / 3600
        part["cost"] = [None if cost != cost else f"{cost:.5f}" for cost in part["cost"]]
        part = part.rename(columns={"ratio": "NISQA's cost over this"})
        if (part["device"] == "cpu").all():
            part = part.drop(columns="hours per second")
        for column in _MEMORY:
            part[column] = [None if value != value else f"{value:.0f}" for value in part[column]]
        columns = [column for column in _SHOWN if column in part]
        sections.append(f"## {what}, {cores} core{'s' if cores > 1 else ''}\n\n{report.markdown(part[columns], 2)}")
    return sections


def with_ratio(table: pd.DataFrame) -> pd.DataFrame:
    """Add NISQA's cost over each metric's, for the same task."""
    keys = ["kind", "seconds", "batch", "threads"]
    nisqa = table.loc[table["metric"] == "nisqa", [*keys, "cost"]].rename(columns={"cost": "nisqa"})
    table = table.merge(nisqa, on=keys, how="left")
    table["ratio"] = table["nisqa"] / table["cost"]
    return table.drop(columns="nisqa")


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m benchmarks.speed`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    report.add_baselines_option(parser)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed"), help="default: %(default)s")
    parser.add_argument("--seconds", type=float, nargs="*", default=[1, 8, 60, 600, 3600], help="lengths of clips")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4, 16], help="batch sizes")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="cores (default: 1 2)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each metric (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=60, help="seconds for one task (default: %(default)s)")
    parser.add_argument("--memory-gb", type=float, default=6, help="a task may take so much (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    args = parser.parse_args(arguments)
    baselines = [baseline for baseline in report.chosen(args) if not baseline.full_reference]
    names = [timing.FLOOR, *(baseline.spec for baseline in baselines)]
    table = pd.DataFrame(measure(names, args)).reindex(
        columns=["kind", "seconds", "batch", "threads", "device", "metric", "cost", "low", "high", "runs"]
        + [*_MEMORY, "first_s", "note"]
    )
    table = with_ratio(table)
    head = report.head("benchmarks.speed", baselines, arguments)
    report.write_csv(table, args.out / "speed.csv", head)
    if table["cost"].notna().any():
        plots.cost_curves(table, f"Cost on {report.device_name(args.device)}", args.out / "cost.png")
    report.write_markdown("Speed and memory", ["![cost](cost.png)\n", *tables(table)], args.out / "README.md", head)


if __name__ == "__main__":
    main()
