"""The probes of `benchmarks.robustness`: each asks a loaded metric one thing and says in a few words how it went.

A metric is called with nothing but its own interface (`Baseline.score`), as a user would. The marks: "+" as one
would wish, "-" as one would not, " " for a fact without judgement. Any exception counts as a
refusal, however it reads: which words are clear is not for us to say of our peers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from benchmarks.baselines import Baseline
from benchmarks.baselines.base import ROOT, Array

RATE = 16000
_SPEECH = ROOT / "examples" / "english_clean.flac"
CLOSE = 0.02
"""Scores that differ by less (in MOS) are taken as the same."""
Finding = tuple[str, str]


def speech(seconds: float = 4.0, rate: int = RATE) -> Array:
    """Clean speech of the repository's examples, repeated to a length."""
    audio, own = sf.read(_SPEECH, dtype="float32")
    return soxr.resample(np.resize(audio, int(seconds * own)), own, rate)


def _one(baseline: Baseline, audio: Array, rate: int = RATE) -> float:
    return float(np.asarray(baseline.score(audio, rate)).reshape(()))


def _error(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:70]}{'…' if len(text) > 70 else ''}"


def _refusal(baseline: Baseline, audio: Array) -> Finding:
    """For input that has no quality: NaN or any exception is as it should be, a number is not."""
    try:
        value = _one(baseline, audio)
    except Exception as error:  # noqa: BLE001 - it is the finding
        return "+", _error(error)
    return ("+", "NaN") if math.isnan(value) else ("-", f"scored {value:.2f}")


def padding(baseline: Baseline) -> Finding:
    """A clip of 2 s in a batch with one of 10 s: how far its score moves."""
    short, long = speech(2.0), speech(10.0)
    batch = np.stack([np.pad(short, (0, len(long) - len(short))), long])
    change = baseline.score_padded(batch, [len(short), len(long)], RATE)[0] - _one(baseline, short)
    return ("+" if abs(change) < CLOSE else "-"), f"{change:+.3f}"


def gain(baseline: Baseline) -> Finding:
    """The same clip 20 dB lower: how far the score moves (listeners do notice)."""
    clip = speech()
    return " ", f"{_one(baseline, 0.1 * clip) - _one(baseline, clip):+.2f}"


def turned_down(baseline: Baseline) -> Finding:
    """Noisy speech (5 dB) 30 dB lower: it must not score higher, or enhancers learn to whisper."""
    clip = speech()
    noise = np.random.default_rng(0).standard_normal(len(clip)).astype(np.float32)
    noisy = clip + noise * np.float32(np.sqrt(np.mean(clip**2) / 10**0.5))
    change = _one(baseline, noisy * np.float32(10**-1.5)) - _one(baseline, noisy)
    return ("+" if change < 0.1 else "-"), f"{change:+.2f}"


def silence(baseline: Baseline) -> Finding:
    """4 s of zeros."""
    return _refusal(baseline, np.zeros(4 * RATE, np.float32))


def empty(baseline: Baseline) -> Finding:
    """No samples."""
    return _refusal(baseline, np.zeros(0, np.float32))


def short(baseline: Baseline) -> Finding:
    """20 ms of speech: too short to judge."""
    return _refusal(baseline, speech()[RATE : RATE + 320])


def brief(baseline: Baseline) -> Finding:
    """0.3 s of speech: a word, which listeners do judge."""
    return _works(baseline, speech()[RATE : RATE + 4800])


def long(baseline: Baseline) -> Finding:
    """2 minutes of speech."""
    return _works(baseline, np.tile(speech(8.0), 15))


def _works(baseline: Baseline, audio: Array, rate: int = RATE) -> Finding:
    try:
        value = _one(baseline, audio, rate)
    except Exception as error:  # noqa: BLE001 - it is the finding
        return "-", _error(error)
    return ("+" if math.isfinite(value) else "-"), f"{value:.2f}"


