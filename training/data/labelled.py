"""Labelled sets: the shards that `training.build_set` writes, as targets and as a Lightning data module."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import soundfile as sf
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from training.data.loading import training_loader
from training.teachers import TEACHERS

CLEAN_MOS = 4.6
"""Where undamaged speech lies on our scale: what listeners give clean references on average."""
NOT_FOR_PESQ = ("vocoder",)
"""Damage outside the scope of P.862: PESQ compares waveforms, so it does not teach resynthesised speech."""

Labels = NDArray[np.float32]
"""`(clips, teachers)` in the order of `TEACHERS`, NaN where a teacher could not judge."""


@dataclass(frozen=True)
class LabelledClip:
    """A clip of a set: where it lies, which damage it has, and the teachers' labels."""

    path: Path
    condition: str
    labels: tuple[float, ...]


def read_set(folder: str | Path) -> list[LabelledClip]:
    """All finished shards of a set.

    Raises:
        FileNotFoundError: If there are none.
    """
    clips = []
    for index in sorted(Path(folder).glob("[0-9]*/labels.csv")):
        with index.open(newline="") as handle:
            for row in csv.DictReader(handle):
                labels = tuple(float(row[t]) for t in TEACHERS)
                clips.append(LabelledClip(index.parent / row["file"], row["condition"], labels))
    if not clips:
        raise FileNotFoundError(f"no labelled shards in {folder}: build a set with `python -m training.build_set`")
    return clips


@dataclass(frozen=True)
class Calibration:
    """Mean and spread of each teacher on the training set, and how their mixture becomes a MOS.

    The mixture is the mean of standardised PESQ and Distill-MOS (each alone where the other has no say), mapped
    linearly so that undamaged speech is at `CLEAN_MOS` and what both find worst is at 1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    clean: float
    worst: float

    @classmethod
    def fit(cls, clips: Sequence[LabelledClip]) -> Calibration:
        """Fit to a training set."""
        labels = np.array([c.labels for c in clips])
        mean, std = np.nanmean(labels, axis=0), np.nanstd(labels, axis=0)
        mixture = _mixture((labels - mean) / std, clips)
        undamaged = mixture[[c.condition == "clean" for c in clips]]
        clean = np.nanmean(undamaged) if undamaged.size else np.nanmax(mixture)  # a tiny set may have none
        return cls(tuple(mean), tuple(std), float(clean), float(np.nanquantile(mixture, 0.002)))

    def targets(self, clips: Sequence[LabelledClip]) -> Labels:
        """`(clips, 1 + teachers)`: the MOS, then the standardised labels."""
        standardised = (np.array([c.labels for c in clips]) - self.mean) / self.std
        unit = (_mixture(standardised, clips) - self.worst) / (self.clean - self.worst)
        mos = np.clip(1 + unit * (CLEAN_MOS - 1), 1, 5)
        return np.column_stack([mos, standardised]).astype(np.float32)


def _mixture(standardised: NDArray[np.float64], clips: Sequence[LabelledClip]) -> NDArray[np.float64]:
    pesq = standardised[:, TEACHERS.index("pesq")].copy()
    pesq[[any(name in c.condition for name in NOT_FOR_PESQ) for c in clips]] = np.nan
    return np.nanmean(np.column_stack([pesq, standardised[:, TEACHERS.index("distillmos")]]), axis=1)


class LabelledSet(Dataset[tuple[Tensor, Tensor]]):
    """Clips in memory (int16) with their targets."""

    def __init__(self, clips: Sequence[LabelledClip], calibration: Calibration) -> None:
        self.targets = torch.from_numpy(calibration.targets(clips))
        self.audio = [torch.from_numpy(sf.read(c.path, dtype="int16")[0]) for c in clips]

    def __len__(self) -> int:
        return len(self.audio)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.audio[index].float() / 32768, self.targets[index]


def collate(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Pad clips to one batch: waveforms `(batch, samples)`, lengths `(batch,)`, targets `(batch, targets)`."""
    signals, targets = zip(*items, strict=True)
    lengths = torch.tensor([len(s) for s in signals])
    return pad_sequence(list(signals), batch_first=True), lengths, torch.stack(targets)


def collate_cropped(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """For training: crop each clip, at a random place, to the shortest of the batch, so that nothing is padded."""
    shortest = min(len(signal) for signal, _ in items)
    starts = [int(torch.randint(len(signal) - shortest + 1, ())) for signal, _ in items]
    return collate([(signal[i : i + shortest], target) for i, (signal, target) in zip(starts, items, strict=True)])


class LabelledData(lightning.LightningDataModule):
    """A training and a validation set, both scaled by the training set's calibration.

    Args:
        train: Folder of the training set.
        valid: Folder of the validation set, of other talkers, noises and rooms.
        batch_size: Clips in a batch.
        limit: Use only the first so many training clips (0: all), for experiments on the amount of data.
        seed: Of the order of the clips.
    """

    def __init__(self, train: str, valid: str, batch_size: int = 32, limit: int = 0, seed: int = 1) -> None:
        super().__init__()
        self.folders, self.batch_size, self.limit, self.seed = (train, valid), batch_size, limit, seed

    def setup(self, stage: str) -> None:
        """Read both sets."""
        train, valid = (read_set(folder) for folder in self.folders)
        train = train[: self.limit or None]
        calibration = Calibration.fit(train)
        self.train_set, self.valid_set = LabelledSet(train, calibration), LabelledSet(valid, calibration)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches, cropped to one length."""
        assert self.trainer is not None
        return training_loader(self.train_set, self.trainer, self.batch_size, collate_cropped, self.seed)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches in order."""
        own = torch.Generator().manual_seed(0)  # leaves the global one alone
        return DataLoader(self.valid_set, self.batch_size, collate_fn=collate, generator=own)
