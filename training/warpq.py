"""WARP-Q: how far speech is from its reference in sound, whatever became of its waveform.

Made for generative codecs: cepstra of short patches are matched to the reference by dynamic time warping, so that
phases, pitch periods and delays that a decoder made up cost nothing. The published package does not run beside
numpy 2; this is its algorithm, with pauses found in the (aligned) reference instead of by WebRTC's detector.

Source: Jassim, Skoglund, Chinen and Hines 2021 and 2022 (WARP-Q 1.5.2, Apache 2.0).
"""

from __future__ import annotations

import librosa
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from training.data.corpus import SAMPLE_RATE, Signal

WINDOW, HOP, TOP_HZ = 512, 64, 5000
COEFFICIENTS = 13
PATCH, PATCH_STEP = 92, 42
"""Frames of a patch, and from one patch to the next."""
NORMALISED = 201
"""Frames over which mean and variance of the cepstra are taken out (0.84 s)."""
STEPS = np.array([[1, 0], [0, 3], [1, 3]])
PAUSE_DB = 40.0
"""Frames of the reference that are so far below its loudest are pauses, which nobody judges."""


def warpq(degraded: Signal, reference: Signal) -> float:
    """Median cost of the patches: about 0.6 for the reference itself, 3 for what has nothing to do with it.

    Args:
        degraded: At `SAMPLE_RATE`, aligned with the reference.
        reference: The undamaged signal, of the same length.

    Returns:
        The raw score, lower is better; NaN if there are less than 0.4 s of speech.
    """
    level_db = librosa.feature.rms(y=reference, frame_length=2 * WINDOW, hop_length=HOP)[0]
    speech = librosa.amplitude_to_db(level_db, ref=np.max, top_db=None) > -PAUSE_DB
    ours, theirs = (_cepstra(signal)[:, speech] for signal in (degraded, reference))
    starts = range(0, ours.shape[1] - PATCH + 1, PATCH_STEP)
    if not starts:
        return float("nan")
    ours, theirs = _normalise(ours), _normalise(theirs)
    return float(np.median([_cost(ours[:, start : start + PATCH], theirs) for start in starts]))


def _cepstra(signal: Signal) -> NDArray[np.float64]:
    cepstra: NDArray[np.float64] = librosa.feature.mfcc(
        y=signal,
        sr=SAMPLE_RATE,
        n_mfcc=COEFFICIENTS,
        n_fft=2 * WINDOW,
        win_length=WINDOW,
        hop_length=HOP,
        fmax=TOP_HZ,
        lifter=3,
    ).astype(np.float64)
    return cepstra


def _normalise(cepstra: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = cepstra - uniform_filter1d(cepstra, NORMALISED, axis=1)
    mean = uniform_filter1d(centred, NORMALISED, axis=1)
    variance = uniform_filter1d(centred**2, NORMALISED, axis=1) - mean**2
    return centred / (np.sqrt(np.maximum(variance, 0)) + 2**-30)


def _cost(patch: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Of the best path of a patch through any part of the reference, for each of its frames."""
    costs = librosa.sequence.dtw(patch, reference, step_sizes_sigma=STEPS, subseq=True, backtrack=False)
    return float(costs[-1].min() / patch.shape[1])
