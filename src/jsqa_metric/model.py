"""The network: configuration, encoder, pooling, head."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from jsqa_metric.encoders import THRESHOLD_DB, SpectrogramEncoder, WaveformEncoder
from jsqa_metric.layers import AttentionPooling, MaskedConvolution, MeanPooling, apply_lengths

MOS_RANGE = (1.0, 5.0)
LOG_STD = "log_std"
"""Name of the task that is the log of the MOS's standard deviation."""
FORMAT_VERSION = 1
"""Raised when `config.json` or the names of the weights change their meaning."""


class Dimensions(NamedTuple):
    """Where quality is lost: a MOS for each of the dimensions of ITU-T P.804, high where nothing is."""

    noisiness: float = math.nan
    coloration: float = math.nan
    discontinuity: float = math.nan
    loudness: float = math.nan


DIMENSIONS = Dimensions._fields
"""Names of the tasks that are these, less 3."""


_LIMITS = {
    "sample_rate": (2000, 192000),
    "width": (1, 1024),
    "bands": (4, 1024),
    "channels": (4, 4096),
    "layers": (0, 64),
    "hidden": (0, 16384),
    "limit_hz": (0, 8000),
    "floor_db": (-90, 0),
    "level_db": (-90, 0),
    "threshold_db": (-100, -50),
}
"""Whole numbers of a configuration: one that comes from elsewhere must not exhaust the memory."""

_MOST_CONVOLUTIONS = 16


