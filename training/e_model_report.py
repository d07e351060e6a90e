"""What the labels say of codecs, bandwidth and losses, beside what listening tests said of them: the ITU-T E-model.

    python -m training.e_model_report --out training/results/e_model.md

Both are shares of the range from the worst to undamaged wideband speech: those of the E-model are transmission
ratings over 129, that of wideband speech (of silent stretches: of the same speech without them). Clips are those of a
recipe's training sets whose only damage is one pass of the codec, a band that ends somewhere, or losses. The labels are
without the recording.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from training.data.calibration import ALONE, Calibration
from training.data.e_model import (
    G729_IMPAIRMENT,
    G729_ROBUSTNESS,
    IMPAIRMENTS,
    NARROW,
    SILENCE_ROBUSTNESS,
    WIDE,
    band_share,
    loss_share,
)
from training.data.labelled import calibrate
from training.data.labels import LabelledClip, read_sets
from training.report import markdown, provenance, this_command
from training.train import read_recipe

RECIPE = Path(__file__).parent / "recipes" / "default_eleventh.yaml"
BANDS_HZ = (3000, 3500, 4000, 4500, 5000, 5500, 6000, 6500, 7000, 7500, 8000)
LOSSES_PERCENT = (1, 2, 4, 8, 16, 32)
LEAST_CLIPS = 5

Case = tuple[Callable[[LabelledClip], float], Callable[[LabelledClip], bool]]
"""What the E-model leaves of a clip, and whether a clip is of the case."""


def row(
    name: str, rated: Callable[[LabelledClip], float], clips: list[LabelledClip], calibrations: dict[str, Calibration]
) -> dict[str, object]:
    """The shares of these clips by the E-model, and by each calibration with the standard error of the mean."""
    rating = float(np.mean([rated(clip) for clip in clips]))
    shares = {column: fitted.shares(clips)[0] for column, fitted in calibrations.items()}
    texts = {c: f"{s.mean():.2f} ± {s.std(ddof=1) / len(s) ** 0.5:.2f}" for c, s in shares.items()}
    return {"": name, "clips": len(clips), "E-model": f"{rating:.2f}"} | texts


def table(cases: dict[str, Case], clips: list[LabelledClip], calibrations: dict[str, Calibration]) -> str:
    """A row for each case of which there are enough clips."""
    chosen = {name: (rated, [c for c in clips if wanted(c)]) for name, (rated, wanted) in cases.items()}
    rows = [row(n, r, some, calibrations) for n, (r, some) in chosen.items() if len(some) >= LEAST_CLIPS]
    return markdown(pd.DataFrame(rows))


def _coded(name: str, bit_rate: int, impairment: float) -> Case:
    wanted = {"codec": name, "bit_rate": bit_rate, "codec_passes": 1}
    return lambda _: 1 - impairment / WIDE, lambda c: c.condition == "codec" and wanted.items() <= c.parameters.items()


def _ending(low: float, high: float) -> Case:
    return (
        lambda c: float(band_share(np.array(c.bandwidth_hz))),
        lambda c: c.condition in ("clean", "low_pass") and low <= c.bandwidth_hz < high,
    )


def _silent(low: float, high: float) -> Case:
    return (
        lambda c: float(loss_share(np.array(c.silent_percent))),
        lambda c: c.kinds in ALONE and low <= c.silent_percent < high,
    )


def _concealed(low: float, high: float) -> Case:
    def lost(clip: LabelledClip) -> float:
        return 100 * float(clip.parameters.get("loss_rate", 0))

    def rated(clip: LabelledClip) -> float:
        return float(loss_share(np.array(lost(clip)), G729_ROBUSTNESS, G729_IMPAIRMENT)) * NARROW / WIDE

    return (
        rated,
        lambda c: c.condition == "call_codec" and c.parameters["call_codec"] == "g729" and low <= lost(c) < high,
    )


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.e_model_report`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="whose sets and labels (default: %(default)s)")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="changes to the recipe"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    data = read_recipe(args.recipe, args.set)["data"]
    clips = [clip for clip in read_sets(data["train"]) if clip.judged]
    strict = calibrate(clips, data | {"narrowband": True, "gaps": True})
    calibrations = {"teachers": replace(strict, narrowband=False, gaps=False), "labels": strict}
    codecs = {f"{n} {r / 1000:g} kbit/s": _coded(n, r, impairment) for (n, r), impairment in IMPAIRMENTS.items()}
    bands = {f"{low} to {high} Hz": _ending(low, high) for low, high in pairwise(BANDS_HZ)}
    silent = {f"{low} to {high} %": _silent(low, high) for low, high in pairwise(LOSSES_PERCENT)}
    concealed = {f"{low} to {high} %": _concealed(low, high) for low, high in pairwise(LOSSES_PERCENT)}
    parts = [
        "# Labels beside the E-model\n",
        provenance(this_command()),
        f"- sets: {', '.join(map(str, data['train']))}\n",
        "`teachers` is what they say without the E-model, `labels` with it (`narrowband`, `gaps`).\n",
        "## Codecs\n",
        table(codecs, clips, calibrations),
        "\n## Speech that ends at a frequency, otherwise undamaged\n",
        table(bands, clips, calibrations),
        "\n## Packets lost by G.729, which conceals them\n",
        table(concealed, clips, calibrations),
        "\n## Silence in the place of speech\n",
        f"By the teachers, a robustness of {strict.leniency:.1f} (G.113: {SILENCE_ROBUSTNESS:g}).\n",
        table(silent, clips, calibrations),
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(parts) + "\n")
    print(args.out.read_text())


if __name__ == "__main__":
    main()
