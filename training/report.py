"""What the reports of all training commands have in common: how they were made, and tables."""

from __future__ import annotations

import csv
import os
import platform
import shlex
import sys
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd


def provenance(command: str) -> str:
    """One line that says how, where and when a result was made."""
    machine = f"{platform.machine()} with {os.cpu_count()} cores, {platform.system()}"
    return f"Made by `{command}` on {date.today()}, {machine}."


def this_command() -> str:
    """The command line of this process, as one would type it."""
    spec = sys.modules["__main__"].__spec__
    name = f"-m {spec.name}" if spec else sys.argv[0]
    return f"python {name} {shlex.join(sys.argv[1:])}"


def markdown(table: pd.DataFrame, digits: int = 3) -> str:
    """A table in Markdown."""
    cells = table.map(lambda v: f"{v:.{digits}f}" if isinstance(v, float) else str(v))
    lines = [" | ".join(cells.columns), " | ".join("---" for _ in cells.columns)]
    return "\n".join(f"| {line} |" for line in lines + [" | ".join(row) for row in cells.to_numpy()])


def append_rows(table: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows to a CSV table, whose head is written first if it is not there; several processes may do so."""
    with suppress(FileExistsError), table.open("x", newline="") as handle:
        csv.DictWriter(handle, list(rows[0])).writeheader()
    with table.open("a", newline="") as handle:
        csv.DictWriter(handle, list(rows[0])).writerows(rows)
