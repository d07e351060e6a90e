"""Add Distill-MOS's label of the clean references to a set that was built before there was one. Resumable.

    python -m training.label_references sets/fullband --speech ../shared/speech/train corpora/prompts --seed 3

The references are drawn again as the build drew them, which is without variation of the voices.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from training.data.corpus import Corpus
from training.data.simulate import draw_reference
from training.teachers import REFERENCE_LABEL, Teachers

_speech: Corpus
_teachers: Teachers


def _start_worker(speech: Sequence[str]) -> None:
    global _speech, _teachers
    torch.set_num_threads(1)  # one process a core
    _speech, _teachers = Corpus.from_folders(speech), Teachers()


def label_shard(index: Path, seed: int) -> None:
    """Rewrite one `labels.csv` with the new column, in one go."""
    with index.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    if REFERENCE_LABEL in rows[0]:
        return
    for row in rows:
        rng = np.random.default_rng([seed, int(Path(row["file"]).stem)])
        reference, talker = draw_reference(_speech, rng, vary_voices=False)
        if talker != row["talker"]:
            raise ValueError(
                f"{index.parent / row['file']} has talker {row['talker']}, drawn was {talker}: same speech?"
            )
        row[REFERENCE_LABEL] = f"{_teachers.distillmos(reference):.4f}"
    temporary = index.with_suffix(".tmp")
    with temporary.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(index)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.label_references`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--speech", required=True, nargs="+", help="as the set was built")
    parser.add_argument("--seed", type=int, required=True, help="as the set was built")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)
    shards = sorted(args.folder.glob("[0-9]*/labels.csv"))
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.workers, _start_worker, (args.speech,)) as pool:
        for _ in tqdm(pool.imap_unordered(partial(label_shard, seed=args.seed), shards), total=len(shards)):
            pass


if __name__ == "__main__":
    main()
