"""Turn a checkpoint into a model folder that `load_model` reads. The one before stays loadable by its revision.

python -m training.publish runs/default/best.ckpt src/jsqa_metric/weights/default --revision 2027.01

With `--mean-with`, what is published is the mean of the checkpoint's weights and those of another model, from which the
run has started: what fine-tuning learned holds, and what it forgot comes back in part (Wortsman et al. 2022).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from jsqa_metric import JSQAModel
from jsqa_metric.hub import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, read_folder, write_folder
from training.checkpoints import read_model


def take_mean(model: JSQAModel, other: JSQAModel) -> None:
    """Set the weights of `model` to the mean of its own and those of `other`.

    Raises:
        ValueError: If the two do not have the same weights.
    """
    own, others = model.state_dict(), other.state_dict()
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in others.items()}:
        raise ValueError(f"the mean is of two of a kind, but one is another model: {model.config}, {other.config}")
    model.load_state_dict({k: (v.double() + others[k].double()).div(2).to(v.dtype) for k, v in own.items()})


def publish(checkpoint: Path, folder: Path, revision: str, mean_with: Path | None = None) -> None:
    """Write the model of a checkpoint under a revision's name, and read it back as users will.

    A model of another revision that is there moves into a folder of its revision, with its card. With `mean_with`, a
    folder of a model, the mean of both models' weights is written.
    The weights are rounded to half precision, so that the package holds twice as many; networks compute with these in
    single precision.
    """
    model = read_model(checkpoint)
    if mean_with:
        take_mean(model, read_folder(mean_with))
    model.config = replace(model.config, revision=revision)
    if (folder / CONFIG_NAME).exists():
        before = read_folder(folder).config.revision
        if before and before != revision:
            (folder / before).mkdir()
            for name in (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME):
                (folder / name).rename(folder / before / name)
    write_folder(model.half(), folder)
    read_folder(folder)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.publish`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--revision", required=True, help="name of this set of weights")
    parser.add_argument("--mean-with", type=Path, metavar="FOLDER", help="publish the mean with this model's weights")
    args = parser.parse_args(arguments)
    publish(args.checkpoint, args.folder, args.revision, args.mean_with)


if __name__ == "__main__":
    main()
