"""How well metrics agree with listeners.

    python -m benchmarks.accuracy ../shared/human/* --out benchmarks/results/accuracy

Each folder is a rated set (see `benchmarks.datasets`). Writes `README.md`, CSV tables and plots; the scores of
each clip are kept in `.cache/`, so that a second run is quick. A metric that cannot run is a row with its reason.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf

from benchmarks import plots, report
from benchmarks.baselines import OURS, Baseline, Unavailable
from benchmarks.datasets import RatedSet, read_sets
from benchmarks.measures import MIN_CLIPS, RESAMPLES, agreement, intervals, paired_test
from benchmarks.scores import CACHE, score_clips

_SHOWN = ["metric", "n", "pcc", "95 % interval", "srcc", "kendall", "rmse", "mae", "rmse_mapped", "mae_mapped", "note"]


def score_set(
    rated: RatedSet, baselines: list[Baseline], device: str = "cpu", cache: Path = CACHE
) -> tuple[pd.DataFrame, dict[str, str]]:
    """A row for each clip with its scores, and a note for each metric that had a problem."""
    root = os.path.commonpath([clip.path.parent for clip in rated.clips])
    clips = pd.DataFrame(
        {
            "file": [clip.path.relative_to(root).as_posix() for clip in rated.clips],
            "condition": [clip.condition for clip in rated.clips],
            "sample_rate": [sf.info(clip.path).samplerate for clip in rated.clips],
            "mos": [clip.mos for clip in rated.clips],
        }
    )
    notes = {}
    for baseline in baselines:
        try:
            clips[baseline.name], note = score_clips(baseline, rated.clips, device, cache)
        except Unavailable as error:
            note = f"cannot run: {error}"
        except Exception as error:  # noqa: BLE001 - a peer that breaks is a row with its reason
            note = f"failed: {type(error).__name__}: {error}"
        if note:
            notes[baseline.name] = note
    return clips, notes


def set_table(name: str, clips: pd.DataFrame, names: list[str], notes: dict[str, str], resamples: int) -> pd.DataFrame:
    """Agreement of each metric on one set: per file, and of the means of conditions."""
    rows = []
    conditions = clips["condition"].nunique()
    for level in ("file", "condition"):
        if level == "condition" and not MIN_CLIPS <= conditions < len(clips):
            continue
        for metric in names:
            row: dict[str, object] = {"set": name, "level": level, "metric": metric, "note": notes.get(metric, "")}
            if metric in clips:
                x, y = _scored(clips, metric, means=level == "condition")
                row |= agreement(x, y) | intervals(x, y, resamples)
            rows.append(row)
    return pd.DataFrame(rows)


def _scored(table: pd.DataFrame, metric: str, means: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores and ratings of the clips that a metric scored, or their means over conditions."""
    part = table[["condition", metric, "mos"]].dropna()
    if means:
        part = part.groupby("condition").mean()
    return part[metric].to_numpy(float), part["mos"].to_numpy(float)


def condition_table(name: str, clips: pd.DataFrame, names: list[str], resamples: int) -> pd.DataFrame:
    """Agreement within each condition, and each metric's mean beside listeners'."""
    rows = []
    for condition, part in clips.groupby("condition", sort=False):
        for metric in (m for m in names if m in clips):
            x, y = _scored(part, metric)
            place = {"set": name, "condition": condition, "metric": metric}
            means = {"mos_mean": y.mean() if len(y) else np.nan, "score_mean": x.mean() if len(x) else np.nan}
            rows.append(place | means | agreement(x, y) | intervals(x, y, resamples))
    return pd.DataFrame(rows)


