"""Audio bandwidth: clean speech widened to full band, and the bandwidth that a codec leaves.

The clean speech at hand ends at 8 kHz, but listeners hear, and files hold, up to 20 kHz. Above 8 kHz speech is
little more than the noise of its fricatives, so that a copy of the band below, tilted, is a fair stand-in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import istft, stft

from training.data.corpus import SAMPLE_RATE, Signal, change_rate

SIMULATION_RATE = 48000
"""Rate at which damage is simulated, in Hz."""


def widen(speech: Signal, rng: np.random.Generator) -> Signal:
    """Speech at 16 kHz to fullband at 48 kHz: 4 to 8 kHz is copied upwards in three steps, each 4 to 12 dB lower."""
    size = 1536
    _, _, spectrum = stft(change_rate(speech, SAMPLE_RATE, SIMULATION_RATE), SIMULATION_RATE, nperseg=size)
    bins = size * 4000 // SIMULATION_RATE
    seam = bins // 16  # the anti-aliasing filter of the source has taken the very end
    top, gain = 2 * bins - seam, 1.0
    for _ in range(3):
        gain *= 10 ** (-rng.uniform(4, 12) / 20)
        spectrum[top : top + bins] = gain * np.roll(spectrum[bins - seam : 2 * bins - seam], rng.integers(1, 4), axis=1)
        top += bins
    spectrum[top + seam :] = 0
    _, out = istft(spectrum, SIMULATION_RATE, nperseg=size)
    wanted = len(speech) * SIMULATION_RATE // SAMPLE_RATE
    return np.pad(out, (0, max(0, wanted - len(out))))[:wanted].astype(np.float32)


def measured_bandwidth_hz(before: Signal, after: Signal) -> float:
    """Highest frequency that a process lets through within 15 dB, in steps of 500 Hz, at `SIMULATION_RATE`."""
    powers: list[NDArray[np.float64]] = []
    for signal in (before, after):
        # whole frames only: where a clip ends in mid-sound, a frame across the end would see a click
        _, _, spectrum = stft(signal, SIMULATION_RATE, nperseg=960, boundary=None, padded=False)
        power = np.mean(np.abs(spectrum[:400]) ** 2, axis=1)  # bins of 50 Hz up to 20 kHz
        powers.append(power.reshape(40, 10).mean(axis=1))
    passed = np.flatnonzero((powers[1] > powers[0] * 10**-1.5) & (powers[0] > powers[0].max() * 1e-9))
    return float(500 * (passed[-1] + 1)) if passed.size else 0.0
