"""From what the teachers said of simulated clips to the targets that a model learns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from jsqa_metric.model import DIMENSIONS
from training.data.e_model import SILENCE_ROBUSTNESS, band_share, loss_share
from training.data.expected import Expected
from training.data.labels import LabelledClip
from training.teachers import TEACHERS

CLEAN_MOS = 4.75
"""Where undamaged fullband speech lies on our scale; wideband speech comes to 4.27 by `bandwidth_share`."""

RESYNTHESIS = frozenset({"fargan", "codec2", "opus-networks", "gan_codec"})
"""Codecs whose decoder makes up the waveform. Distill-MOS hears their damage as differently as talkers differ, and PESQ
compares waveforms: where there is no other damage, `CODEC_TEACHERS` count as much as Distill-MOS."""
ANCHORS = frozenset({"codec"})
"""Damage on which PESQ and Distill-MOS set the scale of `CODEC_TEACHERS`: classic codecs."""
LEAST_ANCHORS = 50
ALONE = (["packet_loss"], ["chop"])
"""Kinds of the clips that have silent stretches, and nothing else wrong."""
DRAWN = frozenset(
    {"noise", "reverb", "competing_talker", "suppressor", "mmse", "equaliser", "disturbance", "gain_control"}
)
"""Damage by a recording that the parameters do not name, or by much else that they do not."""
DIMENSION_COLUMNS = slice(1 + len(TEACHERS), 1 + len(TEACHERS) + len(DIMENSIONS))
"""Where the dimensions stand in `Calibration.targets`."""
DOUBT = DIMENSION_COLUMNS.stop
"""The column after them: how much the teachers differ."""

REFERENCE_SCALES = (0.8, 1.5)
"""How far Distill-MOS's opinion of the reference may scale that of the damaged clip."""


