"""Add the labels to a set that there were none of when it was built. Resumable.

    python -m training.add_labels sets/fullband --speech ../shared/speech/train corpora/prompts --seed 3 --same-voices

These are Distill-MOS's label of the clean reference, and those of the teachers for codecs where speech was
resynthesised. The references are drawn again as the build drew them.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from training.data.corpus import Corpus, read_audio
from training.data.simulate import draw_reference
from training.teachers import CODEC_DAMAGE, CODEC_TEACHERS, REFERENCE_LABEL, TEACHERS, Teachers

_speech: Corpus
_teachers: Teachers


def _start_worker(speech: Sequence[str]) -> None:
    global _speech, _teachers
    torch.set_num_threads(1)  # one process a core
    _speech, _teachers = Corpus.from_folders(speech), Teachers()


def label_shard(index: Path, seed: int, vary_voices: bool) -> None:
    """Rewrite one `labels.csv` with the new columns, in one go."""
    with index.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    if all(row.get(teacher) == "nan" for row in rows for teacher in TEACHERS):
        raise ValueError(f"{index} was built with --unlabelled: build the set anew without it")
    if {REFERENCE_LABEL, *CODEC_TEACHERS} <= set(rows[0]):
        return
    for row in rows:
        kinds = set(row["condition"].split("+"))
        resynthesised = "neural_codec" in kinds and kinds <= CODEC_DAMAGE
        if REFERENCE_LABEL in row and not resynthesised:
            row |= dict.fromkeys(CODEC_TEACHERS, "nan")
            continue
        rng = np.random.default_rng([seed, int(Path(row["file"]).stem)])
        reference, talker = draw_reference(_speech, rng, vary_voices=vary_voices)
        if talker != row["talker"]:
            raise ValueError(
                f"{index.parent / row['file']} has talker {row['talker']}, drawn was {talker}: same speech?"
            )
        if REFERENCE_LABEL not in row:
            row[REFERENCE_LABEL] = f"{_teachers.distillmos(reference):.4f}"
        labels = dict.fromkeys(CODEC_TEACHERS, math.nan)
        if resynthesised:
            degraded = read_audio(index.parent / row["file"])[: len(reference)]
            labels = _teachers.codec_labels(degraded, reference[: len(degraded)], row["condition"])
        row |= {name: f"{label:.4f}" for name, label in labels.items()}
    temporary = index.with_suffix(".tmp")
    with temporary.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(index)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.add_labels`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--speech", required=True, nargs="+", action="extend", help="as the set was built")
    parser.add_argument("--seed", type=int, required=True, help="as the set was built")
    parser.add_argument("--same-voices", action="store_true", help="for sets from before voices were varied")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)
    shards = sorted(args.folder.glob("[0-9]*/labels.csv"))
    label = partial(label_shard, seed=args.seed, vary_voices=not args.same_voices)
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.workers, _start_worker, (args.speech,)) as pool:
        for _ in tqdm(pool.imap_unordered(label, shards), total=len(shards)):
            pass


if __name__ == "__main__":
    main()
