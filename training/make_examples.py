"""Make the example clips in `examples/` from two free recordings and the degradation simulator.

python -m training.make_examples ../shared/speech/valid examples
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile as sf

from training.data import additive, channel, codecs
from training.data.additive import Material, Parameters
from training.data.corpus import SAMPLE_RATE, Corpus, Signal, at_snr, read_audio

TALKERS = {"german": "kerstin-de_rhasspy-0004.opus", "english": "librispeech-1363-135842-0000.opus"}


def _pink_noise(snr_db: float) -> object:
    def add(speech: Signal, rng: np.random.Generator, _: Material) -> tuple[Signal, Parameters]:
        added = at_snr(speech, additive.coloured_noise(rng, len(speech), 3.0, SAMPLE_RATE), snr_db)
        return speech + added, {"noise": "pink", "snr_db": snr_db}

    return add


DAMAGES = {
    "noise20": _pink_noise(20.0),
    "noise05": _pink_noise(5.0),
    "reverb": channel.reverb,
    "clipping": channel.clipping,
    "telephone": channel.band_limit,
    "codec": codecs.codec,
    "packet_loss": channel.packet_loss,
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.make_examples`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path, help="folder with the two recordings")
    parser.add_argument("out", type=Path)
    args = parser.parse_args(arguments)
    nothing = Material(Corpus(()), Corpus(()), (np.ones(1, np.float32),))
    for talker, name in TALKERS.items():
        clean, _ = channel.set_level(read_audio(args.speech / name), np.random.default_rng(3))
        clips: dict[str, Signal] = {"clean": clean}
        for seed, (damage, degrade) in enumerate(DAMAGES.items()):
            clips[damage], parameters = degrade(clean, np.random.default_rng([11, seed]), nothing)  # type: ignore[operator]
            print(talker, damage, parameters)
        for damage, signal in clips.items():
            peak = max(1.0, float(np.abs(signal).max()))
            sf.write(args.out / f"{talker}_{damage}.flac", signal / peak, SAMPLE_RATE, subtype="PCM_16")


if __name__ == "__main__":
    main()
