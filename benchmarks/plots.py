"""Pictures of the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from benchmarks.baselines import OURS  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 4


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def scatter(clips: pd.DataFrame, metrics: list[str], title: str, path: Path) -> None:
    """Listeners against each metric of one set; `clips` has `mos`, `condition` and a column for each metric."""
    rows = -(-len(metrics) // _COLUMNS)
    figure, grid = plt.subplots(rows, _COLUMNS, figsize=(3 * _COLUMNS, 3 * rows), squeeze=False, sharey=True)
    groups = list(clips.groupby("condition"))
    colours = plt.get_cmap("tab10" if len(groups) <= 10 else "viridis")
    for axes, metric in zip(grid.flat, metrics, strict=False):
        for index, (condition, part) in enumerate(groups):
            colour = colours(index) if len(groups) <= 10 else colours(index / len(groups))
            axes.scatter(part[metric], part["mos"], s=9, color=colour, alpha=0.75, label=condition)
        axes.set_title(f"{metric}  PCC {clips[metric].corr(clips['mos']):.3f}", fontsize=9)
        axes.set_xlabel("score")
    for axes in grid.flat[len(metrics) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel("listeners' MOS")
    if len(groups) <= 10:
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=5, fontsize=8)
    figure.suptitle(title)
    figure.tight_layout()
    _save(figure, path)


def condition_bars(table: pd.DataFrame, value: str, title: str, path: Path) -> None:
    """Bars of a value for each condition, one colour a metric; `table` has `condition`, `metric` and the value."""
    wide = table.pivot_table(index="condition", columns="metric", values=value, sort=False)
    if wide.empty:
        return
    figure, axes = plt.subplots(figsize=(min(20.0, max(6.0, 0.18 * wide.size + 2)), 3.6))
    width = 0.8 / len(wide.columns)
    for index, metric in enumerate(wide.columns):
        edge = "black" if metric == OURS else "none"
        places = np.arange(len(wide)) + (index - (len(wide.columns) - 1) / 2) * width
        axes.bar(places, wide[metric], width, label=metric, edgecolor=edge, color=plt.get_cmap("tab20")(index))
    axes.set_xticks(
        np.arange(len(wide)), wide.index, rotation=45 if len(wide) > 6 else 0, ha="right" if len(wide) > 6 else "center"
    )
    if value == "score_mean":
        means = table.groupby("condition", sort=False)["mos_mean"].first().reindex(wide.index)
        axes.scatter(np.arange(len(wide)), means, marker="_", s=250, color="black", zorder=3, label="listeners")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel(value)
    axes.set_title(title)
    axes.legend(fontsize=7, bbox_to_anchor=(1.01, 1), loc="upper left")
    _save(figure, path)


def cost_curves(table: pd.DataFrame, title: str, path: Path) -> None:
    """Cost against length, and against batch size; `table` is that of `benchmarks.speed`."""
    kinds = [kind for kind in ("clip", "batch") if (table["kind"] == kind).any()]
    figure, grid = plt.subplots(1, len(kinds), figsize=(6 * len(kinds), 4), squeeze=False)
    metrics, most = list(table["metric"].unique()), table["threads"].max()
    colours = {metric: plt.get_cmap("tab20")(index % 20) for index, metric in enumerate(metrics)}
    for axes, kind in zip(grid[0], kinds, strict=True):
        across = "seconds" if kind == "clip" else "batch"
        part = table[(table["kind"] == kind) & table["cost"].notna()]
        for (metric, cores), line in part.groupby(["metric", "threads"], sort=False):
            axes.plot(
                line[across], line["cost"], "-" if cores == most else "--", marker="o", markersize=3,
                color=colours[metric], linewidth=2.5 if metric == OURS else 1.2,
                label=f"{metric}, {cores} core{'s' if cores > 1 else ''}",
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", ylabel="seconds per second of audio")
        axes.set_xlabel("length of a clip in seconds" if kind == "clip" else "clips of 8 s in a batch")
        axes.grid(alpha=0.3, which="both")
    grid[0][-1].legend(fontsize=7, bbox_to_anchor=(1.01, 1), loc="upper left")
    figure.suptitle(title)
    _save(figure, path)


def curves(means: pd.DataFrame, path: Path) -> None:
    """A panel for each quantity, a line for each metric; `means` has metric, quantity, value and score."""
    quantities = list(means["quantity"].unique())
    figure, grid = plt.subplots(1, len(quantities), figsize=(3 * len(quantities), 2.8), sharey=True, squeeze=False)
    for axes, quantity in zip(grid.flat, quantities, strict=True):
        for metric, part in means[means["quantity"] == quantity].groupby("metric", sort=False):
            axes.plot(part["value"], part["score"], "o-", ms=3, lw=2 if metric == OURS else 1, label=metric)
        axes.set_xlabel(quantity)
        axes.grid(alpha=0.3)
    grid.flat[0].set_ylabel("score")
    grid.flat[-1].legend(fontsize=7)
    figure.tight_layout()
    _save(figure, path)


def calibration(groups: dict[str, pd.DataFrame], path: Path) -> None:
    """Error made against error expected, a line for each set; on the dotted line both are the same."""
    figure, axes = plt.subplots(figsize=(4, 4))
    for name, part in groups.items():
        axes.plot(part["expected"], part["made"], "o-", ms=4, label=name)
    top = max(float(part[["expected", "made"]].max().max()) for part in groups.values()) * 1.05
    axes.plot([0, top], [0, top], ":", color="grey")
    axes.set(xlabel="expected error (MOS)", ylabel="error made (MOS)", xlim=(0, top), ylim=(0, top))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    _save(figure, path)
