"""What every metric offers, and what the benchmarks do for those that cannot do it themselves.

Conventions:
    - `score` is the metric's own interface with no help: what it does to stereo, odd rates or empty input is its
      own doing, and the robustness table shows it.
    - `score_file` gives each metric what it asks for: mono, at its rate (resampled with soxr, as librosa does).
    - Signals are floating point with full scale ±1 and time on the last axis; rates are in Hz.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import sys
import urllib.request
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import soundfile as sf
import soxr
import torch

Array = np.ndarray[Any, Any]

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(os.environ.get("JSQA_PEERS", ROOT.parent / "shared" / "peers"))
"""Folder of weights that no package carries."""
DOWNLOAD_TIMEOUT_S = 15


class Unavailable(RuntimeError):  # noqa: N818
    """A metric that cannot run here; the message says why and what would help."""


class Baseline:
    """One metric. Subclasses set the attributes and define `load` and `score`.

    Attributes:
        name: Short name, for commands, files and tables.
        licence: Of the weights.
        package: Distribution whose version is the metric's version.
        sample_rate: The rate it works at in Hz, or None if it takes any.
        full_reference: Whether it needs the clean signal.
        takes_batches: Whether `score` takes `(batch, time)`.
        takes_files: Whether it reads files itself, by `score_path`.
        devices: Where it can compute.
        files: Weights outside of the package; they are part of the version.
        modules: Others than its own whose code makes its scores.
    """

    name: str
    licence: str
    package: str = ""
    sample_rate: int | None = 16000
    full_reference: bool = False
    takes_batches: bool = False
    takes_files: bool = False
    devices: tuple[str, ...] = ("cpu",)
    files: tuple[Path, ...] = ()
    modules: tuple[str, ...] = ()

    def load(self, device: str = "cpu") -> None:
        """Load the model; called once, before anything is scored.

        Raises:
            Unavailable: If a package or the weights are missing.
        """
        raise NotImplementedError

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """The metric's own answer: a number, or an array of one for each leading index."""
        raise NotImplementedError

    def score_path(self, path: Path) -> float:
        """Score of a file, for metrics that read files themselves."""
        raise NotImplementedError

    def score_padded(self, audio: Array, lengths: list[int], sample_rate: int) -> list[float]:
        """Scores of a zero-padded batch `(batch, time)`; `lengths` reach only metrics that take them."""
        return [float(self.score(row, sample_rate)) for row in audio]

    def gradient(self, audio: Array, sample_rate: int) -> Array:
        """Gradient of the score with respect to the samples.

        Raises:
            NotImplementedError: If the metric has none.
        """
        raise NotImplementedError("not differentiable")

    @property
    def spec(self) -> str:
        """What `make` takes to make the same metric in another process."""
        return self.name

    @property
    def version(self) -> str:
        """Version of the package, and a hash of weights from elsewhere."""
        try:
            parts = [installed_version(self.package)] if self.package else []
        except PackageNotFoundError:
            parts = ["not installed"]
        parts += [file_hash(path)[:8] for path in self.files if path.is_file()]
        return "+".join(parts)

    @property
    def cache_key(self) -> str:
        """Changes whenever scores may: with the version, and with the code that makes them."""
        own = type(self)
        helpers = [part for name, part in vars(own).items() if callable(part) and not hasattr(Baseline, name)]
        code = [_code(part) for part in (own.load, own.score, own.score_path, read_mono, fit_rate, *helpers)]
        adapters = {part.__module__ for part in own.__mro__ if issubclass(part, Baseline) and part is not Baseline}
        code += [_module_code(name) for name in sorted(adapters | set(self.modules))]
        facts = (self.name, self.version, self.sample_rate, self.takes_files, self.full_reference)
        return hashlib.sha256(f"{facts} {code}".encode()).hexdigest()[:16]


def _module_code(name: str) -> list[Any]:
    """Functions, methods and constants of a module."""
    own = [part for part in vars(sys.modules[name]).items() if not part[0].startswith("__")]
    classes = [part for _, part in own if inspect.isclass(part) and part.__module__ == name]
    methods = [part for place in classes for part in vars(place).items()]
    constants = [part for part in own if isinstance(part[1], (bool, int, float, str))]
    functions = [part for part in own + methods if inspect.isfunction(part[1]) and part[1].__module__ == name]
    return [*constants, *((title, _code(function)) for title, function in functions)]


def _code(function: Any) -> list[Any]:
    """What a function does, as it was when it was imported (its file may have changed since)."""
    code = function if isinstance(function, CodeType) else function.__code__
    constants = [_code(item) if isinstance(item, CodeType) else repr(item) for item in code.co_consts]
    return [code.co_code.hex(), code.co_names, constants]


def read_mono(path: Path) -> tuple[Array, int]:
    """A file as float32 mono (mean of the channels), and its rate."""
    audio, rate = sf.read(path, dtype="float32", always_2d=True)
    return np.ascontiguousarray(audio.mean(axis=1)), rate


def fit_rate(audio: Array, rate: int, wanted: int | None) -> tuple[Array, int]:
    """The signal at a wanted rate (None: as it is)."""
    if wanted is None or wanted == rate:
        return audio, rate
    return soxr.resample(audio, rate, wanted), wanted


def score_file(baseline: Baseline, path: Path, reference: Path | None = None) -> float:
    """Score a file as the metric's authors would: mono, at its rate."""
    if baseline.takes_files:
        return baseline.score_path(path)
    audio, rate = fit_rate(*read_mono(path), baseline.sample_rate)
    clean = None
    if baseline.full_reference:
        if reference is None:
            raise ValueError("needs a reference")
        clean, _ = fit_rate(*read_mono(reference), rate)
    return float(baseline.score(audio, rate, clean))


def torch_gradient(function: Callable[[torch.Tensor], torch.Tensor], audio: Array) -> Array:
    """Gradient of a function's sum with respect to samples; zeros where the result does not depend on them."""
    signal = torch.from_numpy(audio).clone().requires_grad_()
    function(signal).sum().backward()
    return np.zeros_like(audio) if signal.grad is None else signal.grad.numpy()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch(url: str, path: Path) -> Path:
    """Path of a file that is downloaded if it is not there yet.

    Raises:
        Unavailable: If it is neither there nor to be had.
    """
    if path.is_file():
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        shown = str(path).replace(str(Path.home()), "~")
        raise Unavailable(f"no weights at {shown}, and no download from {url} ({error})") from error
    return path


def need_packages(error: Exception) -> Unavailable:
    """The exception for a package that is missing or broken."""
    return Unavailable(f"{error}; `bash benchmarks/install.sh` makes an environment with all peers")
