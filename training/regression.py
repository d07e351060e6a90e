"""Multi-task regression of MOS and teachers' labels: the Lightning module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, PearsonCorrCoef, SpearmanCorrCoef

from jsqa_metric import JSQAModel, ModelConfig
from jsqa_metric.encoders import LogMel
from training.checkpoints import load_encoder
from training.data.labelled import TASKS
from training.data.loading import check_input
from training.losses import contrastive_regression

WARP_RANGE = (0.92, 1.0)
"""Factors by which heard frequencies are divided: with more than 1, the top of the band would be empty."""


@contextmanager
def warped(*front_ends: LogMel) -> Iterator[None]:
    """For a while, all `front_ends` hear frequencies divided by one factor from `WARP_RANGE` (Jaitly and Hinton 2013).

    Vocal tracts and pitches differ by such factors, quality hardly: a band limit moves, too, by less than 0.7 Bark.
    """
    low, high = WARP_RANGE
    factor = low * (high / low) ** float(torch.rand(()))
    before = [front_end.filters for front_end in front_ends]
    for front_end, filters in zip(front_ends, before, strict=True):
        front_end.filters = _moved(filters, factor)
    try:
        yield
    finally:
        for front_end, filters in zip(front_ends, before, strict=True):
            front_end.filters = filters


def _moved(filters: Tensor, factor: float) -> Tensor:
    """Filters `(bands, frequencies)` that let pass at f what these do at f divided by the factor."""
    place = torch.arange(filters.shape[1], device=filters.device) / factor
    below = place.long().clamp(max=filters.shape[1] - 2)
    share = (place - below).clamp(max=1)
    return torch.lerp(filters[:, below], filters[:, below + 1], share) * (place < filters.shape[1])


class Regression(lightning.LightningModule):
    """Huber regression of MOS, the teachers' labels (as in MTQ-Net) and the dimensions of quality.

    The last task is how far off the MOS is likely to be: the log of a Gaussian's standard deviation, fitted to errors
    and teachers' disagreement by maximum likelihood (Nix and Weigend 1994) without any say in the MOS itself.

    Args:
        model: Entries of `ModelConfig`.
        learning_rate: Peak of a one-cycle schedule with AdamW.
        weight_decay: Of AdamW.
        task_weight: Of the mean loss over teachers and dimensions, beside the loss of the MOS.
        std_weight: Of the loss of the standard deviation.
        contrastive_weight: Of SCOREQ's contrastive regression on the embeddings, as a further objective.
        huber_delta: Where the loss turns from squared to absolute.
        warp: Stretch the frequency axis of each batch (`warped`); for the spectrogram encoder only.
        pretrained: Checkpoint of `training.pretrain`, whose encoder to start from.
    """

    def __init__(
        self,
        model: dict[str, Any],
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        task_weight: float = 0.5,
        std_weight: float = 0.1,
        contrastive_weight: float = 0.0,
        huber_delta: float = 0.5,
        warp: bool = False,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        if warp and model.get("encoder") == "waveform":
            raise ValueError("`warp` is for the spectrogram encoder: the other has no frequencies to stretch")
        model = {"tasks": TASKS, **model}
        self.save_hyperparameters()
        self.model = JSQAModel(ModelConfig(**model))
        self.valid_metrics = MetricCollection(
            {
                "pcc": PearsonCorrCoef(),
                "srcc": SpearmanCorrCoef(),
                "mae": MeanAbsoluteError(),
                "rmse": MeanSquaredError(squared=False),
            },
            prefix="valid/",
        )

    def best_checkpoint(self, path: Path) -> lightning.Callback:
        """What decides which epoch's weights go to `path`: the correlation on the validation set."""
        return ModelCheckpoint(
            path.parent, filename=path.stem, monitor="valid/pcc", mode="max", enable_version_counter=False
        )

    def setup(self, stage: str) -> None:
        """Check that the data fit, and start from the encoder of `pretrained` (a resumed run's weights come later)."""
        check_input(self.trainer, self.model.config)
        if stage == "fit" and self.hparams["pretrained"]:
            load_encoder(self.model, self.hparams["pretrained"])

    def losses(self, mos: Tensor, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of the MOS, of the other tasks (labels that are NaN do not count), and of the standard deviation.

        The teachers are off, too: what the standard deviation is fitted to is the error and how much they differ, on
        clips that have more than one.
        """
        delta = self.hparams["huber_delta"]
        tasks, log_std = outputs[:, :-1].float(), outputs[:, -1].float()
        labels, doubt = targets[:, 1:-1], targets[:, -1]
        known = ~torch.isnan(labels)
        task_loss = F.huber_loss(tasks[known], labels[known], delta=delta)
        error = (mos.detach().float() - targets[:, 0]).square() + doubt.nan_to_num().square()
        zero, variance = torch.zeros_like(error), (2 * log_std).exp()
        likelihood = F.gaussian_nll_loss(zero, error.sqrt(), variance, eps=1e-4, reduction="none")
        doubtful = ~doubt.isnan()
        std_loss = (likelihood * doubtful).sum() / doubtful.sum().clamp(min=1)
        return F.huber_loss(mos.float(), targets[:, 0], delta=delta), task_loss, std_loss

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of a batch."""
        wav, lengths, targets = batch
        with self.another_voice(self.model):
            return self.loss(wav, lengths, targets)

    def another_voice(self, *models: JSQAModel) -> AbstractContextManager[None]:
        """For a while, all models hear frequencies stretched alike, if this is to be (`warp`)."""
        front_ends = [cast(LogMel, model.encoder.front_end) for model in models] if self.hparams["warp"] else []
        return warped(*front_ends) if front_ends else nullcontext()

    def loss(self, wav: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """Sum of all losses of a batch, which are logged."""
        embedding = self.model.embed(wav, lengths)
        mos_loss, task_loss, std_loss = self.losses(*self.model.judge(embedding), targets)
        losses = {"train/mos_loss": mos_loss, "train/task_loss": task_loss, "train/std_loss": std_loss}
        loss = mos_loss + self.hparams["task_weight"] * task_loss + self.hparams["std_weight"] * std_loss
        if self.hparams["contrastive_weight"] > 0:
            contrast = contrastive_regression(F.normalize(embedding.float(), dim=1), targets[:, 0])
            losses["train/contrastive_loss"] = contrast
            loss = loss + self.hparams["contrastive_weight"] * contrast
        self.log_dict(losses, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> None:
        """Agreement with the simulated MOS."""
        wav, lengths, targets = batch
        mos, _ = self.model.predict(wav, lengths)
        self.valid_metrics.update(mos.float(), targets[:, 0])
        self.log_dict(self.valid_metrics, batch_size=len(wav), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW with a one-cycle schedule over the whole run."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.hparams["learning_rate"], weight_decay=self.hparams["weight_decay"]
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.hparams["learning_rate"], total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
