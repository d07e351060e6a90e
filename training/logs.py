"""The table of what a run has logged, whole also if the run was interrupted."""

from __future__ import annotations

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
