"""Relatives of our metric that are trained here, on our data and with our encoder: `python -m training.baselines`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines.base import ROOT, Array, Unavailable, torch_gradient
from benchmarks.baselines.ours import Ours
from jsqa_metric.hub import CONFIG_NAME, WEIGHTS_NAME
from training.projection import NONMATCHING_NAME, NonMatching

TRAINED = Path(os.environ.get("JSQA_TRAINED", ROOT / "runs" / "baselines"))


class _Trained(Ours):
    run: str
    """What `training.baselines` calls it."""
    needs: tuple[str, ...] = (WEIGHTS_NAME, CONFIG_NAME)

    def __init__(self) -> None:
        folder = TRAINED / self.run / "model"
        self.model, self.device = str(folder), "cpu"
        self.files = tuple(folder / name for name in self.needs)

    @property
    def spec(self) -> str:
        return self.name

    def load(self, device: str = "cpu") -> None:
        """Load the weights, if they have been trained."""
        if not all(path.is_file() for path in self.files):
            raise Unavailable(f"not trained: run `python -m training.baselines {self.run}`")
        super().load(device)


class JsqaPublished(_Trained):
    """JSQA as published: contrastive pretraining on JND pairs, then MOS fine-tuning with squared error."""

    name = run = "jsqa_published"


class ScoreqStyle(_Trained):
    """SCOREQ's contrastive regression with adaptive margin, and a MOS head on the frozen encoder: no reference."""

    name = run = "scoreq_style"


class ScoreqStyleNmr(_Trained):
    """The same encoder in the non-matching-reference mode: the distance to unrelated clean speech is the score."""

    name, run = "scoreq_style_nmr", "scoreq_style"
    sample_rate = 16000
    takes_files = False
    needs = (*_Trained.needs, NONMATCHING_NAME)
    modules = (NonMatching.__module__,)

    def load(self, device: str = "cpu") -> None:
        """Load encoder, projection and the embedding of clean speech."""
        super().load(device)
        self._metric = NonMatching.read(Path(self.model)).to(device)

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """Score of one clip or of each of a batch; the rate is not looked at."""
        batch = audio if audio.ndim == 2 else audio[None]
        scores = self._scores(batch, [batch.shape[1]] * len(batch))
        return scores if audio.ndim == 2 else scores[0]

    def score_padded(self, audio: Array, lengths: list[int], sample_rate: int) -> list[float]:
        """Scores of a padded batch; it takes the lengths."""
        return [float(value) for value in self._scores(audio, lengths)]

    def gradient(self, audio: Array, sample_rate: int) -> Array:
        """Gradient of the score."""
        return torch_gradient(lambda signal: self._metric(signal[None]), audio)

    def _scores(self, batch: Array, lengths: list[int]) -> Array:
        with torch.inference_mode():
            signal = torch.from_numpy(batch).to(self.device)
            scores: Array = self._metric(signal, torch.tensor(lengths, device=self.device)).cpu().numpy()
        return scores
