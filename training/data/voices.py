"""More voices and microphones than were recorded: clean speech made faster or slower, and coloured.

The reference gets the same change, so that none of it counts as damage: what is learned is not to mind.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from scipy.signal import resample_poly

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


def colour(speech: Signal, rng: np.random.Generator) -> Signal:
    """Every second time another microphone: a tilt of up to 2 dB per octave, and a broad peak or dip."""
    if rng.random() < 0.5:
        return speech
    tilt, height = rng.uniform(-2, 2), rng.uniform(-5, 5)
    centre, width = np.log2(rng.uniform(200, 6000)), 0.7
    octave = np.log2(np.maximum(np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE), 60))
    gain_db = tilt * (octave - np.log2(1000)) + height * np.exp(-(((octave - centre) / width) ** 2) / 2)
    return np.fft.irfft(np.fft.rfft(speech) * 10 ** (gain_db / 20), len(speech)).astype(np.float32)
