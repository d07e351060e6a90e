"""What metrics do with input that real data has: one table, ours and each peer.

    python -m benchmarks.robustness --out benchmarks/results/robustness

Each probe runs in a process of its own with a time limit, as some peers hang. The probes are in
`benchmarks.probes`, and their descriptions in the table's notes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from benchmarks import report
from benchmarks.baselines import Baseline, Unavailable, make
from benchmarks.probes import PROBES, describe
from benchmarks.worker import Worker, WorkError

_LOAD_TIMEOUT_S = 300
_PATIENCE = {"long": 5}
"""Times the limit, for probes that only take long where a metric is slow."""
_loaded: dict[str, Baseline] = {}


def probe_one(metric: str, probe: str | None) -> tuple[str, str]:
    """In the worker: load a metric (with `probe` None), or ask it one thing."""
    if metric not in _loaded:
        baseline = make(metric)
        baseline.load()
        _loaded[metric] = baseline
    return PROBES[probe](_loaded[metric]) if probe else ("", "")


def probe_all(baseline: Baseline, timeout: float) -> list[dict[str, str]]:
    """All probes on one metric; a row each."""
    name, rows = baseline.spec, []
    with Worker(probe_one) as worker:
        for probe in PROBES:
            try:
                worker.call(name, None, timeout=_LOAD_TIMEOUT_S)
            except WorkError as error:
                reason = str(error).removeprefix(f"{Unavailable.__name__}: ")
                return [{"metric": baseline.name, "probe": "all", "mark": "", "finding": f"cannot run: {reason}"}]
            try:
                mark, finding = worker.call(name, probe, timeout=timeout * _PATIENCE.get(probe, 1))
            except WorkError as error:
                mark, finding = "-", str(error)
            rows.append({"metric": baseline.name, "probe": probe, "mark": mark, "finding": finding})
    return rows


def tables(rows: pd.DataFrame) -> list[str]:
    """Sections: the table with a column for each metric, who could not run, and what the probes ask."""
    ran = rows[rows["probe"] != "all"].copy()
    absent = rows[rows["probe"] == "all"]
    sections = []
    if not ran.empty:
        marks = {"+": "✓ ", "-": "✗ ", " ": ""}
        ran["text"] = [marks[mark] + finding for mark, finding in zip(ran["mark"], ran["finding"], strict=True)]
        wide = ran.pivot(index="probe", columns="metric", values="text")
        wide = wide.reindex(index=list(PROBES), columns=list(dict.fromkeys(ran["metric"])))
        wide.loc["passed"] = [
            f"{(part['mark'] == '+').sum()} of {(part['mark'] != ' ').sum()}"
            for part in (ran[ran["metric"] == metric] for metric in wide.columns)
        ]
        sections.append(report.markdown(wide.reset_index()))
    sections += [f"- {row.metric}: {row.finding}\n" for row in absent.itertuples()]
    asked = pd.DataFrame({"probe": list(PROBES), "what it asks": [describe(name) for name in PROBES]})
    return [*sections, "## The probes\n", report.markdown(asked)]


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m benchmarks.robustness`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    report.add_baselines_option(parser)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/robustness"), help="default: %(default)s")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one probe (default: %(default)s)")
    args = parser.parse_args(arguments)
    baselines = [baseline for baseline in report.chosen(args) if not baseline.full_reference]
    rows = []
    for baseline in baselines:
        print(baseline.name, file=sys.stderr)
        rows += probe_all(baseline, args.timeout)
    table = pd.DataFrame(rows)
    head = report.head("benchmarks.robustness", baselines, arguments)
    report.write_csv(table, args.out / "robustness.csv", head)
    report.write_markdown("Robustness", tables(table), args.out / "README.md", head)


if __name__ == "__main__":
    main()
