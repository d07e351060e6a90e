"""NISQA v2.0 through torchmetrics (Mittag et al. 2021)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines.base import PEERS, Array, Baseline, Unavailable, need_packages, torch_gradient

_WEIGHTS = Path("~/.torchmetrics/NISQA/nisqa.tar").expanduser()


class Nisqa(Baseline):
    """Overall MOS, the first of NISQA's five outputs; it takes the native rate, as it hears up to 20 kHz."""

    name = "nisqa"
    licence = "CC BY-NC-SA 4.0"
    package = "torchmetrics"
    sample_rate = None
    takes_batches = True
    files = (_WEIGHTS,)

    def load(self, device: str = "cpu") -> None:
        """Load the network; weights from the peers' folder are put where torchmetrics looks for them."""
        source = PEERS / "nisqa.tar"
        if not _WEIGHTS.is_file() and source.is_file():
            _WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, _WEIGHTS)
        try:
            from torchmetrics.functional.audio import nisqa

            nisqa._load_nisqa_model()
        except ImportError as error:
            raise need_packages(error) from error
        except OSError as error:
            raise Unavailable(f"no weights at ~/.torchmetrics/NISQA/nisqa.tar or {source}, no download") from error
        self._score = nisqa.non_intrusive_speech_quality_assessment

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """MOS of one clip or of each of a batch."""
        return self._score(torch.from_numpy(audio), sample_rate)[..., 0].numpy()

    def gradient(self, audio: Array, sample_rate: int) -> Array:
        """Gradient of the score (torchmetrics goes through NumPy)."""
        return torch_gradient(lambda signal: self._score(signal, sample_rate)[0], audio)
