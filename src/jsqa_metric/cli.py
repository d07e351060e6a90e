"""The command `jsqa-score`: scores of files and folders. Data on stdout, everything else on stderr."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from jsqa_metric import __version__
from jsqa_metric.audio import check_channel
from jsqa_metric.engine import BATCH_SIZE, ScoreDetails, iter_details
from jsqa_metric.functional import check_batch_size, score
from jsqa_metric.hub import identity, load_model, resolve_device
from jsqa_metric.level import check_level
from jsqa_metric.model import JSQAModel
from jsqa_metric.report import (
    FORMATS,
    Row,
    content_digest,
    format_rows,
    make_row,
    pair_files,
    paired_summary,
    read_report,
    shown_path,
    summary,
    write_report,
)

AUDIO_SUFFIXES = {
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aif", ".aiff", ".aifc", ".au", ".snd"),
    *(".caf", ".w64", ".rf64", ".sph", ".nist"),
    *(".m4a", ".aac", ".wma", ".amr"),  # not read: their rows say so, as one would not miss what is left out
}
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
    level = "bring each file to this active level in dBFS first (listening tests: -26; default: as it is)"
    parser.add_argument("--level-db", type=float, metavar="DB", help=level)
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
    folder = Path(os.path.realpath(output)).parent  # where it will be if it is a link
    if not folder.is_dir():
        raise ValueError(f"no such folder: {str(folder)!r}")
    if output.exists() and not output.is_file():
        raise ValueError(f"the report is a folder or a device: {str(output)!r}")
    if os.path.realpath(output) in map(os.path.realpath, files):
        raise ValueError(f"the report would replace an input: {str(output)!r}")
    with tempfile.TemporaryFile(dir=folder):  # where nothing can be written, say so before the work
        pass
    if not output.exists() or args.force and not args.resume:
        return Report(output, [])
    if not args.resume:
        raise ValueError(f"{str(output)!r} exists: --force replaces it, --resume goes on with it")
    return Report(output, [row for row in read_report(output) if row["status"] == "ok"])


def _score(files: list[str], model: JSQAModel, args: argparse.Namespace) -> Iterator[tuple[str, str, ScoreDetails]]:
    """Paths, digests of their contents and details."""
    device, contents = next(model.parameters()).device, deque[str]()

    def digested() -> Iterator[str]:
        for path in files:
            contents.append(content_digest(path))  # before it is read: what replaces it has another
            yield path

    with torch.inference_mode():
        channel, level_db = check_channel(args.channel), args.level_db
        results = iter_details(digested(), model, device, channel, args.batch_size, prefetch=True, level_db=level_db)
        for path, (details, _) in zip(files, results, strict=True):
            yield path, contents.popleft(), details


def _left_to_do(files: list[str], report: Report) -> list[str]:
    """Files that have no row yet. A row of what was at the same path before is dropped."""
    rows, left = {os.path.abspath(row["path"]): row for row in report.rows}, []
    for path in files:
        place = os.path.abspath(shown_path(path))
        # a file that has gone was scored before it went
        if place in rows and (not os.path.exists(path) or content_digest(path) == rows[place]["content"]):
            rows[place]["path"] = shown_path(path)  # the same file may be named in another way
        else:
            rows.pop(place, None)
            left.append(path)
    report.rows = list(rows.values())
    return left


def run(args: argparse.Namespace) -> int:
    """Score what the arguments name and return the exit status.

    Raises:
        ValueError: If an argument makes no sense.
        OSError: If the model or the report cannot be reached.
    """
    check_channel(args.channel)
    check_batch_size(args.batch_size)
    check_level(args.level_db)
    files = find_files([*args.paths, *filter(None, [args.against])], args.recursive)
    pairs = pair_files(args.paths, args.against, files) if args.against else []
    report = _open_report(args, files)
    model = load_model(args.model, resolve_device(args.device), args.revision, local_files_only=args.offline)
    name = identity(model) + ("" if args.channel == "mean" else f" channel {args.channel}")
    name += "" if args.level_db is None else f" level {args.level_db:g} dBFS"
    if others := {row["model"] for row in report.rows} - {name}:
        raise ValueError(f"the report has scores of {', '.join(sorted(others))}: --resume cannot go on with {name}")
    files = _left_to_do(files, report)
    bar = tqdm(_score(files, model, args), total=len(files), unit="file", disable=True if args.quiet else None)
    try:
        for path, content, details in bar:
            report.add(make_row(path, details, name, content))
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
    if args.self_test and args != parser.parse_args(["--self-test"]):
        parser.error("--self-test goes alone: it is of the embedded model, on the CPU")
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
