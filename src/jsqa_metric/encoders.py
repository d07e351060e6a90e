"""The two encoders: waveform or spectrogram in, frames of features out, masked throughout.

Both take `(batch, samples)` and lengths `(batch,)` in samples, and return features `(batch, channels, frames)`,
zero outside the mask, and the mask `(batch, frames)` or None (see `layers`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from jsqa_metric.layers import LowRankConvolution, MaskedConvolution, SelfAttention, apply_mask, length_mask


class WaveformEncoder(nn.Module):
    """The 1-D CNN of JSQA and CDPAM: 16 layers, kernel 15; every 4th doubles the channels and halves time.

    The paper drops every second sample after such a layer; a stride of 2 computes the same at half the cost.
    Width 64 gives the paper's size: 26 M parameters, 1,024 channels.

    Args:
        width: Channels of the first layer; the output has 16 times as many.

    Source: Fan and Williamson 2025; Manocha et al. 2021 (CDPAM).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions, channels = nn.ModuleList(), 1
        for layer in range(1, 17):
            new = width * 2 ** (layer // 4)
            stride = 2 if layer % 4 == 0 else 1
            self.convolutions.append(MaskedConvolution(nn.Conv1d(channels, new, 15, stride, padding=7, bias=False)))
            channels = new
        self.channels = channels

    def forward(self, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode waveforms at the rate of the model."""
        features = wav[:, None]
        mask = length_mask(lengths, wav.shape[1])
        for convolution in self.convolutions:
            features, mask = convolution(features, mask)
            features = F.leaky_relu_(features, 0.2)
        return features, mask


TOP_HZ = 20000
"""Nothing above is heard."""


def mel_filters(bands: int, n_fft: int, sample_rate: int) -> Tensor:
    """Triangular filters of unit height, evenly spaced on the HTK mel scale up to half the rate or `TOP_HZ`.

    Shape: `(bands, n_fft // 2 + 1)`.
    """
    top = 2595 * math.log10(1 + min(sample_rate / 2, TOP_HZ) / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    # a low band narrower than two bins would see nothing: widen it to its neighbouring bins
    bin_hz = sample_rate / n_fft
    frequencies = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * bin_hz
    centre = edges[1:-1, None]
    below = (centre - edges[:-2, None]).clamp(min=bin_hz)
    above = (edges[2:, None] - centre).clamp(min=bin_hz)
    distance = frequencies - centre
    return (1 - torch.where(distance < 0, -distance / below, distance / above)).clamp(min=0).float()


THRESHOLD_DB = -100
"""In dB relative to a full-scale sine: what bands hold below that is lost in what is added to them."""


class LogMel(nn.Module):
    """Log-mel power spectrogram: windows of 32 ms (Hann), a hop of 16 ms, dB relative to a full-scale sine.

    Frame k is centred on sample `k * hop`; beyond its ends a clip counts as silence. With a limit in Hz, the features
    are those of a signal that ends there. To all bands the power of `threshold_db` is added.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, bands: int, limit_hz: int, threshold_db: int = THRESHOLD_DB) -> None:
        super().__init__()
        self.threshold = 10 ** (threshold_db / 10)
        self.hop = round(0.016 * sample_rate)
        self.n_fft = 2 * self.hop
        place = torch.empty(0).device
        # models are loaded without memory, and no file of weights holds what is computed here
        with torch.device("cpu" if place.type == "meta" else place):
            window = torch.hann_window(self.n_fft, dtype=torch.float32)
            window *= 2 / window.sum()  # a full-scale sine is at 0 dB
            filters = mel_filters(bands, self.n_fft, sample_rate)
        self.register_buffer("window", window, persistent=False)
        if limit_hz:
            filters[:, math.ceil(limit_hz * self.n_fft / sample_rate) :] = 0
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """`(batch, samples)` to `(batch, bands, frames)`, about -2..2, and its mask."""
        half = self.n_fft // 2
        # as many zeros after each clip as a lone one gets from the padding
        spectrum = torch.stft(
            F.pad(wav, (half, half)), self.n_fft, self.hop, window=self.window, center=False, return_complex=True
        )
        # not abs(): finite gradient at zero
        power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)
        level = torch.log10(self.filters @ power + self.threshold)
        mask = length_mask(lengths // self.hop + 1, level.shape[-1])
        return apply_mask(0.4 * level + 2, mask), mask  # (dB + 50) / 25


class SpectrogramEncoder(nn.Module):
    """Log-mel, 2-D convolutions with strides over bands and time, then self-attention over what is left of the frames.

    Args:
        sample_rate: Rate of the input, in Hz.
        bands: Mel bands.
        width: Channels of the first convolution.
        channels: Features per frame.
        layers: Self-attention layers.
        dropout: Share of features dropped in training.
        limit_hz: See `LogMel`; 0 for none.
        convolutions: Channels, stride over bands, stride over time and, if any, rank of each, by default five that grow
            with `width`.
        threshold_db: See `LogMel`.
        hidden: Features inside the perceptrons of the self-attention layers, by default twice `channels`.
    """

    def __init__(
        self,
        sample_rate: int,
        bands: int,
        width: int,
        channels: int,
        layers: int,
        dropout: float,
        limit_hz: int = 0,
        convolutions: Sequence[tuple[int, ...]] = (),
        threshold_db: int = THRESHOLD_DB,
        hidden: int = 0,
    ) -> None:
        super().__init__()
        self.front_end = LogMel(sample_rate, bands, limit_hz, threshold_db)
        by_width = [(width, 2, 1), (width, 2, 2), (2 * width, 1, 1), (2 * width, 2, 1), (4 * width, 2, 2)]
        self.convolutions, last = nn.ModuleList(), 1
        for new, over_bands, over_time, *rank in convolutions or by_width:
            stride = over_bands, over_time
            if rank:
                self.convolutions.append(LowRankConvolution(last, new, rank[0], stride))
            else:
                self.convolutions.append(MaskedConvolution(nn.Conv2d(last, new, 3, stride, padding=1, bias=False)))
            last, bands = new, math.ceil(bands / over_bands)
        self.flatten = nn.Linear(last * bands, channels)
        self.dropout = nn.Dropout(dropout)
        hidden = hidden or 2 * channels
        self.attention = nn.ModuleList(SelfAttention(channels, 4, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.channels = channels

    def forward(self, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode waveforms at the rate of the model."""
        features, mask = self.front_end(wav, lengths)
        features = features[:, None]
        if features.device.type == "cpu":  # there, batches are convolved in two thirds of the time
            features = features.to(memory_format=torch.channels_last)
        for convolution in self.convolutions:
            features, mask = convolution(features, mask)
            features = F.relu_(features)
        frames = self.dropout(self.flatten(features.flatten(1, 2).transpose(1, 2)))
        for layer in self.attention:
            frames = layer(frames, mask)
        return apply_mask(self.norm(frames).transpose(1, 2), mask), mask
