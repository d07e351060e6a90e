"""DNSMOS (Reddy et al. 2021, 2022) and PLCMOS (Diener et al. 2023) through Microsoft's package `speechmos`."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.baselines.base import Array, Baseline, need_packages


class _SpeechMos(Baseline):
    licence = "MIT"
    package = "speechmos"
    module: str
    key: str

    def load(self, device: str = "cpu") -> None:
        """Load the ONNX models (the package does at its first call)."""
        try:
            from speechmos import dnsmos, plcmos
        except ImportError as error:
            raise need_packages(error) from error
        self._run = {"dnsmos": dnsmos, "plcmos": plcmos}[self.module].run
        self._run(0.1 * np.ones(16000, np.float32), 16000)

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """Score of one clip (PLCMOS draws its listeners at random, so its scores vary a little)."""
        # resampling overshoots full scale, beyond which the package refuses arrays (but not files)
        return self._run(np.clip(audio, -1, 1), sample_rate)[self.key]


class DnsmosP808(_SpeechMos):
    """Overall quality as in P.808."""

    name = "dnsmos_p808"
    module, key = "dnsmos", "p808_mos"


class DnsmosOvrl(_SpeechMos):
    """Overall quality as in P.835."""

    name = "dnsmos_ovrl"
    module, key = "dnsmos", "ovrl_mos"


class Plcmos(_SpeechMos):
    """Quality of packet loss concealment (version 2)."""

    name = "plcmos"
    module, key = "plcmos", "plcmos"
