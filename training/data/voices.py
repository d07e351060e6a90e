"""More voices and microphones than were recorded: clean speech made faster or slower, and coloured.

The reference gets the same change, so that none of it counts as damage: what is learned is not to mind.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import Tensor

from training.data.corpus import SAMPLE_RATE, Signal


def draw_speed(rng: np.random.Generator) -> float:
    """1, or (two times in three) 0.93 to 1.16: slower would leave the top of the band empty."""
    return 1.0 if rng.random() < 1 / 3 else float(Fraction(rng.uniform(0.93, 1.16)).limit_denominator(40))


def change_speed(speech: Signal, speed: float) -> Signal:
    """Played faster: pitch, formants and tempo change by the factor, as from a shorter vocal tract."""
    ratio = Fraction(speed).limit_denominator(40)
    if ratio == 1:
        return speech
    return resample_poly(speech, ratio.denominator, ratio.numerator).astype(np.float32)


TILT_DB, PEAK_DB = 2.0, 5.0
"""A microphone's largest tilt (dB per octave), and the height of its broad peak or dip."""
PEAK_HZ, PEAK_OCTAVES = (200.0, 6000.0), 0.7


def _response_db(octave: Any, tilt: Any, height: Any, centre: Any) -> Any:
    """Gain of a microphone in dB; frequencies as log2 of Hz."""
    return tilt * (octave - math.log2(1000)) + height * math.e ** (-(((octave - centre) / PEAK_OCTAVES) ** 2) / 2)


def colour(speech: Signal, rng: np.random.Generator) -> Signal:
    """Every second time another microphone: a tilt, and a broad peak or dip."""
    if rng.random() < 0.5:
        return speech
    tilt, height = rng.uniform(-TILT_DB, TILT_DB), rng.uniform(-PEAK_DB, PEAK_DB)
    centre = np.log2(rng.uniform(*PEAK_HZ))
    octave = np.log2(np.maximum(np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE), 60))
    gain_db = _response_db(octave, tilt, height, centre)
    return np.fft.irfft(np.fft.rfft(speech) * 10 ** (gain_db / 20), len(speech)).astype(np.float32)


def recolour(wav: Tensor, sample_rate: int) -> Tensor:
    """The first half of a batch `(batch, samples)` through other microphones, drawn from torch's generator.

    In training, for damaged clips: a mild colour costs listeners next to nothing, and no clip comes twice as the same.
    """
    half = wav[: len(wav) // 2]
    tilt, height, place = torch.rand(3, len(half), 1).unbind()
    low, high = PEAK_HZ
    octave = torch.fft.rfftfreq(wav.shape[1], 1 / sample_rate).clamp(min=60).log2()
    gain_db = _response_db(
        octave, TILT_DB * (2 * tilt - 1), PEAK_DB * (2 * height - 1), (low + (high - low) * place).log2()
    )
    coloured = torch.fft.irfft(torch.fft.rfft(half) * 10 ** (gain_db / 20), wav.shape[1])
    level = half.square().mean(1, keepdim=True) / coloured.square().mean(1, keepdim=True).clamp(min=1e-12)
    return torch.cat([coloured * level.sqrt(), wav[len(half) :]])
