"""Teachers: objective metrics that label simulated clips.

All take mono float32 at 16 kHz. Each teacher's licence allows training models for any use; NISQA's does not,
and it is never a teacher here.

| teacher | reference needed | licence | source |
|---|---|---|---|
| `pesq` | yes | MIT (package) | ITU-T P.862.2, wideband |
| `estoi` | yes | MIT | Jensen and Taal 2016 |
| `distillmos` | no | MIT | Stahl and Gamper 2025 |
| `dnsmos_p808` | no | MIT | Reddy et al. 2021 |
| `warpq` (speech codecs only) | yes | Apache 2.0 | Jassim et al. 2022, see `training.warpq` |
| `visqol` (speech codecs only) | yes | Apache 2.0 | Chinen et al. 2020, its similarity in speech mode |
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import speechmos
import torch
from pesq import NoUtterancesError, pesq
from pystoi import stoi
from speechmos.dnsmos import DNSMOS

from training.data.corpus import SAMPLE_RATE, Signal

DISTILLMOS_SAMPLES = 122880
"""One window of Distill-MOS (7.68 s)."""
DNSMOS_SAMPLES = int(9.01 * SAMPLE_RATE)
TEACHERS = ("pesq", "estoi", "distillmos", "dnsmos_p808")
ALIGNED_TEACHERS = frozenset({"pesq", "estoi"})
"""These compare with the reference moment by moment."""
REFERENCE_LABEL = "distillmos_reference"
"""Distill-MOS of the clean reference: its opinion of the talker and the recording."""
CODEC_TEACHERS = ("warpq", "visqol")
"""These judge clips without any other damage than codecs'; the network does not learn them as tasks."""
CODEC_DAMAGE = frozenset({"clean", "codec", "neural_codec", "gan_codec"})
ALL_LABELS = (*TEACHERS, REFERENCE_LABEL, *CODEC_TEACHERS)


class Teachers:
    """Labels clips; the two networks are loaded once per process."""

    def __init__(self) -> None:
        try:
            import distillmos
            from visqol import VisqolApi

            from training.warpq import warpq
        except (ImportError, OSError) as error:
            raise ModuleNotFoundError(
                f"the teachers need torchaudio and packages of their own: run `bash training/install.sh` ({error})"
            ) from error
        self._warpq = warpq
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights lie
            self._distillmos = distillmos.ConvTransformerSQAModel().eval()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        folder = Path(speechmos.__file__).parent / "dnsmos_models"
        self._visqol = VisqolApi()
        self._visqol.create(mode="speech", use_lattice_model=False)
        self._p808 = onnxruntime.InferenceSession(folder / "model_v8.onnx", options, ["CPUExecutionProvider"])

    def label(self, degraded: Signal, reference: Signal, condition: str) -> dict[str, float]:
        """`ALL_LABELS` of one clip: all teachers' judgements (NaN where one cannot judge it) and `REFERENCE_LABEL`.

        Args:
            degraded: The clip.
            reference: Without damage, aligned with it and as long.
            condition: Kinds of damage, joined by "+"; "clean" if there is none.
        """
        return {
            "pesq": self.pesq(degraded, reference),
            "estoi": self.estoi(degraded, reference),
            "distillmos": self.distillmos(degraded),
            "dnsmos_p808": self.dnsmos_p808(degraded),
            REFERENCE_LABEL: self.distillmos(reference),
        } | self.codec_labels(degraded, reference, condition)

    def codec_labels(self, degraded: Signal, reference: Signal, condition: str) -> dict[str, float]:
        """What `CODEC_TEACHERS` say; NaN where there is other damage, which they were not made for."""
        if not CODEC_DAMAGE.issuperset(condition.split("+")):
            return dict.fromkeys(CODEC_TEACHERS, math.nan)
        return {"warpq": self._warpq(degraded, reference), "visqol": self.visqol(degraded, reference)}

    def visqol(self, degraded: Signal, reference: Signal) -> float:
        """ViSQOL's similarity in speech mode (NSIM), up to 1; NaN where it finds no speech.

        Not its MOS, whose mapping was fitted to TCD-VoIP, a set that our models are evaluated on.
        """
        try:
            result = self._visqol.measure_from_arrays(reference.astype(float), degraded.astype(float), SAMPLE_RATE)
        except IndexError:  # what it raises without a patch of speech
            return math.nan
        return float(result.vnsim)

    @staticmethod
    def pesq(degraded: Signal, reference: Signal) -> float:
        """Wideband PESQ mapped to MOS-LQO; NaN where it finds no speech."""
        try:
            return float(pesq(SAMPLE_RATE, reference, degraded, "wb"))
        except NoUtterancesError:
            return float("nan")

    @staticmethod
    def estoi(degraded: Signal, reference: Signal) -> float:
        """Extended STOI, about 0 to 1; NaN where too little speech is left."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                return float(stoi(reference, degraded, SAMPLE_RATE, extended=True))
            except RuntimeWarning:
                return float("nan")

    def distillmos(self, degraded: Signal) -> float:
        """Distill-MOS of one window, the clip repeated to fill it (it hears zero padding as damage)."""
        window = torch.from_numpy(np.resize(degraded, DISTILLMOS_SAMPLES))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):  # 3 times faster, 0.002 off
            return float(self._distillmos(window[None]))

    def dnsmos_p808(self, degraded: Signal) -> float:
        """DNSMOS P.808 of one window, the clip repeated to fill it as its authors do."""
        window = np.resize(degraded, DNSMOS_SAMPLES)[:-160]
        features = DNSMOS.audio_melspec(None, window).astype(np.float32)
        return float(self._p808.run(None, {"input_1": features[None]})[0][0, 0])
