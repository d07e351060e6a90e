"""Build a labelled set: simulate damaged clips and have the teachers judge them. Resumable.

    python -m training.build_set sets/train --speech ../shared/speech/train corpora/prompts \
        --noise ../shared/noise/train --rooms ../shared/rooms/[B-P]*.flac --clips 20000 --seed 1

The set is a folder of shards; each shard is a folder `NNNNN/` of FLAC clips with a `labels.csv`, written in one
go, so that an interrupted build goes on with the first shard that is missing. Clip i of a seed is always the
same, whatever the number of workers.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from tqdm import tqdm

from training.data.simulate import COUNT_PROBABILITIES, DEFAULT_KINDS, DEGRADATIONS, Simulator
from training.logs import keep_facts
from training.teachers import ALL_LABELS, Teachers

COLUMNS = ["file", "talker", "condition", "seconds", *ALL_LABELS, "parameters"]

_simulator: Simulator
_teachers: Teachers | None


def _start_worker(
    speech: Sequence[str], noise: str, rooms: Sequence[str], clean_share: float, kinds: Sequence[str], unlabelled: bool
) -> None:
    global _simulator, _teachers
    torch.set_num_threads(1)  # one process a core
    _simulator = Simulator(speech, noise, rooms, clean_share=clean_share, kinds=kinds)
    _teachers = None if unlabelled else Teachers()


def build_shard(shard: int, folder: Path, seed: int, size: int) -> int:
    """Simulate and label one shard, and move it to its place when it is whole."""
    final, temporary = folder / f"{shard:05d}", folder / f".{shard:05d}.{os.getpid()}"
    temporary.mkdir(parents=True)
    with (temporary / "labels.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        for index in range(shard * size, (shard + 1) * size):
            clip = _simulator.draw(seed, index)
            name = f"{index:07d}.flac"
            sf.write(temporary / name, np.clip(clip.degraded, -1, 1), clip.sample_rate, subtype="PCM_16")
            parameters = {k: round(v, 4) if isinstance(v, float) else v for k, v in clip.parameters.items()}
            condition = "+".join(clip.degradations) or "clean"
            labels = dict.fromkeys(ALL_LABELS, math.nan)
            if _teachers:
                labels = _teachers.label(clip.heard, clip.reference, condition)
            row = {
                "file": name,
                "talker": clip.talker,
                "condition": condition,
                "seconds": f"{len(clip.degraded) / clip.sample_rate:.2f}",
                "parameters": json.dumps(parameters),
            }
            writer.writerow(row | {name: f"{label:.4f}" for name, label in labels.items()})
    temporary.rename(final)
    return shard


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.build_set`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the set goes; an unfinished one is continued")
    parser.add_argument(
        "--speech", required=True, nargs="+", action="extend", help="folders of clean speech (with files.csv or plain)"
    )
    parser.add_argument("--noise", required=True, help="folder of noise recordings")
    parser.add_argument("--rooms", required=True, nargs="+", action="extend", help="files of room impulse responses")
    parser.add_argument("--clips", type=int, default=20000, help="rounded up to whole shards")
    parser.add_argument(
        "--clean-share",
        type=float,
        default=COUNT_PROBABILITIES[0],
        help="of undamaged clips (default: %(default)s)",
    )
    left_out = ", ".join(kind for kind in DEGRADATIONS if kind not in DEFAULT_KINDS)
    kinds = f"of damage (default: all but {left_out}; recipes/gan_codec.yaml trains gan_codec)"
    parser.add_argument("--kinds", nargs="+", choices=DEGRADATIONS, default=[*DEFAULT_KINDS], help=kinds)
    unlabelled = "ask no teachers: much faster, for clips that a model teaches or whose parameters tell the label"
    parser.add_argument("--unlabelled", action="store_true", help=unlabelled)
    parser.add_argument("--shard-clips", type=int, default=100, help="the same in every run of a set")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)

    names = ("speech", "noise", "rooms", "clean_share", "kinds", "shard_clips", "seed")
    codec = {"gan_codec": os.environ.get("JSQA_GAN_CODEC")} if "gan_codec" in args.kinds else {}
    facts = {name: getattr(args, name) for name in names} | codec
    keep_facts(args.folder / "set.json", facts | ({"unlabelled": True} if args.unlabelled else {}))
    for unfinished in args.folder.glob(".[0-9]*"):
        shutil.rmtree(unfinished)
    shards = range(-(-args.clips // args.shard_clips))
    missing = [s for s in shards if not (args.folder / f"{s:05d}").exists()]
    context = multiprocessing.get_context("spawn")
    settings = args.speech, args.noise, args.rooms, args.clean_share, args.kinds, args.unlabelled
    with context.Pool(args.workers, _start_worker, settings) as pool:
        build = partial(build_shard, folder=args.folder, seed=args.seed, size=args.shard_clips)
        for _ in tqdm(pool.imap_unordered(build, missing), total=len(shards), initial=len(shards) - len(missing)):
            pass


if __name__ == "__main__":
    main()
