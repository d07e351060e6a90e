"""How much of what the parameters of the simulation do not tell of a clip's label is damage, and how much chance.

    python -m training.parameters_report sets/fresh sets/fresh-codecs --out training/results/teachers_parameters.md

Two estimates of the share that counts (`own` of `training.data.calibration.Calibration`), without asking listeners:

- PESQ and Distill-MOS are two forms of one test, so what they have in common is no chance of one of them: from the
  correlation r of their residuals follows the reliability of their mean, 2 r / (1 + r) (Spearman and Brown 1910). That
  is of the mean with equal weights; where a label leans to one of them, or has other judges, it is a guide only.
- DNSMOS P.808 has no part in the labels. If it goes along with residuals as with expected labels, they mean as much.
  This is too high where it shares Distill-MOS's errors, and too low where it does not hear the damage.

Intervals are from resampling talkers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.data.calibration import DRAWN, Calibration, relative_to_reference
from training.data.expected import Expected
from training.data.labels import LabelledClip, read_sets
from training.report import markdown, provenance, this_command
from training.teachers import TEACHERS

LEAST_CLIPS = 100
RESAMPLINGS = 1000


def judgements(clips: list[LabelledClip]) -> pd.DataFrame:
    """What is expected of each clip's label, the residuals of that and of both teachers, and DNSMOS's label."""
    calibration = Calibration.fit(clips)
    labels = dict(zip(TEACHERS, np.transpose([clip.labels for clip in clips]), strict=True))
    own = np.array([clip.reference for clip in clips])
    labels["distillmos"] = relative_to_reference(labels["distillmos"], own, calibration.reference)
    mixture, _ = calibration.mixture(clips)
    expected = Expected(clips, mixture)(clips)
    table = {"dnsmos": labels["dnsmos_p808"], "label": mixture, "expected": expected, "residual": mixture - expected}
    for teacher in ("pesq", "distillmos"):
        known = np.flatnonzero(~np.isnan(labels[teacher]))
        judged = [clips[i] for i in known]
        residual = np.full(len(clips), np.nan)
        residual[known] = labels[teacher][known] - Expected(judged, labels[teacher][known])(judged)
        table[teacher] = residual
    return pd.DataFrame(table)


def reliability(table: NDArray[np.float64]) -> float:
    """Of the mean of two teachers, from their residuals `(clips, 2)`."""
    correlation = np.asarray(np.corrcoef(table.T))[0, 1]
    return float(2 * correlation / (1 + correlation))


def went_along(table: NDArray[np.float64]) -> float:
    """Slope of a judge on residuals over that on expected labels: `(clips, 3)` of judge, expected, residual."""
    predictors = np.column_stack([table[:, 1:], np.ones(len(table))])
    of_expected, of_residual, _ = np.linalg.lstsq(predictors, table[:, 0], rcond=None)[0]
    return float(of_residual / of_expected)


def groups(clips: list[LabelledClip]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Names and masks: clips by whether a recording was drawn for their damage, and those of one kind of damage.

    There are `LEAST_CLIPS` in each.
    """
    drawn = np.array([not DRAWN.isdisjoint(clip.kinds) for clip in clips])
    masks = {"**all without a recording drawn**": ~drawn, "**all with a recording drawn**": drawn}
    for kind in sorted({kind for clip in clips for kind in clip.kinds}):
        masks[kind] = np.array([clip.kinds == [kind] for clip in clips])
    yield from ((name, mask) for name, mask in masks.items() if mask.sum() >= LEAST_CLIPS)


def report(clips: list[LabelledClip], seed: int = 1) -> pd.DataFrame:
    """Both estimates for each of `groups`, with 95 % intervals."""
    table, rng, rows = judgements(clips), np.random.default_rng(seed), []
    talkers = np.array([clip.talker for clip in clips])
    for name, mask in groups(clips):
        group = table[mask]
        row = {"damage": name, "clips": int(mask.sum())}
        row["expected"] = 1 - group["residual"].var() / group["label"].var()
        estimates = {"both teachers": (reliability, ["pesq", "distillmos"])}
        estimates["DNSMOS"] = (went_along, ["dnsmos", "expected", "residual"])
        for judge, (estimate, columns) in estimates.items():
            values = group[columns].dropna()
            by_talker = [part.to_numpy() for _, part in values.groupby(talkers[values.index])]
            drawn = [rng.integers(len(by_talker), size=len(by_talker)) for _ in range(RESAMPLINGS)]
            resampled = [estimate(np.concatenate([by_talker[i] for i in indices])) for indices in drawn]
            low, high = np.quantile(resampled, (0.025, 0.975))
            row[judge] = f"{estimate(values.to_numpy()):.2f} ({low:.2f} to {high:.2f})"
        rows.append(row)
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.parameters_report`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="labelled sets")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    clips = read_sets(args.folders, judged=True)
    parts = [
        "# What parameters do not tell of a label\n",
        provenance(this_command()),
        f"{len(clips)} clips. Expected: the share of the labels' variance that the parameters of the simulation tell. "
        "Then two estimates of how much of the rest is damage, and no chance, with 95 % intervals (resampled talkers): "
        "from what PESQ and Distill-MOS have in common, and from how DNSMOS P.808, another judge, goes along, which is "
        "deaf to some damage and shares errors of Distill-MOS.\n",
        markdown(report(clips)),
    ]
    args.out.write_text("\n".join(parts) + "\n")
    print(args.out.read_text())


if __name__ == "__main__":
    main()
