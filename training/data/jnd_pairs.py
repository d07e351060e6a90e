"""JND pairs: one clean utterance and one noise, mixed twice at SNRs so close that few people hear a difference.

Both SNRs are drawn uniformly from a window of 6 dB that lies anywhere inside -3..9 dB, so |ΔSNR| has a triangular
density that falls to 0 at 6 dB, with a mean of 2 dB. The noise is scaled, the speech kept.

Source: Fan and Williamson 2025 (JSQA), section 2.1.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch import Tensor
from torch.utils.data import Dataset

from training.data.corpus import SAMPLE_RATE, Corpus, Signal, at_snr, until_active

SNR_RANGE_DB = (-3.0, 9.0)
WINDOW_DB = 6.0
MANIFEST = "pairs.csv"
PEAK = 0.99
"""Full scale of a mixture; a pair that exceeds it is turned down, both signals alike."""


def draw_snrs(rng: np.random.Generator) -> tuple[float, float]:
    """Two SNRs in dB from one window of `WINDOW_DB` inside `SNR_RANGE_DB`."""
    low = rng.uniform(SNR_RANGE_DB[0], SNR_RANGE_DB[1] - WINDOW_DB)
    first, second = rng.uniform(low, low + WINDOW_DB, 2)
    return float(first), float(second)


@dataclass(frozen=True)
class JndPair:
    """Two mixtures of the same speech and noise, the SNR of each in dB, and the files that were drawn for them.

    Speech that one file is too short for goes on with others of the same talker.
    """

    first: Signal
    second: Signal
    snrs_db: tuple[float, float]
    talker: str
    speech: Path
    noise: Path


@dataclass(frozen=True)
class JndPairs:
    """Draws JND pairs; pair `index` of a seed is always the same one.

    Args:
        speech: Clean speech.
        noise: Noise recordings.
        seconds: Shortest and longest utterance.
    """

    speech: Corpus
    noise: Corpus
    seconds: tuple[float, float] = (4.0, 4.0)

    def draw(self, seed: int, index: int) -> JndPair:
        """Pair number `index`."""
        rng = np.random.default_rng([seed, index])
        samples = int(rng.uniform(*self.seconds) * SAMPLE_RATE)
        clean, entry = until_active(lambda: self.speech.draw_speech(rng, samples))
        noise, recording = self.noise.draw_noise(rng, samples)
        snrs = draw_snrs(rng)
        first, second = (clean + at_snr(clean, noise, snr) for snr in snrs)
        scale = min(1.0, PEAK / max(float(np.abs(first).max()), float(np.abs(second).max())))
        first, second = first * np.float32(scale), second * np.float32(scale)
        return JndPair(first, second, snrs, entry.group, entry.path, recording.path)


class DrawnPairs(Dataset[Tensor]):
    """Pairs drawn on the fly, `(2, samples)` each.

    The seed and the index say everything about a pair, so pairs do not depend on the number of workers or processes.
    No pair comes twice: a sampler may go on counting from epoch to epoch, as that of `training.data.loading`; with any
    other, call `set_epoch` before each epoch (and no `persistent_workers`, which would not hear of it).

    Args:
        pairs: Where they come from.
        seed: Of the endless list of pairs.
        size: How many pairs count as one epoch.
    """

    def __init__(self, pairs: JndPairs, seed: int, size: int) -> None:
        self.pairs, self.seed, self.size, self.epoch = pairs, seed, size, 0

    def set_epoch(self, epoch: int) -> None:
        """Index 0 is now the first pair of that epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Tensor:
        pair = self.pairs.draw(self.seed, self.epoch * self.size + index)
        return torch.from_numpy(np.stack([pair.first, pair.second]))


class WrittenPairs(Dataset[Tensor]):
    """A corpus of pairs that `training.jnd_corpus` wrote, `(2, samples)` each.

    Raises:
        FileNotFoundError: If the folder has no finished shard.
    """

    def __init__(self, folder: str | Path) -> None:
        self.rows = read_manifest(folder)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        row = self.rows[index % len(self.rows)]
        return torch.from_numpy(np.stack([sf.read(row[name], dtype="float32")[0] for name in ("first", "second")]))


def read_manifest(folder: str | Path) -> list[dict[str, str]]:
    """Rows of all finished shards of a written corpus, their files as full paths.

    Raises:
        FileNotFoundError: If there are none.
    """
    rows = []
    for manifest in sorted(Path(folder).glob(f"[0-9]*/{MANIFEST}")):
        with manifest.open(newline="") as handle:
            for row in csv.DictReader(handle):
                rows.append(row | {name: str(manifest.parent / row[name]) for name in ("first", "second")})
    if not rows:
        raise FileNotFoundError(f"no shards of JND pairs in {folder}: write them with `python -m training.jnd_corpus`")
    return rows


def collate_pairs(items: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Waveforms `(2 * pairs, samples)` and lengths: all first signals, then all second ones, cut to the shortest."""
    shortest = min(item.shape[1] for item in items)
    stacked = torch.stack([item[:, :shortest] for item in items])
    wav = stacked.transpose(0, 1).flatten(0, 1)
    return wav, torch.full((len(wav),), shortest)
