"""Train the relatives that the benchmarks compare with, each by one command, resumable, on one CPU core.

    python -m training.baselines jsqa_published    # JND pretraining, then MOS fine-tuning: 10 minutes of CPU
    python -m training.baselines scoreq_style      # contrastive regression, then a MOS head: 15 minutes

Stages go to `runs/baselines/NAME/STAGE`, the model folder to `runs/baselines/NAME/model`, where the adapters of
`benchmarks.baselines.trained` find it. At the end, the agreement with those clips of the validation set that had
no part in choosing a checkpoint is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from jsqa_metric.hub import read_folder
from training.data.corpus import SAMPLE_RATE
from training.data.modules import RatedSet, simulated_as_rated
from training.data.readers import open_corpus
from training.finetune import ContrastiveRegression
from training.projection import NonMatching
from training.publish import publish
from training.tables import evaluate
from training.train import read_recipe, train_once

RUNS = Path("runs/baselines")
RECIPES = Path(__file__).parent / "recipes"
STAGES = {
    "jsqa_published": {"pretrain": "jsqa_pretrain_small.yaml", "finetune": "jsqa_finetune_small.yaml"},
    "scoreq_style": {"contrast": "scoreq_small.yaml", "head": "scoreq_head_small.yaml"},
}
"""For each relative, its stages with their recipes; each starts with the encoder of the one before."""

REFERENCES, REFERENCE_SECONDS = 64, 4.0
"""How much clean speech is the non-matching reference."""


def read_stage(recipe: str, stage: str, changes: list[str], pretrained: Path | None) -> dict[str, Any]:
    """A stage's recipe, with the changes that are meant for it, from the encoder of the stage before."""
    own = [change.removeprefix(f"{stage}.") for change in changes if change.startswith(f"{stage}.")]
    content = read_recipe(RECIPES / recipe, own)
    if pretrained is not None:
        content["module"]["pretrained"] = str(pretrained)
    return content


def add_nonmatching(contrast: Path, model: Path, clean: str) -> NonMatching:
    """Make a model folder serve for the non-matching-reference mode, too: with excerpts of a clean corpus."""
    module = ContrastiveRegression.load_from_checkpoint(contrast, map_location="cpu", weights_only=True).eval()
    metric, corpus, rng = NonMatching(module.model, module.projection), open_corpus(clean), np.random.default_rng(0)
    samples = int(REFERENCE_SECONDS * SAMPLE_RATE)
    metric.refer_to(torch.from_numpy(corpus.draw_speech(rng, samples)[0]) for _ in range(REFERENCES))
    metric.write(model)
    return metric


def held_out(data: dict[str, Any]) -> RatedSet:
    """The clips of a recipe's simulated validation set that chose no checkpoint."""
    _, clips = simulated_as_rated(data["train"]["root"], data["valid"]["root"])
    first, step = data["valid"]["part"]
    return RatedSet([clip for index, clip in enumerate(clips) if index % step != first])


def train_baseline(name: str, runs: Path, clean: str, changes: list[str]) -> dict[str, nn.Module]:
    """Do what is missing of a relative, and return its metrics by the names of their rows in the benchmarks."""
    checkpoints: list[Path] = []
    for stage, file in STAGES[name].items():
        recipe = read_stage(file, stage, changes, checkpoints[-1] if checkpoints else None)
        checkpoints.append(train_once(recipe, runs / name / stage))
    model = runs / name / "model"
    publish(checkpoints[-1], model, f"{name}-small")
    metrics: dict[str, nn.Module] = {name: read_folder(model)}
    if name == "scoreq_style":
        metrics[f"{name}_nmr"] = add_nonmatching(checkpoints[0], model, clean)
    rated = held_out(recipe["data"])
    for row, metric in metrics.items():
        found = evaluate(metric, rated)
        print(f"{row}: PCC {found['pcc']:.3f}, SRCC {found['srcc']:.3f} on {len(rated)} held-out simulated clips")
    return metrics


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.baselines`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(STAGES), metavar="NAME", help=f"default: {' '.join(STAGES)}")
    parser.add_argument("--runs", type=Path, default=RUNS, help="default: %(default)s")
    parser.add_argument("--clean", default="../shared/speech/train", help="the non-matching references")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="STAGE.KEY=VALUE", help="changes to the recipes"
    )
    args = parser.parse_args(arguments)
    unknown = set(args.names) - set(STAGES)
    if unknown:
        parser.error(f"no baseline {', '.join(sorted(unknown))}: expected {', '.join(STAGES)}")
    for name in args.names:
        train_baseline(name, args.runs, args.clean, args.set)


if __name__ == "__main__":
    main()
