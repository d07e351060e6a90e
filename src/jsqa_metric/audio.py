"""From what users have (files, arrays, tensors) to windows that a network takes.

Conventions:
    - Signals are floating point with full scale ±1, time on the last axis; integers are scaled by their type.
    - Rates are in Hz, durations in seconds, and counts in samples of the rate that they belong to.
    - A clip is cut into windows at its own rate and each window is resampled by itself, so that memory does not
      grow with the length of a file and a file scores as the array in it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Any, Protocol, TypeGuard

import numpy as np
import soundfile as sf
import torch
from julius.resample import ResampleFrac
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

MIN_SECONDS = 0.1
"""Shorter clips are not scored."""
SILENCE_PEAK = 1e-4
"""A window that stays below this (-80 dBFS) is silence and is not scored."""
MAX_PEAK = 8.0
"""Beyond this (+18 dBFS) samples cannot be floating point audio: integers that were not scaled, most likely."""
SAMPLE_RATES = (2000, 768000)
"""Lowest and highest accepted rate, in Hz."""
MAX_CHANNELS = 64
UNSIGNED_ZERO = {getattr(torch, f"uint{n}"): 2.0 ** (n - 1) for n in (8, 16, 32) if hasattr(torch, f"uint{n}")}
"""What silence is in unsigned samples; torch has those of 16 and 32 bits since 2.3."""

Channel = str | int
Array = np.ndarray[Any, Any]


class AudioError(ValueError):
    """A clip that cannot be scored; the message says why."""


class Clip(Protocol):
    """One clip: what it is, and its samples on demand."""

    samples: int
    sample_rate: int

    def read(self, start: int, stop: int) -> Tensor:
        """Samples `start` to `stop` as mono float32 of shape `(stop - start,)`."""
        ...


@dataclass
class ArrayClip:
    """A clip in memory (or memory-mapped): `(time,)`, or `(channels, time)` to be mixed down."""

    data: Array | Tensor
    samples: int
    sample_rate: int
    channel: Channel | None = None

    def read(self, start: int, stop: int) -> Tensor:
        """Samples `start` to `stop`; differentiable with respect to a tensor."""
        part = self.data[..., start:stop]
        signal = part if isinstance(part, Tensor) else torch.from_numpy(_native(part))
        signal = _to_full_scale(signal)
        mono: Tensor = signal if self.channel is None else _mix_down(signal, self.channel)
        return mono


class FileClip:
    """A clip in an audio file that libsndfile reads; only the wanted window is ever in memory.

    But for a few codecs of telephony (GSM, G.72x), which are read from the beginning on only: these are kept whole.

    Raises:
        FileNotFoundError: If there is no such file.
        AudioError: If it is not an audio file, or has unlikely properties.
    """

    def __init__(self, path: str | os.PathLike[str], channel: Channel) -> None:
        if not os.path.exists(path):
            raise FileNotFoundError(f"no such file: {os.fspath(path)!r}")
        if not os.path.isfile(path):
            raise AudioError(f"a folder or a device, not a file: {os.fspath(path)!r}")
        try:
            # bytes, as soundfile refuses names that are not UTF-8 when they come as text
            self._file = sf.SoundFile(os.fsencode(path) if os.name == "posix" else os.fspath(path))
        except (sf.SoundFileError, OSError, TypeError, ValueError) as error:
            raise AudioError(f"not a readable audio file ({_reason(error)})") from error
        self._whole: Array | None = None
        self.samples, self.sample_rate, self.channel = self._file.frames, self._file.samplerate, channel
        if self._file.channels > MAX_CHANNELS:
            raise AudioError(f"{self._file.channels} channels; at most {MAX_CHANNELS} are read")
        check_sample_rate(self.sample_rate)

    def read(self, start: int, stop: int) -> Tensor:
        """Samples `start` to `stop`.

        Raises:
            AudioError: If the file ends or breaks before.
        """
        try:
            block = self._read_block(start, stop)
        except (sf.SoundFileError, OSError, RuntimeError) as error:
            raise AudioError(f"damaged audio file ({_reason(error)})") from error
        if len(block) < stop - start:
            raise AudioError(f"damaged audio file (it ends after {start + len(block)} of {self.samples} samples)")
        # mixed in NumPy: torch's threads would start a second team in a reading thread, in the way of the network's
        return torch.from_numpy(np.ascontiguousarray(_mix_down(block.T, self.channel)))

    def _read_block(self, start: int, stop: int) -> Array:
        if self._file.seekable():
            self._file.seek(start)
            block: Array = self._file.read(stop - start, dtype="float32", always_2d=True)
            return block
        if self._whole is None:
            self._whole = self._file.read(self.samples, dtype="float32", always_2d=True)
        return self._whole[start:stop]


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip(" .\n")


def _native(array: Array) -> Array:
    """An own copy that torch takes: native byte order, positive strides, writable, no unsigned 16 or 32 bit.

    Floats wider than 64 bits are rounded.
    """
    if array.dtype.kind == "u" and array.dtype.itemsize in (2, 4):
        bits = 8 * array.dtype.itemsize
        signed: Array = array.astype(np.float64) / 2 ** (bits - 1) - 1
        return signed.astype(np.float32)
    wide = array.dtype.kind == "f" and array.dtype.itemsize > 8
    dtype: np.dtype[Any] = np.dtype(np.float64) if wide else array.dtype.newbyteorder("=")
    return array.astype(dtype, order="C", copy=True)


def _to_full_scale(signal: Tensor) -> Tensor:
    """Float32 at full scale ±1."""
    if signal.is_floating_point():
        return signal.float()
    if signal.dtype in UNSIGNED_ZERO:
        return signal.float() / UNSIGNED_ZERO[signal.dtype] - 1
    if signal.dtype in (torch.int8, torch.int16, torch.int32):
        return signal.float() / -float(torch.iinfo(signal.dtype).min)
    raise ValueError(f"`audio` must be floating point or 8, 16 or 32 bit integer, got {signal.dtype}")


def _mix_down(signal: Any, channel: Channel) -> Any:
    """Mean of the channels of an array or tensor `(channels, time)`, or one of them."""
    if signal.shape[0] == 0:
        raise AudioError("has no channels")
    if channel == "mean":
        return signal.mean(0) if signal.shape[0] > 1 else signal[0]
    index = 0 if channel == "first" else int(channel)
    if index >= signal.shape[0]:
        raise AudioError(f"has {signal.shape[0]} channels, no channel {index}")
    return signal[index]


def check_channel(channel: Channel) -> Channel:
    """Return a valid channel choice: "mean", "first" or an index (a number in text is one too).

    Raises:
        ValueError: If it is anything else.
    """
    text = "" if isinstance(channel, bool) else str(channel)
    if text in ("mean", "first"):
        return text
    if text.isdecimal() and text.isascii():
        return int(text)
    raise ValueError(f"`channel` must be 'mean', 'first' or the number of a channel (0, 1, ...), got {channel!r}")


def check_sample_rate(sample_rate: float | None) -> int:
    """Return the rate as an integer.

    Raises:
        ValueError: If it is missing, not a whole number, or outside `SAMPLE_RATES`.
    """
    low, high = SAMPLE_RATES
    if sample_rate is None:
        raise ValueError("`sample_rate` (Hz) is required for arrays and tensors: it is never guessed")
    try:
        rate = math.nan if isinstance(sample_rate, (bool, str, bytes)) else float(sample_rate)
    except (TypeError, ValueError, OverflowError):  # a list, several rates, a number without end
        rate = math.nan
    if not (low <= rate <= high and rate.is_integer()):
        raise AudioError(f"`sample_rate` must be a whole number of Hz from {low} to {high}, got {sample_rate!r}")
    return int(rate)


def check_clip(clip: Clip) -> None:
    """Check what is known before reading.

    Raises:
        AudioError: If the clip is empty or too short.
    """
    if clip.samples == 0:
        raise AudioError("empty: there are no samples")
    seconds = clip.samples / clip.sample_rate
    if seconds < MIN_SECONDS:
        hint = " (is time the last axis?)" if isinstance(clip, ArrayClip) and clip.samples <= 8 else ""
        raise AudioError(f"too short: {seconds:.4f} s is less than {MIN_SECONDS} s{hint}")


def peak_error(peak: float) -> str | None:
    """What is wrong with samples of this peak (NaN if any of them is), or None."""
    if not np.isfinite(peak):
        return "contains NaN or infinite samples"
    if peak > MAX_PEAK:
        return f"peak {peak:.4g} is far beyond full scale ±1: scale integer samples (int16: / 32768)"
    return None


def is_path(item: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether an input names a file."""
    return isinstance(item, (str, os.PathLike))


