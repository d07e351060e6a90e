"""Where we stand, by one command: all parts, and one table over them.

    python -m benchmarks ../shared/human/*

Each part is a command of its own with more options (`python -m benchmarks.accuracy --help`); `--parts` does some of
them. The table in `README.md` is made from what is in the folder, so that parts can be done one after the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from benchmarks import accuracy, curves, report, robustness, speed, uncertainty
from benchmarks.baselines.base import ROOT

PARTS = ("accuracy", "speed", "robustness", "curves", "uncertainty")
LENGTH_S = 8.0
"""Of the clip whose cost the table shows."""


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, comment="#") if path.is_file() else pd.DataFrame()


def overview(out: Path) -> pd.DataFrame:
    """A row for each metric: PCC on each set, cost of a clip, probes passed, and why it did not run."""
    columns: dict[str, pd.Series] = {}
    agree = _read(out / "accuracy" / "accuracy.csv")
    if not agree.empty:
        files = agree[agree["level"] == "file"]
        for name, part in files.groupby("set", sort=False):
            columns[f"PCC {name}"] = part.set_index("metric")["pcc"]
        columns["note"] = files.groupby("metric", sort=False)["note"].first()
    cost = _read(out / "speed" / "speed.csv")
    if not cost.empty:
        cost = cost[(cost["kind"] == "clip") & (cost["seconds"] == LENGTH_S) & (cost["metric"] != "floor")]
        for cores, part in cost.groupby("threads", sort=False):
            title = f"s per s of audio, {cores} core{'s' if cores > 1 else ''}"
            columns[title] = part.set_index("metric")["cost"].map("{:.5f}".format, na_action="ignore")
    probes = _read(out / "robustness" / "robustness.csv")
    if not probes.empty:
        probes = probes[probes["mark"].isin(["+", "-"])]
        groups = probes.groupby("metric", sort=False)["mark"]
        columns["probes passed"] = groups.apply(lambda marks: f"{(marks == '+').sum()} of {len(marks)}")
    metrics = dict.fromkeys(metric for column in columns.values() for metric in column.index)
    table = pd.DataFrame(columns, index=list(metrics))
    order = [*(name for name in table if name != "note"), *(name for name in table if name == "note")]
    return table[order].rename_axis("metric").reset_index()


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m benchmarks`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="rated sets")
    report.add_baselines_option(parser)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="default: all; none: only the table")
    args = parser.parse_args(arguments)
    baselines = report.chosen(args)
    folders, names = [str(f) for f in args.folders], ["--baselines", ",".join(b.spec for b in baselines)]
    commands = {
        "accuracy": (accuracy, [*folders, "--device", args.device, *names]),
        "speed": (speed, ["--device", args.device, *names]),
        "robustness": (robustness, names),
        "curves": (curves, [str(ROOT / "examples"), *names]),
        "uncertainty": (uncertainty, folders),
    }
    for part in args.parts:
        module, given = commands[part]
        module.main([*given, "--out", str(args.out / part)])
    links = "Details: " + ", ".join(f"[{part}]({part}/README.md)" for part in PARTS if (args.out / part).is_dir())
    head = report.head("benchmarks", baselines, arguments)
    text = f"{links}. Cost is that of a clip of {LENGTH_S:g} s.\n\n{report.markdown(overview(args.out))}"
    report.write_markdown("Where we stand", [text], args.out / "README.md", head)


if __name__ == "__main__":
    main()
