"""Distill-MOS (Stahl and Gamper 2025); weights in its wheel."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch

from benchmarks.baselines.base import Array, Baseline, need_packages, torch_gradient


class DistillMos(Baseline):
    """The network as its package calls it: any length, no rate asked for."""

    name = "distillmos"
    licence = "MIT"
    package = "distillmos"
    takes_batches = True
    devices = ("cpu", "cuda")

    def load(self, device: str = "cpu") -> None:
        """Load the network, quietly."""
        self._device = device
        try:
            import distillmos
        except (ImportError, OSError) as error:  # it imports torchaudio, which refuses many torch builds
            raise need_packages(error) from error
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights lie
            self._model = distillmos.ConvTransformerSQAModel().eval().to(device)

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """MOS of one clip or of each of a batch; the rate is not looked at."""
        signal = torch.from_numpy(audio).to(self._device)
        with torch.inference_mode():
            scores = self._model(signal if signal.ndim == 2 else signal[None])[:, 0].cpu().numpy()
        return scores if audio.ndim == 2 else scores[0]

    def gradient(self, audio: Array, sample_rate: int) -> Array:
        """Gradient of the score."""
        return torch_gradient(lambda signal: self._model(signal[None]), audio)
