"""How well a model follows the simulated labels: MOS by kind of damage, and the dimensions of quality.

    python -m training.evaluate src/jsqa_metric/weights/default --out training/results/validation.md

The sets and their calibration are those of `recipes/default_eleventh.yaml`; no listener is asked.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from jsqa_metric import JSQAModel, load_model, score
from jsqa_metric.level import check_level
from jsqa_metric.model import DIMENSIONS
from training.data.calibration import DIMENSION_COLUMNS
from training.data.labelled import LabelledSet, calibrate
from training.data.labels import LabelledClip, read_sets
from training.report import markdown, provenance, this_command
from training.tables import measures
from training.train import read_recipe

RECIPE = Path(__file__).parent / "recipes" / "default_eleventh.yaml"
COLUMNS = ["clips", "pcc", "srcc", "rmse", "mae"]
LEAST_CLIPS = 10
"""Fewer are not worth a row."""


def predict(model: JSQAModel, clips: LabelledSet, level_db: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """MOS `(clips,)` and dimensions `(clips, 4)`, of clips as they are, or at a level, as by `score`."""
    signals = [audio.float() / 32768 for audio in clips.audio]
    details = score(signals, clips.sample_rate, model=model, level_db=level_db, return_details=True)
    return np.array([detail.mos for detail in details]), np.array([detail.dimensions for detail in details])


def agreement(predicted: np.ndarray, labels: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Measures over the wanted clips."""
    values = measures(predicted[wanted].astype(float), labels[wanted].astype(float))
    return {"clips": int(wanted.sum())} | {name: round(values[name], 3) for name in COLUMNS[1:]}


def by_damage(clips: list[LabelledClip], mos: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """A row for all clips, and for those that have each kind of damage (others may have come before or after)."""
    kinds = [set(clip.condition.split("+")) for clip in clips]
    rows = {"all": np.ones(len(clips), bool)}
    rows |= {name: np.array([name in here for here in kinds]) for name in sorted(set().union(*kinds))}
    rows = {name: wanted for name, wanted in rows.items() if wanted.sum() >= LEAST_CLIPS}
    return pd.DataFrame([{"damage": name} | agreement(mos, labels, wanted) for name, wanted in rows.items()])


def by_dimension(predicted: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """A row for each dimension that the model knows, over the clips whose label is known."""
    rows = []
    for column, name in enumerate(DIMENSIONS):
        known = ~np.isnan(labels[:, column]) & ~np.isnan(predicted[:, column])
        if known.sum() < LEAST_CLIPS:
            continue
        rows.append({"dimension": name} | agreement(predicted[:, column], labels[:, column] + 3, known))
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.evaluate`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model as `load_model` takes it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="whose sets and labels (default: %(default)s)")
    level = "active level in dBFS that clips, and labels with them, are brought to (default: as they are)"
    parser.add_argument("--level-db", type=float, metavar="DB", help=level)
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="changes to the recipe"
    )
    args = parser.parse_args(arguments)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    model, data = load_model(args.model), read_recipe(args.recipe, args.set)["data"]
    train, clips = read_sets(data["train"]), read_sets(data["valid"], judged=True)
    if check_level(args.level_db) is not None:
        clips = [replace(clip, level_db=args.level_db) for clip in clips]
    # the network alone, without the bandwidth that `score` adds to one with a limit
    top_hz = 8000.0 if model.config.limit_hz else model.sample_rate / 2
    calibration = calibrate(train, data)
    valid = LabelledSet(clips, calibration, model.sample_rate, top_hz)
    labels = valid.targets.numpy()
    mos, dimensions = predict(model, valid, args.level_db)
    amount = f"{len(clips)} clips" + ("" if args.level_db is None else f" at {args.level_db:g} dBFS")
    parts = [
        f"# {args.model} on the simulated validation sets\n",
        provenance(this_command()),
        f"- model: revision {model.config.revision}; sets: {', '.join(map(str, data['valid']))} ({amount})\n",
        "## MOS, without bandwidth above 8 kHz\n" if model.config.limit_hz else "## MOS\n",
        markdown(by_damage(clips, mos, labels[:, 0])),
        "\n## Dimensions\n",
        "Where damage in several dimensions leaves the shares unknown, a clip does not count.\n",
        markdown(by_dimension(dimensions, labels[:, DIMENSION_COLUMNS])),
    ]
    args.out.write_text("\n".join(parts) + "\n")
    print(args.out.read_text())


if __name__ == "__main__":
    main()
