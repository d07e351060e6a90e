"""What each part of the default recipe is worth: the same short training without it, several seeds.

    python -m training.ablation --out runs/ablation/ablation --runs runs/ablation \
        --human ../shared/human/tcd ../shared/human/p808 ../shared/human/codec

Every variant is `recipes/default.yaml` with the changes in `VARIANTS`, on as many clips for the same number of
steps. All are held against the default recipe's labels of the validation set, so that variants which learn other
labels can only lose there, and against human ratings, which decide nothing. A row is appended to `<out>.csv` as soon
as it is there, and a run that has its rows is not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd

from jsqa_metric import score
from training.checkpoints import read_model
from training.data.labelled import calibrate
from training.data.labels import read_sets
from training.data.readers import RatedClip, open_rated
from training.report import append_rows, markdown, provenance, this_command
from training.tables import MEASURES, measures
from training.tables_report import cell_text
from training.train import read_recipe, train, train_once

RECIPE = Path(__file__).parent / "recipes" / "default.yaml"
DEFAULT = "default recipe"
AFTER_PRETRAINING = ["module.pretrained"]
"""Stands for the checkpoint that `pretrain` makes."""
VARIANTS: dict[str, list[str]] = {
    DEFAULT: [],
    "Distill-MOS not relative to the reference": ["data.by_reference=false"],
    "teachers weighted alike": ["data.by_damage=false"],
    "no new voices, no neural codecs": ["data.train=[sets/train, sets/fullband]"],
    "no further tasks": ["module.task_weight=0"],
    "with contrastive regression": ["module.contrastive_weight=0.5"],
    "after JND pretraining": AFTER_PRETRAINING,
    "half the width": ["module.model.width=16"],
    "1.5 times the width": ["module.model.width=48"],
}
"""Names and what they change in the recipe."""


def settings(args: argparse.Namespace) -> str:
    """What the runs of a table have in common; the digest is that of the default recipe."""
    recipe = json.dumps(read_recipe(RECIPE, args.set), sort_keys=True)
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    pretraining = f"pretraining of {args.pretrain_epochs} x {args.pretrain_pairs} pairs"
    return f"{args.clips} clips, {args.epochs} epochs, recipe {digest}, {pretraining}"


def finished_runs(table: Path, common: str) -> set[tuple[str, int]]:
    """Variants and seeds that have their rows.

    Raises:
        ValueError: If they were made with other settings: they cannot be compared.
    """
    if not table.exists():
        return set()
    rows = pd.read_csv(table)
    if others := set(rows["settings"]) - {common}:
        raise ValueError(f"{table} has runs of other settings ({'; '.join(others)}), not {common}: take another --out")
    return set(zip(rows["variant"], rows["seed"], strict=True))


def validation_set(args: argparse.Namespace) -> list[RatedClip]:
    """The validation clips with the default recipe's labels."""
    data = read_recipe(RECIPE, args.set)["data"]
    train_clips, clips = read_sets(data["train"]), read_sets(data["valid"], judged=True)
    mos = calibrate(train_clips, data).targets(clips)[:, 0]
    return [RatedClip(c.path, float(m), c.condition) for c, m in zip(clips, mos, strict=True)]


def pretrain(seed: int, args: argparse.Namespace) -> Path:
    """Checkpoint of the default recipe's network after JSQA's first stage; made once for each seed."""
    network = read_recipe(RECIPE, args.set)
    changes = [f"seed={seed}", f"data.pairs_per_epoch={args.pretrain_pairs}"]
    recipe = read_recipe(RECIPE.with_name("jsqa_pretrain.yaml"), changes)
    recipe["module"]["model"] = network["module"]["model"]
    recipe["trainer"] = network["trainer"] | {"max_epochs": args.pretrain_epochs}
    return train_once(recipe, args.runs / f"pretrained-{seed}")


def run(variant: str, seed: int, sets: dict[str, list[RatedClip]], args: argparse.Namespace) -> list[dict[str, object]]:
    """Train one variant and return its rows, one for each set."""
    changes = [f"seed={seed}", f"data.limit={args.clips}", f"trainer.max_epochs={args.epochs}"]
    own = VARIANTS[variant]
    if own == AFTER_PRETRAINING:
        own = [f"module.pretrained={pretrain(seed, args)}"]
    recipe = read_recipe(RECIPE, [*changes, *args.set, *own])
    model = read_model(train(recipe, args.runs / f"{variant.replace(' ', '-')}-{seed}"))
    rows = []
    for name, clips in sets.items():
        predicted = np.asarray(score([clip.path for clip in clips], model=model), dtype=np.float64)
        agreement = measures(predicted, np.array([clip.mos for clip in clips]))
        place = {"variant": variant, "seed": seed, "set": name, "settings": settings(args)}
        rows.append(place | {k: f"{v:.4f}" for k, v in agreement.items()})
    return rows


def write_report(out: Path) -> None:
    """Means over seeds, a table for each set, from all rows that are there."""
    rows = pd.read_csv(out.with_suffix(".csv"))
    parts = ["# Ablation of the default recipe\n", provenance(this_command()), ""]
    for name, part in rows.groupby("set", sort=False):
        table = part.groupby("variant", sort=False)[list(MEASURES)].agg(cell_text)
        by_seed = part.pivot_table(index="variant", columns="seed", values="pcc", sort=False).loc[table.index]
        if DEFAULT in by_seed.index:
            change = (by_seed - by_seed.loc[DEFAULT]).to_numpy()
            table["pcc - default, by seed"] = [", ".join(f"{d:+.3f}" for d in row) for row in change]
        table = table.reset_index()
        parts += [f"## {name}\n", markdown(table), ""]
    seeds, common = sorted(rows["seed"].unique().tolist()), "; ".join(rows["settings"].unique())
    parts.append(f"Mean ± half the 95 % interval over the seeds {seeds}; {common}.")
    out.with_suffix(".md").write_text("\n".join(parts) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.ablation`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="path of the results, without a suffix")
    parser.add_argument("--runs", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument(
        "--human", nargs="*", action="extend", type=Path, default=[], help="folders of human-rated clips"
    )
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--clips", type=int, default=3000, help="of the training sets")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--pretrain-pairs", type=int, default=1600, help="in an epoch of JND pretraining")
    parser.add_argument("--pretrain-epochs", type=int, default=4)
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="changes to the default recipe"
    )
    args = parser.parse_args(arguments)
    table = args.out.with_suffix(".csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    done = finished_runs(table, settings(args))
    sets = {"simulated": validation_set(args)} | {folder.name: open_rated(folder) for folder in args.human}
    for seed, variant in itertools.product(args.seeds, args.variants):
        if (variant, seed) in done:
            continue
        append_rows(table, run(variant, seed, sets, args))
    write_report(args.out)


if __name__ == "__main__":
    main()
