"""What runs write down: the table of their logs, whole also if interrupted, and what written data are made of."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from lightning.pytorch.loggers import CSVLogger

FOLDER, TABLE = "csv", "metrics.csv"


def csv_logger(run: Path) -> CSVLogger:
    """Lightning's logger, which would delete the table of the run that it goes on with: that is moved aside."""
    folder = run / FOLDER
    if (folder / TABLE).exists():
        (folder / TABLE).rename(folder / f"before-{len(list(folder.glob('before-*.csv'))):03d}.csv")
    return CSVLogger(run, FOLDER, version="")


def read_log(run: Path) -> pd.DataFrame:
    """All rows of a run in order; of steps that were done again after an interruption, the later ones.

    Raises:
        FileNotFoundError: If nothing was logged.
    """
    paths = [*sorted((run / FOLDER).glob("before-*.csv")), *(run / FOLDER).glob(TABLE)]
    if not paths:
        raise FileNotFoundError(f"no log in {run / FOLDER}")
    table = pd.read_csv(paths[0])
    for path in paths[1:]:
        later = pd.read_csv(path)
        table = pd.concat([table[table["step"] < later["step"].min()], later], ignore_index=True)
    return table


def keep_facts(kept: Path, facts: dict[str, object]) -> None:
    """Write down, in the folder of a corpus or a set, what it is made of, or check it against what is written there.

    Raises:
        ValueError: If it was begun with something else: its clips would be of two kinds.
    """
    kept.parent.mkdir(parents=True, exist_ok=True)
    facts = json.loads(json.dumps(facts))
    if not kept.exists():
        kept.write_text(json.dumps(facts, indent=1) + "\n")
    elif (there := json.loads(kept.read_text())) != facts:
        raise ValueError(f"{kept.parent} was begun with {there}, not with {facts}: take another folder")
