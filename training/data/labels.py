"""Simulated clips with labels: what was done to them, and what the teachers said."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jsqa_metric.bandwidth import bandwidth_share
from jsqa_metric.level import level_share
from training.data.corpus import SAMPLE_RATE
from training.teachers import ALIGNED_TEACHERS, CODEC_TEACHERS, REFERENCE_LABEL, TEACHERS

PESQ_WEIGHTS = {
    "competing_talker": 0.75,
    "echo": 0.75,
    "chop": 0.75,
    "packet_loss": 0.6,
    "suppressor": 0.4,
    "mmse": 0.4,
    "gain_control": 0.4,
    "equaliser": 0.25,
    "band_limit": 0.25,
    "low_pass": 0.25,
    "reverb": 0.25,
    "clipping": 0.2,
    "vocoder": 0.0,
    "fargan": 0.0,
    "codec2": 0.0,
    "gan_codec": 0.0,
}
"""How far PESQ (the rest is Distill-MOS) teaches a kind of damage; half where nothing is said.

PESQ, which knows the reference, is the better judge of added talkers, echo and gaps, Distill-MOS of clipping (design
notes). PESQ compares waveforms: resynthesised speech is outside the scope of P.862, and reverberation and missing bands
cost more there than with listeners."""
STRETCHED = frozenset({"jitter"})
"""Where time is stretched, PESQ and ESTOI compare what is not alike, whatever else was done: they have no say there."""

DNSMOS_WEIGHTS = dict.fromkeys(("noise", "suppressor", "mmse", "reverb"), 0.25)
"""How far DNSMOS P.808 teaches a kind of damage, where a recipe lets it (`dnsmos`); the other two share the rest.

It learned from listeners of noisy and denoised speech, and that is what it is asked about. The share is what three
judges with one thing in common would have (`results/teachers_consensus.md`: 0.15 to 0.33)."""

DAMAGE_DIMENSIONS: dict[str, tuple[str, ...]] = {
    "noise": ("noisiness",),
    "mnru": ("noisiness",),
    "quantise": ("noisiness",),
    "competing_talker": ("noisiness",),
    "disturbance": ("noisiness",),
    "suppressor": ("noisiness", "coloration"),
    "mmse": ("noisiness", "coloration"),
    "reverb": ("coloration",),
    "equaliser": ("coloration",),
    "echo": ("coloration",),
    "clipping": ("coloration",),
    "band_limit": ("coloration",),
    "low_pass": ("coloration",),
    "codec": ("coloration",),
    "further_codec": ("coloration",),
    "transform_codec": ("coloration",),
    "held_out_codec": ("noisiness", "coloration"),
    "fargan": ("coloration",),
    "codec2": ("coloration",),
    "gan_codec": ("coloration",),
    "opus-networks": ("coloration", "discontinuity"),
    "opus-loss": ("coloration", "discontinuity"),
    "vocoder": ("coloration",),
    "call_codec": ("coloration", "discontinuity"),
    "gain_control": ("coloration", "discontinuity"),
    "jitter": ("discontinuity",),
    "packet_loss": ("discontinuity",),
    "chop": ("discontinuity",),
}
"""The dimensions of quality that a kind of damage touches; loudness is the level's alone."""
HELD_OUT_KINDS = ("held_out_codec",)
"""Damage for validation only."""
NARROW_HZ = 7000.0
"""Narrower clips are coloured, whatever else was done."""

UNKNOWN = (math.nan,) * len(CODEC_TEACHERS)


