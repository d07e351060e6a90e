"""SQUIM (Kumar et al. 2023) through torchaudio: its no-reference estimate of wideband PESQ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines.base import Array, Baseline, fetch, need_packages, torch_gradient

_ASSET = "models/squim_objective_dns2020.pth"


class Squim(Baseline):
    """SQUIM_OBJECTIVE's PESQ (its MOS, SQUIM_SUBJECTIVE, needs a non-matching reference)."""

    name = "squim"
    licence = "CC BY 4.0"
    package = "torchaudio"
    takes_batches = True
    devices = ("cpu", "cuda")

    def load(self, device: str = "cpu") -> None:
        """Load the network, with weights where torchaudio keeps them."""
        self._device = device
        try:
            from torchaudio.pipelines import SQUIM_OBJECTIVE
        except (ImportError, OSError) as error:
            raise need_packages(error) from error
        fetch(f"https://download.pytorch.org/torchaudio/{_ASSET}", Path(torch.hub.get_dir(), "torchaudio", _ASSET))
        self._model = SQUIM_OBJECTIVE.get_model().to(device)

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """Estimated PESQ of one clip or of each of a batch; the rate is not looked at."""
        signal = torch.from_numpy(audio).to(self._device)
        with torch.inference_mode():
            scores = self._model(signal if signal.ndim == 2 else signal[None])[1].cpu().numpy()
        return scores if audio.ndim == 2 else scores[0]

    def gradient(self, audio: Array, sample_rate: int) -> Array:
        """Gradient of the score."""
        return torch_gradient(lambda signal: self._model(signal[None])[1], audio)