def window_bounds(clip: Clip, seconds: float) -> Iterator[tuple[int, int, float]]:
    """Windows of equal length that overlap by 1/12: first sample, end, and weight in the clip's mean.

    The last one ends with the clip, and weighs as much as it adds to those before: a clip that grows by a sample does
    not change its score by a whole window. A clip that fits one window is that window.
    Lazily, as a broken header may claim any length.
    """
    window = round(seconds * clip.sample_rate)
    if clip.samples <= window:
        yield 0, clip.samples, 1.0
        return
    hop, last = window * 11 // 12, clip.samples - window
    for start in range(0, last, hop):
        yield start, start + window, 1.0
    yield last, clip.samples, ((last - 1) % hop + 1) / hop


def resample(signals: Tensor, old_rate: int, new_rate: int) -> Tensor:
    """Resample by band-limited (windowed sinc) interpolation; differentiable, any device.

    The signal is taken as zero before and after, so that padding with zeros changes nothing. A ratio of rates
    with large terms is rounded to the nearest with terms up to 1,000 (an error below 0.1 %, and none for common
    rates), as the filter bank grows with the square of them.

    Shape:
        - signals: `(batch, time)`
        - return: `(batch, ceil(time * new_rate / old_rate))`

    Source: Smith, "Digital Audio Resampling", by way of the filters of julius.
    """
    ratio = Fraction(new_rate, old_rate).limit_denominator(1000)
    if ratio == 1:
        return signals
    bank, step, before = _filter_bank(ratio, signals.device)
    length = resampled_length(signals.shape[-1], old_rate, new_rate)
    frames = ceil(length / bank.shape[1])
    after = (frames - 1) * step + bank.shape[0] - before - signals.shape[-1]
    out = F.pad(signals, (before, after)).unfold(-1, bank.shape[0], step) @ bank
    return out.flatten(-2)[..., :length]


