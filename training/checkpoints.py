"""Models in and out of training checkpoints, and the choice of the checkpoint to keep."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning
import torch

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


class FirstPlateau(lightning.Callback):
    """The paper's choice of the encoder: the first epoch after which the training loss has stopped falling.

    Every epoch that lowers the mean loss by at least `min_delta` is saved over the one before; once `patience` epochs
    in a row did not, the choice is made and nothing is saved any more. The mean is kept here, as Lightning's own begins
    anew where an interrupted epoch goes on.

    Args:
        path: Where the chosen checkpoint goes.
        min_delta: What counts as falling.
        patience: How many epochs without it settle the choice.
        stop: Also end the training then.
    """

    _STATE = ("lowest", "waited", "chosen_epoch", "loss_sum", "batches")

    def __init__(
        self,
        path: Path,
        min_delta: float = 0.005,
        patience: int = 5,
        stop: bool = True,
    ) -> None:
        self.path, self.min_delta, self.patience, self.stop = path, min_delta, patience, stop
        self.lowest, self.waited, self.chosen_epoch = float("inf"), 0, -1
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
        """Count the loss of the batch."""
        self.loss_sum, self.batches = self.loss_sum + float(outputs["loss"]), self.batches + 1

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Save, wait or settle."""
        mean = torch.tensor(self.loss_sum / self.batches, device=trainer.strategy.root_device)
        self.loss_sum, self.batches = 0.0, 0
        if self.settled:
            return
        loss = float(trainer.strategy.reduce(mean, reduce_op="mean"))
        if loss < self.lowest - self.min_delta:
            self.lowest, self.waited, self.chosen_epoch = loss, 0, trainer.current_epoch
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
