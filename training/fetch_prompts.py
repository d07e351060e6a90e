"""More languages for the simulator: studio prompts in Spanish, French, Italian and Russian from Debian's Asterisk.

    python -m training.fetch_prompts corpora/prompts

Downloads `asterisk-core-sounds-{es,fr,it,ru}-g722` with `apt-get` (Debian or Ubuntu), and writes every third prompt
as FLAC at 16 kHz, with the `files.csv` of a corpus. Every third, so that four voices do not crowd out the others.
Licences: CC BY-SA 3.0 (es, fr), CC BY 3.0 (it, ru).
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile as sf

LANGUAGES = ("es", "fr", "it", "ru")
G722_RATE = 16000
EVERY = 3


def unpack(language: str, folder: Path) -> list[Path]:
    """Download and unpack a package; its prompts."""
    package = f"asterisk-core-sounds-{language}-g722"
    subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True)
    (archive,) = folder.glob(f"{package}_*.deb")
    subprocess.run(["dpkg", "-x", archive.name, language], cwd=folder, check=True)
    return sorted((folder / language).glob("usr/share/asterisk/sounds/*/*.g722"))


def decode(path: Path) -> np.ndarray:
    """A raw G.722 file as int16 samples."""
    with av.open(path, format="g722") as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.fetch_prompts`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, (args.folder / "files.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file", "source", "speaker", "language"])
        for language in LANGUAGES:
            for prompt in unpack(language, Path(temporary))[::EVERY]:
                name = f"{language}_{prompt.stem}.flac"
                sf.write(args.folder / name, decode(prompt), G722_RATE, subtype="PCM_16")
                writer.writerow([name, "asterisk", prompt.parent.name, language])


if __name__ == "__main__":
    main()
