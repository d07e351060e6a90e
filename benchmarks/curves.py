"""How a metric moves with one physical quantity at a time: gain, SNR, clipping, packet loss, bandwidth.

    python -m benchmarks.curves examples
    python -m benchmarks.curves ../shared/human/p808 --match 'fb_c0_*' --out benchmarks/results/curves-fullband

Needs no listeners: where more damage cannot sound better, a curve that turns around is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf
from scipy.signal import butter, sosfiltfilt

from benchmarks import plots, report
from benchmarks.baselines.base import Array, Baseline, fit_rate

Damage = Callable[[Array, int, float], Array]


def gain(signal: Array, rate: int, gain_db: float) -> Array:
    """Another level, clipped at full scale as a converter would."""
    return np.clip(signal * 10 ** (gain_db / 20), -1, 1)


def noise(signal: Array, rate: int, snr_db: float) -> Array:
    """White noise at an SNR over the whole clip."""
    added = np.random.default_rng(0).standard_normal(len(signal))
    return signal + added * np.std(signal) * 10 ** (-snr_db / 20)


def clipping(signal: Array, rate: int, percent: float) -> Array:
    """So many percent of the samples clipped, the level kept."""
    limit = np.quantile(np.abs(signal), 1 - percent / 100)
    return np.clip(signal, -limit, limit)


def loss(signal: Array, rate: int, percent: float) -> Array:
    """Packets of 20 ms replaced by silence; more loss adds to the packets that are lost with less."""
    size = rate // 50
    lost = np.random.default_rng(0).random(len(signal) // size + 1) < percent / 100
    return np.where(np.repeat(lost, size)[: len(signal)], 0, signal)


def low_pass(signal: Array, rate: int, cut_hz: float) -> Array:
    """Nothing above a frequency (which a clip of a lower rate does not have anyway)."""
    if cut_hz >= rate / 2:
        return signal
    return sosfiltfilt(butter(8, cut_hz, fs=rate, output="sos"), signal)


CURVES: dict[str, tuple[Damage, tuple[float, ...], int]] = {
    "gain_db": (gain, (-40, -30, -20, -10, 0, 6, 12, 18, 24), 0),
    "snr_db": (noise, (-5, 0, 5, 10, 15, 20, 30, 40, 50), 1),
    "clipped_percent": (clipping, (0, 0.1, 0.3, 1, 3, 10, 20, 40), -1),
    "lost_percent": (loss, (0, 1, 2, 5, 10, 20, 30), -1),
    "low_pass_hz": (low_pass, (1000, 1500, 2000, 3000, 4000, 5000, 6000, 7500, 10000, 12000, 15000, 18000), 1),
}
"""Damage, its values, and which way the score should go as they grow (0: it has a maximum)."""


def measure(baseline: Baseline, clips: dict[str, tuple[Array, int]]) -> pd.DataFrame:
    """Score of every clip at every value of every curve."""
    rows = []
    for quantity, (damage, values, _) in CURVES.items():
        for name, (signal, rate) in clips.items():
            for value in values:
                damaged, at = fit_rate(damage(signal, rate, value).astype(np.float32), rate, baseline.sample_rate)
                rows.append((baseline.name, quantity, value, name, float(baseline.score(damaged, at))))
    return pd.DataFrame(rows, columns=["metric", "quantity", "value", "clip", "score"])


def turns(means: pd.DataFrame) -> pd.DataFrame:
    """Largest step against the right direction, in the mean over clips, of each metric and quantity."""
    rows = []
    for (metric, quantity), part in means.groupby(["metric", "quantity"], sort=False):
        direction = CURVES[quantity][2]
        if direction:
            wrong = -direction * np.diff(part.sort_values("value")["score"])
            rows.append({"metric": metric, "quantity": quantity, "largest wrong step": max(0.0, float(wrong.max()))})
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m benchmarks.curves`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="clean clips")
    parser.add_argument("--match", default="*_clean.*", help="which files of the folder (default: %(default)s)")
    report.add_baselines_option(parser)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/curves"), help="default: %(default)s")
    args = parser.parse_args(arguments)
    paths = sorted(args.folder.glob(args.match))
    if not paths:
        parser.error(f"no files {args.match} in {args.folder}")
    clips = {path.stem: sf.read(path, dtype="float32", always_2d=True) for path in paths}
    mono = {name: (signal.mean(axis=1), rate) for name, (signal, rate) in clips.items()}
    baselines = [baseline for baseline in report.chosen(args) if not baseline.full_reference]
    parts, absent = [], []
    for baseline in baselines:
        try:
            baseline.load()
            parts.append(measure(baseline, mono))
        except Exception as error:  # noqa: BLE001 - a metric that cannot run, or breaks, is a line with its reason
            absent.append(f"- {baseline.name}: {type(error).__name__}: {error}\n")
    if not parts:
        sys.exit("no metric could run:\n" + "".join(absent))
    table = pd.concat(parts, ignore_index=True)
    means = table.groupby(["metric", "quantity", "value"], sort=False, as_index=False)["score"].mean()
    head = report.head("benchmarks.curves", baselines, arguments)
    report.write_csv(table, args.out / "curves.csv", head)
    plots.curves(means, args.out / "curves.png")
    wide = []
    for quantity, part in means.groupby("quantity", sort=False):
        panel = part.pivot_table(index="value", columns="metric", values="score", sort=False).reset_index()
        wide.append(f"## {quantity}\n\n{report.markdown(panel)}")
    wrong = f"## Where more damage scores higher\n\n{report.markdown(turns(means))}"
    title = f"Scores against one damage at a time, mean of {len(paths)} clips"
    report.write_markdown(title, ["![curves](curves.png)\n", *wide, wrong, *absent], args.out / "README.md", head)


if __name__ == "__main__":
    main()
