"""Supervised stages on clips with a MOS: JSQA's fine-tuning, and SCOREQ's contrastive regression."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchmetrics import CatMetric

from training.losses import contrastive_regression
from training.projection import projection_head, unit_embedding
from training.regression import Regression

Batch = tuple[Tensor, Tensor, Tensor]


class FineTuning(Regression):
    """The paper's MOS regression: the model's head on the embedding, squared error, Adam at a constant rate.

    For the waveform encoder, the head is the paper's (four layers, leaky ReLU, a sigmoid scaled to [1, 5]); the
    spectrogram encoder, which is not the paper's, has two.

    Args:
        model: Entries of `ModelConfig`.
        learning_rate: Of Adam.
        pretrained: Checkpoint of `training.pretrain` or of `ContrastiveRegression`, whose encoder to start from.
        freeze_layers: How many of the encoder's first convolutions stay as they are; -1 for the whole encoder.
    """

    def __init__(
        self,
        model: dict[str, Any],
        learning_rate: float = 1e-3,
        pretrained: str | None = None,
        freeze_layers: int = 0,
    ) -> None:
        model = {"tasks": (), **model}
        super().__init__(model, learning_rate, pretrained=pretrained)
        self.save_hyperparameters()
        encoder = self.model.encoder
        layers: Any = encoder.convolutions
        if not -1 <= freeze_layers <= len(layers):
            raise ValueError(f"`freeze_layers` must be -1 or 0 to {len(layers)}, got {freeze_layers}")
        self.frozen = [encoder, self.model.pooling] if freeze_layers == -1 else list(layers[:freeze_layers])
        for part in self.frozen:
            part.requires_grad_(False)

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Frozen layers keep their batch statistics, too."""
        for part in self.frozen:
            part.eval()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Squared error of a batch."""
        wav, lengths, targets = batch
        loss = F.mse_loss(self.model(wav, lengths).float(), targets[:, 0])
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on what is not frozen."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, lr=self.hparams["learning_rate"])


class ContrastiveRegression(FineTuning):
    """SCOREQ's first stage: embeddings whose distances follow the differences in MOS.

    Validation is SCOREQ's non-matching-reference mode: the score of a clip is minus the distance of its embedding
    to the mean embedding of the best-rated tenth, so there is only a correlation to report; `NonMatching` makes it
    a metric. For the no-reference mode, fine-tune with `pretrained` and `freeze_layers=-1`.

    Args:
        model: Entries of `ModelConfig`; its head takes no part.
        learning_rate: Of Adam.
        pretrained: Checkpoint whose encoder to start from.
        freeze_layers: As for `FineTuning`.
        margin: A constant, or None for SCOREQ's adaptive margin.
    """

    def __init__(
        self,
        model: dict[str, Any],
        learning_rate: float = 1e-3,
        pretrained: str | None = None,
        freeze_layers: int = 0,
        margin: float | None = None,
    ) -> None:
        model = {"tasks": (), **model}  # what is saved is what was built
        super().__init__(model, learning_rate, pretrained, freeze_layers)
        self.save_hyperparameters({"margin": margin})
        self.model.head.requires_grad_(False)
        self.projection: nn.Module = projection_head(self.model.embedding_size)
        self.embeddings, self.mos = CatMetric("disable"), CatMetric("disable")  # of all processes

    def embed(self, wav: Tensor, lengths: Tensor) -> Tensor:
        """Projected embeddings of unit length, `(batch, embedding_size // 4)`."""
        return unit_embedding(self.model, self.projection, wav, lengths)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Contrastive loss of a batch."""
        wav, lengths, targets = batch
        loss = contrastive_regression(self.embed(wav, lengths), targets[:, 0], self.hparams["margin"])
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Collect the embeddings."""
        wav, lengths, targets = batch
        self.embeddings.update(self.embed(wav, lengths))
        self.mos.update(targets[:, 0])

    def on_validation_epoch_end(self) -> None:
        """Correlation of the nearness to good speech with the MOS."""
        embeddings, mos = self.embeddings.compute(), self.mos.compute()
        self.embeddings.reset()
        self.mos.reset()
        good = embeddings[mos >= torch.quantile(mos, 0.9)].mean(dim=0)
        nearness = -torch.linalg.vector_norm(embeddings - good, dim=1)
        self.log("valid/pcc", torch.corrcoef(torch.stack([nearness, mos]))[0, 1], prog_bar=True)