@lru_cache(maxsize=16)
def _filter_bank(ratio: Fraction, device: torch.device) -> tuple[Tensor, int, int]:
    """A matrix that makes a run of output samples from a frame of input samples; frame step; samples before it.

    It holds julius's filters, as often as it takes for a matrix product that is worth it: several times faster than
    the convolution in `julius.resample_frac`, which also computes the filters anew in each call.
    """
    new, old = ratio.numerator, ratio.denominator
    # it is kept, and may be wanted for gradients later; the caller's default device may be "meta"
    with torch.inference_mode(False), torch.device("cpu"):
        kernel = (
            ResampleFrac(old, new).get_buffer("kernel")[:, 0].float()
        )  # (new, taps): output j * new + p begins at j * old
        repeats, taps = ceil(64 / new), kernel.shape[1]
        bank = torch.zeros((repeats - 1) * old + taps, repeats, new, dtype=torch.float32)
        for i in range(repeats):
            bank[i * old : i * old + taps, i] = kernel.T
        return bank.flatten(1).to(device), repeats * old, (taps - old) // 2


def resampled_length(samples: int, old_rate: int, new_rate: int) -> int:
    """Number of samples that `resample` makes of so many."""
    ratio = Fraction(new_rate, old_rate).limit_denominator(1000)
    return ceil(samples * ratio)
