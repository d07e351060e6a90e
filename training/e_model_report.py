"""What the labels say of codecs and of bandwidth, beside what listening tests said of them: the ITU-T E-model.

    python -m training.e_model_report --out training/results/e_model.md

Both are shares of the range from the worst to undamaged wideband speech: those of the E-model are transmission
ratings over 129, that of wideband speech. Clips are those of a recipe's training sets whose only damage is one pass
of the codec, or a band that ends somewhere. The labels are without the recording.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from training.data.calibration import Calibration, band_share
from training.data.labelled import calibrate
from training.data.labels import LabelledClip, read_sets
from training.report import markdown, provenance, this_command
from training.train import read_recipe

RECIPE = Path(__file__).parent / "recipes" / "default_tenth.yaml"
WIDE, NARROW = 129.0, 93.2
"""Ratings of undamaged speech: G.107.1, G.107."""
IMPAIRMENTS: dict[tuple[str, int], float] = {
    ("mu-law", 64000): WIDE - NARROW + 0,
    ("g726", 40000): WIDE - NARROW + 2,
    ("g726", 32000): WIDE - NARROW + 7,
    ("g726", 24000): WIDE - NARROW + 25,
    ("g726", 16000): WIDE - NARROW + 50,
    ("g723.1", 6300): WIDE - NARROW + 15,
    ("amr-nb", 12200): WIDE - NARROW + 5,
    ("g722", 64000): 13,
    ("amr-wb", 6600): 41,
    ("amr-wb", 8850): 26,
    ("amr-wb", 12650): 13,
    ("amr-wb", 14250): 10,
    ("amr-wb", 15850): 7,
    ("amr-wb", 18250): 5,
    ("amr-wb", 19850): 4,
    ("amr-wb", 23050): 1,
    ("amr-wb", 23850): 8,
}
"""Equipment impairment factors from listening tests, at no loss: G.113, appendices I (narrowband) and IV (wideband)."""
BANDS_HZ = (3000, 3500, 4000, 4500, 5000, 5500, 6000, 6500, 7000, 7500, 8000)
LEAST_CLIPS = 5


def row(
    name: str, rating: float | None, clips: list[LabelledClip], calibrations: dict[str, Calibration]
) -> dict[str, object]:
    """The shares of these clips by each calibration, with the standard error of the mean.

    Without a rating, it is the mean of what the E-model gives to their bandwidths.
    """
    if rating is None:
        rating = float(band_share(np.array([clip.bandwidth_hz for clip in clips])).mean())
    shares = {column: fitted.shares(clips)[0] for column, fitted in calibrations.items()}
    texts = {c: f"{s.mean():.2f} ± {s.std(ddof=1) / len(s) ** 0.5:.2f}" for c, s in shares.items()}
    return {"": name, "clips": len(clips), "E-model": f"{rating:.2f}"} | texts


def table(
    cases: dict[str, tuple[float | None, Callable[[LabelledClip], bool]]],
    clips: list[LabelledClip],
    calibrations: dict[str, Calibration],
) -> str:
    """A row for each case of which there are enough clips."""
    chosen = {name: (rating, [c for c in clips if wanted(c)]) for name, (rating, wanted) in cases.items()}
    rows = [row(n, r, some, calibrations) for n, (r, some) in chosen.items() if len(some) >= LEAST_CLIPS]
    return markdown(pd.DataFrame(rows))


def _coded(name: str, bit_rate: int) -> Callable[[LabelledClip], bool]:
    wanted = {"codec": name, "bit_rate": bit_rate, "codec_passes": 1}
    return lambda c: c.condition == "codec" and wanted.items() <= c.parameters.items()


def _ending(low: float, high: float) -> Callable[[LabelledClip], bool]:
    return lambda c: c.condition in ("clean", "low_pass") and low <= c.bandwidth_hz < high


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.e_model_report`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="whose sets and labels (default: %(default)s)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes to the recipe")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    data = read_recipe(args.recipe, args.set)["data"]
    clips = read_sets(data["train"], judged=True)
    strict = replace(calibrate(clips, data), narrowband=True)
    calibrations = {"teachers": replace(strict, narrowband=False), "labels": strict}
    codecs = {f"{n} {r / 1000:g} kbit/s": (1 - i / WIDE, _coded(n, r)) for (n, r), i in IMPAIRMENTS.items()}
    bands = {
        f"{low} to {high} Hz": (None, _ending(low, high)) for low, high in zip(BANDS_HZ[:-1], BANDS_HZ[1:], strict=True)
    }
    parts = [
        "# Labels beside the E-model\n",
        provenance(this_command()),
        f"- sets: {', '.join(map(str, data['train']))}\n",
        "`teachers` is what they say without the E-model, `labels` with it (`narrowband`).\n",
        "## Codecs\n",
        table(codecs, clips, calibrations),
        "\n## Speech that ends at a frequency, otherwise undamaged\n",
        table(bands, clips, calibrations),
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(parts) + "\n")
    print(args.out.read_text())


if __name__ == "__main__":
    main()
