"""Loading in an order that is a pure function of the seed and the number of batches done: exact resume, DDP.

Lightning counts on after a resume but would start an epoch's data from its beginning. `TrainingSampler` instead
asks how many batches are done, so an interrupted run sees exactly the data that it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from jsqa_metric import ModelConfig

SORTED_BATCHES = 16
"""Among so many batches' worth, chosen by chance, items are sorted by length."""


def check_input(trainer: lightning.Trainer, config: ModelConfig) -> None:
    """Compare rate and level of a trainer's data with those of the model.

    Raises:
        ValueError: If they differ: the model would learn other spectra than it will see.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if data.sample_rate != config.sample_rate:
        raise ValueError(f"the data come at {data.sample_rate} Hz, `module.model.sample_rate` is {config.sample_rate}")
    level_db = getattr(data, "level_db", 0)
    if level_db != config.level_db:
        raise ValueError(f"the data come at `level_db` {level_db:g}, `module.model.level_db` is {config.level_db}")


class TrainingSampler(DistributedSampler[Any]):
    """Indices of this process for as many batches as an epoch has, from the first batch that is not done yet.

    Args:
        dataset: What to draw from.
        trainer: Tells which process this is and how many batches are done.
        batch_size: Items in a batch of one process.
        seed: Of the shuffling.
        endless: Instead of shuffling, go on counting, so that no index comes twice (for data drawn by index).
        lengths: Of all items: those of a batch are then of like length, sorted among `SORTED_BATCHES` batches' worth.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        trainer: lightning.Trainer,
        batch_size: int,
        seed: int,
        endless: bool = False,
        lengths: Tensor | None = None,
    ) -> None:
        super().__init__(dataset, trainer.world_size, trainer.global_rank, shuffle=False, drop_last=True)
        self.trainer, self.batch_size, self.shuffle_seed, self.endless = trainer, batch_size, seed, endless
        self.lengths = lengths
        self.batches = self.num_samples // batch_size
        if not self.batches:
            raise ValueError(f"{self.num_samples} items a process do not fill a batch of {batch_size}")

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        done = self.trainer.fit_loop.total_batch_idx + 1  # counts over all epochs, and is restored on resume
        epoch, batches = divmod(done, self.batches)
        first = self._epoch(epoch)[batches * self.batch_size :]
        return iter([*first, *self._epoch(epoch + 1)][: len(self)])

    def _epoch(self, epoch: int) -> list[int]:
        size = len(self) * self.num_replicas
        if self.endless:
            order = torch.arange(epoch * size, (epoch + 1) * size)
        else:
            generator = torch.Generator().manual_seed(self.shuffle_seed * 1_000_003 + epoch)
            order = torch.randperm(self.num_samples * self.num_replicas, generator=generator)[:size]
            if self.lengths is not None:
                order = self._by_length(order, self.lengths, generator)
        return order[self.rank :: self.num_replicas].tolist()

    def _by_length(self, order: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
        together = self.batch_size * self.num_replicas
        parts = [part[lengths[part].argsort()] for part in order.split(together * SORTED_BATCHES)]
        batches = torch.cat(parts).view(-1, together)
        return batches[torch.randperm(len(batches), generator=generator)].flatten()


def training_loader(
    dataset: Dataset[Any],
    trainer: lightning.Trainer,
    batch_size: int,
    collate: Callable[[Any], Any],
    seed: int,
    endless: bool = False,
    workers: int = 0,
    lengths: Tensor | None = None,
) -> DataLoader[Any]:
    """A loader of whole batches in a reproducible order; see `TrainingSampler`."""
    sampler = TrainingSampler(dataset, trainer, batch_size, seed, endless, lengths)
    # with a generator of its own, the loader does not move the global one, which dropout and cropping use
    own = torch.Generator().manual_seed(seed)
    return DataLoader(
        dataset, batch_size, sampler=sampler, collate_fn=collate, num_workers=workers, drop_last=True, generator=own
    )


class SeedSteps(lightning.Callback):
    """Seeds torch and Python before every step from the seed, the step and the process: the rest of exact resume."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def _seed(self, trainer: lightning.Trainer) -> None:
        seed = (self.seed * 1_000_003 + trainer.global_step) * 1009 + trainer.global_rank
        torch.manual_seed(seed)
        random.seed(seed)

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Before the first batch of a new or resumed run."""
        self._seed(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Validation came between."""
        self._seed(trainer)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Before the next batch is put together."""
        self._seed(trainer)
