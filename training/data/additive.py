"""Degradations that add a second sound: noise, babble, another talker, what devices add, modulated noise.

Conventions of all degradations: `(speech, rng, material) -> (degraded, parameters)`. Signals are at
`SIMULATION_RATE` and keep their length and (but for `jitter`) their alignment; parameters are numbers in the unit that
their name ends with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve

from training.data.bandwidth import SIMULATION_RATE, widen
from training.data.corpus import Corpus, Signal, at_snr

Parameters = dict[str, float | str]


@dataclass(frozen=True)
class Material:
    """What degradations draw from, and who speaks (so that competing talkers are others).

    Speech comes at 16 kHz, noise and rooms at `SIMULATION_RATE`.
    """

    speech: Corpus
    noise: Corpus
    rooms: tuple[Signal, ...]
    talker: str = ""

    def other_talker(self, rng: np.random.Generator, samples: int) -> Signal:
        """Fullband speech of somebody else, `samples` long at `SIMULATION_RATE`."""
        speech, _ = self.speech.draw_speech(rng, -(-samples // 3), self.talker)
        return widen(speech, rng)[:samples]


def coloured_noise(
    rng: np.random.Generator, samples: int, slope_db_per_octave: float, sample_rate: int = SIMULATION_RATE
) -> Signal:
    """Gaussian noise with a power spectrum that falls by the slope above 20 Hz (0 white, 3 pink, 6 brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.arange(len(spectrum)) / samples * sample_rate, 20)
    return np.fft.irfft(spectrum * (frequency / 1000) ** (-slope_db_per_octave / 6.02), samples).astype(np.float32)


def babble(rng: np.random.Generator, samples: int, material: Material) -> Signal:
    """Three to eight talkers at once."""
    talkers = [material.other_talker(rng, samples) for _ in range(rng.integers(3, 9))]
    return np.sum([t / (np.std(t) + 1e-6) for t in talkers], axis=0, dtype=np.float32)


def noise(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Background noise: recorded, babble or coloured, SNR -5..50 dB."""
    kind = rng.choice(["recorded", "babble", "coloured"], p=[0.6, 0.2, 0.2])
    if kind == "recorded":
        added, _ = material.noise.draw_noise(rng, len(speech))
    elif kind == "babble":
        added = babble(rng, len(speech), material)
    else:
        added = coloured_noise(rng, len(speech), rng.uniform(-2, 7))
    snr_db = float(np.clip(rng.normal(18, 13), -5, 50))
    return speech + at_snr(speech, added, snr_db, SIMULATION_RATE), {"noise": str(kind), "snr_db": snr_db}


def competing_talker(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """One other talker, 0..40 dB below."""
    snr_db = float(rng.uniform(0, 40))
    other = material.other_talker(rng, len(speech))
    return speech + at_snr(speech, other, snr_db, SIMULATION_RATE), {"talker_snr_db": snr_db}


def disturbance(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """What devices add, SNR 0..45 dB: hum of the mains, the buzz of a radio's time slots, crackle, beeps."""
    kind, snr_db = str(rng.choice(["hum", "buzz", "crackle", "beeps"])), float(rng.uniform(0, 45))
    time = np.arange(len(speech)) / SIMULATION_RATE
    if kind == "hum":
        harmonics, slope = np.arange(1, 21), rng.uniform(0.5, 2.5)
        phases, mains_hz = rng.uniform(0, 2 * np.pi, 20), rng.choice([50, 60])
        added = sum(
            np.sin(2 * np.pi * mains_hz * k * time + phase) / k**slope
            for k, phase in zip(harmonics, phases, strict=True)
        )
    elif kind == "buzz":  # of GSM: a slot in eight, 217 times a second, while the phone sends
        sends = np.repeat(rng.random(-(-len(speech) // 12000)) < rng.uniform(0.3, 1), 12000)[: len(speech)]
        sends[:12000] = True
        added = np.convolve((time * 216.7 % 1 < 0.125) * sends, [1, -1], "same")
    elif kind == "crackle":
        clicks = (rng.random(len(speech)) < 10 ** rng.uniform(0, 2) / SIMULATION_RATE) * rng.standard_normal(
            len(speech)
        )
        clicks[rng.integers(len(speech))] = 1
        decay = np.exp(-np.arange(480) / 10 ** rng.uniform(0.3, 2))
        added = fftconvolve(clicks, decay * rng.standard_normal(480))[: len(speech)]
    else:
        period_s, hz = rng.uniform(0.3, 2), 10 ** rng.uniform(2.5, 3.6)
        added = np.sin(2 * np.pi * hz * time) * (time % period_s < period_s * rng.uniform(0.1, 0.6))
    added = np.asarray(added, dtype=np.float32)
    return speech + at_snr(speech, added, snr_db, SIMULATION_RATE), {"disturbance": kind, "disturbance_snr_db": snr_db}


def mnru(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Modulated noise reference unit (ITU-T P.810): noise in proportion to the speech, Q 5..45 dB."""
    q_db = float(rng.uniform(5, 45))
    modulated = speech * rng.standard_normal(len(speech)) * 10 ** (-q_db / 20)
    return (speech + modulated).astype(np.float32), {"mnru_q_db": q_db}
