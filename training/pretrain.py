"""JSQA's contrastive pretraining on JND pairs: the Lightning module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from jsqa_metric import JSQAModel, ModelConfig
from training.checkpoints import FirstPlateau
from training.data.loading import check_input
from training.losses import nt_xent
from training.projection import projection_head


class Pretraining(lightning.LightningModule):
    """Both signals of a JND pair get like embeddings, unlike those of all other signals of the batch.

    Args:
        model: Entries of `ModelConfig`; its head takes no part.
        learning_rate: Of Adam.
        temperature: τ of NT-Xent.
        projection: Whether the projection head comes between the embedding and the loss.
        plateau: Arguments of `FirstPlateau`, which chooses the epoch.
    """

    def __init__(
        self,
        model: dict[str, Any],
        learning_rate: float = 1e-3,
        temperature: float = 1.0,
        projection: bool = False,
        plateau: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        model = {"tasks": (), **model}
        self.save_hyperparameters()
        self.model = JSQAModel(ModelConfig(**model))
        self.model.head.requires_grad_(False)
        self.half_size = self.model.embedding_size // 2
        self.projection = projection_head(self.half_size) if projection else nn.Identity()

    def setup(self, stage: str) -> None:
        """Check that the data fit."""
        check_input(self.trainer, self.model.config)

    def best_checkpoint(self, path: Path) -> lightning.Callback:
        """What decides which epoch's weights go to `path`."""
        return FirstPlateau(path, **(self.hparams["plateau"] or {}))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of a batch: all first signals, then all second ones."""
        embedding = self.projection(self.model.embed(*batch)[:, : self.half_size])
        first, second = embedding.chunk(2)
        loss = nt_xent(first, second, temperature=self.hparams["temperature"])
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam at a constant rate."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, lr=self.hparams["learning_rate"])
