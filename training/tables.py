"""Tables 1 and 2 of the JSQA paper again: does JND pretraining help, and does the projection head hurt?

    python -m training.tables --out runs/tables/tables --runs runs/tables \
        --human ../shared/human/tcd ../shared/human/p808 ../shared/human/codec

{no pretraining, JND pretraining, JND pretraining with projection head} x encoders x seeds x amounts of labelled
data. Each run is fine-tuned for the same number of steps; its checkpoint is chosen by PCC on one half of the
validation set (`--valid-clips` of it) and evaluated on the other half and on every human-rated set. A row for each run
and set is appended to `<out>.csv` as soon as it is there; a run that has its rows is not done again, so the command can
be interrupted. `<out>.md` and plots are made from all rows (`--report-only`: from those that are there).

Rated clips are sets of `training.build_set`, speech and noise are folders; or they come from published corpora, as in a
recipe: `--train '{layout: nisqa, root: /data/NISQA_Corpus, split: NISQA_TRAIN_SIM}'`.

Source: Fan and Williamson 2025 (JSQA), tables 1 and 2, figure 5.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from torch import nn
from torch.utils.data import DataLoader

from jsqa_metric.hub import resolve_device
from training.checkpoints import read_model
from training.data.labelled import collate
from training.data.modules import RatedSet, Source, open_train_and_valid
from training.data.readers import open_rated
from training.logs import read_log
from training.report import append_rows
from training.train import train, train_once

ENCODERS: dict[str, dict[str, Any]] = {
    "spectrogram": {"encoder": "spectrogram", "width": 32, "channels": 128, "layers": 2},
    "waveform8": {"encoder": "waveform", "width": 8, "dropout": 0.0},
    "waveform16": {"encoder": "waveform", "width": 16, "dropout": 0.0},
    "waveform64": {"encoder": "waveform", "width": 64, "dropout": 0.0},
    "toy": {"encoder": "spectrogram", "width": 4, "channels": 16, "layers": 1},
}
PRETRAINING = ("none", "jnd", "jnd+projection")
SOURCES = {
    "train": "sets/train",
    "valid": "sets/valid",
    "speech": "../shared/speech/train",
    "noise": "../shared/noise/train",
}
"""Rated clips for fine-tuning and its validation; clean speech and noise of the JND pairs."""
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What Lightning's mixed precisions compute in."""
LEARNING = ["step", "valid/pcc", "valid/rmse"]
MEASURES = ("pcc", "srcc", "rmse", "mae", "rmse_mapped")
SELECT, REPORT = (0, 2), (1, 2)
"""Clips of the simulated validation set that choose checkpoints, and those that are reported: every second one."""


@dataclass(frozen=True)
class Cell:
    """One run of the grid; `clips` is the amount of labelled data, 0 for all."""

    encoder: str
    pretraining: str
    clips: int
    seed: int

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"{self.encoder}-{self.pretraining}-{self.clips}-{self.seed}"


def measures(predicted: NDArray[np.float64], mos: NDArray[np.float64]) -> dict[str, float]:
    """PCC, SRCC, RMSE and MAE; `rmse_mapped` is the RMSE after a first-order map of the predictions."""
    slope, offset = np.polyfit(predicted, mos, 1) if np.ptp(predicted) > 0 else (0.0, float(mos.mean()))
    return {
        "pcc": float(pearsonr(predicted, mos).statistic),
        "srcc": float(spearmanr(predicted, mos).statistic),
        "rmse": float(np.sqrt(np.mean((predicted - mos) ** 2))),
        "mae": float(np.mean(np.abs(predicted - mos))),
        "rmse_mapped": float(np.sqrt(np.mean((slope * predicted + offset - mos) ** 2))),
    }


@torch.inference_mode()
def evaluate(model: nn.Module, rated: RatedSet, precision: str = "32-true") -> dict[str, float]:
    """Agreement of a model's scores with the ratings of a set, computed in the precision of a trainer."""
    device = next(model.parameters()).device
    predicted, mos = [], []
    for wav, lengths, targets in DataLoader(rated, batch_size=8, collate_fn=collate):
        with torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
            scores = model(wav.to(device), lengths.to(device))
        predicted.append(scores.float().cpu())
        mos.append(targets[:, 0])
    return measures(torch.cat(predicted).double().numpy(), torch.cat(mos).double().numpy())


