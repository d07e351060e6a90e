"""Models in and out of training checkpoints, and the choice of the checkpoint to keep."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint

from jsqa_metric import JSQAModel, ModelConfig
from training.teachers import TEACHERS


def read_model(checkpoint: str | Path) -> JSQAModel:
    """The model of a checkpoint of any of our Lightning modules, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"no checkpoint {checkpoint}: pretrain first, or give the path of a .ckpt file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = JSQAModel(ModelConfig(**{"tasks": TEACHERS, **content["hyper_parameters"]["model"]}))
    prefix = "model."
    weights = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
    model.load_state_dict(weights, strict=True)
    return model.eval()


def load_encoder(model: JSQAModel, checkpoint: str | Path) -> None:
    """Take the weights of encoder and pooling from a checkpoint; the head stays as it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds another kind or size of encoder.
    """
    source = read_model(checkpoint)
    try:
        model.encoder.load_state_dict(source.encoder.state_dict(), strict=True)
        model.pooling.load_state_dict(source.pooling.state_dict(), strict=True)
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} holds another encoder than the recipe's: {error}") from error


class KeepLast(Checkpoint):
    """Writes the state of a run every so many steps, after each validation and at the end of each epoch.

    A run that goes on from a step after which there is a validation would skip it, and with it a choice of weights. So
    where one follows a step, the state is written after it, when all other checkpoints have been chosen.

    Args:
        path: The file, written over each time.
        every_n_steps: Of the optimiser.
    """

    def __init__(self, path: Path, every_n_steps: int) -> None:
        self.path, self.every_n_steps, self.saved_step = path, every_n_steps, 0

    def _save(self, trainer: lightning.Trainer) -> None:
        self.saved_step = trainer.global_step
        trainer.save_checkpoint(self.path)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Save, unless there is a validation or the end of the epoch to wait for."""
        over_epochs = trainer.check_val_every_n_epoch is None
        interval = trainer.val_check_batch or math.inf  # none where validations are timed
        done = trainer.fit_loop.total_batch_idx if over_epochs else batch_index
        due = trainer.global_step % self.every_n_steps == 0 and trainer.global_step != self.saved_step
        if due and (done + 1) % interval and batch_index + 1 < trainer.num_training_batches:
            self._save(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Save, with what this validation has chosen; at the end of an epoch, other checkpoints are chosen later."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Save, also where the run ends within an epoch."""
        self._save(trainer)


class FirstPlateau(lightning.Callback):
    """The paper's choice of the encoder: the first epoch after which the training loss has stopped falling.

    Every epoch that lowers the mean loss by at least `min_delta` is saved over the one before; once `patience` epochs
    in a row did not, the choice is made and nothing is saved any more. Batches are counted here: Lightning's own epoch
    is shorter where a run ended within one and goes on, and its mean begins anew.

    Args:
        path: Where the chosen checkpoint goes.
        min_delta: What counts as falling.
        patience: How many epochs without it settle the choice.
        stop: Also end the training then.
    """

    _STATE = ("lowest", "waited", "chosen_epoch", "epoch", "loss_sum", "batches")

    def __init__(
        self,
        path: Path,
        min_delta: float = 0.005,
        patience: int = 5,
        stop: bool = True,
    ) -> None:
        self.path, self.min_delta, self.patience, self.stop = path, min_delta, patience, stop
        self.lowest, self.waited, self.chosen_epoch, self.epoch = float("inf"), 0, -1, 0
        self.loss_sum, self.batches = 0.0, 0

    @property
    def settled(self) -> bool:
        """Whether the choice is made."""
        return self.waited >= self.patience

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """There is nothing to do in a run that has settled before."""
        trainer.should_stop = trainer.should_stop or (self.stop and self.settled)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Count the loss of the batch; with the last one of an epoch, save, wait or settle."""
        self.loss_sum, self.batches = self.loss_sum + float(outputs["loss"]), self.batches + 1
        if self.batches >= trainer.num_training_batches:
            self._judge_epoch(trainer)
            self.epoch += 1

    def _judge_epoch(self, trainer: lightning.Trainer) -> None:
        mean = torch.tensor(self.loss_sum / self.batches, device=trainer.strategy.root_device)
        self.loss_sum, self.batches = 0.0, 0
        if self.settled:
            return
        loss = float(trainer.strategy.reduce(mean, reduce_op="mean"))
        if loss < self.lowest - self.min_delta:
            self.lowest, self.waited, self.chosen_epoch = loss, 0, self.epoch
            trainer.save_checkpoint(self.path, weights_only=False)
        else:
            self.waited += 1
            trainer.should_stop = trainer.should_stop or (self.stop and self.settled)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {name: getattr(self, name) for name in self._STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the interrupted run was."""
        for name in self._STATE:
            setattr(self, name, state_dict[name])
