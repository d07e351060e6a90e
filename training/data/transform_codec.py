"""A transform codec with random settings: what MP3, AAC, Vorbis, AC-3 and the like have in common, and none has alone.

A window of lapped cosines, a quantiser whose steps follow the spectrum, as many bits a frame as there are. Settings
that no standard has are drawn, too: a network is to know the family, not its members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.additive import Material, Parameters
from training.data.bandwidth import SIMULATION_RATE
from training.data.corpus import Signal, change_rate

RATES = {8000: 0.15, 16000: 0.35, 24000: 0.15, 32000: 0.15, 48000: 0.2}
"""Rates in Hz that it works at, and how often."""
BANDS = 21
Spectrum = NDArray[np.float32]


@dataclass(frozen=True)
class TransformCodec:
    """Quantised lapped cosines.

    Args:
        hop: Samples from one frame to the next; a frame has twice as many.
        bits: Mean number a coefficient, up to `top`.
        slope: How far the step of a band follows its level: 0 is the same noise everywhere, 1 the same distance.
        dead_zone: How much more than half a step a coefficient needs to be sent.
        filling: Level of the noise in the place of what is not sent, in steps.
        top: Highest share of the coefficients that is sent at all.
    """

    hop: int
    bits: float
    slope: float
    dead_zone: float
    filling: float
    top: float

    def code(self, signal: Signal, rng: np.random.Generator) -> Signal:
        """What comes out for `signal`; there is no delay."""
        samples, basis, window = len(signal), _cosines(self.hop), _sine(self.hop)
        padded = np.pad(signal, (self.hop, self.hop + -samples % self.hop)).reshape(-1, self.hop)
        frames: Spectrum = np.hstack([padded[:-1], padded[1:]]) * window
        decoded = self._quantised(frames @ basis, rng) @ basis.T * window
        return (decoded[:-1, self.hop :] + decoded[1:, : self.hop]).reshape(-1)[:samples]

    def _quantised(self, spectrum: Spectrum, rng: np.random.Generator) -> Spectrum:
        sent = max(1, round(self.top * self.hop))
        shape = _levels(spectrum[:, :sent]) ** self.slope
        relative = np.abs(spectrum[:, :sent]) / shape
        scale = self._scale(relative)
        sizes = self._sizes(relative / scale)
        coded = np.sign(spectrum[:, :sent]) * sizes
        noise = self.filling * rng.uniform(-1, 1, sizes.shape)
        out = np.zeros_like(spectrum)
        out[:, :sent] = np.where(sizes > 0, coded, noise) * scale * shape
        return out

    def _sizes(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.floor(steps + 0.5 - self.dead_zone)

    def _scale(self, relative: Spectrum) -> NDArray[np.float64]:
        """The factor `(frames, 1)` of all steps with which a frame has its bits, by bisection of its logarithm."""
        low, high = np.full((len(relative), 1), -12.0), np.full((len(relative), 1), 6.0)
        for _ in range(20):
            middle = (low + high) / 2
            bits = np.log2(1 + 2 * self._sizes(relative / 10**middle)).mean(axis=1, keepdims=True)
            low, high = np.where(bits > self.bits, middle, low), np.where(bits > self.bits, high, middle)
        return 10**high


def _cosines(hop: int) -> Spectrum:
    """The orthonormal modified discrete cosine transform `(2 hop, hop)` (Princen and Bradley, 1986)."""
    time, frequency = np.arange(2 * hop)[:, None], np.arange(hop)
    phase = np.pi / hop * (time + (1 + hop) / 2) * (frequency + 0.5)
    return (np.sqrt(2 / hop) * np.cos(phase)).astype(np.float32)


def _sine(hop: int) -> Spectrum:
    return np.sin(np.pi / (2 * hop) * (np.arange(2 * hop) + 0.5)).astype(np.float32)


def _levels(spectrum: Spectrum) -> Spectrum:
    """The RMS of each band, wider ones at higher frequencies, at each of its coefficients; never zero."""
    coefficients = spectrum.shape[1]
    edges = np.unique(np.round(coefficients * np.linspace(0, 1, BANDS + 1) ** 2).astype(int))
    powers = np.add.reduceat(spectrum**2, edges[:-1], axis=1) / np.diff(edges)
    return np.repeat(np.sqrt(powers) + 1e-6, np.diff(edges), axis=1)


def draw_codec(rng: np.random.Generator, rate: int) -> TransformCodec:
    """A codec at `rate` Hz: frames of 2.5 to 40 ms, up to a bit for each coefficient.

    A frame has eight bits (times `top`) at the least, as otherwise nothing of it might be sent.
    """
    hop = round(rate * 10 ** rng.uniform(-2.6, -1.4))
    return TransformCodec(
        hop=hop,
        bits=max(8 / hop, float(2 ** rng.uniform(-4.5, 0))),
        slope=float(rng.uniform(0, 0.9)),
        dead_zone=float(rng.choice([0.0, rng.uniform(0, 0.4)])),
        filling=float(rng.choice([0.0, rng.uniform(0.05, 0.4)])),
        top=float(rng.choice([1.0, rng.uniform(0.4, 1)])),
    )


def transform_codec(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """A random transform codec at a random rate."""
    rate = int(rng.choice(list(RATES), p=list(RATES.values())))
    codec = draw_codec(rng, rate)
    decoded = codec.code(change_rate(speech, SIMULATION_RATE, rate), rng).astype(np.float32)
    out = change_rate(decoded, rate, SIMULATION_RATE)
    out = np.pad(out, (0, max(0, len(speech) - len(out))))[: len(speech)]
    known: Parameters = {
        "transform_bits": codec.bits,
        "transform_hop": codec.hop / rate,
        "transform_slope": codec.slope,
    }
    return out, known | {"bandwidth_hz": codec.top * rate / 2}
