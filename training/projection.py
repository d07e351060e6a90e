"""What lies between an embedding and a contrastive loss, and SCOREQ's metric that comes out of it.

Free of Lightning, as the benchmarks use it, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from jsqa_metric import JSQAModel
from jsqa_metric.hub import read_folder
from jsqa_metric.model import MOS_RANGE

NONMATCHING_NAME = "nonmatching.safetensors"
"""Beside the files of a model folder: projection head and mean embedding of clean speech."""


def projection_head(size: int, dropout: float = 0.1) -> nn.Sequential:
    """JSQA's optional head: two layers that each halve the width; leaky ReLU and dropout on the first."""
    return nn.Sequential(
        nn.Linear(size, size // 2), nn.LeakyReLU(), nn.Dropout(dropout), nn.Linear(size // 2, size // 4)
    )


def unit_embedding(model: JSQAModel, projection: nn.Module, wav: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Projected embeddings of unit length, `(batch, size)`: where SCOREQ measures distances."""
    return F.normalize(projection(model.embed(wav, lengths)).float(), dim=1)


class NonMatching(nn.Module):
    """SCOREQ's non-matching-reference mode: a clip is as good as it is near to clean speech, any clean speech.

    The adaptive margin asks for distances that grow by one over the label range for each point of MOS. So, without
    any further training, 5 less 4 times the distance to the mean embedding of clean speech stands for a MOS.

    Args:
        model: Its head takes no part.
        projection: Between its embedding and the loss.

    Source: Ragano, Skoglund and Hines 2024 (SCOREQ).
    """

    reference: Tensor

    def __init__(self, model: JSQAModel, projection: nn.Module) -> None:
        super().__init__()
        self.model, self.projection = model, projection
        self.register_buffer("reference", torch.zeros(model.embedding_size // 4))

    @torch.no_grad()
    def refer_to(self, clean: Iterable[Tensor]) -> None:
        """Take clips of clean speech, `(samples,)` each, as the reference."""
        embeddings = [unit_embedding(self.model, self.projection, clip[None])[0] for clip in clean]
        self.reference.copy_(torch.stack(embeddings).mean(dim=0))

    def forward(self, wav: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Score of each clip, higher is better; arguments as for `JSQAModel`."""
        low, high = MOS_RANGE
        away = unit_embedding(self.model, self.projection, wav, lengths) - self.reference
        distance = (away.square().sum(dim=1) + 1e-12).sqrt()  # finite gradient at the reference itself
        return high - (high - low) * distance

    def write(self, folder: Path) -> None:
        """Add the reference and the projection head to a model folder."""
        own = {name: value.contiguous() for name, value in self.state_dict().items() if not name.startswith("model.")}
        save_file(own, folder / NONMATCHING_NAME)

    @classmethod
    def read(cls, folder: Path) -> NonMatching:
        """From a model folder with `NONMATCHING_NAME`, frozen."""
        model = read_folder(folder)
        metric = cls(model, projection_head(model.embedding_size))
        own = load_file(folder / NONMATCHING_NAME)
        metric.load_state_dict(own | {f"model.{name}": value for name, value in model.state_dict().items()})
        return metric.eval().requires_grad_(False)
