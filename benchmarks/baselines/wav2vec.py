"""wav2vec 2.0 base, mean-pooled, with a linear head (the common SSL baseline).

The head is fitted once, to the MOS that our own model learns, on a set of `training.build_set`:

    python -m benchmarks.baselines.wav2vec sets/train
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.baselines.base import ROOT, Array, Baseline, Unavailable, fetch, fit_rate, need_packages, read_mono

_ASSET = "models/wav2vec2_fairseq_base_ls960.pth"
_WEIGHTS = Path(torch.hub.get_dir(), "torchaudio", _ASSET)
HEAD = ROOT / ".cache" / "benchmarks" / "wav2vec2_head.npz"
RIDGE = 1.0
_TOP_HZ = 8000.0
"""What it hears; the MOS is that of what lies below."""


def fit_head(features: Array, targets: Array, ridge: float = RIDGE) -> tuple[Array, float]:
    """Ridge regression: weights `(features,)` and offset."""
    mean, centre = features.mean(axis=0), targets.mean()
    x = features - mean
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ (targets - centre))
    return weights, float(centre - mean @ weights)


class Wav2vec(Baseline):
    """Mean of the last layer's frames, times a vector, plus an offset."""

    name = "wav2vec2"
    licence = "MIT (wav2vec 2.0)"
    package = "torchaudio"
    devices = ("cpu", "cuda")
    files = (_WEIGHTS, HEAD)

    def load(self, device: str = "cpu") -> None:
        """Load the network and the head."""
        self.load_network(device)
        if not HEAD.is_file():
            raise Unavailable("its linear head is not fitted yet: `python -m benchmarks.baselines.wav2vec SET`")
        head = np.load(HEAD)
        self._weights, self._offset = head["weights"], float(head["offset"])

    def load_network(self, device: str = "cpu") -> None:
        """Load torchaudio's pretrained network."""
        self._device = device
        try:
            from torchaudio.pipelines import WAV2VEC2_BASE
        except (ImportError, OSError) as error:
            raise need_packages(error) from error
        fetch(f"https://download.pytorch.org/torchaudio/{_ASSET}", _WEIGHTS)
        self._model = WAV2VEC2_BASE.get_model().eval().to(device)

    def embed(self, audio: Array) -> Array:
        """Mean-pooled features of one clip at 16 kHz."""
        with torch.inference_mode():
            features, _ = self._model.extract_features(torch.from_numpy(audio)[None].to(self._device))
        return features[-1][0].mean(dim=0).cpu().numpy()

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """Score of one clip; the rate is not looked at."""
        return float(self.embed(audio) @ self._weights + self._offset)


def main(arguments: list[str] | None = None) -> None:
    """Fit the head."""
    from training.data.labels import Calibration, read_set  # which needs the teachers' packages

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a labelled set")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)
    clips, baseline = read_set(args.folder), Wav2vec()
    baseline.load_network(args.device)
    features = [baseline.embed(fit_rate(*read_mono(clip.path), baseline.sample_rate)[0]) for clip in clips]
    targets = Calibration.fit(clips).targets(clips, _TOP_HZ)[:, 0]
    weights, offset = fit_head(np.stack(features), targets)
    HEAD.parent.mkdir(parents=True, exist_ok=True)
    np.savez(HEAD, weights=weights, offset=offset)
    print(f"fitted on {len(targets)} clips: {HEAD}")


if __name__ == "__main__":
    main()
