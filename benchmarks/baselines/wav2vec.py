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
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from benchmarks.baselines.base import ROOT, Array, Baseline, Unavailable, fit_rate, need_packages, read_mono

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
    """Mean of the last layer's frames, times a vector, plus an offset.

    Attributes:
        repository: Of the pretrained network on the Hugging Face Hub, or a folder that holds the same.
    """

    name = "wav2vec2"
    licence = "Apache-2.0 (wav2vec 2.0)"
    package = "transformers"
    devices = ("cpu", "cuda")
    files = (HEAD,)
    repository = "facebook/wav2vec2-base"

    @property
    def version(self) -> str:
        """Version of the package, the commit of the network if it is there, and a hash of the head."""
        config = try_to_load_from_cache(self.repository, "config.json") if not Path(self.repository).is_dir() else None
        return super().version + (f"+{Path(config).parent.name[:8]}" if isinstance(config, str) else "")

    def load(self, device: str = "cpu") -> None:
        """Load the network and the head."""
        self.load_network(device)
        if not HEAD.is_file():
            raise Unavailable("its linear head is not fitted yet: `python -m benchmarks.baselines.wav2vec SET`")
        head = np.load(HEAD)
        self._weights, self._offset = head["weights"], float(head["offset"])

    def load_network(self, device: str = "cpu") -> None:
        """Load the pretrained network, from the Hub at first use."""
        self._device = device
        try:
            from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model
        except ImportError as error:
            raise need_packages(error) from error
        folder = self.repository
        if not Path(folder).is_dir():
            try:
                folder = snapshot_download(folder, allow_patterns=["*.json", "*.safetensors", "pytorch_model.bin"])
            except (OSError, HfHubHTTPError) as error:
                reason = str(error).partition("\n")[0]
                raise Unavailable(f"no weights of {folder} in the Hub's cache, nor from the Hub ({reason})") from error
        self._normalise = Wav2Vec2FeatureExtractor.from_pretrained(folder)
        self._model = Wav2Vec2Model.from_pretrained(folder).eval().to(device)

    def embed(self, audio: Array) -> Array:
        """Mean-pooled features of one clip at 16 kHz."""
        signal = self._normalise(audio, sampling_rate=self.sample_rate, return_tensors="pt").input_values
        with torch.inference_mode():
            frames = self._model(signal.to(self._device)).last_hidden_state
        return frames[0].mean(dim=0).cpu().numpy()

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """Score of one clip; the rate is not looked at."""
        return float(self.embed(audio) @ self._weights + self._offset)


def main(arguments: list[str] | None = None) -> None:
    """Fit the head."""
    from training.data.calibration import Calibration  # which needs the teachers' packages
    from training.data.labels import read_set

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
