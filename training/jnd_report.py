"""The report of the JND classifier: figures, psychometric curves, and what they say about the 6 dB window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from training import jnd
from training.data.jnd_human import NOISES, SPEECH_LEVEL_DB, Judgement
from training.data.jnd_pairs import SNR_RANGE_DB, WINDOW_DB
from training.report import markdown, provenance, this_command

EDGES_DB = np.array([-0.01, 0.01, 2, 4, 6, 8, 10, 15, 20, 30, 40, 53])
"""Bins of ΔSNR; the first holds the pairs of equal signals."""
TOGETHER = "all noises that were made again"


def psychometric(table: pd.DataFrame, answer: str) -> pd.DataFrame:
    """Share of `answer` in each bin of ΔSNR, with the mean ΔSNR and the number of pairs."""
    bins = pd.cut(table["delta_snr_db"], EDGES_DB)
    groups = table.groupby(bins, observed=True)
    return groups.agg(delta_snr_db=("delta_snr_db", "mean"), share=(answer, "mean"), pairs=(answer, "size"))


def plot(path: Path, humans: pd.DataFrame, classified: pd.DataFrame) -> None:
    """Psychometric curves: all humans and, where the pairs could be made again, the classifier."""
    figure, axes = plt.subplots(2, 4, figsize=(13, 6), sharex=True, sharey=True)
    for axis, noise in zip(axes.flat, [*NOISES, TOGETHER], strict=False):
        kinds = list(classified["noise"].unique()) if noise == TOGETHER else [noise]
        one = humans[humans["noise"].isin(kinds)]
        curve = psychometric(one, "different")
        error = np.sqrt(curve["share"] * (1 - curve["share"]) / curve["pairs"])
        axis.errorbar(curve["delta_snr_db"], curve["share"], 1.96 * error, fmt="o-", label="humans", capsize=2)
        own = classified[classified["noise"].isin(kinds)]
        if len(own):
            curve = psychometric(own, "answer")
            axis.plot(curve["delta_snr_db"], curve["share"], "s--", label="classifier (unseen talkers)")
        else:
            axis.text(0.97, 0.05, "no recording of this noise:\nhumans only", ha="right", transform=axis.transAxes)
        axis.axvspan(0, WINDOW_DB, alpha=0.12, color="grey", label="window of the training pairs")
        axis.set(title=noise.replace("_", " "), xlim=(-1, 53), ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    axes[0, 1].legend(fontsize=8, loc="lower right")
    axes[1, 3].axis("off")
    figure.supxlabel("difference of the SNRs in dB")
    figure.supylabel("share judged different")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def curves_apart(classified: pd.DataFrame) -> pd.DataFrame:
    """How far the classifier's psychometric curve lies from that of the humans: root mean square over the pairs."""
    rows = []
    for noise in [*sorted(classified["noise"].unique()), TOGETHER]:
        own = classified if noise == TOGETHER else classified[classified["noise"] == noise]
        humans, answers = psychometric(own, "different"), psychometric(own, "answer")
        gap = answers["share"] - humans["share"]
        widest = gap.abs().idxmax()
        row: dict[str, object] = {"noise": noise.replace("_", " "), "pairs": len(own)}
        row |= {"RMS distance": float(np.sqrt(np.average(gap**2, weights=humans["pairs"])))}
        row |= {"widest at ΔSNR": f"{humans.loc[widest, 'delta_snr_db']:.1f} dB"}
        row |= {"humans there": humans.loc[widest, "share"], "classifier there": answers.loc[widest, "share"]}
        rows.append(row)
    return pd.DataFrame(rows)


def base_levels(humans: pd.DataFrame) -> pd.DataFrame:
    """Share judged different against ΔSNR and the level of the less noisy signal."""
    table = humans.assign(bin=pd.cut(humans["delta_snr_db"], [0.01, 3, 6, 10, 15, 20, 30, 40, 53]))
    shares = table.pivot_table(index="low", columns="bin", values="different", observed=True)
    shares.columns = [f"{c.left:.0f}–{c.right:.0f} dB" for c in shares.columns]
    return shares.reset_index().rename(columns={"low": "level"}).astype({"level": str})


