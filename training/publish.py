"""Turn a checkpoint into a model folder that `load_model` reads. The one before stays loadable by its revision.

python -m training.publish runs/default/best.ckpt src/jsqa_metric/weights/default --revision 2027.01
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from jsqa_metric.hub import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, read_folder, write_folder
from training.checkpoints import read_model


def publish(checkpoint: Path, folder: Path, revision: str) -> None:
    """Write the model of a checkpoint under a revision's name, and read it back as users will.

    A model of another revision that is there moves into a folder of its revision, with its card.
    """
    model = read_model(checkpoint)
    model.config = replace(model.config, revision=revision)
    if (folder / CONFIG_NAME).exists():
        before = read_folder(folder).config.revision
        if before and before != revision:
            (folder / before).mkdir()
            for name in (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME):
                (folder / name).rename(folder / before / name)
    write_folder(model, folder)
    read_folder(folder)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.publish`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--revision", required=True, help="name of this set of weights")
    args = parser.parse_args(arguments)
    publish(args.checkpoint, args.folder, args.revision)


if __name__ == "__main__":
    main()
