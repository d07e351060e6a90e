"""The machinery below `score`, the metric class and the command: windows of many clips through the network.

Conventions: a clip that cannot be scored (empty, too short, silent, not finite, far beyond full scale, unreadable)
is NaN with a reason, so that a batch goes on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import mul
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from jsqa_metric import audio as au
from jsqa_metric.bandwidth import bandwidth_gain, extend
from jsqa_metric.level import (
    ACTIVE_DB,
    SLOPE_DB,
    active_level_db,
    frame_size,
    frames_of,
    gain_to,
    to_network,
    without_offset,
)
from jsqa_metric.model import DIMENSIONS, Dimensions, JSQAModel
from jsqa_metric.prefetch import prefetched

Path = str | os.PathLike[str]
Source = Path | au.Clip
T = TypeVar("T")

BATCH_SIZE = 8
"""Windows scored at once by default: memory for about 100 s of audio."""
_LOUDNESS = DIMENSIONS.index("loudness")


@dataclass(frozen=True)
class WindowScore:
    """Score of one window of a clip; NaN where the window is silent.

    `weight` is its share in the clip's mean, relative to the other windows: less for one that adds little to the one
    before, is silent in part, or is far quieter than the loudest.
    """

    start_s: float
    end_s: float
    mos: float
    weight: float = 1.0


@dataclass(frozen=True)
class ScoreDetails:
    """A clip's score with what it was made of.

    Attributes:
        mos: Mean opinion score in [1, 5]; NaN if the clip cannot be scored.
        reason: Why the clip has no score, or None.
        duration_s: Length of the clip in seconds; NaN if unknown.
        sample_rate: Its rate in Hz; None if unknown.
        windows: Scores over time; `mos` is the weighted mean of those that are not NaN.
        std: Standard deviation that the model expects of its error (in MOS); NaN if it has not learned to, or if
            there is no score.
        dimensions: Where quality is lost: a MOS for each of noisiness, coloration, discontinuity and loudness, without
            bandwidth above 7 kHz; NaN if the model has not learned them, or if there is no score.
    """

    mos: float
    reason: str | None
    duration_s: float
    sample_rate: int | None
    windows: tuple[WindowScore, ...] = ()
    std: float = math.nan
    dimensions: Dimensions = Dimensions()


@dataclass
class _Job:
    """A window on its way through the network; the last one of a clip carries `final`.

    `signal` is None where it could not be read, `score` where there is nothing to score (an error, or silence).
    """

    clip: int
    bounds_s: tuple[float, float]
    signal: Tensor | None
    rate: int
    final: bool
    weight: float = 1.0
    gain: Tensor | None = None
    error: str | None = None
    score: Tensor | None = None
    mos: float = math.nan
    std: float = math.nan
    dimensions: list[float] = field(default_factory=list)
    level_db: float = math.nan


@dataclass
class _Tally:
    """What is known of a clip so far."""

    duration_s: float = math.nan
    sample_rate: int | None = None
    reason: str | None = None
    jobs: list[_Job] = field(default_factory=list)


def _read_jobs(
    sources: Iterable[Source], channel: au.Channel, window_s: float, level_db: float | None, tallies: dict[int, _Tally]
) -> Iterator[_Job]:
    """Read all clips window by window. An unreadable clip gives one job with its reason."""
    for number, source in enumerate(sources):
        tallies[number] = tally = _Tally()
        try:
            clip = au.FileClip(source, channel) if isinstance(source, (str, os.PathLike)) else source
            tally.duration_s, tally.sample_rate = clip.samples / clip.sample_rate, clip.sample_rate
            au.check_clip(clip)
            gain: Tensor | None = None
            for start, stop, weight in au.window_bounds(clip, window_s):
                seconds = start / clip.sample_rate, stop / clip.sample_rate
                signal = clip.read(start, stop)
                if level_db is not None and gain is None:
                    chunks = [signal] if stop - start == clip.samples else _chunks(clip, window_s)
                    gain = gain_to(level_db, chunks, clip.sample_rate)
                yield _Job(number, seconds, signal, clip.sample_rate, stop == clip.samples, weight, gain)
        except (au.AudioError, OSError, MemoryError) as error:
            yield _Job(number, (0.0, 0.0), None, 0, final=True, error=str(error) or type(error).__name__)


def _chunks(clip: au.Clip, seconds: float) -> Iterator[Tensor]:
    """All of a clip in parts of about so many seconds, which are whole frames."""
    size = frame_size(clip.sample_rate)
    size *= max(1, round(seconds * clip.sample_rate / size))
    return (clip.read(start, min(start + size, clip.samples)) for start in range(0, clip.samples, size))


def _score_windows(jobs: list[_Job], model: JSQAModel, device: torch.device) -> None:
    """Give the windows their scores, or what is wrong with them."""
    read = [(job, job.signal.to(device)) for job in jobs if job.signal is not None]
    if not read:
        return
    centred = [without_offset(signal) for _, signal in read]
    loudest = [_peak(signal) for _, signal in read]
    heard = [peak if s is c else _peak(c) for (_, s), c, peak in zip(read, centred, loudest, strict=True)]
    peaks, heard_peaks = (torch.stack(values).tolist() for values in (loudest, heard))  # NaN if any sample is
    for (job, _), peak in zip(read, peaks, strict=True):
        job.error = au.peak_error(peak)
    sound = [
        (job, signal)
        for (job, _), signal, peak in zip(read, centred, heard_peaks, strict=True)
        if not job.error and peak >= au.SILENCE_PEAK
    ]
    if not sound:
        return
    signals, rates = [signal for _, signal in sound], [job.rate for job, _ in sound]
    signals = [s if job.gain is None else s * job.gain.to(device) for (job, _), s in zip(sound, signals, strict=True)]
    # the trainer's mixed precision is not ours, nor the resampler's: a score does not depend on where it is computed
    with torch.autocast(device.type, enabled=False):
        levels = torch.stack([active_level_db(s, rate) for s, rate in zip(signals, rates, strict=True)])
        scores, stds, dimensions = _score_signals(signals, rates, levels, model)
        audible = [_audible(signal.detach(), rate) for signal, rate in zip(signals, rates, strict=True)]
    values = [t.detach().tolist() for t in (scores, stds, dimensions, levels, torch.stack(audible))]
    for (job, _), score, mos, std, parts, level_db, share in zip(sound, scores.unbind(), *values, strict=True):
        if math.isnan(mos):  # weights that load but overflow: a reason in the row, and the other clips go on
            job.error = "the model gives NaN for it"
            continue
        job.score, job.mos, job.std, job.dimensions = score, mos, std, parts
        job.level_db, job.weight = level_db, job.weight * share


def _peak(signal: Tensor) -> Tensor:
    low, high = signal.detach().aminmax()
    return torch.maximum(-low, high)


def _audible(signal: Tensor, sample_rate: int) -> Tensor:
    """Share of a window that is not silent."""
    return (frames_of(signal, sample_rate).abs().amax(1) >= au.SILENCE_PEAK).float().mean()


def _score_signals(
    signals: list[Tensor], rates: list[int], levels: Tensor, model: JSQAModel
) -> tuple[Tensor, Tensor, Tensor]:
    """What `predict_details` returns, with what the network does not hear: bandwidth, and levels that it is spared."""
    if model.config.limit_hz:
        wider = torch.stack([bandwidth_gain(s, rate) for s, rate in zip(signals, rates, strict=True)])
    else:
        wider = torch.ones_like(levels)
    gains, shares = to_network(levels, model.config)
    wav, lengths = _resample_batch(signals, rates, model.sample_rate)
    scores, stds, dimensions = model.predict_details(wav * gains[:, None], lengths)
    dimensions[:, _LOUDNESS] = extend(dimensions[:, _LOUDNESS], shares)
    return extend(scores, wider * shares), stds * wider, dimensions


def _resample_batch(signals: list[Tensor], rates: list[int], rate: int) -> tuple[Tensor, Tensor]:
    """Pad and resample signals of different lengths and rates: waveforms `(batch, time)` and their lengths."""
    if len(set(rates)) == 1:
        lengths = [au.resampled_length(s.shape[0], rates[0], rate) for s in signals]
        stacked = signals[0][None] if len(signals) == 1 else pad_sequence(signals, batch_first=True)
        wav = au.resample(stacked, rates[0], rate)
    else:
        resampled = [au.resample(s[None], r, rate)[0] for s, r in zip(signals, rates, strict=True)]
        lengths = [s.shape[0] for s in resampled]
        wav = pad_sequence(resampled, batch_first=True)
    return wav, torch.tensor(lengths, device=wav.device)


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch


def iter_details(
    sources: Iterable[Source],
    model: JSQAModel,
    device: torch.device,
    channel: au.Channel = "mean",
    batch_size: int = BATCH_SIZE,
    prefetch: bool = False,
    level_db: float | None = None,
) -> Iterator[tuple[ScoreDetails, Tensor]]:
    """Score clips one after the other, windows of several clips in one batch.

    Args:
        sources: Paths or opened clips.
        model: The network.
        device: Where the network is.
        channel: How files with several channels are mixed down.
        batch_size: Windows in one pass through the network.
        prefetch: Read the next windows while the network works.
        level_db: Active level in dBFS that each clip is brought to first, by one gain for all of it; by default none.
            Clips of several windows are read twice for that.

    Yields:
        For each clip, in order, its details and its score as a scalar tensor that gradients flow through.
    """
    tallies: dict[int, _Tally] = {}
    batches = _batches(_read_jobs(sources, channel, model.config.window_seconds, level_db, tallies), batch_size)
    for jobs in prefetched(batches) if prefetch else batches:
        _score_windows(jobs, model, device)
        for job in jobs:
            tally = tallies[job.clip]
            tally.reason = tally.reason or job.error
            if job.signal is not None:
                job.signal = None  # an hour of samples is not kept
                tally.jobs.append(job)
            if job.final:
                yield _finish(tallies.pop(job.clip), device)


def _loud_enough(quieter_db: float) -> float:
    """Weight of a window that is so much quieter than the loudest: none if it is a pause, as for frames."""
    return 1 / (1 + math.exp(min(50.0, (quieter_db - ACTIVE_DB) / SLOPE_DB)))


def _finish(tally: _Tally, device: torch.device) -> tuple[ScoreDetails, Tensor]:
    """Weighted mean of the windows with sound. One bad window (not finite, unreadable) spoils the clip."""
    heard = [job for job in tally.jobs if job.score is not None]
    if tally.reason is None and not heard:
        tally.reason = f"silent: no sample reaches {20 * math.log10(au.SILENCE_PEAK):.0f} dB of full scale"
    score, mos, std = torch.tensor(math.nan, dtype=torch.float32, device=device), math.nan, math.nan
    dimensions = Dimensions()
    loudest_db = max((job.level_db for job in heard), default=0.0)
    for job in tally.jobs:
        job.weight *= _loud_enough(loudest_db - job.level_db) if job.score is not None else 0.0
    if tally.reason is None:
        weights = [job.weight for job in heard]
        factors = torch.tensor(weights, dtype=torch.float32, device=device)
        score = (torch.stack([job.score for job in heard if job.score is not None]) * factors).sum() / factors.sum()
        # a clip's errors go together: the mean makes the standard deviation no smaller
        columns = zip(*([job.mos, job.std, *job.dimensions] for job in heard), strict=True)
        total = sum(weights)
        mos, std, *parts = (sum(map(mul, weights, column)) / total for column in columns)
        dimensions = Dimensions(*parts)
    windows = tuple(WindowScore(*job.bounds_s, job.mos, job.weight) for job in tally.jobs)
    return ScoreDetails(mos, tally.reason, tally.duration_s, tally.sample_rate, windows, std, dimensions), score
