"""How well each teacher hears what three of different kinds have in common, by kind of damage; no listener is asked.

    python -m training.consensus_report --out training/results/teachers_consensus.md

PESQ knows the reference, Distill-MOS (relative to its opinion of the reference) and DNSMOS P.808 learned from other
listeners. If their labels of clips with one kind of damage have only one thing in common, what they are to judge, then
three correlations tell how much of it is in each (factor analysis of three variables, Spearman 1904), and so with which
weights their mean has most of it. What two of them have in common besides, such as not to hear that another talker is
not wanted, counts wrongly for both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.data.calibration import relative_to_reference
from training.data.labels import LabelledClip, read_sets
from training.evaluate import RECIPE
from training.report import markdown, provenance, this_command
from training.teachers import TEACHERS
from training.train import read_recipe

JUDGES = ("pesq", "distillmos", "dnsmos_p808")
LEAST_CLIPS = 150


def loadings(correlations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of each of three judges with what they have in common; at most 0.99.

    >>> loadings(np.array([[1, 0.72, 0.63], [0.72, 1, 0.56], [0.63, 0.56, 1]])).round(3)
    array([0.9, 0.8, 0.7])
    """
    first, second, third = correlations[0, 1], correlations[0, 2], correlations[1, 2]
    squares = np.array([first * second / third, first * third / second, second * third / first])
    return np.sqrt(np.clip(squares, 0, 0.99**2))


def best_weights(of_factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights with which the judges' mean has most of the factor (Thurstone's scores), as shares."""
    weights = of_factor / (1 - of_factor**2)
    return weights / weights.sum()


def validity(weights: NDArray[np.float64], of_factor: NDArray[np.float64]) -> float:
    """Correlation of a weighted mean of standardised judges with the factor."""
    return float(weights @ of_factor / np.sqrt((weights @ of_factor) ** 2 + weights**2 @ (1 - of_factor**2)))


def report(clips: list[LabelledClip]) -> pd.DataFrame:
    """A row for each kind of damage that enough clips have, among others."""
    labels = np.array([clip.labels for clip in clips])[:, [TEACHERS.index(judge) for judge in JUDGES]]
    references = np.array([clip.reference for clip in clips])
    labels[:, 1] = relative_to_reference(labels[:, 1], references, float(np.nanmean(references)))
    whole = ~np.isnan(labels).any(axis=1)
    rows = []
    for kind in sorted({kind for clip in clips for kind in clip.kinds} - {"clean"}):
        wanted = whole & [kind in clip.kinds for clip in clips]
        if wanted.sum() < LEAST_CLIPS:
            continue
        of_factor = loadings(np.corrcoef(labels[wanted].T))
        weights = best_weights(of_factor)
        two = np.array([0.5, 0.5, 0.0])
        rows.append(
            {"damage": kind, "clips": int(wanted.sum())}
            | dict(zip(JUDGES, of_factor.tolist(), strict=True))
            | {f"weight of {judge}": weight for judge, weight in zip(JUDGES, weights.tolist(), strict=True)}
            | {"mean of two": validity(two, of_factor), "weighted mean": validity(weights, of_factor)}
        )
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.consensus_report`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="whose training sets (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    clips = [clip for clip in read_sets(read_recipe(args.recipe, [])["data"]["train"]) if clip.judged]
    text = [
        "# What PESQ, Distill-MOS and DNSMOS P.808 have in common, by kind of damage\n",
        provenance(this_command()),
        f"- {len(clips)} clips with labels; a clip counts for each of its kinds of damage",
        "- under a judge's name: its correlation with what the three have in common; then the weights with which their",
        "  mean has most of it; then how much is in the plain mean of PESQ and Distill-MOS, and in that weighted one\n",
        markdown(report(clips), 2),
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(text) + "\n")
    print(args.out.read_text())


if __name__ == "__main__":
    main()
