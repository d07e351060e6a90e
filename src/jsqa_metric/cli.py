"""The command `jsqa-score`: scores of files and folders. Data on stdout, everything else on stderr."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from jsqa_metric import __version__
from jsqa_metric.audio import AudioError, FileClip, check_channel
from jsqa_metric.engine import BATCH_SIZE, ScoreDetails, iter_details
from jsqa_metric.functional import check_batch_size, score
from jsqa_metric.hub import identity, load_model, resolve_device
from jsqa_metric.model import JSQAModel
from jsqa_metric.report import (
    FORMATS,
    Row,
    format_rows,
    make_row,
    paired_summary,
    read_report,
    shown_path,
    summary,
    write_report,
)

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".rf64"}
"""What is taken from folders; a file that is named is read whatever its name."""
SAVE_SECONDS = 30.0
"""How often an unfinished report is written."""
SELF_TEST_TOLERANCE = 1e-3
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 1, 2, 130, 143


def get_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="jsqa-score",
        description="Predict how good speech sounds to people (MOS, 1 to 5).",
        epilog="Exit status: 0 all scored, 1 some files not scored (their rows say why), 2 wrong usage.",
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="audio files and folders")
    parser.add_argument("--self-test", action="store_true", help="score the example clips and compare with what we got")
    parser.add_argument("-r", "--recursive", action="store_true", help="go into the folders of folders")
    parser.add_argument("--against", metavar="FOLDER", help="compare with the files of the same names in this folder")
    parser.add_argument("-o", "--output", type=Path, help="report: .csv, .json or .jsonl (default: CSV on stdout)")
    parser.add_argument("--force", action="store_true", help="replace an existing report")
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished report")
    parser.add_argument("--model", default="default", help="name, folder or Hub id (default: %(default)s)")
    parser.add_argument("--revision", help="commit or tag of a Hub model")
    parser.add_argument("--offline", action="store_true", help="take Hub models from the local cache only")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto: a GPU if there is one (default)")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="windows at once (default: %(default)s)")
    parser.add_argument("--channel", default="mean", help="mean, first or a number (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    parser.add_argument("--version", action="version", version=f"jsqa_metric {__version__}")
    return parser


def find_files(paths: Sequence[str], recursive: bool) -> list[str]:
    """Files named, and audio files in folders named, sorted; a file that is named in two ways comes once.

    Raises:
        ValueError: If a folder holds no audio files.
    """
    found: set[str] = set()
    unreadable: list[OSError] = []
    for path in paths:
        if not os.path.isdir(path):
            found.add(path)
            continue
        here = set(_audio_files(path, recursive, unreadable))
        here |= {str(error.filename) for error in unreadable}  # a row that says so is better than silence
        if not here:
            hint = "" if recursive else " (-r goes into its folders)"
            raise ValueError(f"no audio files in {shown_path(path)!r}{hint}")
        found |= here
    return sorted({os.path.abspath(path): path for path in sorted(found, reverse=True)}.values())


def _audio_files(folder: str, recursive: bool, unreadable: list[OSError]) -> Iterator[str]:
    # does not follow links to folders, so loops are no danger
    for place, folders, names in os.walk(folder, onerror=unreadable.append):
        if not recursive:
            folders.clear()
        yield from (os.path.join(place, n) for n in names if os.path.splitext(n)[1].lower() in AUDIO_SUFFIXES)


def pair_files(paths: Sequence[str], against: str, files: Sequence[str]) -> list[tuple[str, str]]:
    """Files of two folders that have the same place and name in them, whatever their suffixes.

    Raises:
        ValueError: If these are not two folders, or have no names in common.
    """
    if len(paths) != 1 or not os.path.isdir(paths[0]) or not os.path.isdir(against):
        raise ValueError("--against compares two folders: jsqa-score ONE --against OTHER")
    one, other = (
        {os.path.splitext(os.path.relpath(f, folder))[0]: f for f in files if f.startswith(os.path.join(folder, ""))}
        for folder in (paths[0], against)
    )
    if not one.keys() & other.keys():
        raise ValueError(f"no file of {shown_path(paths[0])!r} has its name in {shown_path(against)!r}, too")
    return [(one[name], other[name]) for name in sorted(one.keys() & other.keys())]


class Report:
    """Rows as they come: streamed to stdout, or kept and written to a file now and then and at the end."""

    def __init__(self, output: Path | None, rows: list[Row]) -> None:
        self.output, self.rows = output, rows
        self._saved = time.monotonic()
        self._header = True

    def add(self, row: Row) -> None:
        """Take one row more."""
        self.rows.append(row)
        if self.output is None:
            sys.stdout.write(format_rows([row], ".csv", header=self._header))
            sys.stdout.flush()
            self._header = False
        elif time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the file, sorted by path."""
        if self.output is not None:
            self.rows.sort(key=lambda row: str(row["path"]))
            write_report(self.rows, self.output)
        self._saved = time.monotonic()


