"""Lightning data modules: JND pairs for pretraining, rated clips for fine-tuning and contrastive regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.data.calibration import Calibration
from training.data.corpus import SAMPLE_RATE, Corpus, Entry, Signal, active_rms, read_audio, until_active
from training.data.jnd_pairs import DrawnPairs, JndPairs, WrittenPairs, collate_pairs
from training.data.labelled import check_limit, collate, collate_cropped
from training.data.labels import read_set
from training.data.loading import training_loader
from training.data.readers import RatedClip, open_corpus, open_rated
from training.data.voices import change_speed, draw_speed

Source = str | Mapping[str, Any]


class JndPairData(lightning.LightningDataModule):
    """JND pairs, drawn on the fly or from a written corpus.

    Args:
        speech: Clean speech, as for `open_corpus`.
        noise: Noise, as for `open_corpus`.
        written: Folder of a corpus that `training.jnd_corpus` wrote, instead of the two.
        seconds: Shortest and longest utterance.
        pairs_per_epoch: Where pairs are drawn, how many count as an epoch.
        batch_size: Pairs in a batch of one process; a batch has twice as many signals.
        workers: Processes that draw pairs.
        seed: Of the pairs.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        speech: Source | None = None,
        noise: Source | None = None,
        written: str | None = None,
        seconds: tuple[float, float] = (4.0, 4.0),
        pairs_per_epoch: int = 2000,
        batch_size: int = 8,
        workers: int = 0,
        seed: int = 1,
    ) -> None:
        super().__init__()
        if (written is None) != (speech is not None and noise is not None):
            raise ValueError("give either `speech` and `noise`, or `written`")
        shortest, longest = seconds
        self.speech, self.noise, self.written, self.seconds = speech, noise, written, (shortest, longest)
        self.pairs_per_epoch, self.batch_size, self.workers, self.seed = pairs_per_epoch, batch_size, workers, seed

    def setup(self, stage: str) -> None:
        """Find the recordings."""
        self.train_set: Dataset[Tensor]
        if self.written is not None:
            self.train_set = WrittenPairs(self.written)
        else:
            assert self.speech is not None
            assert self.noise is not None
            pairs = JndPairs(open_corpus(self.speech), open_corpus(self.noise), self.seconds)
            self.train_set = DrawnPairs(pairs, self.seed, self.pairs_per_epoch)

    def train_dataloader(self) -> DataLoader[Any]:
        """Pairs that never come again, or the written ones shuffled."""
        assert self.trainer is not None
        endless = self.written is None
        return training_loader(
            self.train_set, self.trainer, self.batch_size, collate_pairs, self.seed, endless, self.workers
        )


def _read_compact(path: Path) -> NDArray[np.int16]:
    """A file at `SAMPLE_RATE`, full scale 32768: half the memory of floats."""
    return np.clip(read_audio(path) * 32768, -32768, 32767).astype(np.int16)


class Excerpts(Dataset[Tensor]):
    """Excerpts of clean speech, another place, voice and level each time; there is no last one.

    Args:
        corpus: Recordings, kept in memory (int16) once they have been read.
        seconds: Length of an excerpt.
        seed: Excerpt i of a seed is always the same.
        size: How many count as an epoch; indices beyond give further ones.
    """

    def __init__(self, corpus: Corpus, seconds: float, seed: int, size: int) -> None:
        self.corpus, self.samples, self.seed, self.size = corpus, int(seconds * SAMPLE_RATE), seed, size
        self.audio: dict[Path, NDArray[np.int16]] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng([self.seed, index])
        speech, _ = until_active(lambda: self._draw(rng))
        return torch.from_numpy(speech * np.float32(10 ** (rng.uniform(-36, -18) / 20) / active_rms(speech)))

    def _draw(self, rng: np.random.Generator) -> tuple[Signal, Entry]:
        speed, entry = draw_speed(rng), self.corpus.draw_entry(rng)
        audio, needed = self._read(entry.path), int(self.samples * speed) + 1
        if len(audio) < needed:
            audio = np.resize(audio, needed)
        start = int(rng.integers(len(audio) - needed + 1))
        excerpt = audio[start : start + needed].astype(np.float32) / np.float32(32768)
        return change_speed(excerpt, speed)[: self.samples], entry

    def _read(self, path: Path) -> NDArray[np.int16]:
        if path not in self.audio:
            self.audio[path] = _read_compact(path)
        return self.audio[path]


