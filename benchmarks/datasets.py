"""Human-rated sets: a folder is recognised by its layout and read into clips with a score each.

| layout | recognised by | audio | condition | reference |
|---|---|---|---|---|
| own | `labels.csv` with `file,mos` (and `condition,reference`) | as named | column | column, or see below |
| NISQA corpus | `*_file.csv` (`db,con,file,...,mos`), in splits | `<split>/deg/`, `filepath_deg` | `db/con` | `ref` |
| VoiceMOS | `sets/*_mos_list.txt` with `name.wav,score`, also in `DATA/` or `main/DATA/` | `wav/` | system | none |

VoiceMOS names its systems in the names of files, up to the first `-` or `_`. Without a column `reference`, clips whose
condition is "reference" are the references: `x_ref.flac` is that of all `x_*.flac`. A reference itself gets none, so
that full-reference metrics are not credited for recognising it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf

from jsqa_metric.model import MOS_RANGE


@dataclass(frozen=True)
class Clip:
    """One rated clip.

    Attributes:
        path: The audio file.
        mos: Mean opinion score of listeners.
        condition: What was done to it (or the system that made it).
        reference: The clean signal, if there is one.
    """

    path: Path
    mos: float
    condition: str
    reference: Path | None = None


@dataclass(frozen=True)
class RatedSet:
    """A named list of rated clips. Sets are never pooled: scales and listeners differ."""

    name: str
    clips: tuple[Clip, ...]


def read_set(folder: Path) -> list[RatedSet]:
    """The sets of a folder: one, or one for each split of a corpus.

    Raises:
        ValueError: If the folder has none of the known layouts, or a clip's file or score is missing.
    """
    for read in (_read_labels, _read_nisqa, _read_voicemos):
        sets = read(folder)
        if sets:
            for rated in sets:
                _check(rated)
            return sets
    raise ValueError(
        f"no rated set in {str(folder)!r}: expected labels.csv (file,mos,condition), the NISQA corpus "
        f"(<split>/*_file.csv) or VoiceMOS (DATA/sets/*_mos_list.txt)"
    )


def read_sets(folders: list[Path]) -> list[RatedSet]:
    """All sets of all folders. Files are passed over, so that a shell's `human/*` may name a README too.

    Raises:
        ValueError: If a folder does not exist or holds none, or two sets have one name, which tables go by.
    """
    missing = [str(folder) for folder in folders if not folder.exists()]
    if missing:
        raise ValueError(f"no such folder: {', '.join(missing)}")
    sets = [rated for folder in folders if folder.is_dir() for rated in read_set(folder)]
    if not sets:
        raise ValueError(f"no folder among {', '.join(map(str, folders))}")
    names = [rated.name for rated in sets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two sets are called {', '.join(twice)}: rename a folder")
    return sets


def _check(rated: RatedSet) -> None:
    if not rated.clips:
        raise ValueError(f"{rated.name}: no clips")
    files = [clip.path for clip in rated.clips] + [clip.reference for clip in rated.clips if clip.reference]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise ValueError(f"{rated.name}: {len(missing)} of {len(files)} files are missing, first {missing[0]}")
    for path in files:
        try:
            sf.info(path)
        except sf.SoundFileError as error:
            raise ValueError(f"{rated.name}: {path} is no audio file that can be read: {error}") from error
    seen: set[Path] = set()
    for clip in rated.clips:
        if clip.path in seen:
            raise ValueError(f"{rated.name}: {clip.path} is rated twice")
        seen.add(clip.path)
        if not MOS_RANGE[0] <= clip.mos <= MOS_RANGE[1]:
            raise ValueError(
                f"{rated.name}: {clip.path.name} has a score of {clip.mos:g}, expected a MOS from 1 to 5 "
                "(map other scales first, such as MUSHRA by 1 + 4 * x / 100)"
            )


def _read_table(path: Path) -> pd.DataFrame:
    """A CSV table as text, whatever its names look like, with `mos` as numbers.

    Raises:
        ValueError: If it is no such table; a score that is no number is named with its row.
    """
    try:
        table = pd.read_csv(path, dtype=str, skipinitialspace=True, index_col=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} is no CSV table in UTF-8: {error}") from error
    if len(table.columns) == 1 and re.search(r"[;\t]", table.columns[0]):
        raise ValueError(f"{path} must be separated by commas, its first line is {table.columns[0]!r}")
    if "mos" in table:
        numbers = pd.to_numeric(table["mos"], errors="coerce")
        wrong = numbers.isna() | np.isinf(numbers)
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise ValueError(f"{path}, row {row + 1}: a score is missing or not a number: {table['mos'][row]!r}")
        table["mos"] = numbers
    return table


def _read_labels(folder: Path) -> list[RatedSet]:
    table_path = folder / "labels.csv"
    if not table_path.is_file():
        return []
    table = _read_table(table_path)
    _need(table, ("file", "mos"), table_path)
    if table["file"].isna().any():
        raise ValueError(f"{table_path}, row {int(table['file'].isna().to_numpy().argmax()) + 1}: no file is named")
    if "condition" not in table:
        table["condition"] = ""
    table["condition"] = table["condition"].fillna("")
    references = _column_references(table) if "reference" in table else _named_references(table)
    clips = tuple(
        Clip(folder / row.file, float(row.mos), row.condition, folder / name if (name := references(row)) else None)
        for row in table.itertuples()
    )
    return [RatedSet(folder.resolve().name, clips)]


def _need(table: pd.DataFrame, columns: tuple[str, ...], path: Path) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")


def _column_references(table: pd.DataFrame) -> Callable[[object], str | None]:
    def find(row: object) -> str | None:
        name = getattr(row, "reference", None)
        return name if isinstance(name, str) and name and name != getattr(row, "file", None) else None

    return find


def _named_references(table: pd.DataFrame) -> Callable[[object], str | None]:
    names = table.loc[table["condition"].str.lower().isin(["reference", "ref"]), "file"]
    stems = {re.sub(r"ref(erence)?$", "", Path(name).stem, flags=re.IGNORECASE): name for name in names}
    prefixes = {stem: name for stem, name in stems.items() if stem and stem != Path(name).stem}
    own = set(names)

    def find(row: object) -> str | None:
        file = str(getattr(row, "file", ""))
        found = [stem for stem in prefixes if Path(file).name.startswith(stem)]
        return None if file in own or not found else prefixes[max(found, key=len)]

    return find


def _read_nisqa(folder: Path) -> list[RatedSet]:
    tables = sorted([*folder.glob("*_file.csv"), *folder.glob("*/*_file.csv")])
    corpus = "NISQA_corpus_file.csv"  # all splits together, beside the tables of the splits
    tables = [path for path in tables if path.name != corpus] or tables
    sets = []
    for path in tables:
        table = _read_table(path)
        name = next((c for c in ("filename_deg", "file") if c in table), None)  # `file` may be a number
        if name is None or "mos" not in table or not {"db", "con"} <= set(table.columns):
            raise ValueError(f"{path} is no table of the NISQA corpus: it needs db, con, file (or filename_deg), mos")
        if path.name == corpus:
            sets += [_nisqa_set(str(db), path.parent / str(db), rows, name) for db, rows in table.groupby("db")]
        else:
            sets.append(_nisqa_set(path.name.removesuffix("_file.csv"), path.parent, table, name))
    return sets


def _nisqa_set(title: str, split: Path, table: pd.DataFrame, name: str) -> RatedSet:
    clips = []
    for row in table.to_dict("records"):
        path, reference = split / "deg" / str(row[name]), row.get("filename_ref", row.get("filepath_ref"))
        if not path.is_file() and isinstance(row.get("filepath_deg"), str):
            path = split.parent / row["filepath_deg"]
        clean = split / "ref" / Path(reference).name if isinstance(reference, str) and reference else None
        has_clean = clean is not None and clean.is_file()
        clips.append(Clip(path, float(row["mos"]), f"{row['db']}/{row['con']}", clean if has_clean else None))
    return RatedSet(title, tuple(clips))


def _read_voicemos(folder: Path) -> list[RatedSet]:
    places = (folder, folder / "DATA", folder / "main" / "DATA")
    data = next((place for place in places if (place / "sets").is_dir()), None)
    if data is None:
        return []
    sets = []
    for path in sorted((data / "sets").glob("*_mos_list.txt")):
        clips = []
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split(), 1):
            try:
                name, mos = line.split(",")
                clips.append(Clip(data / "wav" / name, float(mos), re.split(r"[-_]", Path(name).stem)[0]))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: expected `name.wav,score`, got {line!r}") from error
        title = folder.resolve().name
        sets.append(RatedSet(f"{title}-{path.name.removesuffix('_mos_list.txt').lower()}", tuple(clips)))
    return sets
