"""A network learns what others say of clips that are blended anew in each step: the Lightning module.

Of clips as they are, a small network knows the answers by heart long before it can give them for others (HISTORY.md,
"A smaller light network"). Here it never hears the same twice, and its teachers hear just what it hears (Beyer et al.
2022, "Knowledge distillation: a good teacher is patient and consistent"). No labels are needed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from jsqa_metric import JSQAModel, load_model
from jsqa_metric.encoders import SpectrogramEncoder
from training.data.labelled import TASKS, check_teaching, predicted_targets
from training.regression import Regression

FAINTEST_GAIN_DB = -30.0
"""Of a clip that another one is mixed with."""
HISS_RANGE_DB = (-100.0, -70.0)
"""Level in dBFS of what the student hears besides: about that of the rounding noise of 16 bits in clips turned up."""


def blended(wav: Tensor, share: float) -> Tensor:
    """Blend a share of clips `(batch, samples)` with the one before them in the batch, all at one level.

    One half of these are mixed with the other, which is up to `FAINTEST_GAIN_DB` fainter; of the other half, what
    comes after a place in time is the other's.
    """
    batch, samples = wav.shape
    chance, other = torch.rand(batch, 1, device=wav.device), wav.roll(1, 0)
    gain = 10 ** (torch.rand(batch, 1, device=wav.device) * FAINTEST_GAIN_DB / 20)
    mixed = (wav + gain * other) / (1 + gain.square()).sqrt()
    later = torch.arange(samples, device=wav.device) >= torch.rand(batch, 1, device=wav.device) * samples
    blend = torch.where(chance < share / 2, mixed, torch.where(later, other, wav))
    return torch.where(chance < share, blend, wav)


def with_hiss(wav: Tensor) -> Tensor:
    """Clips `(batch, samples)` with white noise at a level from `HISS_RANGE_DB` each."""
    low, high = HISS_RANGE_DB
    level_db = low + (high - low) * torch.rand(len(wav), 1, device=wav.device)
    return wav + 10 ** (level_db / 20) * torch.randn_like(wav)


@contextmanager
def features_of(model: JSQAModel) -> Iterator[list[Tensor]]:
    """For a while, a list of what each of the layers of a spectrogram encoder gives, but for the attention."""
    features: list[Tensor] = []
    encoder: Any = model.encoder
    parts = (*encoder.convolutions, encoder.flatten, encoder.norm)

    def keep(_: Any, __: Any, output: Any) -> None:
        features.append(output[0] if isinstance(output, tuple) else output)

    handles = [part.register_forward_hook(keep) for part in parts]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def hint_loss(own: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Squared difference of features, relative to the others' variance, on average over the layers.

    Raises:
        ValueError: If they are not as many, or not of the same shapes.
    """
    if [feature.shape for feature in own] != [feature.shape for feature in others]:
        raise ValueError("`hints` are for a network whose layers are like those of the first teacher")
    pairs = [(a.float(), b.float()) for a, b in zip(own, others, strict=True)]
    return torch.stack([F.mse_loss(a, b) / b.var() for a, b in pairs]).mean()


class Distillation(Regression):
    """Regression of what other models say of blended clips, on average; the clips' own labels only validate.

    Args:
        model: Entries of `ModelConfig`.
        teachers: For each model that teaches, the arguments of `load_model`.
        blend: The share of clips that are `blended`.
        hiss: Whether the student hears clips `with_hiss`, and its teachers do not. There can be such noise in a clip,
            or digital silence in its place (above half the rate that it was recorded at), and either says nothing.
        hints: Weight of how far the features in the student's layers are from those of the first teacher, whose layers
            must give as many; for spectrogram encoders (Romero et al. 2015, "FitNets: hints for thin deep nets").
        options: Of `Regression`. With `warp`, the teachers' frequencies are stretched, too.

    Raises:
        ValueError: If `blend` is no share, or there are `hints` for another encoder.
    """

    def __init__(
        self,
        model: dict[str, Any],
        teachers: Sequence[Mapping[str, Any]],
        blend: float = 0.5,
        hiss: bool = False,
        hints: float = 0.0,
        **options: Any,
    ) -> None:
        if not 0 <= blend <= 1:
            raise ValueError(f"`blend` must be a share from 0 to 1, got {blend!r}")
        model = {"tasks": TASKS, **model}  # what is saved is what was built
        super().__init__(model, **options)
        self.save_hyperparameters()
        # in a tuple, as they are no part of what is trained, averaged and kept; copies, as they are moved and warped
        self.teachers = tuple(copy.deepcopy(load_model(**arguments)) for arguments in teachers)
        if hints and not all(isinstance(m.encoder, SpectrogramEncoder) for m in (self.model, self.teachers[0])):
            raise ValueError("`hints` are for spectrogram encoders, of the network and of the first teacher")

    def setup(self, stage: str) -> None:
        """Check that data, model and teachers fit.

        Raises:
            ValueError: If a teacher works at another rate or level, or does not predict all of the targets.
        """
        super().setup(stage)
        check_teaching(self.teachers, self.model.sample_rate, self.model.config.level_db)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of a batch: of its clips blended, by what the teachers say of these."""
        wav, lengths, _ = batch
        wav = blended(wav, self.hparams["blend"])
        for teacher in self.teachers:
            teacher.to(wav.device)
        with self.another_voice(self.model, *self.teachers):
            with torch.no_grad(), self._features(self.teachers[0]) as theirs:
                targets = predicted_targets(self.teachers, wav, lengths)
            with self._features(self.model) as own:
                loss = self.loss(with_hiss(wav) if self.hparams["hiss"] else wav, lengths, targets)
            if not self.hparams["hints"]:
                return loss
            hint = hint_loss(own, theirs)
            self.log("train/hint_loss", hint)
            return loss + self.hparams["hints"] * hint

    def _features(self, model: JSQAModel) -> AbstractContextManager[list[Tensor]]:
        """What `features_of` gives where there are hints; otherwise none, which would take memory."""
        return features_of(model) if self.hparams["hints"] else nullcontext([])
