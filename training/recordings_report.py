"""How far other judges share Distill-MOS's opinion of undamaged recordings, whose references it cannot know.

    python -m training.recordings_report --speech ../shared/speech/train ../shared/speech/valid \
        --labelled sets/fresh --out training/results/teachers_recordings

What Distill-MOS holds against a recording may be its error, or what listeners hear, too. DNSMOS P.808 and PLCMOS have
learned from other listeners: the share of a difference between recordings that they give back is what there is in it
for listeners (`recording` of `training.data.calibration.Calibration`). No listener is asked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from speechmos.plcmos import PLCMOS
from tqdm import tqdm

from training.data.labels import read_sets
from training.report import append_rows, markdown, provenance, this_command
from training.teachers import TEACHERS, Teachers
from training.teachers_report import references

OTHERS = ("dnsmos_p808", "plcmos")
RESAMPLINGS = 2000


def label_all(table: Path, speech: list[str], talkers: int, seed: int) -> pd.DataFrame:
    """Judgements of one recording of each talker; those that are in the table already are not asked again."""
    known = set(pd.read_csv(table, dtype={"talker": str})["talker"]) if table.exists() else set()
    teachers, plcmos = Teachers(), PLCMOS()
    for talker, signal in tqdm(references(speech, talkers, seed), total=talkers):
        if talker not in known:
            labels = {"distillmos": teachers.distillmos(signal), "dnsmos_p808": teachers.dnsmos_p808(signal)}
            np.random.seed(seed)  # PLCMOS draws its raters: the same for all
            labels["plcmos"] = plcmos.get_mos(signal)
            append_rows(table, [{"talker": talker} | {name: round(mos, 4) for name, mos in labels.items()}])
    return pd.read_csv(table, dtype={"talker": str})


def agreement(labels: pd.DataFrame, scale: dict[str, float], seed: int) -> pd.DataFrame:
    """Correlation with Distill-MOS, and the slope from its labels to another judge's times that one's `scale`."""
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(labels), size=len(labels)) for _ in range(RESAMPLINGS)]
    distill, rows = labels["distillmos"].to_numpy(), []
    for judge in OTHERS:
        other = labels[judge].to_numpy() * scale[judge]
        slopes = [np.polyfit(distill[i], other[i], 1)[0] for i in drawn]
        low, high = np.quantile(slopes, (0.025, 0.975))
        correlation, slope = np.corrcoef(distill, other)[0, 1], np.polyfit(distill, other, 1)[0]
        row = {"judge": judge, "recordings": len(labels), "spread": labels[judge].std(), "pcc": correlation}
        rows.append(row | {"share given back": slope, "95 % interval": f"{low:.2f} to {high:.2f}"})
    return pd.DataFrame(rows)


def damaged_scale(folders: list[str]) -> float:
    """Distill-MOS's spread over DNSMOS P.808's on damaged clips, where both hear the same."""
    clips = [clip for clip in read_sets(folders, judged=True) if clip.condition != "clean"]
    spread = dict(zip(TEACHERS, np.nanstd([clip.labels for clip in clips], axis=0), strict=True))
    return float(spread["distillmos"] / spread["dnsmos_p808"])


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.recordings_report`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", required=True, nargs="+", action="extend", help="folders of clean speech")
    parser.add_argument(
        "--labelled", required=True, nargs="+", action="extend", help="sets whose damaged clips give DNSMOS its scale"
    )
    parser.add_argument("--out", type=Path, required=True, help="OUT.md and OUT.csv; resumable")
    parser.add_argument("--talkers", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    scale = {"dnsmos_p808": damaged_scale(args.labelled), "plcmos": 1.0}
    labels = label_all(args.out.with_suffix(".csv"), args.speech, args.talkers, args.seed)
    parts = [
        "# Judges on undamaged recordings\n",
        provenance(this_command()),
        "One recording of each talker, at -26 dBFS. Of a difference in Distill-MOS between two recordings (its spread "
        f"is {labels['distillmos'].std():.3f} MOS), another judge gives back a share. DNSMOS's labels, whose range is "
        f"narrow, are multiplied by {scale['dnsmos_p808']:.2f}: so both spread alike on damaged clips.\n",
        markdown(agreement(labels, scale, args.seed)),
    ]
    args.out.with_suffix(".md").write_text("\n".join(parts) + "\n")
    print(args.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
