"""Labelled sets, the shards that `training.build_set` writes, as a Lightning data module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import soundfile as sf
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from jsqa_metric import JSQAModel, load_model
from jsqa_metric.audio import resample
from jsqa_metric.level import gain_to, level_share
from jsqa_metric.model import DIMENSIONS, LOG_STD
from training.data.calibration import CLEAN_MOS, DIMENSION_COLUMNS, DOUBT, Calibration
from training.data.labels import HELD_OUT_KINDS, LabelledClip, read_sets
from training.data.loading import training_loader
from training.teachers import TEACHERS

FAINTEST_DB = -45.0
"""Below this level in dBFS there is hardly a clip in the training sets (`floor_db` of the recipes)."""
TASKS = (*TEACHERS, *DIMENSIONS, LOG_STD)
"""What a model learns beside the MOS: all the targets after it."""
LOUDNESS = DIMENSION_COLUMNS.start + DIMENSIONS.index("loudness")


class LabelledSet(Dataset[tuple[Tensor, Tensor]]):
    """Clips in memory (int16, at the rate of the model) with their targets, for a model that hears up to `top_hz`.

    With `level_db`, all come at this active level, as `score` brings them to a network that hears no other, and their
    targets are those of clips that have it.
    With `gain_db`, a clip is louder or fainter by up to so much each time, and its targets say so; it never clips, and
    none gets fainter than the faintest of the training sets.
    """

    def __init__(
        self,
        clips: Sequence[LabelledClip],
        calibration: Calibration,
        sample_rate: int,
        top_hz: float | None = None,
        gain_db: float = 0.0,
        level_db: float = 0.0,
    ) -> None:
        if level_db:
            clips = [replace(clip, level_db=level_db) for clip in clips]
        self.targets = torch.from_numpy(calibration.targets(clips, sample_rate / 2 if top_hz is None else top_hz))
        self.audio, self.sample_rate = [self._read(clip.path, sample_rate) for clip in clips], sample_rate
        self.levels_db, self.level_db, self.gain_db = [clip.level_db for clip in clips], level_db, gain_db
        self.factors = [gain_to(level_db, [a.float() / 32768], sample_rate) if level_db else 1 for a in self.audio]

    @staticmethod
    def _read(path: Path, sample_rate: int) -> Tensor:
        audio, rate = sf.read(path, dtype="float32")
        resampled = resample(torch.from_numpy(audio)[None], rate, sample_rate)[0]
        return (resampled * 32768).round().clamp(-32768, 32767).to(torch.int16)

    def __len__(self) -> int:
        return len(self.audio)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        audio, targets = self.signal(index), self.targets[index]
        return self._at_another_level(audio, targets, self.levels_db[index]) if self.gain_db else (audio, targets)

    def signal(self, index: int) -> Tensor:
        """A clip `(samples,)` as it comes to the network, but for `gain_db`."""
        return self.audio[index].float() * (self.factors[index] / 32768)

    def _at_another_level(self, audio: Tensor, targets: Tensor, level_db: float) -> tuple[Tensor, Tensor]:
        low = max(-self.gain_db, min(0.0, FAINTEST_DB - level_db))
        high = max(0.0, min(self.gain_db, -20 * float(torch.log10(audio.abs().max() + 1e-6))))
        gain_db = low + (high - low) * torch.rand(())
        before, after = level_share(torch.tensor([level_db, level_db + gain_db]))
        targets = targets.clone()
        targets[0] = 1 + (targets[0] - 1) * after / before
        targets[LOUDNESS] = (CLEAN_MOS - 1) * after - 2  # the tasks are MOS less 3
        targets[DOUBT] *= after / before
        return audio * 10 ** (gain_db / 20), targets


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


def check_limit(limit: int, clips: int) -> None:
    """Check that there are as many clips as are asked for.

    Raises:
        ValueError: If there are fewer: what is reported of the run would be of another amount of data.
    """
    if limit > clips:
        raise ValueError(f"`limit` is {limit}, but there are {clips} training clips")


def check_teaching(models: Sequence[JSQAModel], sample_rate: int, level_db: float) -> None:
    """Check that models can teach what clips of a rate in Hz and at a level in dBFS (0 for any) are to be predicted as.

    Raises:
        ValueError: If a model works at another rate or level, or does not predict all of the targets.
    """
    for model in models:
        if model.config.tasks != TASKS or model.sample_rate != sample_rate:
            wanted = f"{', '.join(TASKS)} at {sample_rate} Hz"
            raise ValueError(f"a model that teaches must predict {wanted}, not {model.config}")
        if model.config.level_db not in (0, level_db):
            raise ValueError(f"a model that hears {model.config.level_db} dBFS cannot teach clips at other levels")


def predicted_targets(models: Sequence[JSQAModel], wav: Tensor, lengths: Tensor | None = None) -> Tensor:
    """What models predict on average, in the place of targets `(batch, targets)`; arguments as for `JSQAModel.embed`.

    In the place of how much teachers differ is the standard deviation that the models expect of their errors.
    """
    predicted = [model.predict(wav, lengths) for model in models]
    return torch.stack([torch.cat([mos[:, None], t[:, :-1], t[:, -1:].exp()], 1) for mos, t in predicted]).mean(0)


@torch.inference_mode()
def teach(clips: LabelledSet, models: Sequence[JSQAModel], shares: Sequence[float]) -> None:
    """Mix what models predict on average into the clips' targets; those that are not known are what they predict.

    How far the labels are from what is taught is added to how much the teachers differ: both are errors to expect.
    Where no two teachers were asked, it is what the models expect of theirs.

    Args:
        clips: What to teach.
        models: Who teaches.
        shares: Of each clip, how much of its targets is what the models predict.

    Raises:
        ValueError: If a model works at another rate or level, or does not predict all of the targets.
    """
    check_teaching(models, clips.sample_rate, clips.level_db)
    for index, targets in enumerate(tqdm(clips.targets, "taught", leave=False)):
        taught = predicted_targets(models, clips.signal(index)[None])[0]
        labels, doubt = targets[:DOUBT].clone(), targets[DOUBT].clone()
        targets[:DOUBT] = torch.where(labels.isnan(), taught[:DOUBT], torch.lerp(labels, taught[:DOUBT], shares[index]))
        doubt = (doubt.square() + (targets[0] - labels[0]).square()).sqrt()
        targets[DOUBT] = torch.where(doubt.isnan(), taught[DOUBT], doubt)


def taught_share(clip: LabelledClip, beside_labels: float, gaps: bool) -> float:
    """How much of a clip's targets is what models predict: all of it where it has no labels.

    With `gaps`, nothing of clips with silent stretches is: models from before may not know what these cost.
    """
    if gaps and clip.silent_percent:
        return 0.0
    return beside_labels if clip.judged else 1.0


def calibrate(clips: Sequence[LabelledClip], data: Mapping[str, Any]) -> Calibration:
    """The calibration that a recipe with this `data` fits to its training set."""
    settings = ("by_damage", "by_reference", "recording", "own", "narrowband", "dnsmos", "gaps")
    return Calibration.fit(clips, **{name: data[name] for name in settings if name in data})


class LabelledData(lightning.LightningDataModule):
    """A training and a validation set, both scaled by the training set's calibration.

    Args:
        train: Folders of the training sets.
        valid: Folders of the validation sets, of other talkers, noises and rooms, with labels.
        sample_rate: Rate that the clips are brought to, in Hz: that of the model.
        batch_size: Clips in a batch.
        limit: Use only so many training clips, from all sets (0: all), for experiments.
        by_damage: See `Calibration.fit`.
        by_reference: See `Calibration.fit`.
        recording: See `Calibration.fit`.
        own: See `Calibration.fit`.
        narrowband: See `Calibration.fit`.
        dnsmos: See `Calibration.fit`.
        gaps: See `Calibration.fit`.
        taught_by: For each model that teaches (`teach`), the arguments of `load_model`; with `gain_db`, the levels'
            formula changes what they say, too, and gives the loudness.
        taught: The share of the targets that these models have where there are labels; where there are none they have
            all, and of clips with silent stretches nothing with `gaps` (`taught_share`).
        level_db: See `LabelledSet`; what the model's configuration says.
        gain_db: See `LabelledSet`; for training only.
        whole: Batches are of clips of like length, so that little is cropped; otherwise each is cropped to
            the shortest of those that chance brought together.
        seed: Of the order of the clips.
    """

    def __init__(
        self,
        train: Sequence[str],
        valid: Sequence[str],
        sample_rate: int,
        batch_size: int = 32,
        limit: int = 0,
        by_damage: bool = True,
        by_reference: bool = True,
        recording: float = 0.0,
        own: float = 1.0,
        narrowband: bool = False,
        dnsmos: bool = False,
        gaps: bool = False,
        taught_by: Sequence[Mapping[str, Any]] = (),
        taught: float = 1.0,
        level_db: float = 0.0,
        gain_db: float = 0.0,
        whole: bool = False,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.gain_db, self.level_db, self.whole = gain_db, level_db, whole
        self.taught_by, self.taught = taught_by, taught
        self.folders, self.sample_rate = (train, valid), sample_rate
        self.labels = {"by_damage": by_damage, "by_reference": by_reference, "recording": recording, "own": own}
        self.labels |= {"narrowband": narrowband, "dnsmos": dnsmos, "gaps": gaps}
        self.batch_size, self.limit, self.seed = batch_size, limit, seed

    def setup(self, stage: str) -> None:
        """Read both sets.

        Raises:
            ValueError: If there is damage in the training set that is kept for validation.
        """
        train, valid = read_sets(self.folders[0]), read_sets(self.folders[1], judged=True)
        if any(not set(HELD_OUT_KINDS).isdisjoint(clip.kinds) for clip in train):
            raise ValueError(f"training sets with {', '.join(HELD_OUT_KINDS)}: such damage is for validation only")
        if self.limit:
            check_limit(self.limit, len(train))
            train = [train[i] for i in np.random.default_rng(0).permutation(len(train))[: self.limit]]
        calibration = calibrate(train, self.labels)
        self.train_set = LabelledSet(train, calibration, self.sample_rate, gain_db=self.gain_db, level_db=self.level_db)
        self.valid_set = LabelledSet(valid, calibration, self.sample_rate, level_db=self.level_db)
        if self.taught_by and stage == "fit":
            models = [load_model(**arguments) for arguments in self.taught_by]
            teach(
                self.train_set, models, [taught_share(clip, self.taught, bool(self.labels["gaps"])) for clip in train]
            )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches, cropped to one length."""
        assert self.trainer is not None
        lengths = torch.tensor([len(audio) for audio in self.train_set.audio]) if self.whole else None
        return training_loader(
            self.train_set, self.trainer, self.batch_size, collate_cropped, self.seed, lengths=lengths
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches in order."""
        own = torch.Generator().manual_seed(0)  # leaves the global one alone
        return DataLoader(self.valid_set, self.batch_size, collate_fn=collate, generator=own)
