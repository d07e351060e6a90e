"""SCOREQ (Ragano et al. 2024), natural speech, no reference, through its package's ONNX model."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines.base import Array, Baseline, fetch, need_packages

_URL = "https://zenodo.org/records/15739280/files/adapt_nr_telephone.onnx"
_WEIGHTS = Path("~/.cache/scoreq/onnx-models/adapt_nr_telephone.onnx").expanduser()
_STRIDE = 320


class Scoreq(Baseline):
    """The package's session, fed as its `predict` does (which takes files only)."""

    name = "scoreq"
    licence = "MIT (package; weights on Zenodo)"
    package = "scoreq"
    files = (_WEIGHTS,)

    def load(self, device: str = "cpu") -> None:
        """Load the ONNX model; its weights come first, as the package downloads them when it is imported."""
        fetch(_URL, _WEIGHTS)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                from scoreq.scoreq import Scoreq as Package

                self._session = Package("natural", "nr").session
        except (ImportError, OSError) as error:
            raise need_packages(error) from error

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """Score of one clip, zero-padded to whole strides of wav2vec 2.0 as in the package."""
        padded = np.pad(audio, (0, -len(audio) % _STRIDE))[None]
        return self._session.run(None, {self._session.get_inputs()[0].name: padded})[0].item()
