"""The degradation simulator: clean speech in, damaged speech, its reference and what was done out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.data import additive, channel, codecs, enhance
from training.data.additive import Material, Parameters
from training.data.corpus import SAMPLE_RATE, Corpus, Signal, active_rms, read_audio

Degradation = Callable[[Signal, np.random.Generator, Material], tuple[Signal, Parameters]]

DEGRADATIONS: dict[str, tuple[Degradation, float]] = {
    "reverb": (channel.reverb, 1.0),
    "competing_talker": (additive.competing_talker, 1.2),
    "noise": (additive.noise, 3.0),
    "clipping": (channel.clipping, 1.4),
    "suppressor": (enhance.suppressor, 1.4),
    "mnru": (additive.mnru, 1.2),
    "echo": (channel.echo, 1.3),
    "band_limit": (channel.band_limit, 0.8),
    "quantise": (channel.quantise, 0.3),
    "codec": (codecs.codec, 2.0),
    "vocoder": (enhance.vocoder, 0.8),
    "packet_loss": (channel.packet_loss, 1.0),
    "chop": (channel.chop, 1.5),
}
"""Every degradation with its relative frequency, in the order in which a real path applies them."""

COUNT_PROBABILITIES = (0.05, 0.55, 0.28, 0.12)
"""How often none, one, two and three degradations are applied to a clip."""


@dataclass(frozen=True)
class Clip:
    """A simulated clip: the signal, its clean reference, the talker, and the degradations by name."""

    degraded: Signal
    reference: Signal
    talker: str
    degradations: tuple[str, ...]
    parameters: Parameters


class Simulator:
    """Draws damaged speech clips from speech, noise and room recordings.

    Args:
        speech: Folder of clean speech.
        noise: Folder of noise recordings.
        rooms: Files of impulse responses.
        seconds: Shortest and longest clip.
    """

    def __init__(
        self,
        speech: str | Path,
        noise: str | Path,
        rooms: Sequence[str | Path],
        seconds: tuple[float, float] = (4.0, 7.6),
    ) -> None:
        responses = tuple(read_audio(Path(room)) for room in rooms)
        self.material = Material(Corpus.from_folder(speech), Corpus.from_folder(noise), responses)
        self.seconds = seconds

    def draw(self, seed: int, index: int) -> Clip:
        """Clip number `index` of the set with this seed: always the same one."""
        rng = np.random.default_rng([seed, index])
        reference, talker = self._draw_reference(rng)
        material = replace(self.material, talker=talker)
        names, weights = list(DEGRADATIONS), np.array([w for _, w in DEGRADATIONS.values()])
        count = int(rng.choice(len(COUNT_PROBABILITIES), p=COUNT_PROBABILITIES))
        chosen = sorted(rng.choice(len(names), count, replace=False, p=weights / weights.sum()))
        degraded, parameters = channel.set_level(reference, rng)
        for position in chosen:
            degraded, more = DEGRADATIONS[names[position]][0](degraded, rng, material)
            parameters |= more
        peak = float(np.abs(degraded).max())
        if peak > 1:  # only `clipping` may clip
            degraded = degraded / (peak * 1.01)
        return Clip(degraded, reference, talker, tuple(names[i] for i in chosen), parameters)

    def _draw_reference(self, rng: np.random.Generator) -> tuple[Signal, str]:
        samples = int(rng.uniform(*self.seconds) * SAMPLE_RATE)
        for _ in range(20):
            speech, entry = self.material.speech.draw_speech(rng, samples)
            if active_rms(speech) > 1e-3:
                return speech, entry.group
        raise ValueError("20 speech excerpts in a row were silent: is this a speech corpus?")
