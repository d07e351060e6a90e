"""Rows of scores: CSV, JSON and JSON lines in and out, their summary, and pairs of them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from jsqa_metric.engine import ScoreDetails
from jsqa_metric.model import MOS_RANGE

COLUMNS = ("path", "mos", "duration_s", "sample_rate", "status", "model", "content")
FORMATS = (".csv", ".json", ".jsonl")
Row = dict[str, Any]


def shown_path(path: str) -> str:
    """A path as text that any reader accepts: stray bytes and carriage returns are written as backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace("\r", "\\r")


def content_digest(path: str) -> str:
    """What tells whether a file is still the same: 16 digits of its SHA-256, or nothing if it cannot be read."""
    digest = hashlib.sha256()
    if not os.path.isfile(path):  # a pipe would wait for ever
        return ""
    try:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()[:16]


def make_row(path: str, details: ScoreDetails, model: str, content: str) -> Row:
    """A row of the report, with what scored it and what was scored; what is unknown is None."""
    known = {"mos": details.mos, "duration_s": details.duration_s}
    numbers = {key: None if math.isnan(value) else round(value, 6) for key, value in known.items()}
    origin = {"status": details.reason or "ok", "model": model, "content": content}
    return {"path": shown_path(path), **numbers, "sample_rate": details.sample_rate, **origin}


def format_rows(rows: Iterable[Row], suffix: str, header: bool = True) -> str:
    """Rows as text in the format that a file suffix names."""
    if suffix == ".json":
        return json.dumps(list(rows), indent=1) + "\n"
    if suffix == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_report(rows: Iterable[Row], path: Path) -> None:
    """Write a report in one go: a reader sees the old file or the whole new one."""
    text = format_rows(rows, path.suffix)
    path = Path(os.path.realpath(path))  # a link stays one, and its target is written
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())  # temporary files are private, reports are not
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_report(path: Path) -> list[Row]:
    """Read a report that `write_report` wrote.

    Raises:
        ValueError: If it is not one.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = _parse(file, path.suffix)
        # older reports have no digests: their files are scored again
        return [
            _checked({column: row[column] for column in COLUMNS[:-1]} | {"content": row.get("content", "")})
            for row in rows
        ]
    except (ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        raise ValueError(f"{path} is no report of jsqa-score: {error!r}") from error


def _checked(row: Row) -> Row:
    mos = row["mos"]
    scored = isinstance(mos, (int, float)) and MOS_RANGE[0] <= mos <= MOS_RANGE[1]
    texts = all(isinstance(row[column], str) for column in ("path", "status", "model", "content"))
    known = isinstance(row["sample_rate"], (int, type(None)))
    if not texts or not known or scored != (row["status"] == "ok"):
        raise ValueError(f"a row is damaged: {row}")
    return row


def _parse(file: TextIO, suffix: str) -> list[Row]:
    if suffix == ".json":
        rows: list[Row] = json.load(file)
        return rows
    if suffix == ".jsonl":
        return [json.loads(line) for line in file]
    numbers = {"mos": float, "duration_s": float, "sample_rate": int}
    return [
        {key: (numbers[key](value) if value else None) if key in numbers else value for key, value in row.items()}
        for row in csv.DictReader(file)
    ]


_T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantiles of Student's t for 1 to 10 degrees of freedom."""


def _half_interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean of two or more values.

    Source: from 11 degrees of freedom on, the expansion of Student's t about the normal (Abramowitz and Stegun 26.7.5).
    """
    free = len(values) - 1
    quantile = _T_QUANTILES[free - 1] if free <= len(_T_QUANTILES) else 1.95996 + 2.3723 / free + 2.8225 / free**2
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def summary(rows: Iterable[Row]) -> str:
    """One line: mean MOS with a 95 % interval (Student's t) and the number of clips."""
    every = list(rows)
    scores = [row["mos"] for row in every if row["mos"] is not None]
    failed = f", {len(every) - len(scores)} not scored" if len(scores) < len(every) else ""
    if not scores:
        return f"no clip scored (n = 0{failed})"
    mean = statistics.fmean(scores)
    if len(scores) == 1:
        return f"MOS {mean:.3f} (n = 1{failed})"
    half = _half_interval(scores)
    return f"mean MOS {mean:.3f}, 95 % interval {mean - half:.3f} to {mean + half:.3f} (n = {len(scores)}{failed})"


def pair_files(paths: Sequence[str], against: str, files: Sequence[str]) -> list[tuple[str, str]]:
    """Files of two folders that have the same place and name in them, whatever their suffixes.

    Raises:
        ValueError: If these are not two folders, or have no names in common.
    """
    if len(paths) != 1 or not os.path.isdir(paths[0]) or not os.path.isdir(against):
        raise ValueError("--against compares two folders: jsqa-score ONE --against OTHER")
    one, other = (_names_in(folder, files) for folder in (paths[0], against))
    pairs = {name: (one.pop(name), other.pop(name)) for name in one.keys() & other.keys()}
    stems = [_by_stem(names) for names in (one, other)]
    for stem in stems[0].keys() & stems[1].keys():
        if len(stems[0][stem]) > 1 or len(stems[1][stem]) > 1:
            raise ValueError(f"{shown_path(stem)!r} has several suffixes: which files are to be compared?")
        pairs[stem] = (stems[0][stem][0], stems[1][stem][0])
    if not pairs:
        raise ValueError(f"no file of {shown_path(paths[0])!r} has its name in {shown_path(against)!r}, too")
    return [pairs[name] for name in sorted(pairs)]


def _names_in(folder: str, files: Sequence[str]) -> dict[str, str]:
    """The files in a folder, by their paths from there."""
    names = {os.path.relpath(path, folder): path for path in files}
    return {name: path for name, path in names.items() if name.split(os.sep)[0] != os.pardir}


def _by_stem(names: dict[str, str]) -> dict[str, list[str]]:
    stems: dict[str, list[str]] = {}
    for name, path in names.items():
        stems.setdefault(os.path.splitext(name)[0], []).append(path)
    return stems


def paired_summary(rows: Iterable[Row], pairs: Sequence[tuple[str, str]]) -> str:
    """One line: how much better the first files of pairs are than the second, with a 95 % interval (Student's t).

    The pairs are of the same utterances, which vary far more than systems do: this interval is narrower than what
    the means of both would say.
    """
    mos = {row["path"]: row["mos"] for row in rows}
    scored = [(mos.get(shown_path(one)), mos.get(shown_path(other))) for one, other in pairs]
    gains = [one - other for one, other in scored if one is not None and other is not None]
    failed = f", {len(pairs) - len(gains)} not scored" if len(gains) < len(pairs) else ""
    if not gains:
        return f"no pair scored (n = 0{failed})"
    better = sum(gain > 0 for gain in gains) / len(gains)
    text = f"MOS {statistics.fmean(gains):+.3f} against the other"
    if len(gains) > 1:
        half = _half_interval(gains)
        text += f", 95 % interval {statistics.fmean(gains) - half:+.3f} to {statistics.fmean(gains) + half:+.3f}"
    return f"{text}, better in {better:.0%} (n = {len(gains)} pairs{failed})"
