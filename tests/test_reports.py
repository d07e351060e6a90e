"""Reports of `jsqa-score`: written whole or not at all, never lost, and read back only if they are sound."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EXAMPLES
from scipy.stats import t as student_t

from jsqa_metric import cli
from jsqa_metric.report import read_report, summary, write_report

CLIP = EXAMPLES / "english_clean.flac"
HEADER = "path,mos,duration_s,sample_rate,status,model\n"
"""Of reports without digests, from before there were any."""
ROW = {"path": "a.wav", "mos": 3.5, "duration_s": 1.0, "sample_rate": 16000, "status": "ok"}
ROW |= {"model": "default@1", "content": "0123456789abcdef"}


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.fixture
def no_scoring(monkeypatch):
    """Fail if work begins: what is wrong must be said before."""

    def score_nothing(*_: object) -> None:
        raise AssertionError("scoring has begun")

    monkeypatch.setattr(cli, "_score", score_nothing)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_a_report_reads_back_as_it_was_written(tmp_path, suffix):
    names = ["a.wav", "", 'quote", comma.wav', "line\nbreak.wav", "ä\u2028.wav", " space ", "=1+1.wav"]
    rows = [ROW | {"path": name} for name in names]
    rows.append(dict.fromkeys(ROW) | {"path": "bad.wav", "status": "?", "model": "m@", "content": ""})
    write_report(rows, tmp_path / f"report{suffix}")
    assert read_report(tmp_path / f"report{suffix}") == rows


def test_a_write_that_fails_leaves_the_old_report_and_nothing_else(tmp_path, monkeypatch):
    report = tmp_path / "report.csv"
    write_report([ROW], report)
    before = report.read_bytes()
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        write_report([ROW, ROW], report)
    assert report.read_bytes() == before
    assert list(tmp_path.iterdir()) == [report]


DAMAGED = {
    "other columns.csv": "name,value\nx,1\n",
    "text for a number.csv": HEADER + "a.flac,good,1,1,ok,m\n",
    "NaN.csv": HEADER + "a.flac,nan,1,1,ok,m\n",
    "ok without a score.csv": HEADER + "a.flac,,1,1,ok,m\n",
    "short row.csv": HEADER + "a.flac,3,1,1,ok\n",
    "bytes.csv": b"\xff\xfe\x00",
    "huge field.csv": HEADER + "a" * 200_000 + ",3,1,1,ok,m\n",
    "cut.json": '[{"path": "a.fl',
    "empty.json": "",
    "no list.json": '{"path": 1}',
    "list of numbers.json": "[1]",
    "list as path.json": json.dumps([ROW | {"path": ["x"]}]),
    "text as score.json": json.dumps([ROW | {"mos": "3"}]),
    "cut.jsonl": json.dumps(ROW) + '\n{"path": "y", "m',
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_report_is_no_report_to_resume(tmp_path, capsys, name, no_scoring):
    content = DAMAGED[name]
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    assert cli.main([str(CLIP), "-o", str(tmp_path / name), "--resume"]) == cli.EXIT_USAGE
    assert "is no report of jsqa-score" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == data, "somebody's file was changed"


def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys, monkeypatch, no_scoring):
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert cli.main([str(CLIP), "-o", str(folder), "--force"]) == cli.EXIT_USAGE
    assert "is a folder" in capsys.readouterr().err
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # tests may run as root, who may write everywhere
    assert cli.main([str(CLIP), "-o", str(tmp_path / "report.csv")]) == cli.EXIT_USAGE
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="such names exist on POSIX only")
def test_resume_knows_odd_names_again(tmp_path, capsys, monkeypatch):
    names = [b"line\nbreak.flac", b"carriage\rreturn.flac", b"both\r\n.flac", b"latin-\xe4.flac", b'comma, quote".flac']
    folder, report = tmp_path / "clips", tmp_path / "report.csv"
    folder.mkdir()
    for name in names:
        shutil.copy(CLIP, os.path.join(os.fsencode(folder), name))
    assert cli.main([str(folder), "-o", str(report)]) == cli.EXIT_OK
    rows = read_report(report)
    assert len(rows) == len(names)
    assert {row["status"] for row in rows} == {"ok"}
    seen = []
    monkeypatch.setattr(cli, "_score", lambda files, *_: seen.extend(files) or iter(()))
    assert cli.main([str(folder), "-o", str(report), "--resume"]) == cli.EXIT_OK
    assert seen == []
    assert read_report(report) == rows


def test_a_folder_that_cannot_be_read_is_a_row(tmp_path, monkeypatch):
    (tmp_path / "secret").mkdir()
    shutil.copy(CLIP, tmp_path / "clip.flac")
    scandir = os.scandir

    def guarded(path="."):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    found = cli.find_files([str(tmp_path)], recursive=True)
    assert [Path(path).name for path in found] == ["clip.flac", "secret"]


@pytest.mark.skipif(sys.platform == "win32", reason="sets the encoding of a POSIX terminal")
def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path):
    shutil.copy(CLIP, tmp_path / "ä.flac")
    process = subprocess.run(
        [sys.executable, "-m", "jsqa_metric.cli", tmp_path], env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "\\xe4.flac," in process.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so asking for it is right")
def test_a_device_that_is_not_there_is_wrong_usage(capsys, no_scoring):
    for device in ("cuda", "meta", "abacus"):
        assert cli.main([str(CLIP), "--device", device]) == cli.EXIT_USAGE
        assert "`device`" in capsys.readouterr().err


@pytest.mark.parametrize("clips", [2, 3, 11, 12, 40])
def test_intervals_are_those_of_student(clips):
    values = np.random.default_rng(clips).uniform(1, 5, clips).tolist()
    mean, half = np.mean(values), student_t.ppf(0.975, clips - 1) * np.std(values, ddof=1) / np.sqrt(clips)
    text = summary([{"mos": value} for value in values])
    low, high = map(float, re.search(r"interval (-?[0-9.]+) to ([0-9.]+)", text).groups())
    assert [low, high] == pytest.approx([mean - half, mean + half], abs=0.002)
