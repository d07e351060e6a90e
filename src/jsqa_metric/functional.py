"""`score`: what users call.

Conventions: a clip that cannot be scored is NaN with a reason; an argument that makes no sense is a `ValueError`.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from jsqa_metric import audio as au
from jsqa_metric.engine import BATCH_SIZE, Path, ScoreDetails, Source, iter_details
from jsqa_metric.hub import load_scorer, resolve_device
from jsqa_metric.level import check_level
from jsqa_metric.model import JSQAModel

Array = np.ndarray[Any, Any]
MAX_BATCH_SIZE = 1_000_000
MAX_NOT_TIME, MIN_TIME = 8, 1000
"""An array `(time, channels)`, as soundfile reads it, has at most so many channels and at least so many samples."""
_F = TypeVar("_F", bound=Callable[..., Any])

Audio = Path | Array | Tensor | Sequence[Path] | Sequence[Array] | Sequence[Tensor]


def _uncompiled(function: _F) -> _F:
    """Where `torch.compile` breaks its graph: what is scored, and how, depends on the data.

    torch's own decorator loads the compiler at the first call, a second that only those who compile should pay.
    """
    apart = getattr(torch, "_disable_dynamo", lambda same: same)(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return apart(*args, **kwargs) if torch.compiler.is_compiling() else function(*args, **kwargs)

    return cast(_F, call)


def _array_clips(
    data: Array | Tensor, rate: int, lengths: Any, channel: au.Channel | None
) -> tuple[list[au.Clip], tuple[int, ...]]:
    """The clips of an array `(..., time)`, or `(..., channels, time)` if a channel is chosen, and their shape."""
    needed = 1 if channel is None else 2
    if isinstance(data, Tensor) and (data.layout != torch.strided or data.is_nested or data.is_meta):
        raise ValueError("`audio` must be a dense tensor with data: not sparse, nested or on the device 'meta'")
    if data.ndim < needed:
        raise ValueError(f"`audio` must have at least {needed} axes, the last one time, got shape {tuple(data.shape)}")
    if isinstance(data, np.ndarray):
        data = np.asarray(data)  # a matrix would never lose its second axis
    kind = data.dtype.kind if isinstance(data, np.ndarray) else ("c" if data.is_complex() else "")
    if kind and kind not in "fiu" or data.dtype in (np.int64, np.uint64, torch.int64, torch.bool):
        raise ValueError(f"`audio` must be floating point or 8, 16 or 32 bit integer, got {data.dtype}")
    shape = tuple(data.shape[: data.ndim - needed])
    if data.shape[-1] <= MAX_NOT_TIME < MIN_TIME <= max(shape, default=0):  # a clip for each sample would take forever
        raise ValueError(f"`audio` of shape {tuple(data.shape)} must have time as its last axis: transpose it first")
    samples = _check_lengths(lengths, shape, data.shape[-1])
    rows = data.reshape(math.prod(shape), *data.shape[data.ndim - needed :]) if data.ndim > needed else data[None]
    clips: list[au.Clip] = [au.ArrayClip(rows[i], n, rate, channel) for i, n in enumerate(samples)]
    return clips, shape


def _check_lengths(lengths: Any, shape: tuple[int, ...], time: int) -> list[int]:
    if lengths is None:
        return [time] * math.prod(shape)
    try:
        values = np.asarray(lengths.cpu() if isinstance(lengths, Tensor) else lengths)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"`lengths` must be whole numbers of samples of shape {shape}, got {lengths!r}") from error
    if values.dtype.kind not in "iu" or values.shape != shape:
        raise ValueError(
            f"`lengths` must be whole numbers of samples of shape {shape}, got {values.dtype} of shape {values.shape}"
        )
    if values.size and not 0 <= values.min() <= values.max() <= time:
        raise ValueError(f"`lengths` must lie between 0 and {time}, got {values.min()} to {values.max()}")
    return [int(v) for v in values.reshape(-1)]


def check_batch_size(batch_size: int) -> int:
    """Return a valid number of windows.

    Raises:
        ValueError: If it is not a whole number from 1 to `MAX_BATCH_SIZE`.
    """
    whole = hasattr(batch_size, "__index__") and not isinstance(batch_size, (bool, np.bool_))
    if not whole or not 1 <= int(batch_size) <= MAX_BATCH_SIZE:
        raise ValueError(f"`batch_size` must be a whole number from 1 to {MAX_BATCH_SIZE}, got {batch_size!r}")
    return int(batch_size)


@_uncompiled
def score(
    audio: Audio,
    sample_rate: float | None = None,
    *,
    lengths: Any = None,
    model: str | os.PathLike[str] | JSQAModel = "default",
    device: str | torch.device | None = None,
    channel: au.Channel | None = None,
    batch_size: int = BATCH_SIZE,
    return_details: bool = False,
    revision: str | None = None,
    level_db: float | None = None,
) -> Any:
    """Predict how good speech sounds to people: a mean opinion score (MOS) from 1 (bad) to 5 (excellent).

    Args:
        audio: A path; an array or tensor `(..., time)`; or a list of paths, of arrays or of tensors `(time,)` of
            different lengths. Floating point at full scale ±1, or 8, 16 or 32 bit integers. Every leading index is
            a clip of its own.
        sample_rate: Rate in Hz; required for arrays and tensors. Files know theirs.
        lengths: For padded batches, the samples of each clip, in the leading shape; the rest is ignored.
        model: Name, folder, Hub id (see `load_model`) or a loaded model.
        device: Where to compute. By default the device of a loaded model or of the tensor, else the CPU; "auto" takes
            a GPU if there is one.
        channel: "mean", "first" or a number. For files the default is "mean". For arrays with a channel axis
            `(..., channels, time)`; without it, each channel is scored as a clip.
        batch_size: Windows in one pass through the network; changes memory and speed, not scores.
        return_details: Return `ScoreDetails` (a list of them for several clips, in C order).
        revision: Of a model by name; see `load_model`.
        level_db: Bring each clip to this active level in dBFS first, by one gain for all of it, so that how loud a
            system happens to be counts neither for nor against it: from -45 to -15, listening tests use -26. Silence
            and samples far beyond full scale are judged before that, and peaks may lie beyond it afterwards. By
            default, what a low level costs listeners counts.

    Shape:
        - audio: `(..., time)`
        - lengths: `(...)`
        - return: `(...)`

    Returns:
        A `float` for one clip; for several an array, or a tensor where tensors came in. One tensor that requires a
        gradient gives a scalar tensor. Gradients flow from scores to waveforms.
        A clip that cannot be scored (under 0.1 s, silent, NaN, ...) is NaN, and one warning gives the reasons.

    Raises:
        ValueError: If an argument is missing or wrong.
        FileNotFoundError: If a single path does not exist (in a list, it is NaN).
        AudioError: If a single path is not an audio file (a `ValueError`; in a list, it is NaN).

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> noise = 0.1 * rng.standard_normal((2, 16000))
    >>> score(noise, sample_rate=16000).shape
    (2,)
    >>> score(noise[0], sample_rate=16000) < 2
    True
    """
    batch_size, level_db = check_batch_size(batch_size), check_level(level_db)
    channel = None if channel is None else au.check_channel(channel)
    sources, shape, template = _sources(audio, sample_rate, lengths, channel)
    network = _network(model, device, template, revision)
    place = next(network.parameters()).device

    wants_gradient = isinstance(template, Tensor) and template.requires_grad and torch.is_grad_enabled()
    files = bool(sources) and not isinstance(sources[0], au.ArrayClip) and not _fits_one_window(sources, network)
    # not inference mode, which breaks transforms of `torch.func` around it
    with nullcontext() if wants_gradient else torch.no_grad():
        results = list(
            iter_details(sources, network, place, channel or "mean", batch_size, prefetch=files, level_db=level_db)
        )
    details = [detail for detail, _ in results]
    _warn_unscored(details)
    if return_details:
        return details if shape is not None else details[0]
    if shape is None and not wants_gradient:
        return details[0].mos
    if isinstance(template, Tensor):
        stacked = torch.stack([s for _, s in results]) if results else template.new_zeros(0, dtype=torch.float32)
        if wants_gradient:
            pairs = zip(sources, details, strict=True)
            unscored = [clip.data for clip, d in pairs if d.reason and isinstance(clip, au.ArrayClip)]
            for data in unscored or ([] if results else [template]):  # a gradient of zero, not of None
                stacked = stacked + torch.nan_to_num(data * 0).sum().to(place)  # type: ignore[arg-type]  # tensors all
        return stacked.to(template.device).reshape(shape or ())
    return np.array([detail.mos for detail in details], dtype=np.float32).reshape(shape or ())


def _fits_one_window(sources: list[Source], network: JSQAModel) -> bool:
    """Whether there is only one window, and so nothing to read ahead."""
    clip = sources[0]
    return isinstance(clip, au.FileClip) and clip.samples <= network.config.window_seconds * clip.sample_rate


def _network(model: str | os.PathLike[str] | JSQAModel, device: Any, template: Any, revision: str | None) -> JSQAModel:
    """The model where it is to compute; one that is passed stays where it is."""
    if not isinstance(model, JSQAModel):
        place = template.device if isinstance(template, Tensor) else "cpu"
        return load_scorer(model, place if device is None else device, revision)
    if revision is not None:
        raise ValueError("`revision` belongs to a model by name; one that is loaded has its own")
    if model.training:
        raise ValueError("`model` is in training mode: call its `eval()` first")
    if next(model.parameters()).dtype != torch.float32:
        raise ValueError(f"`model` must have float32 weights, got {next(model.parameters()).dtype}")
    if device is not None and resolve_device(device).type != next(model.parameters()).device.type:
        raise ValueError(f"`model` is on {next(model.parameters()).device}, not on `device` {device!r}")
    return model


def _sources(
    audio: Any, sample_rate: float | None, lengths: Any, channel: au.Channel | None
) -> tuple[list[Source], tuple[int, ...] | None, Any]:
    """What to score, the shape of the result (None for one clip), and an input to model the output on."""
    if lengths is not None and not isinstance(audio, (np.ndarray, Tensor)):
        raise ValueError("`lengths` belongs to a padded array or tensor: files and clips in a list have their own")
    if au.is_path(audio):
        clip = au.FileClip(audio, channel or "mean")  # a single file that cannot be opened is an error, not a NaN
        return [clip], None, None
    if isinstance(audio, (np.ndarray, Tensor)):
        clips, shape = _array_clips(audio, au.check_sample_rate(sample_rate), lengths, channel)
        return list(clips), shape or None, audio
    if not isinstance(audio, (list, tuple)):
        raise ValueError(f"`audio` must be a path, an array, a tensor or a list of them, got {type(audio).__name__}")
    if all(au.is_path(item) for item in audio):
        return list(audio), (len(audio),), None
    if not (all(isinstance(i, np.ndarray) for i in audio) or all(isinstance(i, Tensor) for i in audio)):
        kinds = ", ".join(sorted({type(item).__name__ for item in audio}))
        raise ValueError(f"`audio` must be a list of paths, of arrays or of tensors, got a list of {kinds}")
    rate, single = au.check_sample_rate(sample_rate), []
    for item in audio:
        clips, shape = _array_clips(item, rate, None, channel)
        if shape:
            raise ValueError(f"`audio` as a list must hold one clip per item, got an item of shape {tuple(item.shape)}")
        single += clips
    gradient = next((i for i in audio if isinstance(i, Tensor) and i.requires_grad), audio[0])
    return list(single), (len(audio),), gradient


def _warn_unscored(details: Sequence[ScoreDetails]) -> None:
    """One warning for all clips without a score."""
    reasons = sorted({detail.reason for detail in details if detail.reason})
    if reasons:
        count = sum(detail.reason is not None for detail in details)
        warnings.warn(f"{count} of {len(details)} clips not scored (NaN): {'; '.join(reasons[:5])}", stacklevel=4)