def _open_report(args: argparse.Namespace, files: list[str]) -> Report:
    output: Path | None = args.output
    if output is None:
        if args.resume:
            raise ValueError("--resume needs the report to go on with: -o FILE")
        return Report(None, [])
    if output.suffix not in FORMATS:
        raise ValueError(f"the report must end in {', '.join(FORMATS)}, got {str(output)!r}")
    if not output.parent.is_dir():
        raise ValueError(f"no such folder: {str(output.parent)!r}")
    if output.exists() and not output.is_file():
        raise ValueError(f"the report is a folder or a device: {str(output)!r}")
    if os.path.realpath(output) in map(os.path.realpath, files):
        raise ValueError(f"the report would replace an input: {str(output)!r}")
    with tempfile.TemporaryFile(dir=output.parent):  # where nothing can be written, say so before the work
        pass
    if not output.exists() or args.force and not args.resume:
        return Report(output, [])
    if not args.resume:
        raise ValueError(f"{str(output)!r} exists: --force replaces it, --resume goes on with it")
    return Report(output, [row for row in read_report(output) if row["status"] == "ok"])


def _score(files: list[str], model: JSQAModel, args: argparse.Namespace) -> Iterator[tuple[str, ScoreDetails]]:
    device = next(model.parameters()).device
    with torch.no_grad():
        results = iter_details(files, model, device, check_channel(args.channel), args.batch_size, prefetch=True)
        for path, (details, _) in zip(files, results, strict=True):
            yield path, details


def _left_to_do(files: list[str], report: Report) -> list[str]:
    """Files that have no row yet. A row of what was at the same path before is dropped."""
    rows = {row["path"]: row for row in report.rows}
    written_s = os.path.getmtime(report.output) if report.output and report.output.exists() else math.inf
    left = [path for path in files if (row := rows.get(shown_path(path))) is None or not _is_of(path, row, written_s)]
    again = set(map(shown_path, left))
    report.rows = [row for row in report.rows if row["path"] not in again]
    return left


def _is_of(path: str, row: Row, written_s: float) -> bool:
    """Whether a row is of this file: as long as it was, and not written after the report."""
    if not os.path.exists(path):  # it was scored before it went
        return True
    if os.path.getmtime(path) > written_s:
        return False
    try:
        clip = FileClip(path, "mean")
    except (AudioError, OSError):
        return False
    duration_s = round(clip.samples / clip.sample_rate, 6)
    return bool(clip.sample_rate == row["sample_rate"] and duration_s == row["duration_s"])


def run(args: argparse.Namespace) -> int:
    """Score what the arguments name and return the exit status.

    Raises:
        ValueError: If an argument makes no sense.
        OSError: If the model or the report cannot be reached.
    """
    check_channel(args.channel)
    check_batch_size(args.batch_size)
    files = find_files([*args.paths, *filter(None, [args.against])], args.recursive)
    pairs = pair_files(args.paths, args.against, files) if args.against else []
    report = _open_report(args, files)
    model = load_model(args.model, resolve_device(args.device), args.revision, local_files_only=args.offline)
    name = identity(model) + ("" if args.channel == "mean" else f" channel {args.channel}")
    if others := {row["model"] for row in report.rows} - {name}:
        raise ValueError(f"the report has scores of {', '.join(sorted(others))}: --resume cannot go on with {name}")
    files = _left_to_do(files, report)
    bar = tqdm(_score(files, model, args), total=len(files), unit="file", disable=True if args.quiet else None)
    try:
        for path, details in bar:
            report.add(make_row(path, details, name))
    finally:  # also on Ctrl-C: what was scored is not lost
        bar.close()
        report.save()
    if not args.quiet:
        print(paired_summary(report.rows, pairs) if pairs else summary(report.rows), file=sys.stderr)
    return EXIT_FAILED if any(row["status"] != "ok" for row in report.rows) else EXIT_OK


def self_test() -> int:
    """Print the scores of the example clips beside the recorded ones; fail if one is off by more than 0.001."""
    folder = Path(__file__).parent / "examples"
    if not folder.is_dir():  # not installed, but a checkout
        folder = Path(__file__).parents[2] / "examples"
    golden: dict[str, float] = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    scores = score([folder / name for name in golden])
    print("clip,mos,recorded")
    for (name, recorded), mos in zip(golden.items(), scores, strict=True):
        print(f"{name},{mos:.4f},{recorded:.4f}")
    worst = float(np.abs(scores - list(golden.values())).max())
    print(f"largest difference: {worst:.5f}", file=sys.stderr)
    return EXIT_OK if worst <= SELF_TEST_TOLERANCE else EXIT_FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `jsqa-score`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = get_parser()
    args = parser.parse_args(arguments)
    if bool(args.paths) == args.self_test:
        parser.error("give files or folders to score, or --self-test alone")
    before: Any = None
    with suppress(ValueError):  # not the main thread
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # as Ctrl-C: nothing is lost
    try:
        return self_test() if args.self_test else run(args)
    except BrokenPipeError:  # the reader of stdout (`head`) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        print("jsqa-score: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"jsqa-score: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