def rate_table(clips: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """PCC among the clips of one sample rate: what is left when bandwidth is not the question. Empty for one rate."""
    rows = []
    for rate, part in clips.groupby("sample_rate"):
        row: dict[str, object] = {"rate": f"{rate} Hz", "n": len(part)}
        rows.append(row | {metric: agreement(*_scored(part, metric))["pcc"] for metric in names if metric in clips})
    return pd.DataFrame(rows) if len(rows) > 1 else pd.DataFrame()


def paired_table(name: str, clips: pd.DataFrame, names: list[str], resamples: int) -> pd.DataFrame:
    """Each peer against ours, on the clips that both scored."""
    rows = []
    for peer in (m for m in names if m in clips and m != OURS and OURS in clips):
        both = clips[[OURS, peer, "mos"]].dropna()
        ours, theirs, mos = (both[column].to_numpy(float) for column in (OURS, peer, "mos"))
        rows.append({"set": name, "peer": peer} | paired_test(ours, theirs, mos, resamples))
    return pd.DataFrame(rows)


def _section(
    name: str, agree: pd.DataFrame, paired: pd.DataFrame, within: pd.DataFrame, rates: pd.DataFrame, full: set[str]
) -> str:
    text = f"## {name}\n\n![scatter]({name}-scatter.png)\n\n"
    for level, title in (("file", "Per file"), ("condition", "Means of conditions")):
        part = agree[agree["level"] == level].copy()
        if part.empty:
            continue
        if "pcc_low" in part:  # nothing ran where it is not
            part["95 % interval"] = [
                f"{low:.3f} to {high:.3f}" if low == low else "–"
                for low, high in zip(part["pcc_low"], part["pcc_high"], strict=True)
            ]
        part["metric"] = [f"{metric} (full reference)" if metric in full else metric for metric in part["metric"]]
        part = part.reindex(columns=_SHOWN if level == "file" else _SHOWN[:-1])
        if "n" in part:
            part["n"] = part["n"].astype("Int64").astype(object).where(part["n"].notna(), None)
        text += f"{title}:\n\n{report.markdown(part)}\n"
    if not paired.empty:
        text += "Ours against each peer (difference in PCC, paired bootstrap over clips, p not corrected):\n\n"
        text += report.markdown(paired.drop(columns="set")) + "\n"
    if not rates.empty:
        text += f"PCC among the clips of each sample rate:\n\n{report.markdown(rates)}\n"
    conditions = within["condition"].nunique() if not within.empty else 0
    if 1 < conditions <= 12 and within["pcc"].notna().any():
        wide = within.pivot_table(index="condition", columns="metric", values="pcc", sort=False).reset_index()
        text += f"PCC within each condition:\n\n{report.markdown(wide)}\n"
    if conditions > 1:
        text += f"![conditions]({name}-conditions.png)\n"
    return text


def run(
    sets: list[RatedSet],
    baselines: list[Baseline],
    out: Path,
    device: str,
    resamples: int,
    head: list[str],
    cache: Path = CACHE,
) -> None:
    """Score, compare, and write everything."""
    names, full = [b.name for b in baselines], {b.name for b in baselines if b.full_reference}
    tables: dict[str, list[pd.DataFrame]] = {"accuracy": [], "conditions": [], "paired": [], "scores": []}
    sections = []
    for rated in sets:
        print(f"{rated.name}: {len(rated.clips)} clips", file=sys.stderr)
        clips, notes = score_set(rated, baselines, device, cache)
        for metric, note in notes.items():
            print(f"  {metric}: {note}", file=sys.stderr)
        agree = set_table(rated.name, clips, names, notes, resamples)
        paired = paired_table(rated.name, clips, names, resamples)
        within = condition_table(rated.name, clips, names, resamples)
        ran = [name for name in names if name in clips and clips[name].notna().sum() >= MIN_CLIPS]
        if ran:
            plots.scatter(clips, ran, rated.name, out / f"{rated.name}-scatter.png")
        if ran and clips["condition"].nunique() > 1:
            small = clips["condition"].value_counts().max() < 16  # too few for a correlation: show the means
            value, title = ("score_mean", "mean score") if small else ("pcc", "PCC within each condition")
            plots.condition_bars(within, value, f"{rated.name}: {title}", out / f"{rated.name}-conditions.png")
        sections.append(_section(rated.name, agree, paired, within, rate_table(clips, names), full))
        clips = clips.drop(columns="mos")  # listeners' ratings stay in their sets: not all may be copied
        clips.insert(0, "set", rated.name)
        for key, table in zip(tables, (agree, within, paired, clips), strict=True):
            tables[key].append(table)
    for key, parts in tables.items():
        report.write_csv(pd.concat(parts, ignore_index=True), out / f"{key}.csv", head)
    report.write_markdown("Agreement with listeners", sections, out / "README.md", head)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m benchmarks.accuracy`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="rated sets")
    report.add_baselines_option(parser)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/accuracy"), help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for metrics that can (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of the bootstrap (default: %(default)s)")
    args = parser.parse_args(arguments)
    baselines = report.chosen(args)
    try:
        sets = read_sets(args.folders)
    except ValueError as error:
        parser.error(str(error))
    head = report.head("benchmarks.accuracy", baselines, arguments)
    run(sets, baselines, args.out, args.device, args.resamples, head, CACHE)


if __name__ == "__main__":
    main()
