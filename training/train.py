"""Train a model from a recipe.

    python -m training.train training/recipes/default.yaml --out runs/default [--set data.limit=2000 ...]

The recipe's `task` says what is trained (see `TASKS`). `start` is a checkpoint, or a name and a revision for
`load_model`, with the weights of which to begin (`training/start.py`); with `average`, a decay, a running mean of the
weights over the steps is validated and kept (EMA). Checkpoints, CSV and TensorBoard logs go to the output
folder. `last.ckpt` there is resumed if the command is run again, with the same result as if nothing had come between;
`best.ckpt` is the one that the task's own rule chooses (the highest correlation on the validation set; for
pretraining, the first epoch after which the loss stopped falling), or the last weights where nothing chooses.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger

from training.checkpoints import KeepLast
from training.data.labelled import LabelledData
from training.data.loading import SeedSteps
from training.data.modules import JndPairData, RatedData, SpeechData
from training.distillation import Distillation
from training.finetune import ContrastiveRegression, FineTuning
from training.gan_codec import GanCodecTraining
from training.logs import csv_logger
from training.pretrain import Pretraining
from training.regression import Regression
from training.start import begin

TASKS: dict[str, tuple[type[lightning.LightningModule], type[lightning.LightningDataModule]]] = {
    "regression": (Regression, LabelledData),
    "distillation": (Distillation, LabelledData),
    "jsqa_pretrain": (Pretraining, JndPairData),
    "jsqa_finetune": (FineTuning, RatedData),
    "scoreq": (ContrastiveRegression, RatedData),
    "gan_codec": (GanCodecTraining, SpeechData),
}
"""What a recipe can ask for: the Lightning module and the data it learns from."""

SECTIONS = {"task", "seed", "data", "module", "trainer", "start", "average"}
"""What a recipe may have."""

RECIPE_NAME = "recipe.yaml"
"""The recipe of a run, in its folder."""
SAVE_EVERY_STEPS = 200
"""How often `last.ckpt` is written, besides validations and the ends of epochs."""


def read_recipe(path: str | Path, changes: list[str]) -> dict[str, Any]:
    """Read a recipe and apply changes like `data.limit=2000` (values are YAML).

    Raises:
        ValueError: If a change does not have that form.
    """
    recipe: dict[str, Any] = yaml.safe_load(Path(path).read_text())
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator:
            raise ValueError(f"a change must look like section.key=value, got {change!r}")
        *sections, name = key.split(".")
        place = recipe
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = yaml.safe_load(value)
        if re.fullmatch(r"[+-]?[\d.]+[eE][+-]?\d+", value):
            place[name] = float(value)  # YAML takes 1e-3 and 1.5e3 for text
    return recipe


def train(recipe: dict[str, Any], out: Path) -> Path:
    """Train, or go on training, and return the path of the best checkpoint.

    Raises:
        ValueError: If the recipe's task is unknown, or a run that was begun with another recipe is in the folder.
    """
    task = recipe.get("task", "regression")
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {sorted(TASKS)}, got {task!r}")
    if unknown := sorted(set(recipe) - SECTIONS):
        raise ValueError(
            f"unknown entries in the recipe: {', '.join(unknown)}; it may have {', '.join(sorted(SECTIONS))}"
        )
    if not 0 <= (recipe.get("average") or 0) < 1:
        raise ValueError(f"`average` must be a decay from 0 to below 1, got {recipe['average']!r}")
    keep_recipe(recipe, out)
    module_type, data_type = TASKS[task]
    lightning.seed_everything(recipe["seed"], verbose=False)
    torch.set_float32_matmul_precision("high")
    module: Any = module_type(**recipe["module"])
    data = data_type(**{"seed": recipe["seed"], **recipe["data"]})
    best, resume = out / "best.ckpt", out / "last.ckpt"
    if recipe.get("start") and not hasattr(module, "model"):
        raise ValueError(f"`start` is for tasks with a model, not for {task}")
    if recipe.get("start") and not resume.exists():
        begin(module.model, recipe["start"])
    average = [EMAWeightAveraging(decay=recipe["average"])] if recipe.get("average") else []
    last = KeepLast(resume, SAVE_EVERY_STEPS)
    trainer = lightning.Trainer(
        default_root_dir=out,
        callbacks=[SeedSteps(recipe["seed"]), *average, module.best_checkpoint(best), last, LearningRateMonitor()],
        logger=[csv_logger(out), TensorBoardLogger(out, "tensorboard", version="")],
        **recipe["trainer"],
    )
    trainer.fit(module, data, ckpt_path=resume if resume.exists() else None)
    if not best.exists():
        print(f"{best}: the last weights, as nothing came that could choose others")
        trainer.save_checkpoint(best)
    return best


def keep_recipe(recipe: dict[str, Any], out: Path) -> None:
    """Write the recipe beside its run, or check it against the one there; only `trainer` may change on the way.

    Raises:
        ValueError: If there is a checkpoint that another recipe made, as the result would be neither's.
    """
    if (out / RECIPE_NAME).exists() and (out / "last.ckpt").exists():
        check_recipe(recipe, out)
    out.mkdir(parents=True, exist_ok=True)
    (out / RECIPE_NAME).write_text(yaml.safe_dump(recipe, sort_keys=False))


def check_recipe(recipe: dict[str, Any], out: Path, trainer: tuple[str, ...] = ()) -> None:
    """Check a recipe against that of the run in a folder; of the section `trainer`, only some entries.

    Raises:
        ValueError: If they differ.
    """
    asked, there = yaml.safe_load(yaml.safe_dump(recipe)), yaml.safe_load((out / RECIPE_NAME).read_text())
    for content in (asked, there):  # from a dump, as tuples are lists there
        content |= {f"trainer.{name}": content["trainer"].get(name) for name in trainer}
    if other := sorted(key for key in {*there, *asked} - {"trainer"} if there.get(key) != asked.get(key)):
        raise ValueError(f"{out} holds a run of another recipe ({', '.join(other)} differ): take another folder")


def train_once(recipe: dict[str, Any], out: Path) -> Path:
    """Train unless it has been done to the end, for stages that others build on; returns the best checkpoint.

    Raises:
        ValueError: If what has been done is of another recipe, or length.
    """
    done = out / "done"
    if done.exists():
        check_recipe(recipe, out, trainer=("max_epochs", "max_steps", "precision"))
    else:
        train(recipe, out)
        done.touch()
    return out / "best.ckpt"


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.train`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a YAML file of training/recipes/")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoints and logs; resumed if it has any"
    )
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="changes to the recipe"
    )
    args = parser.parse_args(arguments)
    best = train(read_recipe(args.recipe, args.set), args.out)
    print(f"best checkpoint: {best}")


if __name__ == "__main__":
    main()
