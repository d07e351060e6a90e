"""The degradation simulator: clean speech in, damaged speech, its reference and what was done out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.data import additive, channel, codecs, enhance, transform_codec
from training.data.additive import Material, Parameters
from training.data.bandwidth import SIMULATION_RATE, widen
from training.data.corpus import SAMPLE_RATE, Corpus, Signal, change_rate, read_audio, until_active
from training.data.labels import HELD_OUT_KINDS
from training.data.voices import change_speed, colour, draw_speed

Degradation = Callable[[Signal, np.random.Generator, Material], tuple[Signal, Parameters]]

DEGRADATIONS: dict[str, tuple[Degradation, float]] = {
    "reverb": (channel.reverb, 1.0),
    "equaliser": (channel.equaliser, 1.0),
    "competing_talker": (additive.competing_talker, 1.2),
    "noise": (additive.noise, 3.0),
    "disturbance": (additive.disturbance, 1.0),
    "clipping": (channel.clipping, 1.4),
    "suppressor": (enhance.suppressor, 1.8),
    "mmse": (enhance.mmse, 1.5),
    "gain_control": (channel.gain_control, 1.0),
    "mnru": (additive.mnru, 1.2),
    "echo": (channel.echo, 1.3),
    "band_limit": (channel.band_limit, 0.8),
    "low_pass": (channel.low_pass, 0.8),
    "quantise": (channel.quantise, 0.3),
    "codec": (codecs.codec, 2.0),
    "further_codec": (codecs.further_codec, 2.0),
    "transform_codec": (transform_codec.transform_codec, 2.0),
    "held_out_codec": (codecs.held_out_codec, 1.0),
    "call_codec": (codecs.call_codec, 2.0),
    "neural_codec": (codecs.neural_codec, 1.6),
    "gan_codec": (codecs.gan_codec, 3.0),
    "vocoder": (enhance.vocoder, 0.6),
    "packet_loss": (channel.packet_loss, 1.0),
    "jitter": (channel.jitter, 1.0),
    "chop": (channel.chop, 1.5),
}
"""Every degradation with its relative frequency, in the order in which a real path applies them."""

LATER_KINDS = ("equaliser", "disturbance", "mmse", "gain_control", "call_codec", "jitter")
"""What no stage before the tenth has heard."""
FURTHER_KINDS = ("further_codec", "transform_codec")
"""What no stage before the fourteenth has heard."""
DEFAULT_KINDS = tuple(
    kind
    for kind in DEGRADATIONS
    if kind not in ("gan_codec", "low_pass", *LATER_KINDS, *FURTHER_KINDS, *HELD_OUT_KINDS)
)
"""All that need nothing trained before and were there when the first sets were drawn, which stay as they are."""

COUNT_PROBABILITIES = (0.06, 0.55, 0.27, 0.12)
"""How often none, one, two and three degradations are applied to a clip."""

DELIVERY_RATES = {8000: 0.04, 16000: 0.36, 22050: 0.08, 24000: 0.08, 32000: 0.08, 44100: 0.06, 48000: 0.30}
"""Rates in Hz at which clips reach the listener, and how often."""

SECONDS = (4.0, 7.6)
"""Shortest and longest clip: Distill-MOS hears 7.68 s."""


@dataclass(frozen=True)
class Clip:
    """A simulated clip: the signal and its rate, the talker, the degradations by name and their parameters.

    `heard` is the signal as 16-kHz teachers hear it, `reference` the clean one at the same rate.
    """

    degraded: Signal
    sample_rate: int
    heard: Signal
    reference: Signal
    talker: str
    degradations: tuple[str, ...]
    parameters: Parameters


class Simulator:
    """Draws damaged speech clips from speech, noise and room recordings.

    Args:
        speech: Folders of clean speech.
        noise: Folder of noise recordings.
        rooms: Files of impulse responses.
        seconds: Shortest and longest clip.
        vary_voices: Change the speed and the colour of the clean speech (see `voices`).
        clean_share: Share of clips without damage; the others keep their relative shares.
        kinds: Which of `DEGRADATIONS` there are; a clip has each at most once, so that of few kinds there are many
            clips with all of them.
    """

    def __init__(
        self,
        speech: Sequence[str | Path],
        noise: str | Path,
        rooms: Sequence[str | Path],
        seconds: tuple[float, float] = SECONDS,
        vary_voices: bool = True,
        clean_share: float = COUNT_PROBABILITIES[0],
        kinds: Sequence[str] = DEFAULT_KINDS,
    ) -> None:
        if unknown := set(kinds) - set(DEGRADATIONS):
            raise ValueError(f"no such damage: {', '.join(sorted(unknown))}; there are {', '.join(DEGRADATIONS)}")
        self.kinds = [kind for kind in DEGRADATIONS if kind in kinds]
        damaged = np.array(COUNT_PROBABILITIES[1:])
        self.count_probabilities = [clean_share, *(1 - clean_share) * damaged / damaged.sum()]
        responses = tuple(read_audio(Path(room), SIMULATION_RATE) for room in rooms)
        noises = Corpus.from_folder(noise, SIMULATION_RATE)
        self.material = Material(Corpus.from_folders(speech), noises, responses)
        self.seconds, self.vary_voices = seconds, vary_voices

    def draw(self, seed: int, index: int) -> Clip:
        """Clip number `index` of the set with this seed: always the same one."""
        rng = np.random.default_rng([seed, index])
        narrow, talker = draw_reference(self.material.speech, rng, self.seconds, self.vary_voices)
        reference = widen(narrow, rng)
        material = replace(self.material, talker=talker)
        names, weights = self.kinds, np.array([DEGRADATIONS[kind][1] for kind in self.kinds])
        count = min(int(rng.choice(len(COUNT_PROBABILITIES), p=self.count_probabilities)), len(names))
        chosen = sorted(rng.choice(len(names), count, replace=False, p=weights / weights.sum()))
        rate = int(rng.choice(list(DELIVERY_RATES), p=list(DELIVERY_RATES.values())))
        degraded, parameters = channel.set_level(reference, rng)
        bandwidth_hz = rate / 2
        for position in chosen:
            degraded, more = DEGRADATIONS[names[position]][0](degraded, rng, material)
            bandwidth_hz = min(bandwidth_hz, float(more.get("bandwidth_hz", bandwidth_hz)))
            parameters |= more
        peak = float(np.abs(degraded).max())
        if peak > 1:  # only `clipping` may clip
            degraded = degraded / (peak * 1.01)
            parameters["level_db"] = float(parameters["level_db"]) - 20 * np.log10(peak * 1.01)
        delivered = change_rate(degraded, SIMULATION_RATE, rate)
        heard = change_rate(delivered, rate, SAMPLE_RATE)[: len(narrow)]
        kinds = tuple(names[i] for i in chosen)
        return Clip(delivered, rate, heard, narrow, talker, kinds, parameters | {"bandwidth_hz": bandwidth_hz})


def draw_reference(
    corpus: Corpus, rng: np.random.Generator, seconds: tuple[float, float] = SECONDS, vary_voices: bool = True
) -> tuple[Signal, str]:
    """Clean speech at `SAMPLE_RATE` and its talker: what `Simulator.draw` begins with."""
    samples = int(rng.uniform(*seconds) * SAMPLE_RATE)
    speed = draw_speed(rng) if vary_voices else 1.0
    speech, entry = until_active(lambda: corpus.draw_speech(rng, math.ceil(samples * speed)))
    speech = change_speed(speech, speed)[:samples]
    return colour(speech, rng) if vary_voices else speech, entry.group
