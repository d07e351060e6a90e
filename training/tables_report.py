"""What `training.tables` reports: means with intervals over seeds, paired differences, plots, learning curves."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from training.report import markdown, provenance, this_command
from training.tables import MEASURES, PRETRAINING, learning_table


def interval(values: pd.Series) -> float:
    """Half the width of the 95 % interval of the mean (Student's t) of the values that are not NaN; NaN below two."""
    values = values.dropna()
    if len(values) < 2:
        return float("nan")
    return float(student_t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def cell_text(values: pd.Series) -> str:
    """Mean ± half the interval, as a cell of a table."""
    half = interval(values)
    text = f"{values.mean():.3f}" + ("" if np.isnan(half) else f" ± {half:.3f}")
    return text + (f" (of {values.count()})" if values.isna().any() else "")


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each encoder, amount of data and kind of pretraining; mean ± interval over the seeds."""
    rows = rows.assign(pretraining=pd.Categorical(rows["pretraining"], PRETRAINING, ordered=True))
    grouped = rows.groupby(["encoder", "clips", "pretraining"], observed=True)
    table = grouped[list(MEASURES)].agg(cell_text).reset_index()
    return table.assign(seeds=grouped.size().to_numpy())


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """What each kind of pretraining changes against none, paired by seed: mean ± interval."""
    wide = rows.pivot_table(index=["encoder", "clips", "seed"], columns="pretraining", values=["pcc", "rmse"])
    lines = []
    for (encoder, clips), part in wide.groupby(level=["encoder", "clips"]):
        for how in PRETRAINING[1:]:
            line = {"encoder": encoder, "clips": clips, "pretraining": how}
            for measure in ("pcc", "rmse"):
                if (measure, how) in part and (measure, "none") in part:
                    line[f"{measure} - none"] = cell_text(part[measure, how] - part[measure, "none"])
            lines.append(line)
    return pd.DataFrame(lines).fillna("")


def plot_amounts(rows: pd.DataFrame, path: Path) -> None:
    """PCC against the amount of labelled data, a column for each set, a row for each encoder."""
    encoders, sets = sorted(rows["encoder"].unique()), list(rows["set"].unique())
    size = (3.2 * len(sets), 2.8 * len(encoders))
    figure, axes = plt.subplots(len(encoders), len(sets), figsize=size, squeeze=False, sharex=True)
    for (i, encoder), (j, name) in itertools.product(enumerate(encoders), enumerate(sets)):
        part = rows[(rows["encoder"] == encoder) & (rows["set"] == name)]
        for how in PRETRAINING:
            grouped = part[part["pretraining"] == how].groupby("clips")["pcc"]
            if len(grouped):
                axes[i, j].errorbar(
                    list(grouped.groups), grouped.mean(), grouped.agg(interval), fmt="o-", capsize=3, label=how
                )
        axes[i, j].set(title=f"{name}, {encoder}", xscale="log")
        axes[i, j].grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    figure.supxlabel("labelled clips")
    figure.supylabel("PCC")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_learning(rows: pd.DataFrame, path: Path) -> None:
    """Figure 5: PCC and RMSE on the selecting half of the validation set during fine-tuning, mean over the seeds."""
    encoders = sorted(rows["encoder"].unique())
    figure, axes = plt.subplots(2, len(encoders), figsize=(5 * len(encoders), 6), squeeze=False, sharex=True)
    for j, encoder in enumerate(encoders):
        part = rows[rows["encoder"] == encoder]
        clips = int(part["clips"].max())
        for how in PRETRAINING:
            runs = part[(part["clips"] == clips) & (part["pretraining"] == how)]
            mean = runs.groupby("step")[["valid/pcc", "valid/rmse"]].mean()
            for i, column in enumerate(mean):
                axes[i, j].plot(mean.index, mean[column], "o-", label=how, markersize=3)
                axes[i, j].set(ylabel=str(column), title=f"{encoder}, {clips} clips")
                axes[i, j].grid(alpha=0.3)
        axes[1, j].set_xlabel("steps of fine-tuning")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_tables(out: Path) -> None:
    """Write `<out>.md`, `<out>_amounts.png` and `<out>_learning.png` from `<out>.csv` and `<out>_learning.csv`."""
    rows = pd.read_csv(out.with_suffix(".csv"))
    amounts, learning = (out.with_name(f"{out.name}_{what}.png") for what in ("amounts", "learning"))
    plot_amounts(rows, amounts)
    # a run that was interrupted between its two tables has its learning curve twice
    plot_learning(pd.read_csv(learning_table(out)).drop_duplicates(), learning)
    hours = rows.groupby(["encoder", "pretraining", "clips", "seed"])["seconds"].max().sum() / 3600
    parts = [
        "# Tables 1 and 2 of the JSQA paper",
        provenance(this_command()) + f" {hours:.1f} h of runs: {'; '.join(rows['settings'].unique())}.",
        "Mean over the seeds ± half of the 95 % interval. `rmse_mapped`: after a first-order map of the scores. "
        "`simulated` (or another corpus' layout): the half of the validation set that did not choose checkpoints.",
    ]
    for name, part in rows.groupby("set", sort=False):
        parts += [f"## {name}", markdown(means(part)), "Change against no pretraining, paired by seed:"]
        parts.append(markdown(differences(part)))
    parts += [f"![PCC against labelled clips]({amounts.name})", f"![learning curves]({learning.name})"]
    out.with_suffix(".md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
