"""Readers of published corpora in the layouts they are published in, and of plain folders.

A recipe names a corpus either by a folder (`../shared/speech/train`) or by its layout:

    speech: {layout: librispeech, root: /data/LibriSpeech, splits: [train-clean-100, train-clean-360]}
    noise: {layout: chime3, root: /data/CHiME3, channel: 5}

Clean speech and noise become a `Corpus`; rated speech becomes a list of `RatedClip`.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsqa_metric.model import MOS_RANGE
from training.data.corpus import Corpus, Entry

PUBLISHED = {
    "LibriSpeech": "https://www.openslr.org/12 (train-clean-100.tar.gz and the like)",
    "CHiME-3": "https://www.chimechallenge.org/challenges/chime3/data (distributed by the LDC; needs registration)",
    "NISQA corpus": "https://github.com/gabrielmittag/NISQA/wiki/NISQA-Corpus (NISQA_Corpus.zip)",
}
"""Where each corpus is to be had."""

NISQA_DIMENSIONS = ("noi", "dis", "col", "loud")
"""Noisiness, discontinuity, coloration and loudness: rated in most splits of the NISQA corpus."""


@dataclass(frozen=True)
class RatedClip:
    """A clip with its mean opinion score; `dimensions` are further mean ratings by name, where there are any."""

    path: Path
    mos: float
    condition: str = ""
    dimensions: Mapping[str, float] | None = None


def librispeech(root: str | Path, splits: Sequence[str] = ("train-clean-100",)) -> Corpus:
    """LibriSpeech: `<root>/<split>/<speaker>/<chapter>/<speaker>-<chapter>-<utterance>.flac`; groups are talkers.

    Raises:
        FileNotFoundError: If a split is missing or empty.
        ValueError: If no splits are named.
    """
    if isinstance(splits, str) or not splits:
        raise ValueError(f"`splits` must be a list such as [train-clean-100], got {splits!r}")
    entries = []
    for split in splits:
        folder = _existing("LibriSpeech", Path(root) / split)
        paths = sorted(folder.glob("*/*/*.flac"))
        if not paths:
            raise _missing("LibriSpeech", folder / "<speaker>" / "<chapter>" / "*.flac")
        entries += [Entry(path, path.parts[-3]) for path in paths]
    return Corpus(tuple(entries))


def chime3(root: str | Path, channel: int = 5) -> Corpus:
    """CHiME-3 backgrounds: `<root>/data/audio/16kHz/backgrounds/<session>_<place>.CH<n>.wav`; groups are places.

    Args:
        root: The folder `CHiME3`.
        channel: One of the six microphones; 2 faces away from the talker, 5 is the usual choice.

    Raises:
        FileNotFoundError: If the backgrounds, or those of this channel, are missing.
    """
    folder = _existing("CHiME-3", Path(root) / "data" / "audio" / "16kHz" / "backgrounds")
    paths = sorted(folder.glob(f"*.CH{channel}.wav"))
    if not paths:
        there = sorted({match[1] for p in folder.glob("*.wav") if (match := re.search(r"\.CH(\d)\.wav$", p.name))})
        raise _missing("CHiME-3", folder / f"*.CH{channel}.wav", f"channels there: {', '.join(there) or 'none'}")
    return Corpus(tuple(Entry(path, path.name.split(".")[0].rsplit("_", 1)[-1]) for path in paths))


def nisqa(root: str | Path, split: str = "NISQA_TRAIN_SIM") -> list[RatedClip]:
    """A split of the NISQA corpus: `<root>/<split>/<split>_file.csv`, its clips under `<root>/<split>/deg/`.

    Read are the columns `filename_deg` and `mos`, and where present `con_description` (or `con`) and the four
    dimensions.

    Raises:
        FileNotFoundError: If the split, its table or a clip that the table names is missing.
        ValueError: If the table lacks a column, or a rating is not a number from 1 to 5.
    """
    folder = _existing("NISQA corpus", Path(root) / split)
    table = _existing("NISQA corpus", folder / f"{split}_file.csv")
    rows = _read_table(table, ("filename_deg", "mos"))
    clips = [
        RatedClip(
            folder / "deg" / row["filename_deg"],
            _rating(table, number, row, "mos"),
            row.get("con_description") or row.get("con") or "",
            {name: _rating(table, number, row, name) for name in NISQA_DIMENSIONS if row.get(name)},
        )
        for number, row in enumerate(rows, 1)
    ]
    return _all_there("NISQA corpus", clips)


def rated_folder(root: str | Path) -> list[RatedClip]:
    """A plain folder of rated clips: `labels.csv` with the columns file, mos and perhaps condition, clips beside it.

    Raises:
        FileNotFoundError: If the folder, its table or a clip is missing.
        ValueError: If the table lacks a column, or a rating is not a number from 1 to 5.
    """
    table = Path(root) / "labels.csv"
    if not table.is_file():
        raise FileNotFoundError(f"no {table}: a rated folder has a labels.csv with the columns file, mos, condition")
    rows = _read_table(table, ("file", "mos"))
    clips = [
        RatedClip(table.parent / row["file"], _rating(table, number, row, "mos"), row.get("condition") or "")
        for number, row in enumerate(rows, 1)
    ]
    return _all_there(str(root), clips)


CORPORA: dict[str, Callable[..., Corpus]] = {
    "librispeech": librispeech,
    "chime3": chime3,
    "folder": lambda root: Corpus.from_folder(root),
}
RATED: dict[str, Callable[..., list[RatedClip]]] = {"nisqa": nisqa, "folder": rated_folder}


def open_corpus(source: str | Path | Mapping[str, Any]) -> Corpus:
    """Speech or noise from a folder, or from a mapping with a `layout` of `CORPORA` and that reader's arguments.

    Raises:
        ValueError: If the layout is unknown.
        FileNotFoundError: If something of the corpus is missing.
    """
    corpus: Corpus = _open(source, CORPORA)
    return corpus


def open_rated(source: str | Path | Mapping[str, Any]) -> list[RatedClip]:
    """Rated clips from a folder, or from a mapping with a `layout` of `RATED` and that reader's arguments.

    Raises:
        ValueError: If the layout is unknown or a table lacks a column.
        FileNotFoundError: If something of the corpus is missing.
    """
    clips: list[RatedClip] = _open(source, RATED)
    return clips


def _open(source: str | Path | Mapping[str, Any], readers: Mapping[str, Callable[..., Any]]) -> Any:
    if isinstance(source, (str, Path)):
        return readers["folder"](source)
    options = dict(source)
    layout = options.pop("layout", "folder")
    if layout not in readers:
        raise ValueError(f"`layout` must be one of {sorted(readers)}, got {layout!r}")
    return readers[layout](**options)


def _missing(corpus: str, what: Path, detail: str = "") -> FileNotFoundError:
    where = f"; {corpus} is published at {PUBLISHED[corpus]}" if corpus in PUBLISHED else ""
    return FileNotFoundError(f"{corpus}: no {what}" + (f" ({detail})" if detail else "") + where)


def _existing(corpus: str, path: Path) -> Path:
    if not path.exists():
        raise _missing(corpus, path)
    return path


def _all_there(corpus: str, clips: list[RatedClip]) -> list[RatedClip]:
    absent = [clip.path for clip in clips if not clip.path.is_file()]
    if absent or not clips:
        detail = f"{len(absent)} of the table's {len(clips)} clips are missing"
        raise _missing(corpus, absent[0] if absent else Path("clips"), detail)
    return clips


def _rating(table: Path, number: int, row: Mapping[str, str | None], name: str) -> float:
    """A rating as a number; one that is none would only show as a loss of NaN."""
    try:
        rating = float(row[name] or "")
    except ValueError:
        rating = math.nan
    if not MOS_RANGE[0] <= rating <= MOS_RANGE[1]:
        raise ValueError(f"{table}, row {number}: `{name}` must be a number from 1 to 5, got {row[name]!r}")
    return rating


def _read_table(table: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        there = list(reader.fieldnames or ())
        absent = [name for name in needed if name not in there]
        if absent:
            raise ValueError(f"{table} lacks the columns {', '.join(absent)}; it has {', '.join(there)}")
        rows = list(reader)
    for number, row in enumerate(rows, 1):
        if not row[needed[0]]:
            raise ValueError(f"{table}, row {number}: no file is named")
    return rows
