"""Folders of audio to draw from: clean speech, noise, room impulse responses.

Conventions: signals are mono float32 arrays, full scale ±1, at the rate of their corpus (Hz).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray
from scipy.signal import resample_poly

SAMPLE_RATE = 16000
"""Rate of JND pairs, of teachers and of the paper's encoder, in Hz."""

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3"}

Signal = NDArray[np.float32]


def change_rate(signal: Signal, old_rate: int, new_rate: int) -> Signal:
    """Resample."""
    return signal if old_rate == new_rate else resample_poly(signal, new_rate, old_rate).astype(np.float32)


def read_audio(path: Path, sample_rate: int = SAMPLE_RATE) -> Signal:
    """Read a file as mono at a rate."""
    audio, rate = sf.read(path, dtype="float32", always_2d=True)
    return change_rate(audio.mean(axis=1), rate, sample_rate)


@lru_cache(maxsize=512)
def _read_cached(path: Path, sample_rate: int) -> NDArray[np.int16]:
    """Noise recordings are drawn from again and again: keep them, as int16 to save memory."""
    return np.clip(read_audio(path, sample_rate) * 32767, -32768, 32767).astype(np.int16)


@dataclass(frozen=True)
class Entry:
    """One file of a corpus; `group` is its talker, or its source where talkers are unknown."""

    path: Path
    group: str


@dataclass(frozen=True)
class Corpus:
    """A list of audio files that random excerpts are drawn from, at one rate (Hz)."""

    entries: tuple[Entry, ...]
    sample_rate: int = SAMPLE_RATE

    @classmethod
    def from_folders(cls, folders: Sequence[str | Path], sample_rate: int = SAMPLE_RATE) -> Corpus:
        """Read several folders as one corpus; see `from_folder`."""
        corpora = [cls.from_folder(folder, sample_rate) for folder in folders]
        return cls(tuple(entry for corpus in corpora for entry in corpus.entries), sample_rate)

    @classmethod
    def from_folder(cls, folder: str | Path, sample_rate: int = SAMPLE_RATE) -> Corpus:
        """Read a folder: its `files.csv` (columns file, source, speaker) or else every audio file in it.

        Raises:
            FileNotFoundError: If the folder is missing or holds no audio, or a file that its table names is missing.
            ValueError: If the table has no column `file`.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"no such folder: {folder}")
        index = folder / "files.csv"
        if index.exists():
            with index.open(newline="") as handle:
                rows = list(csv.DictReader(handle))
            if rows and "file" not in rows[0]:
                raise ValueError(f"{index} lacks the column file; it has {', '.join(map(str, rows[0]))}")
            missing = [row["file"] for row in rows if not (folder / row["file"]).is_file()]
            if missing:
                raise FileNotFoundError(
                    f"{len(missing)} of {len(rows)} files of {index} are missing, first {missing[0]}"
                )
            entries = [Entry(folder / row["file"], row.get("speaker") or row.get("source") or "") for row in rows]
        else:
            paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
            entries = [Entry(path, path.parent.name) for path in paths]
        if not entries:
            raise FileNotFoundError(f"no audio files in {folder}")
        return cls(tuple(entries), sample_rate)

    def draw_entry(self, rng: np.random.Generator, other_than: str | None = None) -> Entry:
        """Draw a file, if asked for of another group than the given one."""
        for _ in range(20):
            entry = self.entries[rng.integers(len(self.entries))]
            if entry.group != other_than:
                break
        return entry

    def draw_noise(self, rng: np.random.Generator, samples: int) -> tuple[Signal, Entry]:
        """Draw an excerpt, looped where the recording is shorter; never silent."""
        for _ in range(20):
            entry = self.draw_entry(rng)
            audio = _read_cached(entry.path, self.sample_rate)
            if len(audio) < samples:
                audio = np.resize(audio, samples)
            start = int(rng.integers(len(audio) - samples + 1))
            excerpt = audio[start : start + samples].astype(np.float32) / np.float32(32768)
            if np.sqrt(np.mean(excerpt**2)) > 1e-4:
                return excerpt, entry
        raise ValueError("20 noise excerpts in a row were silent: is this a noise corpus?")

    def draw_speech(
        self, rng: np.random.Generator, samples: int, other_than: str | None = None
    ) -> tuple[Signal, Entry]:
        """Draw an excerpt of speech, joined from several files of one talker where one is too short."""
        entry = self.draw_entry(rng, other_than)
        same_talker = [e for e in self.entries if e.group == entry.group]
        parts = [read_audio(entry.path, self.sample_rate)]
        while sum(map(len, parts)) < samples:
            pause = np.zeros(int(rng.uniform(0.1, 0.5) * self.sample_rate), np.float32)
            parts += [pause, read_audio(same_talker[rng.integers(len(same_talker))].path, self.sample_rate)]
        speech = np.concatenate(parts)
        start = int(rng.integers(len(speech) - samples + 1))
        return speech[start : start + samples], entry


def active_rms(signal: Signal, sample_rate: int = SAMPLE_RATE) -> float:
    """RMS over the 20 ms frames within 30 dB of the loudest: the level of speech without its pauses."""
    size = sample_rate // 50
    frames = signal[: len(signal) // size * size].reshape(-1, size)
    power = np.mean(frames.astype(np.float64) ** 2, axis=1)
    if not power.size or power.max() <= 0:
        return 0.0
    return float(np.sqrt(power[power > power.max() * 1e-3].mean()))


def until_active(draw: Callable[[], tuple[Signal, Entry]]) -> tuple[Signal, Entry]:
    """The first drawn excerpt of speech that is not silent.

    Raises:
        ValueError: If 20 in a row were.
    """
    for _ in range(20):
        speech, entry = draw()
        if active_rms(speech) > 1e-3:
            return speech, entry
    raise ValueError("20 speech excerpts in a row were silent: is this a speech corpus?")


def at_snr(speech: Signal, noise: Signal, snr_db: float, sample_rate: int = SAMPLE_RATE) -> Signal:
    """Scale `noise` so that adding it to `speech` gives the SNR, relative to the active speech level."""
    level = np.sqrt(np.mean(noise.astype(np.float64) ** 2)) + 1e-9
    return (noise * (active_rms(speech, sample_rate) / level * 10 ** (-snr_db / 20))).astype(np.float32)