def stereo(baseline: Baseline) -> Finding:
    """An array `(2, time)`: a score for each channel (or one for both), or a refusal."""
    clip = speech()
    try:
        scores = np.asarray(baseline.score(np.stack([clip, clip]), RATE), float)
    except Exception as error:  # noqa: BLE001 - it is the finding
        return "+", _error(error)
    if scores.size > 2 or not np.isfinite(scores).all():
        return "-", f"{scores.size} values"
    change = np.abs(scores - _one(baseline, clip)).max()
    return ("+" if change < CLOSE else "-"), f"{scores.size} score(s), {change:.3f} off"


def rates(baseline: Baseline) -> Finding:
    """The same 16 kHz speech at 48 kHz, said to be so: how far the score moves, or a refusal."""
    try:
        change = _one(baseline, speech(rate=48000), 48000) - _one(baseline, speech())
    except Exception as error:  # noqa: BLE001 - it is the finding
        return "+", _error(error)
    return ("+" if abs(change) < 0.1 else "-"), f"{change:+.2f}"


def nan(baseline: Baseline) -> Finding:
    """One sample is NaN."""
    clip = speech()
    clip[1000] = np.nan
    return _refusal(baseline, clip)


def bounds(baseline: Baseline) -> Finding:
    """Scores of odd sounds (noise, a tone, clicks, a square wave, faint speech) within 1 to 5."""
    rng, time = np.random.default_rng(0), np.arange(4 * RATE) / RATE
    clicks = np.zeros(4 * RATE)
    clicks[:: RATE // 10] = 1
    sounds = [
        np.clip(0.5 * rng.standard_normal(4 * RATE), -1, 1),
        0.5 * np.sin(2 * np.pi * 440 * time),
        clicks,
        np.sign(np.sin(2 * np.pi * 100 * time)),
        0.003 * speech(),
        speech(),
    ]
    scores = [_one(baseline, np.asarray(sound, np.float32)) for sound in sounds]
    inside = min(scores) >= 1 and max(scores) <= 5
    return ("+" if inside else "-"), f"{min(scores):.2f} to {max(scores):.2f}"


def gradient(baseline: Baseline) -> Finding:
    """Gradients of speech (2 s and 10 s), of faint speech and of speech with a silent second: finite, not all zero."""
    gap = speech()
    gap[RATE : 2 * RATE] = 0
    cases = {"2 s": speech(2.0), "10 s": speech(10.0), "faint": 0.001 * speech(), "with silence": gap}
    bad = []
    for name, clip in cases.items():
        try:
            slope = baseline.gradient(clip, RATE)
        except NotImplementedError as error:
            return "-", str(error)
        except Exception as error:  # noqa: BLE001 - it is the finding
            return "-", _error(error)
        if not np.isfinite(slope).all():
            bad.append(f"NaN ({name})")
        elif not np.any(slope):
            bad.append(f"zero ({name})")
    return ("-", ", ".join(bad)) if bad else ("+", "finite")


def silent_gradient(baseline: Baseline) -> Finding:
    """Gradient of 2 s of zeros: finite (a zero too), so that one silent clip cannot spoil a training step."""
    try:
        slope = baseline.gradient(np.zeros(2 * RATE, np.float32), RATE)
    except NotImplementedError as error:
        return "-", str(error)
    except Exception as error:  # noqa: BLE001 - it is the finding
        return "-", _error(error)
    return ("+", "finite") if np.isfinite(slope).all() else ("-", "NaN")


def repeated(baseline: Baseline) -> Finding:
    """The same clip five times: the spread of its scores."""
    scores = [_one(baseline, speech()) for _ in range(5)]
    spread = max(scores) - min(scores)
    return ("+" if spread < 1e-4 else "-"), f"{spread:.4f}"


PROBES: dict[str, Callable[[Baseline], Finding]] = {
    probe.__name__: probe
    for probe in (
        padding, gain, turned_down, silence, empty, short, brief, long, stereo, rates, nan, bounds,
        gradient, silent_gradient, repeated,
    )
}  # fmt: skip


def describe(name: str) -> str:
    """What a probe asks."""
    probe: Any = PROBES[name]
    return " ".join((probe.__doc__ or "").split())