def write_report(out: Path, judgements: Sequence[Judgement], table: pd.DataFrame, generated: pd.DataFrame) -> None:
    """Write `<out>.md` and `<out>.png`."""
    humans = pd.DataFrame([vars(j) | {"delta_snr_db": j.delta_snr_db} for j in judgements])
    humans["different"] = humans["different"].astype(int)
    left_out, table = int(table["pesq"].isna().sum()), table.dropna()
    table = table.assign(answer=jnd.out_of_fold(table, ["pesq"], "talker"))
    plot(out.with_suffix(".png"), humans, table)

    by_noise = humans.groupby("noise").agg(pairs=("different", "size"), judged_different=("different", "mean"))
    judged = generated.dropna()
    within = {
        name: 1 - jnd.classifier().fit(table[columns], table["different"]).predict(judged[columns]).mean()
        for name, columns in jnd.FEATURES.items()
    }
    half = [1.96 * np.sqrt(share * (1 - share) / len(judged)) for share in within.values()]
    shares = [f"{share:.2%} ± {error:.2%}" for share, error in zip(within.values(), half, strict=True)]
    deltas = generated["delta_snr_db"].to_numpy()
    snr_db = SPEECH_LEVEL_DB - jnd.NOISE_RMS_DB - 20 * np.log10(humans["low"])
    alike = humans[snr_db.between(*SNR_RANGE_DB)]
    expected = []
    grid_db = np.arange(0, 53, 0.1)
    threshold_db = grid_db[np.argmax(jnd.human_share_different(humans, grid_db) >= 0.5)]
    absent = sorted(set(humans["noise"]) - set(table["noise"]))
    without = f"no recording of {', '.join(absent)}; ".replace("_", " ") if absent else ""
    levels = ", ".join(f"{level:g}" for level in sorted(alike["low"].unique()))
    for name, part in {"all": humans, f"of about the SNR of training pairs (level {levels})": alike}.items():
        heard, inside = jnd.human_share_different(part, deltas), part["delta_snr_db"].between(0, WINDOW_DB, "right")
        row: dict[str, object] = {"judged pairs": name, "0–6 dB": int(inside.sum())}
        row |= {"judged different": part[inside]["different"].mean(), "expected of generated pairs": heard.mean()}
        row |= {"below 3 dB": heard[deltas <= 3].mean(), "above 3 dB": heard[deltas > 3].mean()}
        expected.append(row)
    curve = psychometric(humans, "different").reset_index(drop=True)
    lines = [
        "# JND classifier",
        "",
        provenance(this_command()),
        "",
        f"{len(humans)} human judgements of pairs that differ in the level of one noise; {len(table)} of them were "
        f"made again from our speech ({', '.join(sorted(table['noise'].unique())).replace('_', ' ')}; {without}"
        f"PESQ finds no speech in {left_out}). Noise recordings at {jnd.NOISE_RMS_DB:.0f} dB full scale, speech at "
        f"{SPEECH_LEVEL_DB:.0f} dB; sums clip at full scale as in DPAM.",
        "",
        "## Accuracy against the humans, cross-validated",
        "",
        markdown(jnd.cross_validate(table)),
        "",
        "By talker: 5 folds of unseen talkers; by noise: each noise in turn unseen. Unequal pairs: without those of "
        f"two equal signals ({(table['delta_snr_db'] == 0).mean():.0%} of the pairs). The level of the noise "
        "recordings was chosen on these judgements, which flatters PESQ a little. Always answering with "
        f"the more frequent answer is right in {max(table['different'].mean(), 1 - table['different'].mean()):.3f}.",
        "",
        "## The classifier's psychometric curve beside that of the humans",
        "",
        "Shares judged different in bins of ΔSNR, for talkers that the classifier has not seen. It answers yes or no, "
        "as most listeners would, so its curve is steeper than theirs:",
        "",
        markdown(curves_apart(table)),
        "",
        "## Generated training pairs within JND",
        "",
        f"{len(generated)} pairs of 2.5 s, mean |ΔSNR| {generated['delta_snr_db'].mean():.2f} dB, largest "
        f"{generated['delta_snr_db'].max():.2f} dB; PESQ finds no speech in {len(generated) - len(judged)}. "
        "Judged within JND (the paper: 96.73 %), with the 95 % interval that so many pairs give:",
        "",
        markdown(pd.DataFrame({"features": list(within), "within JND": shares})),
        "",
        "## Where the humans and the 6 dB window disagree",
        "",
        "The classifier answers as most listeners would, so 'within JND' says that fewer than half of them hear a "
        "difference, not that none does. How many of the judged pairs with a ΔSNR above 0 and up to 6 dB were judged "
        "different, and how many of the generated pairs would be if each is judged as the humans' rising curve says "
        f"for its ΔSNR ({(deltas > 3).mean():.0%} of them differ by more than 3 dB):",
        "",
        markdown(pd.DataFrame(expected)),
        "",
        "Humans hear a step more easily where the noise is already loud; where it is faint, even 30 dB can pass. "
        f"Half of the judgements are 'different' from {threshold_db:.1f} dB on, all noises and levels together. SI-SDR "
        "cannot be carried over to the training pairs: it counts inaudible noise as much as audible noise, so its "
        "threshold depends on the SNRs that were judged, and the judged pairs are cleaner on average.",
        "",
        "Judgements per noise:",
        "",
        markdown(by_noise.reset_index()),
        "",
        "Humans, all noises:",
        "",
        markdown(curve),
        "",
        "Humans, by level of the less noisy signal (the higher, the worse its SNR):",
        "",
        markdown(base_levels(humans), 2),
        "",
        f"![psychometric curves]({out.with_suffix('.png').name})",
        "",
    ]
    out.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")
