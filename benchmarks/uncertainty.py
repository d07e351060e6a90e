"""Does our metric know when it is wrong? The standard deviation that it expects, beside the errors that it makes.

    python -m benchmarks.uncertainty ../shared/human/*

Clips are grouped by the expected deviation, a fifth each. If it is calibrated, the error of a group grows with it; the
ratio of both says how far the scale is off. Errors are those after a first-order map of the scores: that listeners of
another test use their scale in another way is not the metric's to know.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from benchmarks import plots, report
from benchmarks.baselines.ours import Ours
from benchmarks.datasets import RatedSet, read_sets
from benchmarks.measures import first_order_map
from jsqa_metric import score

GROUPS = 5


def expected_and_made(rated: RatedSet, model: str) -> pd.DataFrame:
    """Columns `std` (expected) and `error` (made, after the map) of all clips that have a score.

    Raises:
        ValueError: If the model expects nothing.
    """
    details = score([clip.path for clip in rated.clips], model=model, return_details=True)
    table = pd.DataFrame({"mos": [c.mos for c in rated.clips], "score": [d.mos for d in details]})
    table["std"] = [d.std for d in details]
    table = table[table["score"].notna()]
    if table["std"].isna().any():
        raise ValueError(f"model {model!r} has not learned how far off it is")
    return table.assign(error=first_order_map(table["score"].to_numpy(), table["mos"].to_numpy()) - table["mos"])


def groups(table: pd.DataFrame) -> pd.DataFrame:
    """Expected deviation and error of each group, both as root mean squares."""
    parts = [table.iloc[part] for part in np.array_split(table["std"].to_numpy().argsort(), GROUPS)]
    rows = [(i + 1, len(p), *(np.sqrt((p[c] ** 2).mean()) for c in ("std", "error"))) for i, p in enumerate(parts)]
    return pd.DataFrame(rows, columns=["group", "clips", "expected", "made"])


def summary(name: str, table: pd.DataFrame) -> dict[str, object]:
    """Does the error follow the expectation (rank correlation), and at which scale."""
    follows = spearmanr(table["std"], table["error"].abs()).statistic
    ratio = np.sqrt((table["error"] ** 2).mean() / (table["std"] ** 2).mean())
    return {"set": name, "clips": len(table), "SRCC of expected and made": follows, "made / expected": ratio}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m benchmarks.uncertainty`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="rated sets, see benchmarks/README.md")
    parser.add_argument("--model", default="default", help="name or folder (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/uncertainty"), help="default: %(default)s")
    args = parser.parse_args(arguments)
    try:
        sets = read_sets(args.folders)
    except ValueError as error:
        parser.error(str(error))
    tables = {rated.name: expected_and_made(rated, args.model) for rated in sets}
    grouped = {name: groups(table) for name, table in tables.items()}
    overview = pd.DataFrame([summary(name, table) for name, table in tables.items()])
    head = report.head("benchmarks.uncertainty", [Ours(args.model)], arguments)
    joined = pd.concat([part.assign(set=name) for name, part in grouped.items()], ignore_index=True)
    report.write_csv(joined, args.out / "uncertainty.csv", head)
    plots.calibration(grouped, args.out / "uncertainty.png")
    sections = ["![expected and made](uncertainty.png)\n", report.markdown(overview)]
    sections += [f"## {name}\n\n{report.markdown(part)}" for name, part in grouped.items()]
    report.write_markdown("Expected and made errors", sections, args.out / "README.md", head)


if __name__ == "__main__":
    main()
