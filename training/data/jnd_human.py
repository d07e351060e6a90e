"""Human same/different judgements of audio pairs (DPAM), and the judged pairs made again from our own speech.

Each line of `dataset_linear.txt` is `first  second  judged_different  perturbation`, tab-separated, and the file
names are `<level>_<talker>_<script>_produced_clipped_<second>.wav`. What DPAM's published code does with a level
(`create_space/helper.py`): the noise recording, full scale ±1, times the level is added to the speech and the sum
is written as 16-bit PCM, so levels above about 1 clip. Loudness is normalised afterwards. Both clips of a pair
have the same speech and the same excerpt of noise, so they differ in SNR by 20·log10(level2 / level1) dB.

Source: Manocha et al. 2020 (DPAM), https://github.com/pranaymanocha/PerceptualAudio, MIT licence.
"""

from __future__ import annotations

import csv
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.additive import coloured_noise
from training.data.corpus import SAMPLE_RATE, Corpus, Signal, active_rms, read_audio

NOISES = ("applause", "blue_noise", "brown_noise", "crickets", "pink_noise", "siren")
"""Perturbations whose level is an amplitude of noise."""
SLOPES_DB = {"pink_noise": 3.01, "brown_noise": 6.02, "blue_noise": -3.01}
"""Noises that are defined by their spectrum: fall of the power in dB per octave."""
RECORDED = {"applause": "*-[A-Z]-22.*", "crickets": "ambient-sound-crickets_night.*", "siren": "*-[A-Z]-42.*"}
"""Noises of which a folder of recordings may have some, and their names: the numbers are classes of ESC-50."""

SPEECH_LEVEL_DB = -25.0
"""Active level of the speech in dB full scale, about that of produced speech recordings."""
SECONDS = 2.5
"""Length of a judged clip: the names count in steps of 2.5 s."""

_NAME = re.compile(
    r"(?P<level>[\d.]+)_(?P<talker>[fm]\d+)_script(?P<script>\d+)_produced_clipped_(?P<second>[\d.]+)\.wav"
)


@dataclass(frozen=True)
class Judgement:
    """One answer: the noise, both levels (low first), who speaks what, and whether a difference was heard."""

    noise: str
    low: float
    high: float
    talker: str
    excerpt: str
    different: bool

    @property
    def delta_snr_db(self) -> float:
        """Difference of the two SNRs."""
        return 20 * math.log10(self.high / self.low)


def read_judgements(path: str | Path) -> list[Judgement]:
    """Judgements of pairs that differ in the level of a noise (not those of MP3 and reverberation).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line does not have the form described above.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no {path}: DPAM's human judgements are published at https://github.com/pranaymanocha/PerceptualAudio "
            "(dataset/dataset_linear.txt)"
        )
    judgements = []
    with Path(path).open(newline="") as handle:
        for number, row in enumerate(csv.reader(handle, delimiter="\t"), 1):
            if len(row) != 4:
                raise ValueError(f"{path}, line {number}: expected 4 columns separated by tabs, got {len(row)}")
            if row[3].strip() not in NOISES:
                continue
            first, second = (_NAME.fullmatch(name.strip()) for name in row[:2])
            if not first or not second or first["talker"] != second["talker"]:
                raise ValueError(f"{path}, line {number}: cannot read the names {row[0]!r} and {row[1]!r}")
            low, high = sorted((float(first["level"]), float(second["level"])))
            excerpt = f"{first['talker']}-{first['script']}-{first['second']}"
            judgements.append(Judgement(row[3].strip(), low, high, first["talker"], excerpt, row[2].strip() == "1"))
    return judgements


class Remake:
    """Makes judged pairs again: the same kind of noise and the same levels, with our talkers in place of theirs.

    Args:
        speech: Clean speech; each judged talker becomes one of its talkers, those with most recordings first.
        noise_folder: Where `RECORDED` lie; noises of which there is none cannot be made.
        noise_rms_db: Level of the noise recordings in dB full scale. It is not published; see `training.jnd`.
    """

    def __init__(self, speech: Corpus, noise_folder: str | Path, noise_rms_db: float) -> None:
        self.noise_rms_db = noise_rms_db
        self.talkers: dict[str, list[Path]] = {}
        for entry in speech.entries:
            if not any(c.isdigit() for c in entry.group):
                continue  # the name of a source whose talkers are unknown
            self.talkers.setdefault(entry.group, []).append(entry.path)
        self._names = sorted(self.talkers, key=lambda t: (-len(self.talkers[t]), t))
        recordings = {kind: sorted(Path(noise_folder).glob(pattern)) for kind, pattern in RECORDED.items()}
        self._recorded = {kind: [_sounding(path) for path in paths] for kind, paths in recordings.items() if paths}

    @property
    def noises(self) -> tuple[str, ...]:
        """Noises that can be made."""
        return tuple(n for n in NOISES if n in SLOPES_DB or n in self._recorded)

    def pair(self, judgement: Judgement) -> tuple[Signal, Signal]:
        """The less noisy and the noisier signal; the same speech for the same excerpt, always."""
        rng = np.random.default_rng(zlib.crc32(judgement.excerpt.encode()))
        samples = int(SECONDS * SAMPLE_RATE)
        speech = self._speech(judgement.talker, rng, samples)
        noise = self._noise(judgement.noise, rng, samples)
        low, high = (np.clip(speech + level * noise, -1, 1) for level in (judgement.low, judgement.high))
        return low.astype(np.float32), high.astype(np.float32)

    def _speech(self, talker: str, rng: np.random.Generator, samples: int) -> Signal:
        number = (int(talker[1:]) - 1) * 2 + (talker[0] == "m")  # f1, m1, f2, ... to our 20 most talkative
        paths = self.talkers[self._names[number % len(self._names)]]
        for _ in range(20):
            audio = np.resize(read_audio(paths[rng.integers(len(paths))]), 10**6)[: 20 * SAMPLE_RATE]
            start = int(rng.integers(len(audio) - samples + 1))
            excerpt = audio[start : start + samples]
            level = active_rms(excerpt)
            if level > 1e-3:
                break
        return (excerpt * (10 ** (SPEECH_LEVEL_DB / 20) / level)).astype(np.float32)

    def _noise(self, kind: str, rng: np.random.Generator, samples: int) -> Signal:
        if kind in self._recorded:
            recordings = self._recorded[kind]
            recording = recordings[int(rng.integers(len(recordings)))]
            start = int(rng.integers(len(recording) - samples + 1))
            noise = recording[start : start + samples]
        else:
            noise = coloured_noise(rng, samples, SLOPES_DB[kind], SAMPLE_RATE)
        rms = np.sqrt(np.mean(noise.astype(np.float64) ** 2))
        return (noise * (10 ** (self.noise_rms_db / 20) / rms)).astype(np.float32)


def _sounding(path: Path) -> Signal:
    """A recording up to its last sound (clips of ESC-50 are filled up with zeros), at least as long as a pair."""
    audio = read_audio(path)
    sounding = np.flatnonzero(np.abs(audio) > 1e-3)
    if not sounding.size:
        raise ValueError(f"{path} is silent, but the judged pairs are to be made again with it")
    heard = audio[: sounding[-1] + 1]
    return np.resize(heard, max(len(heard), int(SECONDS * SAMPLE_RATE)))
