"""Write a corpus of JND pairs, and the paper's Figure 4 of it. Resumable.

    python -m training.jnd_corpus corpora/jnd --speech ../shared/speech/train --noise ../shared/noise/train \
        --pairs 10000 --figure corpora/figure4

The corpus is a folder of shards; each is a folder `NNNNN/` of FLAC files with a manifest `pairs.csv`, written in
one go, so an interrupted run goes on with the first shard that is missing. Pair i of a seed is always the same,
whatever the number of workers. `--speech` and `--noise` are folders or YAML, as for `open_corpus`:
`--speech '{layout: librispeech, root: /data/LibriSpeech, splits: [train-clean-100]}'`.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from training.data.corpus import SAMPLE_RATE
from training.data.jnd_pairs import MANIFEST, WINDOW_DB, JndPairs, draw_snrs, read_manifest
from training.data.readers import open_corpus
from training.logs import keep_facts

COLUMNS = ["pair", "first", "second", "first_snr_db", "second_snr_db", "talker", "speech", "noise", "seconds"]


def write_shard(shard: int, folder: Path, pairs: JndPairs, seed: int, size: int, count: int) -> int:
    """Write one shard of a corpus of `count` pairs, and move it to its place when it is whole."""
    final, temporary = folder / f"{shard:05d}", folder / f".{shard:05d}.{os.getpid()}"
    temporary.mkdir(parents=True)
    with (temporary / MANIFEST).open("w", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        for index in range(shard * size, min((shard + 1) * size, count)):
            pair = pairs.draw(seed, index)
            row: dict[str, object] = {"pair": index, "talker": pair.talker}
            row |= {"speech": pair.speech.name, "noise": pair.noise.name}
            for name, signal, snr_db in zip(("first", "second"), (pair.first, pair.second), pair.snrs_db, strict=True):
                row |= {name: f"{index:07d}_{name}.flac", f"{name}_snr_db": f"{snr_db:.4f}"}
                sf.write(temporary / str(row[name]), signal, SAMPLE_RATE, subtype="PCM_16")
            writer.writerow(row | {"seconds": f"{len(pair.first) / SAMPLE_RATE:.2f}"})
    temporary.rename(final)
    return shard


def _is_whole(shard: Path, pairs: int) -> bool:
    manifest = shard / MANIFEST
    return manifest.exists() and len(manifest.read_text().splitlines()) > pairs  # with its head


def write_corpus(folder: Path, pairs: JndPairs, count: int, seed: int = 1, size: int = 500, workers: int = 1) -> None:
    """Write the shards that are missing, and those that were cut short by a smaller `count`."""
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(".[0-9]*"):
        shutil.rmtree(unfinished)
    shards = range(-(-count // size))
    missing = [s for s in shards if not _is_whole(folder / f"{s:05d}", min(size, count - s * size))]
    for shard in missing:
        shutil.rmtree(folder / f"{shard:05d}", ignore_errors=True)
    write = partial(write_shard, folder=folder, pairs=pairs, seed=seed, size=size, count=count)
    progress = tqdm(total=len(shards), initial=len(shards) - len(missing), desc="shards")
    if workers == 1:
        for shard in missing:
            write(shard)
            progress.update()
    else:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for _ in pool.imap_unordered(write, missing):
                progress.update()
    progress.close()


def plot_figure4(deltas: NDArray[np.float64], out: Path) -> None:
    """Histogram of |ΔSNR| with the triangular density that it has to have, and its numbers as Markdown."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from training.report import provenance, this_command

    figure, axis = plt.subplots(figsize=(6, 3.5))
    axis.hist(deltas, bins=60, range=(0, WINDOW_DB), density=True, alpha=0.6, label=f"{len(deltas)} pairs")
    at = np.array([0.0, WINDOW_DB])
    axis.plot(at, 2 * (WINDOW_DB - at) / WINDOW_DB**2, "k--", label="two uniform draws from 6 dB")
    axis.axvline(deltas.mean(), color="C3", label=f"mean {deltas.mean():.2f} dB")
    axis.set(xlabel="|ΔSNR| in dB", ylabel="density")
    axis.legend()
    figure.tight_layout()
    figure.savefig(out.with_suffix(".png"), dpi=110)
    plt.close(figure)
    quantiles = np.quantile(deltas, [0.25, 0.5, 0.75, 0.95])
    text = (
        "# Figure 4: differences in SNR of the JND pairs\n\n"
        f"{provenance(this_command())}\n\n"
        "| pairs | mean | quartiles and 95 % | largest | above 6 dB |\n|---|---|---|---|---|\n"
        f"| {len(deltas)} | {deltas.mean():.3f} dB | {', '.join(f'{q:.2f}' for q in quantiles)} dB | "
        f"{deltas.max():.3f} dB | {int((deltas > WINDOW_DB).sum())} |\n\n"
        "The paper: mean about 2.0 dB, nothing above 6 dB.\n\n"
        f"![Figure 4]({out.with_suffix('.png').name})\n"
    )
    out.with_suffix(".md").write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.jnd_corpus`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the corpus goes; without it, only the figure")
    parser.add_argument("--speech", help="clean speech: a folder, or YAML with a layout")
    parser.add_argument("--noise", help="noise: a folder, or YAML with a layout")
    parser.add_argument("--pairs", type=int, default=10000)
    parser.add_argument("--seconds", type=float, nargs=2, default=(4.0, 4.0), help="shortest and longest pair")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shard-pairs", type=int, default=500, help="the same in every run of a corpus")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--figure", type=Path, help="path of the figure and its numbers, without a suffix")
    args = parser.parse_args(arguments)

    if args.folder:
        if not (args.speech and args.noise):
            parser.error("a corpus needs --speech and --noise")
        speech, noise = (open_corpus(yaml.safe_load(source)) for source in (args.speech, args.noise))
        pairs = JndPairs(speech, noise, tuple(args.seconds))
        names = ("speech", "noise", "seconds", "seed", "shard_pairs")
        keep_facts(args.folder / "corpus.json", {name: getattr(args, name) for name in names})
        write_corpus(args.folder, pairs, args.pairs, args.seed, args.shard_pairs, args.workers)
    if args.figure:
        if args.folder:
            rows = read_manifest(args.folder)
            snrs = np.array([(float(r["first_snr_db"]), float(r["second_snr_db"])) for r in rows])
        else:
            rng = np.random.default_rng(args.seed)
            snrs = np.array([draw_snrs(rng) for _ in range(args.pairs)])
        plot_figure4(np.abs(snrs[:, 0] - snrs[:, 1]), args.figure)


if __name__ == "__main__":
    main()