def reference_scale(own: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """How far references on average are above Distill-MOS's opinion of each clip's own: 1 where that is NaN."""
    return np.nan_to_num(np.clip((mean - 1) / (own - 1), *REFERENCE_SCALES), nan=1.0)


def relative_to_reference(labels: NDArray[np.float64], own: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Distill-MOS's labels, stretched from what it says of each clip's reference to what references have on average."""
    return 1 + (labels - 1) * reference_scale(own, mean)


@dataclass(frozen=True)
class Calibration:
    """Mean and spread of each teacher on the training set, and how their mixture becomes a MOS.

    The mixture is the mean of standardised PESQ and Distill-MOS, weighted by the damage (`PESQ_WEIGHTS`; Distill-MOS
    alone where PESQ cannot judge), mapped linearly so that undamaged speech is at `CLEAN_MOS` and what both find worst
    is at 1. Distill-MOS counts relative to what it says of the clean reference: the damage is judged, not the talker.
    With `dnsmos`, DNSMOS P.808 has a share where `DNSMOS_WEIGHTS` gives it one, and those two the rest.
    For resynthesised speech it is the mean of Distill-MOS and `CODEC_TEACHERS`, which are brought to the scale of the
    mixture by the mean and spread that both have on `ANCHORS` (`codec_lines`: slope and offset of each).
    Bandwidth and level then scale the distance from 1, and so does the recording: nobody hears the reference, and
    `recording` is how much of what Distill-MOS holds for or against it counts, from 0 to 1.
    Teachers hear little wrong with narrow bands where nothing else is wrong: with `narrowband`, no damage is less than
    what the E-model (G.107.1) takes off for the clip's bandwidth alone. This is before the recording counts, and leaves
    how much the teachers differ as it is.
    Nor do they hear how bad it is when stretches are silent (G.113): with `gaps`, what is left of clips with such
    stretches (`LabelledClip.silent_percent`) is scaled to what the E-model leaves. How much the teachers leave is found
    on clips without other damage, as the packet-loss robustness factor that the E-model would need to agree with them
    (`leniency`).
    Teachers err by chance: where no recording was drawn for the damage (`DRAWN`), and enough training clips
    have each of its kinds, `own` is how much of the MOS's difference from what the parameters lead one to expect counts
    (1: all). The other tasks stay as they are.
    A clip that no teacher was asked about has the MOS that its parameters lead one to expect, and the recordings of its
    talker (or source, where talkers have no names) count instead of its own: `talkers` is what Distill-MOS says.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    reference: float
    clean: float
    worst: float
    by_damage: bool = True
    codec_lines: tuple[tuple[float, float], ...] = ()
    recording: float = 0.0
    own: float = 1.0
    narrowband: bool = False
    dnsmos: bool = False
    gaps: bool = False
    leniency: float = SILENCE_ROBUSTNESS
    expected: Expected | None = None
    talkers: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        clips: Sequence[LabelledClip],
        by_damage: bool = True,
        by_reference: bool = True,
        recording: float = 0.0,
        own: float = 1.0,
        narrowband: bool = False,
        dnsmos: bool = False,
        gaps: bool = False,
    ) -> Calibration:
        """Fit to a training set.

        Args:
            clips: The set.
            by_damage: Weight the teachers by the damage; otherwise PESQ and Distill-MOS have equal weights everywhere.
            by_reference: Take Distill-MOS relative to its label of the reference, where that is known.
            recording: How much of that label then counts for all of the MOS (0: damage alone).
            own: See above.
            narrowband: See above.
            dnsmos: See above.
            gaps: See above.

        Raises:
            ValueError: If `recording` or `own` is not from 0 to 1, or `recording` wanted without `by_reference`; if no
                teacher was asked about any clip.
        """
        if not (0 <= recording <= by_reference and 0 <= own <= 1):
            wrong = f"{recording!r} and {own!r}"
            raise ValueError(f"`recording` and `own` must be from 0 to 1, the first 0 without `by_reference`: {wrong}")
        everything, clips = clips, [c for c in clips if c.judged]
        if not clips:
            raise ValueError("no teacher was asked about any of the clips: add a set that was built with labels")
        labels = np.array([c.labels for c in clips])
        references = np.array([c.reference for c in clips])
        known = by_reference and not np.isnan(references).all()
        fitted = cls(
            tuple(np.nanmean(labels, axis=0)),
            tuple(np.nanstd(labels, axis=0)),
            float(np.nanmean(references)) if known else math.nan,
            clean=math.nan,
            worst=math.nan,
            by_damage=by_damage,
            recording=recording,
            own=own,
            narrowband=narrowband,
            dnsmos=dnsmos,
            gaps=gaps,
            talkers=pd.Series(references).groupby([c.talker for c in clips]).mean().dropna().to_dict() if known else {},
        )
        fitted = replace(fitted, codec_lines=fitted._codec_lines(clips))
        mixture, _ = fitted.mixture(clips)
        undamaged = mixture[[c.condition == "clean" for c in clips]]
        clean = np.nanmean(undamaged) if undamaged.size else np.nanmax(mixture)  # a tiny set may have none
        worst = float(np.nanquantile(mixture, 0.002))
        expected = Expected(clips, mixture) if own < 1 or len(clips) < len(everything) else None
        leniency = cls._leniency(clips, (mixture - worst) / (clean - worst)) if gaps else SILENCE_ROBUSTNESS
        return replace(fitted, clean=float(clean), worst=worst, expected=expected, leniency=leniency)

    def targets(self, clips: Sequence[LabelledClip], top_hz: float = math.inf) -> NDArray[np.float32]:
        """`(clips, 2 + teachers + dimensions)`: the MOS for a model that hears up to `top_hz`, then the other tasks.

        These are the standardised labels of the teachers, and the MOS of each dimension less 3. What is not known is
        NaN: of damage in several dimensions, nobody knows which share is whose. The last column is how much the
        teachers of a clip's MOS differ about it, a standard deviation, and NaN where there is one only.

        Raises:
            ValueError: If no teacher was asked about some clips, and nothing is expected of their parameters: `own` is
                1 and no such clips were there to fit to, or no labelled clip had their damage.
        """
        unit, spread = self.shares(clips)
        own = [c.reference if c.judged else self.talkers.get(c.talker, math.nan) for c in clips]
        of_recordings = reference_scale(np.array(own), self.reference) ** -self.recording
        span = (CLEAN_MOS - 1) * np.array([c.share(top_hz) for c in clips]) * of_recordings
        mos = np.clip(1 + unit * span, 1, 5)
        standardised = (np.array([c.labels for c in clips]) - self.mean) / self.std
        dimensions = [self._dimensions(clip, share) for clip, share in zip(clips, unit, strict=True)]
        doubt = spread * span
        return np.column_stack([mos, standardised, dimensions, doubt]).astype(np.float32)

    def shares(self, clips: Sequence[LabelledClip]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the damage leaves of the range from the worst to undamaged wideband speech, and the teachers' spread."""
        mixture, spread = self.mixture(clips)
        judged = np.array([c.judged for c in clips])
        if self.expected:
            by_parameters = self.expected(clips)
            heard = np.array([self.expected.kinds.issuperset(c.kinds) for c in clips])
            if not (heard | judged).all():
                kinds = {kind for c in clips if not c.judged for kind in c.kinds} - self.expected.kinds
                raise ValueError(f"clips without labels, and no labelled ones that tell of {', '.join(sorted(kinds))}")
            share = np.where(heard & [DRAWN.isdisjoint(c.kinds) for c in clips], self.own, 1)
            mixture = by_parameters + np.where(judged, share * (mixture - by_parameters), 0)
        elif not judged.all():
            raise ValueError("clips without labels need a calibration that was fitted with such clips among others")
        unit = (mixture - self.worst) / (self.clean - self.worst)
        if self.gaps:
            silent = np.array([c.silent_percent for c in clips])
            left = loss_share(silent) / loss_share(silent, self.leniency)
            unit, spread = unit * left, spread * left
        if self.narrowband:
            most = band_share(np.array([c.bandwidth_hz for c in clips]))
            unit = np.where(most < 1, np.minimum(unit, most), unit)
        return unit, spread / (self.clean - self.worst)

    @staticmethod
    def _leniency(clips: Sequence[LabelledClip], unit: NDArray[np.float64]) -> float:
        """The robustness to silent stretches with which the E-model leaves most nearly what the teachers leave."""
        silent = np.array([c.silent_percent if c.kinds in ALONE else 0 for c in clips])
        found = silent > 0
        if found.sum() < LEAST_ANCHORS:
            return SILENCE_ROBUSTNESS

        def error(robustness: float) -> float:
            return float(np.square(unit[found] - loss_share(silent[found], robustness)).mean())

        return float(minimize_scalar(error, bounds=(SILENCE_ROBUSTNESS, 100), method="bounded").x)

    @staticmethod
    def _dimensions(clip: LabelledClip, share: float) -> list[float]:
        touched = clip.touched
        shares = {name: (share if len(touched) == 1 else math.nan) if name in touched else 1.0 for name in DIMENSIONS}
        shares["loudness"] = clip.level_share
        return [float(np.clip(1 + (CLEAN_MOS - 1) * shares[name], 1, 5)) - 3 for name in DIMENSIONS]

    def _codec_lines(self, clips: Sequence[LabelledClip]) -> tuple[tuple[float, float], ...]:
        """Slope and offset from each of `CODEC_TEACHERS` to the mixture; none if too few clips are known."""
        anchors = [c for c in clips if ANCHORS.issuperset(c.kinds) and not np.isnan(c.codec_labels).any()]
        if not self.by_damage or len(anchors) < LEAST_ANCHORS:
            return ()
        mixture, _ = self.mixture(anchors)
        lines = []
        for label, sign in zip(np.transpose([c.codec_labels for c in anchors]), (-1, 1), strict=True):  # WARP-Q: a cost
            slope = sign * mixture.std() / label.std()
            lines.append((float(slope), float(mixture.mean() - slope * label.mean())))
        return tuple(lines)

    def mixture(self, clips: Sequence[LabelledClip]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The teachers' mean, weighted by the damage, and their standard deviation about it, both standardised."""
        labels = np.array([c.labels for c in clips])
        own = np.array([c.reference for c in clips])
        pesq, distill, dnsmos = (TEACHERS.index(name) for name in ("pesq", "distillmos", "dnsmos_p808"))
        labels[:, distill] = relative_to_reference(labels[:, distill], own, self.reference)
        judged = ((labels - self.mean) / self.std)[:, [pesq, distill, dnsmos]]
        weight = np.where(np.isnan(judged[:, 0]), 0, [c.pesq_weight if self.by_damage else 0.5 for c in clips])
        third = np.where(np.isnan(judged[:, 2]), 0, [c.dnsmos_weight if self.dnsmos else 0 for c in clips])
        weights = np.column_stack([weight * (1 - third), (1 - weight) * (1 - third), third])
        if self.codec_lines:
            slopes, offsets = np.transpose(self.codec_lines)
            judged = np.column_stack([judged, slopes * [c.codec_labels for c in clips] + offsets])
            asked = [bool(RESYNTHESIS.intersection(c.kinds)) and not np.isnan(c.codec_labels).any() for c in clips]
            count = len(self.codec_lines)
            weights = np.pad(weights, ((0, 0), (0, count)))
            weights[asked] = [0, 1 / (1 + count), 0, *[1 / (1 + count)] * count]
        judged = np.where(weights > 0, judged, 0)
        mean = (weights * judged).sum(axis=1)
        spread = np.sqrt((weights * (judged - mean[:, None]) ** 2).sum(axis=1))
        return mean, np.where((weights > 0).sum(axis=1) > 1, spread, np.nan)
