"""What audio bandwidth above 8 kHz is worth to listeners, and how much of it a clip has.

Measured rather than learned: a network that was trained on simulated fullband speech took the noise floors and timbres
of real recordings above 8 kHz for damage.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

WIDE_BAND_SHARE = 129 / 148
"""Transmission rating of wideband (up to 8 kHz) relative to fullband speech: ITU-T G.107.1 and G.107.2."""
BAND_EDGES_HZ = (8000.0, 20000.0)
"""Between wideband and fullband."""
STEP_HZ = 2000
"""Width of the bands in which there is sound, or not."""
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
    low, high = (bark(edge) for edge in BAND_EDGES_HZ)
    position = (bark(bandwidth_hz) - low) / (high - low)
    return WIDE_BAND_SHARE + (1 - WIDE_BAND_SHARE) * float(np.clip(position, 0, 1))


class BandwidthGain(nn.Module):
    """How much a clip gains over wideband speech: 1 up to `1 / WIDE_BAND_SHARE`.

    A band counts only as far as those below it do.

    Args:
        n_fft: Size of the transform.
        sample_rate: Rate of the input, in Hz.
    """

    bands: Tensor
    gains: Tensor

    def __init__(self, n_fft: int, sample_rate: int) -> None:
        super().__init__()
        hz = torch.arange(n_fft // 2 + 1) * sample_rate / n_fft
        edges = torch.arange(BAND_EDGES_HZ[0], min(sample_rate / 2, BAND_EDGES_HZ[1]) + 1, STEP_HZ)
        lows, highs = torch.cat([torch.zeros(1), edges[:-1]]), edges
        self.register_buffer("bands", ((hz >= lows[:, None]) & (hz < highs[:, None])).float(), persistent=False)
        shares = torch.tensor([bandwidth_share(edge) for edge in edges.tolist()])
        self.register_buffer("gains", shares.diff() / WIDE_BAND_SHARE, persistent=False)

    def forward(self, power: Tensor, mask: Tensor) -> Tensor:
        """Gain of each clip.

        Shape:
            - power: `(batch, n_fft // 2 + 1, frames)`
            - mask: `(batch, frames)`
            - return: `(batch,)`
        """
        total = self.bands @ (power @ mask.to(power.dtype)[:, :, None])
        level_db = 10 * torch.log10(total[:, :, 0] + 1e-20)
        present = torch.sigmoid((level_db[:, 1:] - level_db[:, :1] - PRESENT_DB) / SLOPE_DB)
        return 1 + torch.cumprod(present, dim=1) @ self.gains