class SpeechData(lightning.LightningDataModule):
    """Clean speech alone.

    Args:
        speech: Folders of clean speech.
        seconds: Length of an excerpt.
        excerpts_per_epoch: They never repeat themselves; this only says what an epoch is.
        batch_size: Excerpts in a batch of one process.
        seed: Of the excerpts.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        speech: Sequence[str],
        seconds: float = 1.0,
        excerpts_per_epoch: int = 16000,
        batch_size: int = 16,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.speech, self.seconds, self.seed = speech, seconds, seed
        self.excerpts_per_epoch, self.batch_size = excerpts_per_epoch, batch_size

    def setup(self, stage: str) -> None:
        """Find the recordings."""
        corpus = Corpus.from_folders(self.speech)
        self.train_set = Excerpts(corpus, self.seconds, self.seed, self.excerpts_per_epoch)

    def train_dataloader(self) -> DataLoader[Any]:
        """Excerpts that never come again."""
        assert self.trainer is not None
        return training_loader(self.train_set, self.trainer, self.batch_size, torch.stack, self.seed, endless=True)


class RatedSet(Dataset[tuple[Tensor, Tensor]]):
    """Rated clips at `SAMPLE_RATE` with their MOS, kept in memory (int16) once they have been read.

    Args:
        clips: What to read.
        crop_seconds: Give an excerpt of at most this length, anywhere in the clip, anew each time (0: all of it).
    """

    def __init__(self, clips: Sequence[RatedClip], crop_seconds: float = 0.0) -> None:
        self.clips, self.crop = clips, int(crop_seconds * SAMPLE_RATE)
        self.audio: list[Tensor | None] = [None] * len(clips)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        audio = self.audio[index]
        if audio is None:
            audio = self.audio[index] = torch.from_numpy(_read_compact(self.clips[index].path))
        if 0 < self.crop < len(audio):
            start = int(torch.randint(len(audio) - self.crop + 1, ()))
            audio = audio[start : start + self.crop]
        return audio.float() / 32768, torch.tensor([self.clips[index].mos], dtype=torch.float32)


def simulated_as_rated(train: str | Path, valid: str | Path) -> tuple[list[RatedClip], list[RatedClip]]:
    """Two sets of `training.build_set` with the MOS that their teachers' mixture gives, calibrated on the first.

    Distill-MOS counts as it is: one of the sets may be from before references were labelled.
    """
    sets = read_set(train), read_set(valid)
    calibration = Calibration.fit(sets[0], by_reference=False)
    first, second = (
        [
            RatedClip(clip.path, float(targets[0]), clip.condition)
            for clip, targets in zip(clips, calibration.targets(clips), strict=True)
        ]
        for clips in sets
    )
    return first, second


def _without_part(source: Source) -> tuple[Source, tuple[int, int]]:
    """A source, and which of its clips are meant: the first of them, and the step to the next."""
    if not isinstance(source, Mapping):
        return source, (0, 1)
    first, step = source.get("part", (0, 1))
    return {key: value for key, value in source.items() if key != "part"}, (first, step)


def open_train_and_valid(train_source: Source, valid_source: Source) -> tuple[list[RatedClip], list[RatedClip]]:
    """Clips of two sources; of the second, only its `part`.

    Args:
        train_source: As for `open_rated`, or `{layout: simulated, root: sets/train}`.
        valid_source: The same. `part: [0, 2]` takes every second clip.

    Raises:
        ValueError: If only one of the two is simulated, or the first has a part.
    """
    (train, _), (valid, (first, step)) = map(_without_part, (train_source, valid_source))
    simulated = [isinstance(s, Mapping) and s.get("layout") == "simulated" for s in (train, valid)]
    if isinstance(train_source, Mapping) and "part" in train_source:
        raise ValueError("`part` is for `valid`; `limit` takes some of the clips of `train`")
    if any(simulated) and not all(simulated):
        raise ValueError("`layout: simulated` is for `train` and `valid` together: both get one calibration")
    if all(simulated):
        first_clips, second_clips = simulated_as_rated(train["root"], valid["root"])  # type: ignore[index]
    else:
        first_clips, second_clips = open_rated(train), open_rated(valid)
    return first_clips, second_clips[first::step]


class RatedData(lightning.LightningDataModule):
    """Clips with a MOS: the NISQA corpus, a plain folder, or sets that `training.build_set` made.

    Args:
        train: See `open_train_and_valid`.
        valid: The same.
        batch_size: Clips in a batch of one process.
        limit: Use only so many training clips, chosen by the seed (0: all).
        valid_limit: Use only the first so many for validation (0: all).
        crop_seconds: Train on random excerpts of at most this length (0: whole clips).
        seed: Of the choice and the shuffling.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        train: Source,
        valid: Source,
        batch_size: int = 8,
        limit: int = 0,
        valid_limit: int = 0,
        crop_seconds: float = 0.0,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.sources, self.limits = (train, valid), (limit, valid_limit)
        self.batch_size, self.crop_seconds, self.seed = batch_size, crop_seconds, seed

    def setup(self, stage: str) -> None:
        """Find the clips; they are read when they are first needed."""
        train, valid = open_train_and_valid(*self.sources)
        check_limit(self.limits[0], len(train))
        chosen = np.random.default_rng(self.seed).permutation(len(train))[: self.limits[0] or None]
        self.train_set = RatedSet([train[i] for i in sorted(chosen)], self.crop_seconds)
        self.valid_set = RatedSet(valid[: self.limits[1] or None])

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches, cropped to one length."""
        assert self.trainer is not None
        return training_loader(self.train_set, self.trainer, self.batch_size, collate_cropped, self.seed)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches in order."""
        own = torch.Generator().manual_seed(0)  # leaves the global one alone
        return DataLoader(self.valid_set, 16, collate_fn=collate, generator=own)
