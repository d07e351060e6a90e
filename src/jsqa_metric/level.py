"""What a low level costs listeners, also where it lies below all that a network has learned.

Computed rather than learned: speech far below the levels of the training set looked to the network like less and less
noise, so that noisy clips gained by being turned down.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

QUIET_DB = -32.0
"""Below this active level (dBFS) speech is too quiet to be left alone: 6 dB under the nominal -26."""
COST_PER_DB = 1.5 / 93.2
"""ITU-T G.107: the basic signal-to-noise ratio Ro loses 1.5 per dB of loudness rating, of 93.2 in all."""
FRAME_SECONDS = 0.02
ACTIVE_DB = 30.0
"""Frames within this distance of the loudest are speech, the others its pauses."""
FADE = 0.1
"""The last tenth of the range fades out, so that also the faintest clip has a gradient that says: louder."""


def level_share(level_db: float) -> float:
    """What a level leaves of the range from bad to excellent.

    >>> level_share(-26.0)
    1.0
    """
    return max(0.0, 1 - COST_PER_DB * max(0.0, QUIET_DB - level_db))


def active_level_db(signal: Tensor, sample_rate: int) -> Tensor:
    """Level of the frames with sound, in dBFS; an offset of the recorder (DC) does not count. Differentiable.

    Args:
        signal: `(time,)`, full scale ±1.
        sample_rate: In Hz.
    """
    size = round(FRAME_SECONDS * sample_rate)
    frames = F.pad(signal - signal.mean(), (0, max(0, size - len(signal)))).unfold(0, size, size)
    power = frames.square().mean(1)
    active = power.detach() >= power.detach().amax() * 10 ** (-ACTIVE_DB / 10)
    return 10 * torch.log10((power * active).sum() / active.sum() + 1e-20)


def turn_up(signal: Tensor, sample_rate: int, floor_db: float) -> tuple[Tensor, Tensor]:
    """The signal at no less than a level, and what its own level leaves of the MOS that it has there (0 to 1).

    Args:
        signal: `(time,)`, full scale ±1.
        sample_rate: In Hz.
        floor_db: Active level in dBFS; louder signals come back as they are, with a share of 1.
    """
    level_db = active_level_db(signal, sample_rate).clamp(max=floor_db)
    left = 1 - COST_PER_DB * (QUIET_DB - level_db)
    left = torch.where(left < FADE, FADE * torch.exp(left / FADE - 1), left)
    return signal * 10 ** ((floor_db - level_db) / 20), left / level_share(floor_db)
