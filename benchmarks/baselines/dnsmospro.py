"""DNSMOS Pro (Cumlin et al. 2024), trained on NISQA: the authors' TorchScript file and input."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.baselines.base import PEERS, Array, Baseline, Unavailable, need_packages

_WEIGHTS = PEERS / "dnsmospro_nisqa.pt"
_WINDOW, _HOP = 320, 160
_FLOOR = 1e-7


class DnsmosPro(Baseline):
    """Mean of the predicted distribution of scores."""

    name = "dnsmospro"
    licence = "MIT"
    devices = ("cpu", "cuda")
    files = (_WEIGHTS,)

    def load(self, device: str = "cpu") -> None:
        """Load the TorchScript file."""
        self._device = device
        try:
            import librosa
        except ImportError as error:
            raise need_packages(error) from error
        if not _WEIGHTS.is_file():
            raise Unavailable(f"no weights at {_WEIGHTS} (runs/NISQA/model_best.pt of fcumlin/DNSMOSPro)")
        self._stft = librosa.stft
        self._model = torch.jit.load(_WEIGHTS, map_location=device).eval()

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """Score of one clip; the rate is not looked at."""
        spectrum = np.abs(self._stft(audio, n_fft=_WINDOW, hop_length=_HOP)).T
        features = np.log10(np.maximum(spectrum, _FLOOR)).astype(np.float32)
        with torch.inference_mode():
            return float(self._model(torch.from_numpy(features)[None, None].to(self._device))[0, 0])