def _possible(convolution: object) -> bool:
    """Whether this can be a convolution's channels, strides and, if it has one, rank."""
    if not isinstance(convolution, tuple) or len(convolution) not in (3, 4):
        return False
    pairs = zip(convolution, (256, 4, 4, 256), strict=False)
    return all(type(value) is int and 1 <= value <= most for value, most in pairs)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that defines a model besides its weights; stored as `config.json` beside them.

    Args:
        encoder: "spectrogram" (fast, the default) or "waveform" (the paper's).
        sample_rate: Rate the network works at, in Hz.
        width: Channels of the first convolution (without meaning where there are `convolutions`).
        convolutions: Channels, stride over bands and stride over time of each convolution, and the rank of those that
            are a `LowRankConvolution` (spectrogram only; empty for the five of `SpectrogramEncoder`, which grow with
            `width`).
        bands: Mel bands (spectrogram only).
        channels: Features per frame (spectrogram only).
        layers: Self-attention layers (spectrogram only).
        hidden: Features inside the perceptrons of these (spectrogram only; 0: twice `channels`).
        dropout: In training.
        limit_hz: The network looks at the spectrum up to here, and `score` adds what is beyond by `bandwidth_gain`
            (spectrogram only; 0: the network looks at all of it, and nothing is added).
        floor_db: Active level in dBFS that clips have at least when they come to the network, the lowest that it has
            learned; `score` subtracts what the level below it costs (0: clips come as they are, nothing is subtracted).
        level_db: Active level in dBFS that all clips have when they come to the network; `score` subtracts what their
            own level costs (0: clips come at their own, `floor_db` apart).
        threshold_db: Level of a band, relative to a full-scale sine, below which the network hears nothing (spectrogram
            only). Where clips are turned up to `level_db`, the rounding noise of 16 bits should stay below it: a file
            holds none of that above half its rate.
        tasks: What the head predicts after the MOS: `DIMENSIONS` and `LOG_STD`, and what only training looks at.
        window_seconds: Longer clips are scored in windows of this length.
        revision: Name of this set of weights.
        format_version: See `FORMAT_VERSION`.
    """

    encoder: str = "spectrogram"
    sample_rate: int = 16000
    width: int = 32
    convolutions: tuple[tuple[int, ...], ...] = ()
    bands: int = 64
    channels: int = 128
    layers: int = 2
    hidden: int = 0
    dropout: float = 0.1
    limit_hz: int = 0
    floor_db: int = 0
    level_db: int = 0
    threshold_db: int = THRESHOLD_DB
    tasks: tuple[str, ...] = ()
    window_seconds: float = 12.0
    revision: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))  # JSON knows no tuples
        rows = self.convolutions if isinstance(self.convolutions, (list, tuple)) else (self.convolutions,)
        object.__setattr__(self, "convolutions", tuple(tuple(row) if isinstance(row, list) else row for row in rows))
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"`{name}` must be a whole number from {low} to {high}, got {value!r}")
        if len(self.convolutions) > _MOST_CONVOLUTIONS or not all(map(_possible, self.convolutions)):
            raise ValueError(
                f"`convolutions` must be at most {_MOST_CONVOLUTIONS} of channels (1 to 256), stride over "
                f"bands and over time (1 to 4) and, if any, rank (1 to 256), got {self.convolutions!r}"
            )
        if self.floor_db and self.level_db:
            raise ValueError("`floor_db` is for clips that come at their own level, not for those at `level_db`")
        if not (isinstance(self.window_seconds, (int, float)) and 0.1 <= self.window_seconds <= 600):
            raise ValueError(f"`window_seconds` must be a number from 0.1 to 600, got {self.window_seconds!r}")
        if not all(isinstance(task, str) for task in self.tasks) or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"`tasks` must be different names, got {self.tasks!r}")
        if self.encoder not in ("spectrogram", "waveform"):
            raise ValueError(f"`encoder` must be 'spectrogram' or 'waveform', got {self.encoder!r}")
        own = {"limit_hz": 0, "convolutions": (), "threshold_db": THRESHOLD_DB, "hidden": 0}
        for name, default in own.items():
            if getattr(self, name) != default and self.encoder == "waveform":
                raise ValueError(f"`{name}` is for the spectrogram encoder only, got {getattr(self, name)!r}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Make a configuration from the content of a `config.json`.

        Raises:
            ValueError: If it was written by a newer version or has unknown entries.
        """
        version = values.get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise ValueError(f"the model has format {version}, this version of jsqa_metric reads {FORMAT_VERSION}")
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown entries in config.json: {', '.join(unknown)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The content of a `config.json`."""
        return asdict(self)


class JSQAModel(nn.Module, PyTorchModelHubMixin, library_name="jsqa_metric", tags=["speech-quality", "mos"]):
    """Speech quality from the degraded signal alone.

    Args:
        config: What to build; see `ModelConfig`.

    Source: Fan and Williamson 2025 (JSQA), https://arxiv.org/abs/2507.11636.

    >>> JSQAModel(ModelConfig(encoder="waveform", width=4)).eval()(torch.zeros(2, 8000)).shape
    torch.Size([2])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: nn.Module
        self.pooling: nn.Module
        if config.encoder == "waveform":
            encoder = WaveformEncoder(config.width)
            self.pooling, size = MeanPooling(), encoder.channels
            hidden = [size // 2, size // 4, size // 8]
            self.encoder = encoder
        else:
            self.encoder = SpectrogramEncoder(
                config.sample_rate,
                config.bands,
                config.width,
                config.channels,
                config.layers,
                config.dropout,
                config.limit_hz,
                config.convolutions,
                config.threshold_db,
                config.hidden,
            )
            self.pooling, size = AttentionPooling(config.channels), 3 * config.channels
            hidden = [config.channels]
        self.embedding_size = size
        layers: list[nn.Module] = []
        for new in hidden:
            layers += [nn.Linear(size, new), nn.LeakyReLU(), nn.Dropout(config.dropout)]
            size = new
        self.head = nn.Sequential(*layers, nn.Linear(size, 1 + len(config.tasks)))

    def fold(self) -> None:
        """Fold the norms of the convolutions into these for good: the same scores sooner, but no more training."""
        for part in self.modules():
            if isinstance(part, MaskedConvolution):
                part.fold()

    @property
    def sample_rate(self) -> int:
        """Rate of the waveforms that `forward` takes, in Hz."""
        return self.config.sample_rate

    def embed(self, wav: Tensor, lengths: Tensor | None = None) -> Tensor:
        """One vector per clip, before the head.

        Args:
            wav: Waveforms at `sample_rate`, full scale ±1; what lies beyond a clip's length is ignored.
            lengths: Samples of each clip; by default all of them.

        Shape:
            - wav: `(batch, samples)`
            - lengths: `(batch,)`
            - return: `(batch, embedding_size)`
        """
        if lengths is None:
            lengths = torch.full((wav.shape[0],), wav.shape[1], device=wav.device)
        pooled: Tensor = self.pooling(*self.encoder(apply_lengths(wav, lengths), lengths))
        return pooled

    def predict(self, wav: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """MOS `(batch,)`, and the tasks `(batch, len(config.tasks))`."""
        return self.judge(self.embed(wav, lengths))

    def judge(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """What `predict` returns, for embeddings `(batch, embedding_size)`."""
        outputs = self.head(embedding)
        low, high = MOS_RANGE
        return low + (high - low) * torch.sigmoid(outputs[:, 0]), outputs[:, 1:]

    def predict_details(self, wav: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """MOS, the standard deviation expected of its error, and the MOS of each of `DIMENSIONS`.

        What the model has not learned is NaN.

        Shape:
            - return: `(batch,)`, `(batch,)`, `(batch, len(DIMENSIONS))`
        """
        mos, tasks = self.predict(wav, lengths)
        unknown = torch.full_like(mos, torch.nan)
        by_name = dict(zip(self.config.tasks, tasks.unbind(1), strict=True))
        std = by_name[LOG_STD].exp() if LOG_STD in by_name else unknown
        dimensions = torch.stack([by_name.get(name, unknown) for name in DIMENSIONS], dim=1)
        return mos, std, (dimensions + 3).clamp(*MOS_RANGE)

    def forward(self, wav: Tensor, lengths: Tensor | None = None) -> Tensor:
        """MOS of each clip at `sample_rate`, in [1, 5]; arguments as for `embed`.

        What a clip of a higher rate gains by its bandwidth, `score` adds; it brings clips to the level that the
        network knows (`config.level_db`, `config.floor_db`), and subtracts what their own costs.

        Shape:
            - return: `(batch,)`
        """
        return self.predict(wav, lengths)[0]

    def _save_pretrained(self, save_directory: Path) -> None:
        from jsqa_metric.hub import write_folder

        write_folder(self, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, revision: str | None, **options: Any) -> JSQAModel:
        # the mixin's own loader lets missing keys pass and falls back to pickles
        from jsqa_metric.hub import fetch, read_folder

        named = ("local_files_only", "token", "cache_dir", "force_download")
        return read_folder(fetch(model_id, revision, **{name: options[name] for name in named if name in options}))