@dataclass(frozen=True)
class LabelledClip:
    """A clip of a set: where it lies, its damage, the teachers' labels, and what no teacher hears (Hz, dBFS).

    `reference` is Distill-MOS's label of the clean reference, NaN in sets that were built without; `codec_labels` are
    those of `CODEC_TEACHERS`, NaN where they do not judge. `parameters` are those of the simulation. In sets that no
    teacher was asked about, all labels are NaN.
    """

    path: Path
    condition: str
    labels: tuple[float, ...]
    bandwidth_hz: float
    level_db: float
    reference: float = math.nan
    codec_labels: tuple[float, ...] = UNKNOWN
    parameters: dict[str, Any] = field(default_factory=dict)
    talker: str = ""

    @property
    def kinds(self) -> list[str]:
        """Kinds of damage, or "clean"."""
        return self.condition.split("+")

    @property
    def judged(self) -> bool:
        """Whether teachers were asked: one or another may still have had nothing to say."""
        return not all(map(math.isnan, self.labels))

    @property
    def level_share(self) -> float:
        """What the level leaves of the range of MOS."""
        return level_share(torch.tensor(self.level_db)).item()

    def share(self, top_hz: float) -> float:
        """What level and bandwidth, as far as a model hears that goes up to `top_hz`, leave of the range of MOS."""
        return self.level_share * bandwidth_share(min(self.bandwidth_hz, top_hz))

    @property
    def silent_percent(self) -> float:
        """How much of the clip was replaced by silence: lost packets that nothing conceals, chopped stretches."""
        known, lost = self.parameters, 0.0
        if "packet_loss" in self.kinds and known.get("loss_concealed") == 0:
            lost += 100 * known["loss_rate"]
        if known.get("chop") == "silence":
            lost += known["chop_per_s"] * known["chop_ms"] / 10
        return min(lost, 100.0)

    @property
    def touched(self) -> set[str]:
        """The dimensions that the damage touches, but for loudness."""
        dimensions = {d for kind in self.kinds for d in DAMAGE_DIMENSIONS.get(kind, ())}
        # beside other damage, too, nothing would be interrupted, but 2027.10 learned it so
        if self.kinds == ["call_codec"] and not self.parameters.get("loss_rate"):
            dimensions.discard("discontinuity")
        return dimensions | ({"coloration"} if self.bandwidth_hz < NARROW_HZ else set())

    @property
    def pesq_weight(self) -> float:
        """Share of PESQ in the label: the mean over the kinds of damage."""
        return float(np.mean([PESQ_WEIGHTS.get(kind, 0.5) for kind in self.kinds]))

    @property
    def dnsmos_weight(self) -> float:
        """Share of DNSMOS in the label, if it has any: the mean over the kinds of damage."""
        return float(np.mean([DNSMOS_WEIGHTS.get(kind, 0.0) for kind in self.kinds]))


def read_set(folder: str | Path, judged: bool = False) -> list[LabelledClip]:
    """All finished shards of a set; with `judged`, only the clips that teachers were asked about.

    Raises:
        FileNotFoundError: If there are none (with `judged`, in a set that was built without teachers).
    """
    clips = []
    for index in sorted(Path(folder).glob("[0-9]*/labels.csv")):
        with index.open(newline="") as handle:
            for row in csv.DictReader(handle):
                labels = tuple(float(row[t]) for t in TEACHERS)
                known = json.loads(row["parameters"])
                band, level = known.get("bandwidth_hz", SAMPLE_RATE / 2), known["level_db"]
                reference = float(row.get(REFERENCE_LABEL, "nan"))
                condition = row["condition"].replace("neural_codec", str(known.get("neural_codec")))
                if not STRETCHED.isdisjoint(condition.split("+")):
                    labels = tuple(
                        math.nan if t in ALIGNED_TEACHERS else v for t, v in zip(TEACHERS, labels, strict=True)
                    )
                # gaps are none of their business: WARP-Q's median passes over them
                codec = UNKNOWN if known.get("loss_rate") else tuple(float(row.get(t, "nan")) for t in CODEC_TEACHERS)
                path, talker = index.parent / row["file"], row.get("talker", "")
                clips.append(LabelledClip(path, condition, labels, band, level, reference, codec, known, talker))
    if judged and clips and not (clips := [clip for clip in clips if clip.judged]):
        raise FileNotFoundError(f"no labelled clips in {folder}: it was built with `--unlabelled`, for training only")
    if not clips:
        raise FileNotFoundError(f"no labelled shards in {folder}: build a set with `python -m training.build_set`")
    return clips


def read_sets(folders: Iterable[str | Path], judged: bool = False) -> list[LabelledClip]:
    """The clips of several sets; see `read_set`."""
    return [clip for folder in folders for clip in read_set(folder, judged)]
