"""Contrastive losses: NT-Xent for JSQA's pretraining, and SCOREQ's contrastive regression."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def nt_xent(first: Tensor, second: Tensor, temperature: float = 1.0) -> Tensor:
    """Normalised temperature-scaled cross entropy: find the partner of each signal among all others of the batch.

    Args:
        first: Embeddings of one signal of each pair.
        second: Embeddings of its partner, in the same order.
        temperature: τ; the paper uses 1.

    Shape:
        - first, second: `(pairs, size)`
        - return: `()`, the mean over all `2 * pairs` signals

    Source: Chen et al. 2020 (SimCLR), equation 1; Fan and Williamson 2025 (JSQA).

    >>> nt_xent(torch.eye(2), torch.eye(2)).item()  # log(1 + 2/e)
    0.5514446...
    """
    embeddings = F.normalize(torch.cat([first, second]).float(), dim=1)
    with torch.autocast(embeddings.device.type, enabled=False):  # partners are so alike that 16 bits blur them
        similarity = (embeddings @ embeddings.T / temperature).fill_diagonal_(-torch.inf)
    count = len(first)
    partner = torch.arange(2 * count, device=first.device).roll(count)
    return F.cross_entropy(similarity, partner)


def contrastive_regression(
    embeddings: Tensor, labels: Tensor, margin: float | None = None, label_range: float = 4.0
) -> Tensor:
    """SCOREQ's loss: whoever is nearer in label has to be nearer in the embedding, by a margin.

    Every triplet (anchor a, positive p, negative n) of the batch with |y_a - y_p| < |y_a - y_n| counts, with the
    hinge max(0, ‖x_a - x_p‖ - ‖x_a - x_n‖ + margin); the loss is the mean over all of them.

    Args:
        embeddings: One vector per clip; SCOREQ's are L2-normalised.
        labels: MOS of each clip.
        margin: A constant, or None for the adaptive (|y_a - y_n| - |y_a - y_p|) / `label_range`.
        label_range: Of the scale of the labels; 4 for MOS in [1, 5].

    Shape:
        - embeddings: `(batch, size)`
        - labels: `(batch,)`
        - return: `()`, 0 where there is no triplet

    Source: Ragano, Skoglund and Hines 2024 (SCOREQ).

    >>> contrastive_regression(torch.tensor([[0.0], [1.0], [0.1]]), torch.tensor([1.0, 2.0, 5.0]), 0.0).item()
    0.45...
    """
    embeddings, labels = embeddings.float(), labels.float()
    difference = embeddings[:, None] - embeddings
    distance = (difference.square().sum(dim=-1) + 1e-12).sqrt()  # finite gradient where two are alike
    gap = (labels[:, None] - labels).abs()
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    # axes: anchor, positive, negative
    gap_difference = gap[:, None, :] - gap[:, :, None]
    valid = (gap_difference > 0) & others[:, :, None] & others[:, None, :]
    wanted = gap_difference / label_range if margin is None else margin
    hinge = F.relu(distance[:, :, None] - distance[:, None, :] + wanted)
    return (hinge * valid).sum() / valid.sum().clamp(min=1)
