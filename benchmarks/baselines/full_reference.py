"""Metrics that compare with the clean signal: what is possible when there is one."""

from __future__ import annotations

from typing import Any

from benchmarks.baselines.base import Array, Baseline, need_packages


class Pesq(Baseline):
    """Wideband PESQ (ITU-T P.862.2)."""

    name = "pesq"
    licence = "MIT (package)"
    package = "pesq"
    full_reference = True

    def load(self, device: str = "cpu") -> None:
        """Import the package."""
        try:
            from pesq import pesq
        except ImportError as error:
            raise need_packages(error) from error
        self._pesq = pesq

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """MOS-LQO of one clip."""
        return self._pesq(sample_rate, reference, audio, "wb")


class Estoi(Baseline):
    """Extended STOI (Jensen and Taal 2016)."""

    name = "estoi"
    licence = "MIT"
    package = "pystoi"
    full_reference = True

    def load(self, device: str = "cpu") -> None:
        """Import the package."""
        try:
            from pystoi import stoi
        except ImportError as error:
            raise need_packages(error) from error
        self._stoi = stoi

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """Intelligibility of one clip, about 0 to 1; signals are cut to the shorter."""
        if reference is None:
            raise ValueError("needs a reference")
        samples = min(len(audio), len(reference))
        return self._stoi(reference[:samples], audio[:samples], sample_rate, extended=True)