def pretrain(cell: Cell, args: argparse.Namespace) -> Path | None:
    """Checkpoint of the pretrained encoder of a cell; made once for all amounts of labelled data."""
    if cell.pretraining == "none":
        return None
    recipe = {
        "task": "jsqa_pretrain",
        "seed": cell.seed,
        "data": {
            "speech": args.speech,
            "noise": args.noise,
            "seconds": (args.pair_seconds, args.pair_seconds),
            "pairs_per_epoch": args.pretrain_pairs,
        },
        "module": {"model": ENCODERS[cell.encoder], "projection": cell.pretraining == "jnd+projection"},
        "trainer": {"max_epochs": args.pretrain_epochs} | _trainer(args),
    }
    return train_once(recipe, args.runs / f"pretrain-{cell.encoder}-{cell.pretraining}-{cell.seed}")


def finetune(cell: Cell, args: argparse.Namespace) -> Path:
    """Checkpoint of a cell's fine-tuned model."""
    pretrained = pretrain(cell, args)
    recipe = {
        "task": "jsqa_finetune",
        "seed": cell.seed,
        "data": {
            "train": args.train,
            "valid": args.valid | {"part": SELECT},
            "batch_size": 8,
            "limit": cell.clips,
            "valid_limit": args.valid_clips,
            "crop_seconds": args.crop_seconds,
        },
        "module": {"model": ENCODERS[cell.encoder], "pretrained": pretrained and str(pretrained)},
        "trainer": {
            "max_steps": args.steps,
            "val_check_interval": max(1, args.steps // args.validations),
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
        }
        | _trainer(args),
    }
    return train(recipe, args.runs / cell.name)


def _trainer(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "accelerator": args.accelerator,
        "devices": 1,
        "precision": args.precision,
        "enable_model_summary": False,
        "log_every_n_steps": 10,
    }


def evaluation_sets(args: argparse.Namespace) -> dict[str, RatedSet]:
    """Half of the validation set, by its layout, and the human-rated sets by the names of their folders."""
    _, valid = open_train_and_valid(args.train, args.valid | {"part": REPORT})
    human = {Path(folder).name: open_rated(folder) for folder in args.human}
    if args.valid["layout"] in human:
        raise ValueError(f"a folder of --human is called {args.valid['layout']}, as the half of the validation set is")
    sets = {args.valid["layout"]: valid[: args.report_clips or None]} | human
    return {name: RatedSet(clips) for name, clips in sets.items()}


def settings(args: argparse.Namespace) -> str:
    """What the runs of a table have in common."""
    excerpts = f" in excerpts of {args.crop_seconds:g} s" if args.crop_seconds else ""
    own = {name: vars(args)[name] for name, text in SOURCES.items() if vars(args)[name] != _reader(name)(text)}
    more = "".join(f", {name} of {_said(source)}" for name, source in own.items() if name != "train")
    more += "; evaluated in that precision" if args.precision in AUTOCAST else ""
    more += f"; reported on {args.report_clips} of the held-out clips" if args.report_clips else ""
    return (
        f"{args.steps} steps of 8 clips{excerpts} of {_said(args.train)}, {args.precision}; "
        f"the best of {args.validations} checkpoints by {args.valid_clips or 'all'} clips; "
        f"pretraining of at most {args.pretrain_epochs} x {args.pretrain_pairs} pairs of {args.pair_seconds:g} s{more}"
    )


def _said(source: Source) -> str:
    """A source as the command line had it."""
    if isinstance(source, str):
        return source
    if set(source) == {"layout", "root"} and source["layout"] == "simulated":
        return str(source["root"])
    return str(yaml.safe_dump(dict(source), default_flow_style=True, sort_keys=False, width=1000)).strip()


def finished_cells(table: Path, common: str, sets: set[str]) -> set[Cell]:
    """Runs that have their rows.

    Raises:
        ValueError: If they were made with other settings, or evaluated on other sets: means would be over two kinds of
            runs, or there would be none.
    """
    if not table.exists():
        return set()
    with table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    others = {row["settings"] for row in rows} - {common}
    if others:
        raise ValueError(f"{table} has runs of other settings ({'; '.join(others)}), not {common}: take another --out")
    if rows and {row["set"] for row in rows} != sets:
        raise ValueError(f"{table} has rows of other sets than {', '.join(sorted(sets))}: take another --out")
    return {Cell(row["encoder"], row["pretraining"], int(row["clips"]), int(row["seed"])) for row in rows}


def run_grid(args: argparse.Namespace) -> None:
    """Do what is missing of the grid, smallest amounts of data first, and append its rows to the CSV file."""
    table = args.out.with_suffix(".csv")
    sets = {args.valid["layout"], *(Path(folder).name for folder in args.human)}
    there = finished_cells(table, settings(args), sets)
    grid = itertools.product(args.seeds, args.clips, args.encoders, PRETRAINING)
    cells = [Cell(encoder, how, clips, seed) for seed, clips, encoder, how in grid]
    cells = [cell for cell in cells if cell not in there]
    rated_sets = evaluation_sets(args) if cells else {}
    for number, cell in enumerate(cells, 1):
        print(f"{number} of {len(cells)}: {cell.name}")
        start = time.monotonic()
        model = read_model(finetune(cell, args)).to(resolve_device("cpu" if args.accelerator == "cpu" else "auto"))
        agreement = {name: evaluate(model, rated, args.precision) for name, rated in rated_sets.items()}
        common = asdict(cell) | {"seconds": f"{time.monotonic() - start:.0f}", "settings": settings(args)}
        log = read_log(args.runs / cell.name).dropna(subset=["valid/rmse"])
        append_rows(learning_table(args.out), [asdict(cell) | row for row in log[LEARNING].round(4).to_dict("records")])
        rounded = {name: {key: f"{value:.4f}" for key, value in values.items()} for name, values in agreement.items()}
        append_rows(table, [common | {"set": name} | values for name, values in rounded.items()])
        (args.runs / cell.name / "last.ckpt").unlink(missing_ok=True)  # only now is there nothing to go on with


def learning_table(out: Path) -> Path:
    """Where the learning curves of the runs are kept: without them, figure 5 would need the runs' own logs."""
    return out.with_name(f"{out.name}_learning.csv")


def _reader(name: str) -> Callable[[str], Source]:
    """What reads one of `SOURCES` from the command line."""

    def read(text: str) -> Source:
        source: Source = yaml.safe_load(text)
        if name in ("speech", "noise"):
            return source
        if isinstance(source, str):
            return {"layout": "simulated", "root": source}
        if "part" in source:
            raise argparse.ArgumentTypeError("`part` is chosen here: one half for checkpoints, the other to report")
        return {"layout": "folder", **source}

    return read


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.tables`."""
    from training.tables_report import write_tables  # it uses this module

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="path of the results, without a suffix")
    parser.add_argument("--runs", type=Path, required=True, help="folder for checkpoints and logs")
    for name, text in SOURCES.items():
        parser.add_argument(f"--{name}", type=_reader(name), default=text, help=f"(default: {text})")
    parser.add_argument(
        "--human", nargs="*", action="extend", default=[], help="folders of human-rated clips with a labels.csv"
    )
    parser.add_argument("--encoders", nargs="+", default=["spectrogram", "waveform16"], choices=list(ENCODERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--clips", type=int, nargs="+", default=[250, 1000, 4000], help="amounts of labelled data")
    parser.add_argument("--steps", type=int, default=4000, help="of fine-tuning, 8 clips each")
    parser.add_argument("--validations", type=int, default=10, help="in a run")
    parser.add_argument("--crop-seconds", type=float, default=0.0, help="fine-tune on excerpts (0: whole clips)")
    parser.add_argument("--valid-clips", type=int, default=200, help="that choose a run's checkpoint (0: all)")
    parser.add_argument("--report-clips", type=int, default=0, help="of the other half, to report on (0: all)")
    parser.add_argument("--pair-seconds", type=float, default=4.0, help="length of the JND pairs")
    parser.add_argument("--pretrain-epochs", type=int, default=10, help="at most")
    parser.add_argument("--pretrain-pairs", type=int, default=2000, help="in an epoch")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--precision", default="32-true", help="on a GPU, bf16-mixed")
    parser.add_argument("--report-only", action="store_true", help="do no runs")
    args = parser.parse_args(arguments)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not args.report_only:
        run_grid(args)
    write_tables(args.out)


if __name__ == "__main__":
    main()
