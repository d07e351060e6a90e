"""How loud the sound of a clip is, and what a low level costs listeners.

Computed rather than learned: speech far below the levels of the training set looked to the network like less and less
noise, so that noisy clips gained by being turned down; and what a network learned of all levels it would have to know
at each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from jsqa_metric.audio import MAX_PEAK
from jsqa_metric.model import ModelConfig

QUIET_DB = -32.0
"""Below this active level (dBFS) speech is too quiet to be left alone: 6 dB under the nominal -26."""
COST_PER_DB = 1.5 / 93.2
"""ITU-T G.107: the basic signal-to-noise ratio Ro loses 1.5 per dB of loudness rating, of 93.2 in all."""
FADE = 0.1
"""The last tenth of the range fades out, so that also the faintest clip has a gradient that says: louder."""
OFFSET_SAMPLES = 8192
"""No more than twice as many samples, evenly spaced, stand for all in the median, which is then soon found."""
OFFSET_RANGE = (0.05, 0.1)
"""An offset counts from here to there, relative to the RMS of the signal."""
LEVELS_DB = (-45.0, -15.0)
"""To which active levels in dBFS clips can be brought: those of the training sets. Listening tests use -26 (P.800)."""
FRAME_SECONDS = 0.02
BURST_FRAMES = 8
"""What lasts less long than this (0.16 s) is a click, and no measure of the level."""
ACTIVE_DB = 30.0
"""Frames within this distance of the loudest, but for clicks, are sound; the others are its pauses."""
SLOPE_DB = 2.0
"""From sound to pause is gradual, so that no level jumps."""


def level_share(level_db: Tensor) -> Tensor:
    """What active levels in dBFS leave of the range from bad to excellent.

    >>> level_share(torch.tensor([-26.0, -32.0]))
    tensor([1., 1.])
    """
    left = 1 - COST_PER_DB * (QUIET_DB - level_db).clamp(min=0)
    return torch.where(left < FADE, FADE * torch.exp(left / FADE - 1), left)


def without_offset(signal: Tensor) -> Tensor:
    """A signal `(time,)` without the offset (DC) that a recorder added to all of it, which nobody hears.

    An offset is what mean and median agree on: one-sided waveforms have a mean too, and square ones a median. One that
    is small beside the signal does no harm and stays, so that zeros between sounds stay zeros; most clips have none,
    and are returned as they are.
    """
    mean, (low, high) = signal.mean(), OFFSET_RANGE
    # the norm, as a product with itself would be rounded to 16 bits in a trainer's mixed precision
    size, norm = torch.stack([mean.detach(), torch.linalg.vector_norm(signal.detach())]).tolist()
    rms = math.sqrt(max(norm**2 / len(signal) - size**2, 1e-24))
    if abs(size) <= low * rms:
        return signal  # what the two agree on is no more than that, and the median takes time
    step = len(signal) // OFFSET_SAMPLES | 1  # odd: even ones meet the periods of more test tones
    median = signal[::step].median()
    common = torch.where(mean.abs() < median.abs(), mean, median) * (mean * median > 0)
    return signal - common * ((common.detach().abs() / rms - low) / (high - low)).clamp(0, 1)


def frame_size(sample_rate: int) -> int:
    """Samples of a frame of 20 ms."""
    return round(FRAME_SECONDS * sample_rate)


def frames_of(signal: Tensor, sample_rate: int) -> Tensor:
    """Frames of 20 ms, the last one filled with zeros: `(time,)` to `(frames, samples)`."""
    size = frame_size(sample_rate)
    missing = -len(signal) % size
    return (F.pad(signal, (0, missing)) if missing else signal).unfold(0, size, size)  # to pad by nothing is to copy


def active_level_db(signal: Tensor, sample_rate: int) -> Tensor:
    """Level in dBFS of the sound of a clip, without its pauses; a click does not change it. Differentiable.

    For speech it is close to the active level of ITU-T P.56; noise in pauses counts as sound sooner than there, which
    makes it lower.

    Args:
        signal: `(time,)`, full scale ±1, without offset (DC).
        sample_rate: In Hz.
    """
    return _active(_frame_levels_db(signal, sample_rate))


def _frame_levels_db(signal: Tensor, sample_rate: int) -> Tensor:
    # not by the norm, which has no second derivative where it is zero
    return 10 * torch.log10(frames_of(signal, sample_rate).square().mean(1) + 1e-12)


def _active(levels_db: Tensor) -> Tensor:
    loud_db = levels_db.topk(min(BURST_FRAMES, (len(levels_db) + 1) // 2)).values[-1]
    sound = torch.sigmoid((levels_db - loud_db + ACTIVE_DB) / SLOPE_DB)
    power = 10 ** (torch.minimum(levels_db, loud_db) / 10)
    return 10 * torch.log10((sound * power).sum() / sound.sum())


def check_level(level_db: float | None) -> float | None:
    """Return a valid level.

    Raises:
        ValueError: If it is not a number in `LEVELS_DB`.
    """
    low, high = LEVELS_DB
    number = isinstance(level_db, (int, float, np.integer, np.floating)) and not isinstance(level_db, bool)
    if level_db is not None and not (number and low <= level_db <= high):
        raise ValueError(f"`level_db` must be a level in dBFS from {low:g} to {high:g}, or None, got {level_db!r}")
    return level_db if level_db is None else float(level_db)


def gain_to(level_db: float, chunks: Iterable[Tensor], sample_rate: int) -> Tensor:
    """The factor that brings a clip to an active level in dBFS. Differentiable.

    Args:
        level_db: The level.
        chunks: The clip in parts `(time,)`, each of whole frames but for the last.
        sample_rate: In Hz.
    """

    def levels(chunk: Tensor) -> Tensor:
        # what is beyond that, or not finite, is an error of its window, and must not spoil the others' gradients
        chunk = torch.where(chunk.abs() <= MAX_PEAK, chunk, 0)
        return _frame_levels_db(without_offset(chunk), sample_rate)

    return 10 ** ((level_db - _active(torch.cat([levels(chunk) for chunk in chunks]))) / 20)


def to_network(levels_db: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """The gains with which clips come to a network, and what their own levels leave of the MOS that they have there.

    With `config.level_db`, all come at that level; else those below `config.floor_db` at this one.

    Args:
        levels_db: The clips' active levels in dBFS, `(batch,)`.
        config: Of the network.

    Shape:
        - return: `(batch,)`, `(batch,)`
    """
    if config.level_db:
        return 10 ** ((config.level_db - levels_db) / 20), level_share(levels_db) / _share_at(config.level_db)
    heard_db = levels_db.clamp(min=config.floor_db) if config.floor_db else levels_db
    return 10 ** ((heard_db - levels_db) / 20), level_share(levels_db) / level_share(heard_db)


@lru_cache
def _share_at(level_db: float) -> float:
    return float(level_share(torch.tensor(float(level_db), device="cpu")))
