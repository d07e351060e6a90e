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
LOW_HZ = 100.0
"""Where the band of speech is measured from: an offset of the recorder (DC) and hum are no speech."""
GUARD_HZ = 9000.0
"""Where the first of these bands is measured from: resamplers leave images of wideband speech right above 8 kHz."""
FRAME = 1024
"""Samples of a frame whose spectrum is taken, at rates up to 48 kHz; as long at higher ones."""
QUIET_DB = -40.0
"""Speech below this level (dBFS) counts as if it had it: the rounding noise beside it is no bandwidth."""
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
        signal: `(time,)`, full scale ±1.
        sample_rate: Of the signal, in Hz.
    """
    if sample_rate <= 2 * BAND_HZ[0]:
        return signal.new_ones(())
    size = FRAME * max(1, round(sample_rate / 48000))
    # whole frames only: a frame across the end of a clip would hear a click
    frames = F.pad(signal, (0, max(0, size - len(signal)))).unfold(0, size, size)
    window = torch.hann_window(size, dtype=signal.dtype, device=signal.device)
    spectrum = torch.fft.rfft(frames * window)
    power = (spectrum.real.square() + spectrum.imag.square()).mean(0) * (2 / (size * window.square().sum()))
    bounds = [(LOW_HZ, BAND_HZ[0]), (GUARD_HZ, BAND_HZ[1]), *pairwise(BAND_HZ[1:])]
    bands = [power[round(low * size / sample_rate) : round(high * size / sample_rate)].sum() for low, high in bounds]
    level_db = 10 * torch.log10(torch.stack(bands) + 1e-20)
    present = torch.sigmoid((level_db[1:] - level_db[0].clamp(min=QUIET_DB) - PRESENT_DB) / SLOPE_DB)
    shares = np.array([bandwidth_share(min(hz, sample_rate / 2)) for hz in BAND_HZ])
    gains = torch.tensor(np.diff(shares) / WIDE_BAND_SHARE, dtype=signal.dtype, device=signal.device)
    return 1 + torch.cumprod(present, dim=0) @ gains


def extend(mos: Tensor, gains: Tensor) -> Tensor:
    """MOS of wideband speech to that with the bandwidth above, by what `bandwidth_gain` found. Both `(batch,)`."""
    low, high = MOS_RANGE
    return (low + (mos - low) * gains).clamp(max=high)
