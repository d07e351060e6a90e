"""Layers that know how long each clip of a batch is, so that padding never changes a score.

Conventions: features are `(batch, channels, ..., time)`; a mask is `(batch, time)`, true where a clip has frames, or
None where all have. Every layer takes features that are zero outside the mask and gives such features back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def length_mask(lengths: Tensor, size: int) -> Tensor | None:
    """Mask of shape `(batch, size)` that is true for the first `lengths[i]` places of row i.

    None if it were true everywhere, which saves passes over the features; only asked on the CPU, where the answer costs
    no waiting.
    """
    if lengths.device.type == "cpu" and bool((lengths >= size).all()):
        return None
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def apply_mask(features: Tensor, mask: Tensor | None) -> Tensor:
    """Set the features outside the mask to zero (also where they are NaN)."""
    return features if mask is None else features.masked_fill(~_expand(mask, features.dim()), 0)


def apply_lengths(signals: Tensor, lengths: Tensor) -> Tensor:
    """Set what lies beyond the length of each of the signals `(batch, time)` to zero (also where it is NaN)."""
    mask = length_mask(lengths, signals.shape[1])
    return signals if mask is None else signals.masked_fill(~mask, 0)


def _frames(features: Tensor, mask: Tensor | None) -> Tensor | int:
    """How many frames each clip has, to divide sums over time by."""
    return features.shape[-1] if mask is None else mask.sum(dim=-1, keepdim=True)


def _expand(mask: Tensor, dimensions: int) -> Tensor:
    """Mask of shape `(batch, 1, ..., 1, time)`."""
    return mask.reshape(mask.shape[0], *(1,) * (dimensions - 2), mask.shape[1])


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the frames inside the mask; any number of axes between channels and time.

    In evaluation it is an affine map, which `masked_convolution` folds into the convolution before it.
    """

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:  # type: ignore[override]
        """Normalise `(batch, channels, ..., time)`; the output is zero outside the mask."""
        if mask is None or bool(mask.all()):  # torch's own is faster, and the same where nothing is masked
            normalised: Tensor = super().forward(features)
            return normalised
        scale, shift = self._masked_map(features, mask) if self.training else self.affine_map()
        shape = (1, -1) + (1,) * (features.dim() - 2)
        return apply_mask(features * scale.view(shape) + shift.view(shape), mask)

    def _check_input_dim(self, features: Tensor) -> None:
        """All numbers of axes are the same to what torch computes."""

    def affine_map(self, mean: Tensor | None = None, var: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scale and shift of each channel for the given statistics, by default the running ones."""
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, var = self.running_mean if mean is None else mean, self.running_var if var is None else var
        scale = self.weight * torch.rsqrt(var + self.eps)
        return scale, self.bias - mean * scale

    def _masked_map(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The map for this batch's statistics inside the mask, which the running ones take up."""
        assert self.running_mean is not None
        assert self.running_var is not None
        axes, shape = (0, *range(2, features.dim())), (1, -1) + (1,) * (features.dim() - 2)
        count = mask.sum() * features.shape[2:-1].numel()
        mean = apply_mask(features.float(), mask).sum(axes) / count
        var = apply_mask(features.float() - mean.view(shape), mask).square().sum(axes) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(var * count / (count - 1).clamp(min=1), self.momentum or 0.0)
        return self.affine_map(mean, var)


class MaskedConvolution(nn.Module):
    """Convolution without bias ("same" padding, odd kernel), then masked batch norm.

    In evaluation the norm is folded into the convolution: half the passes over memory, which cost more than the
    arithmetic.

    Args:
        convolution: A 1-D or 2-D convolution; its last stride shortens features and mask.
    """

    def __init__(self, convolution: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm: MaskedBatchNorm | None = MaskedBatchNorm(convolution.out_channels)

    @property
    def stride(self) -> tuple[int, ...]:
        """Of the whole layer, the last one over time."""
        return self.convolution.stride

    def forward(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the new features and their mask."""
        mask = None if mask is None else mask[:, :: self.stride[-1]]
        if self.training and self.norm is not None:
            return self.norm(self.convolution(features), mask), mask
        layer = self.convolution
        convolve = F.conv1d if isinstance(layer, nn.Conv1d) else F.conv2d
        out = convolve(features, *self._folded(), layer.stride, layer.padding)
        return out if mask is None else out.masked_fill_(~_expand(mask, out.dim()), 0), mask

    def _folded(self) -> tuple[Tensor, Tensor | None]:
        weight = self.convolution.weight
        if self.norm is None:
            return weight, self.convolution.bias
        scale, shift = self.norm.affine_map()
        return weight * scale.view(-1, *(1,) * (weight.dim() - 1)), shift

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the norm in for good, which spares each call that; from then on it can only be evaluated."""
        weight, shift = self._folded()
        self.convolution.weight = nn.Parameter(_laid_out(weight), requires_grad=False)
        self.convolution.bias = None if shift is None else nn.Parameter(shift, requires_grad=False)
        self.norm = None


def _laid_out(weight: Tensor) -> Tensor:
    """Weights of a convolution in the order in memory that they are used in."""
    memory = torch.channels_last if weight.dim() == 4 and weight.device.type == "cpu" else torch.contiguous_format
    return weight.contiguous(memory_format=memory)


class LowRankConvolution(MaskedConvolution):
    """A 2-D convolution with a kernel of 3 by 3 as one over bands, then one over time, with fewer channels between.

    That is a kernel of that rank, at a part of the cost.

    Args:
        channels: Of the input.
        new: Of the output.
        rank: Channels between the two.
        stride: Over bands and over time.

    Source: Jaderberg et al. 2014, "Speeding up convolutional neural networks with low rank expansions".
    """

    def __init__(self, channels: int, new: int, rank: int, stride: tuple[int, int]) -> None:
        super().__init__(nn.Conv2d(rank, new, (1, 3), (1, stride[1]), padding=(0, 1), bias=False))
        self.column = nn.Conv2d(channels, rank, (3, 1), (stride[0], 1), padding=(1, 0), bias=False)

    @property
    def stride(self) -> tuple[int, ...]:
        """Over bands and over time."""
        return self.column.stride[0], self.convolution.stride[1]

    def forward(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the new features and their mask."""
        return super().forward(self.column(features), mask)

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the norm in for good."""
        super().fold()
        self.column.weight = nn.Parameter(_laid_out(self.column.weight), requires_grad=False)


class MeanPooling(nn.Module):
    """Mean over the frames of each clip: `(batch, channels, time)` to `(batch, channels)`."""

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Pool features that are zero outside the mask."""
        return features.sum(dim=-1) / _frames(features, mask)


class AttentionPooling(nn.Module):
    """Mean, standard deviation and a learned weighted mean over the frames, side by side.

    Shape: `(batch, channels, time)` to `(batch, 3 * channels)`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Conv1d(channels, channels, 1), nn.Tanh(), nn.Conv1d(channels, 1, 1))

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Pool features that are zero outside the mask."""
        # as products of matrices, which are faster than convolutions with kernels of one frame
        frames = features.transpose(1, 2)
        for layer in self.attention:
            frames = (
                F.linear(frames, layer.weight[..., 0], layer.bias) if isinstance(layer, nn.Conv1d) else layer(frames)
            )
        logits, count = frames.transpose(1, 2), _frames(features, mask)
        logits = logits if mask is None else logits.masked_fill(~mask[:, None], -torch.inf)
        mean = features.sum(dim=-1) / count
        var = apply_mask(features - mean[..., None], mask).square().sum(dim=-1) / count
        # the small term keeps the gradient of the root finite where all frames are alike
        return torch.cat([(features * logits.softmax(dim=-1)).sum(dim=-1), mean, (var + 1e-5).sqrt()], dim=-1)


class SelfAttention(nn.Module):
    """A pre-norm transformer layer over the frames inside the mask, without positions (any length will do).

    Args:
        channels: Features per frame.
        heads: Among which they are divided.
        hidden: Features inside the perceptron.
        dropout: Share of weights and features dropped in training.

    Shape: `(batch, time, channels)` in and out.
    """

    def __init__(self, channels: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention, self.norm_mlp = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query_key_value, self.project = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, channels)
        )

    def forward(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        """Add attention and a two-layer perceptron to the frames."""
        batch, time, channels = frames.shape
        stacked = self.query_key_value(self.norm_attention(frames))
        query, key, value = stacked.view(batch, time, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        mixed = self._attend(query, key, value, None if mask is None else mask[:, None, None, :])
        frames = frames + self.project(mixed.transpose(1, 2).reshape(batch, time, channels))
        return frames.add(self.mlp(self.norm_mlp(frames)))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        if self.training or not query.requires_grad:
            dropout = self.dropout if self.training else 0.0
            return F.scaled_dot_product_attention(query, key, value, mask, dropout)
        # the fused kernel has no second derivative, which penalties on gradients need
        similarity = (query @ key.transpose(-2, -1)) / math.sqrt(query.shape[-1])
        similarity = similarity if mask is None else similarity.masked_fill(~mask, -torch.inf)
        return similarity.softmax(dim=-1) @ value
