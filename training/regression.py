"""Multi-task regression of MOS and teachers' labels: the Lightning module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, PearsonCorrCoef, SpearmanCorrCoef

from jsqa_metric import JSQAModel, ModelConfig
from training.teachers import TEACHERS


class Regression(lightning.LightningModule):
    """Huber regression of the MOS with the teachers' standardised labels as further tasks (as in MTQ-Net).

    Args:
        model: Entries of `ModelConfig`.
        learning_rate: Peak of a one-cycle schedule with AdamW.
        weight_decay: Of AdamW.
        task_weight: Of the mean loss over the teachers, beside the loss of the MOS.
        huber_delta: Where the loss turns from squared to absolute.
    """

    def __init__(
        self,
        model: dict[str, Any],
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        task_weight: float = 0.5,
        huber_delta: float = 0.5,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = JSQAModel(ModelConfig(**{"tasks": TEACHERS, **model}))
        self.valid_metrics = MetricCollection(
            {"pcc": PearsonCorrCoef(), "srcc": SpearmanCorrCoef(), "mae": MeanAbsoluteError()}
            | {"rmse": MeanSquaredError(squared=False)},
            prefix="valid/",
        )

    def best_checkpoint(self, path: Path) -> lightning.Callback:
        """What decides which epoch's weights go to `path`: the correlation on the validation set."""
        return ModelCheckpoint(
            path.parent, filename=path.stem, monitor="valid/pcc", mode="max", enable_version_counter=False
        )

    def losses(self, mos: Tensor, tasks: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Huber losses of the MOS and of the tasks; labels that are NaN do not count."""
        delta = self.hparams["huber_delta"]
        known = ~torch.isnan(targets[:, 1:])
        task_loss = F.huber_loss(tasks[known].float(), targets[:, 1:][known], delta=delta)
        return F.huber_loss(mos.float(), targets[:, 0], delta=delta), task_loss

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of a batch."""
        wav, lengths, targets = batch
        mos_loss, task_loss = self.losses(*self.model.predict(wav, lengths), targets)
        self.log_dict({"train/mos_loss": mos_loss, "train/task_loss": task_loss}, prog_bar=True)
        return mos_loss + self.hparams["task_weight"] * task_loss

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
