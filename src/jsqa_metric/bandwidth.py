"""What audio bandwidth above 8 kHz is worth to listeners, and how much of it a clip has.

Measured rather than learned: a network that was trained on simulated fullband speech took the noise floors and timbres
of real recordings above 8 kHz for damage.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from jsqa_metric.model import MOS_RANGE

WIDE_BAND_SHARE = 129 / 148
"""Transmission rating of wideband (up to 8 kHz) relative to fullband speech: ITU-T G.107.1 and G.107.2."""
BAND_HZ = np.arange(8000.0, 20001.0, 2000.0)
"""Edges of the bands above wideband in which there is sound, or not; the last one is that of fullband."""
FRAME = 1024
"""Samples of a frame whose spectrum is taken."""
PRESENT_DB = -60.0
"""A band counts if its power, relative to that below 8 kHz, is above this: speech lies at -20 to -55 dB."""
SLOPE_DB = 3.0
"""From here to there is gradual, so that gradients exist and no score jumps."""


def bark(frequency_hz: float) -> float:
    """Critical-band rate; Traunmüller 1990."""
    return 26.81 * frequency_hz / (1960 + frequency_hz) - 0.53


def bandwidth_share(bandwidth_hz: float) -> float:
    """What is left of the range from bad to excellent when nothing else is wrong.

    1 at fullband, `WIDE_BAND_SHARE` at 8 kHz and below (where the network and its teachers hear what is missing),
    linear in Bark between.

    >>> bandwidth_share(20000.0)
    1.0
    """
    low, high = bark(BAND_HZ[0]), bark(BAND_HZ[-1])
    position = (bark(bandwidth_hz) - low) / (high - low)
    return WIDE_BAND_SHARE + (1 - WIDE_BAND_SHARE) * float(np.clip(position, 0, 1))


def bandwidth_gain(signal: Tensor, sample_rate: int) -> Tensor:
    """What a clip's sound above 8 kHz adds to its distance from the worst MOS: 1 up to `1 / WIDE_BAND_SHARE`.

    A band counts only as far as those below it do. Differentiable.

    Args:
        signal: `(time,)`.
        sample_rate: Of the signal, in Hz.
    """
    if sample_rate <= 2 * BAND_HZ[0]:
        return signal.new_ones(())
    # whole frames only: a frame across the end of a clip would hear a click
    frames = F.pad(signal, (0, max(0, FRAME - len(signal)))).unfold(0, FRAME, FRAME)
    spectrum = torch.fft.rfft(frames * torch.hann_window(FRAME, device=signal.device))
    power = (spectrum.real.square() + spectrum.imag.square()).sum(0)
    # the bands are of the audible range, not of the rate: what lies above half the rate is empty
    edges = [round(hz * FRAME / sample_rate) for hz in BAND_HZ]
    bands = [power[low:high].sum() for low, high in pairwise([0, *edges])]
    level_db = 10 * torch.log10(torch.stack(bands) + 1e-20)
    present = torch.sigmoid((level_db[1:] - level_db[0] - PRESENT_DB) / SLOPE_DB)
    shares = np.array([bandwidth_share(hz) for hz in BAND_HZ])
    gains = torch.tensor(np.diff(shares) / WIDE_BAND_SHARE, dtype=signal.dtype, device=signal.device)
    return 1 + torch.cumprod(present, dim=0) @ gains


def extend(mos: Tensor, gains: Tensor) -> Tensor:
    """MOS of wideband speech to that with the bandwidth above, by what `bandwidth_gain` found. Both `(batch,)`."""
    low, high = MOS_RANGE
    return (low + (mos - low) * gains).clamp(max=high)
