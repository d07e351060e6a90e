"""This project's metric, through its public `score`: the default weights, or any model folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jsqa_metric
from benchmarks.baselines.base import Array, Baseline, Unavailable, torch_gradient
from jsqa_metric.hub import CONFIG_NAME, WEIGHTS_NAME, fetch


class Ours(Baseline):
    """`jsqa_metric.score` with the default weights or with those of a folder."""

    licence = "MIT"
    package = "jsqa-metric"
    sample_rate: int | None = None
    takes_batches = True
    takes_files = True
    devices = ("cpu", "cuda")
    level_db: float | None = None

    def __init__(self, model: str = "default") -> None:
        folder = Path(model).resolve()
        # a run's model folder is called "model", which tells nothing
        self.name = "jsqa" if model == "default" else folder.parent.name if folder.name == "model" else folder.name
        self.model, self.device = model, "cpu"
        self.files = tuple(fetch(model, local_files_only=True) / name for name in (WEIGHTS_NAME, CONFIG_NAME))

    @property
    def spec(self) -> str:
        """Its name, or the folder."""
        return self.name if self.model in jsqa_metric.available_models() else self.model

    @property
    def version(self) -> str:
        """Version, and hashes of the weights and of the code, as both still change."""
        code = hashlib.sha256()
        for path in sorted(Path(jsqa_metric.__file__).parent.glob("*.py")):
            code.update(path.read_bytes())
        return f"{super().version}+{code.hexdigest()[:8]}"

    def load(self, device: str = "cpu") -> None:
        """Load the weights."""
        self.device = device
        try:
            jsqa_metric.load_model(self.model, device)
        except (ValueError, FileNotFoundError) as error:
            raise Unavailable(str(error)) from error

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """MOS of one clip or of each of a batch."""
        return self._score(audio, sample_rate)

    def score_path(self, path: Path) -> float:
        """MOS of a file, which is read window by window."""
        return float(self._score(path))

    def score_padded(self, audio: Array, lengths: list[int], sample_rate: int) -> list[float]:
        """Scores of a padded batch; it takes the lengths."""
        return [float(value) for value in self._score(audio, sample_rate, lengths=lengths)]

    def gradient(self, audio: Array, sample_rate: int) -> Array:
        """Gradient of the score."""
        return torch_gradient(lambda signal: self._score(signal, sample_rate), audio)

    def _score(self, audio: Any, sample_rate: int | None = None, lengths: list[int] | None = None) -> Any:
        settings: dict[str, Any] = {"model": self.model, "device": self.device, "level_db": self.level_db}
        return jsqa_metric.score(audio, sample_rate, lengths=lengths, **settings)


class Light(Ours):
    """The same with the light weights."""

    def __init__(self) -> None:
        super().__init__("light")
        self.name = "jsqa_light"


class AtOneLevel(Ours):
    """The same, each clip brought to the level of listening tests first."""

    level_db = -26

    def __init__(self) -> None:
        super().__init__()
        self.name = "jsqa_level"
