"""Artefacts of processing: noise suppressors that distort, and speech resynthesised without its phase."""

from __future__ import annotations

import librosa
import noisereduce
import numpy as np
from pyrnnoise import rnnoise
from scipy.ndimage import minimum_filter1d, uniform_filter1d
from scipy.signal import istft, resample_poly, stft

from training.data.additive import Material, Parameters, noise
from training.data.corpus import SAMPLE_RATE, Signal


def spectral_gain(signal: Signal, rng: np.random.Generator, wiener: bool) -> tuple[Signal, Parameters]:
    """Spectral subtraction or Wiener filter with a minimum-statistics noise estimate, 0.5..4 times too much."""
    strength, floor_db = float(rng.uniform(0.5, 4)), float(rng.uniform(-40, -6))
    _, _, spectrum = stft(signal, SAMPLE_RATE, nperseg=512, noverlap=384)
    power = np.abs(spectrum) ** 2
    smooth = uniform_filter1d(power, 5, axis=1)
    noise_power = minimum_filter1d(smooth, 99, axis=1) * 2 * strength + 1e-12
    snr = np.maximum(power / noise_power - 1, 0)
    gain = snr / (snr + 1) if wiener else np.sqrt(np.maximum(1 - noise_power / (power + 1e-12), 0))
    if rng.random() < 0.5:  # smoothing over time trades musical noise for blurred onsets
        gain = uniform_filter1d(gain, int(rng.integers(2, 8)), axis=1)
    _, out = istft(spectrum * np.maximum(gain, 10 ** (floor_db / 20)), SAMPLE_RATE, nperseg=512, noverlap=384)
    return out[: len(signal)].astype(np.float32), {"strength": strength, "floor_db": floor_db}


def rnnoise_suppress(signal: Signal) -> Signal:
    """RNNoise, at its 48 kHz in frames of 10 ms; it delays by one frame."""
    full_rate = resample_poly(signal, 3, 1).astype(np.float32)
    peak = max(1.0, float(np.abs(full_rate).max()) / 0.99)
    padded = np.pad(full_rate / peak, (0, rnnoise.FRAME_SIZE * 2 - len(full_rate) % rnnoise.FRAME_SIZE))
    state = rnnoise.create()
    try:
        frames = [rnnoise.process_mono_frame(state, f)[0] for f in padded.reshape(-1, rnnoise.FRAME_SIZE)]
    finally:
        rnnoise.destroy(state)
    out = np.concatenate(frames)[rnnoise.FRAME_SIZE :].astype(np.float32) / 32768 * peak
    return resample_poly(out, 1, 3)[: len(signal)].astype(np.float32)


def suppressor(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Noise is added and then suppressed: spectral subtraction, Wiener, RNNoise or spectral gating."""
    noisy, parameters = noise(speech, rng, material)
    kind = str(rng.choice(["subtraction", "wiener", "rnnoise", "gating"], p=[0.3, 0.25, 0.3, 0.15]))
    if kind in ("subtraction", "wiener"):
        out, more = spectral_gain(noisy, rng, kind == "wiener")
        parameters |= more
    elif kind == "rnnoise":
        out = rnnoise_suppress(noisy)
    else:
        reduced = noisereduce.reduce_noise(noisy, SAMPLE_RATE, prop_decrease=float(rng.uniform(0.5, 1)))
        out = np.asarray(reduced, dtype=np.float32)
    return out, parameters | {"suppressor": kind}


def vocoder(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Resynthesis from magnitudes alone (Griffin-Lim), or with disturbed phases, as weak vocoders sound."""
    size = int(rng.choice([512, 1024]))
    spectrum = librosa.stft(speech, n_fft=size, hop_length=size // 4)
    magnitude = np.abs(spectrum)
    if rng.random() < 0.5:
        bands = int(rng.choice([20, 40, 80]))
        mel = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=size, n_mels=bands)
        magnitude = np.maximum(np.linalg.pinv(mel) @ (mel @ magnitude), 1e-6)
        rounds, seed = int(rng.integers(1, 33)), int(rng.integers(2**31))
        out = librosa.griffinlim(magnitude, n_iter=rounds, hop_length=size // 4, length=len(speech), random_state=seed)
        parameters = {"vocoder": "griffin-lim", "bands": float(bands), "iterations": float(rounds)}
        return out.astype(np.float32), parameters
    jitter = float(rng.uniform(0.1, np.pi))
    phase = np.exp(1j * (np.angle(spectrum) + rng.uniform(-jitter, jitter, spectrum.shape)))
    out = librosa.istft(magnitude * phase, hop_length=size // 4, length=len(speech))
    return out.astype(np.float32), {"vocoder": "phase", "phase_jitter_rad": jitter}
