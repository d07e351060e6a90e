"""Tables in Markdown and CSV, each with a head: machine, versions, command, date."""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.baselines import NAMES, Baseline, make


def add_baselines_option(parser: argparse.ArgumentParser) -> None:
    """`--baselines a,b` with all of them as the default."""
    parser.add_argument(
        "--baselines",
        type=_baselines,
        default=list(NAMES),
        metavar="A,B",
        help=f"metrics, or folders of our models (default: all of {','.join(NAMES)})",
    )


def _baselines(text: str) -> list[Baseline]:
    try:
        baselines = [make(name.strip()) for name in text.split(",") if name.strip()]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error  # of a ValueError, argparse hides the words
    for baseline in baselines:
        if sum(other.name == baseline.name for other in baselines) > 1:
            raise argparse.ArgumentTypeError(f"two metrics are called {baseline.name!r}, which tables go by")
        if baseline.name in NAMES and baseline.spec not in NAMES:
            raise argparse.ArgumentTypeError(f"{baseline.spec} has the name of another metric: rename the folder")
    return baselines


def chosen(args: argparse.Namespace) -> list[Baseline]:
    """The metrics of `--baselines`."""
    return [make(item) if isinstance(item, str) else item for item in args.baselines]


def cpu_name() -> str:
    """Name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """Name of what computes: the processor, or the GPU."""
    return cpu_name() if device == "cpu" else torch.cuda.get_device_name(device)


def head(module: str, baselines: Iterable[Baseline], arguments: list[str] | None = None) -> list[str]:
    """Lines that say where the numbers come from."""
    words = sys.argv[1:] if arguments is None else arguments
    load = f", load average {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return [
        f"command: python -m {module} {shlex.join(words)}",
        f"date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
        f"machine: {cpu_name()}, {os.cpu_count()} cores{gpu}, {platform.system()} {platform.machine()}{load}",
        f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}",
        "versions: " + ", ".join(f"{baseline.name} {baseline.version}" for baseline in baselines),
    ]


def cell(value: Any, digits: int = 3) -> str:
    """A value as it stands in a Markdown table."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return "–"
    if isinstance(value, (float, np.floating)):
        return f"{value:.{digits}f}" if abs(value) >= 10**-digits or value == 0 else f"{value:.1e}"
    return str(value).replace("|", "/").replace("\n", " ")


def markdown(table: pd.DataFrame, digits: int = 3) -> str:
    """A Markdown table."""
    rows = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    rows += [[cell(value, digits) for value in row] for row in table.itertuples(index=False)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write_csv(table: pd.DataFrame, path: Path, lines: Iterable[str]) -> None:
    """A CSV file whose head is comments (`pandas.read_csv(path, comment="#")` reads it)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"# {line}\n" for line in lines) + table.to_csv(index=False, float_format="%.7g")
    path.write_text(text, encoding="utf-8")


def write_markdown(title: str, sections: Iterable[str], path: Path, lines: Iterable[str]) -> None:
    """A page: title, head, sections."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"# {title}\n\n" + "".join(f"- {line}\n" for line in lines) + "\n" + "\n".join(sections)
    path.write_text(text, encoding="utf-8")
