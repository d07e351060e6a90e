"""`jsqa-score` as a user runs it."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
from conftest import EXAMPLES

from jsqa_metric import __version__, score
from jsqa_metric.cli import main
from jsqa_metric.report import read_report

COMMAND = [sys.executable, "-m", "jsqa_metric.cli"]


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_folder_scores_as_the_function(capsys):
    status, out, err = run(capsys, EXAMPLES)
    rows = rows_of(out)
    assert status == 0
    paths = sorted(str(p) for p in EXAMPLES.glob("*.flac"))
    assert [r["path"] for r in rows] == paths
    np.testing.assert_allclose([float(r["mos"]) for r in rows], score(paths), atol=1e-4)
    assert {r["status"] for r in rows} == {"ok"}
    assert rows[0]["sample_rate"] == "16000"
    assert f"n = {len(paths)})" in err
    assert err.splitlines()[-1].startswith("mean MOS")
    assert "95 % interval" in err.splitlines()[-1]
    assert "path" not in err, "data belongs on stdout"


def test_bad_files_are_rows_with_a_reason_and_the_rest_is_scored(capsys, tmp_path, speech):
    good = tmp_path / "good.wav"
    sf.write(good, speech, 16000)
    data = good.read_bytes()
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no audio here")
    (tmp_path / "header.wav").write_bytes(data[:30])
    sf.write(tmp_path / "no-samples.wav", np.zeros(0), 16000)
    sf.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    sf.write(tmp_path / "click.wav", np.ones(100), 16000)
    sf.write(tmp_path / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    sf.write(tmp_path / "cut.flac", speech, 16000)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:20000])
    (tmp_path / "link.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "loop").symlink_to(tmp_path)
    shutil.copy(good, tmp_path / "line\nbreak, comma.wav")
    shutil.copy(good, os.fsencode(tmp_path) + b"/latin-\xe4.wav")
    lying = bytearray(data)
    lying[40:44] = (2**31).to_bytes(4, "little")
    (tmp_path / "lying.wav").write_bytes(lying)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "self.wav").symlink_to(tmp_path / "self.wav")
    (tmp_path / "wave-in.flac").write_bytes(data)
    no_channels = bytearray(data)
    no_channels[22:24] = b"\0\0"
    (tmp_path / "no-channels.wav").write_bytes(no_channels)

    status, out, err = run(capsys, "-r", tmp_path)
    reasons = {r["path"].rpartition("/")[2]: r["status"] for r in rows_of(out)}
    assert status == 1
    for name in ("good.wav", "line\nbreak, comma.wav", "latin-\\xe4.wav", "lying.wav", "wave-in.flac"):
        assert reasons.pop(name) == "ok", name
    expected = {
        "empty.wav": "not a readable", "text.wav": "not a readable", "header.wav": "", "no-samples.wav": "empty",
        "silence.wav": "silent", "click.wav": "too short", "nan.wav": "NaN", "cut.flac": "damaged",
        "link.wav": "no such file", "pipe.wav": "not a file", "self.wav": "no such file",
        "no-channels.wav": "not a readable",
    }  # fmt: skip
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in reasons[name], name
        assert reasons[name] != "ok"
    assert f"{len(expected)} not scored" in err


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_reports(capsys, tmp_path, suffix):
    report = tmp_path / f"report{suffix}"
    arguments = [EXAMPLES / "english_clean.flac", tmp_path / "missing.wav", "-o", report]
    status, out, _ = run(capsys, *arguments)
    assert (status, out) == (1, "")
    missing, clip = sorted(read_report(report), key=lambda row: row["status"])
    assert clip["mos"] == pytest.approx(score(EXAMPLES / "english_clean.flac"), abs=1e-4)
    assert missing["mos"] is None
    assert "no such file" in missing["status"]
    if suffix == ".json":
        assert None in [row["mos"] for row in json.loads(report.read_text())]
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert "--force" in err
    assert run(capsys, *arguments, "--force")[0] == 1
    assert [p.name for p in tmp_path.iterdir()] == [report.name], "temporary files are left"


def test_a_report_that_is_a_link_stays_one(capsys, tmp_path):
    link, target = tmp_path / "link.csv", tmp_path / "there" / "report.csv"
    target.parent.mkdir()
    link.symlink_to(target)
    assert run(capsys, EXAMPLES / "english_clean.flac", "-o", link)[0] == 0
    assert link.is_symlink()
    assert len(read_report(target)) == 1


def test_a_file_named_in_several_ways_is_scored_once(capsys, tmp_path, monkeypatch):
    shutil.copy(EXAMPLES / "english_clean.flac", tmp_path / "a.flac")
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, "a.flac", "./a.flac", tmp_path / "a.flac", ".")
    assert (status, len(rows_of(out))) == (0, 1)
    assert "n = 1" in err


def test_a_report_never_replaces_an_input(capsys, tmp_path):
    clip = shutil.copy(EXAMPLES / "english_clean.flac", tmp_path / "a.csv")
    status, _, err = run(capsys, clip, "-o", clip, "--force")
    assert status == 2
    assert "would replace an input" in err


def test_two_systems_are_compared_clip_by_clip(capsys, tmp_path, speech, noisy):
    signals = {"clean/a.wav": speech, "noisy/a.flac": noisy, "clean/sub/b.wav": speech, "noisy/sub/b.wav": noisy}
    for name, signal in signals.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(tmp_path / name, signal * (0.5 if "b" in name else 1), 16000)
    sf.write(tmp_path / "clean" / "alone.wav", speech, 16000)
    status, out, err = run(capsys, tmp_path / "clean", "--against", tmp_path / "noisy", "-r")
    assert status == 0
    mos = {row["path"].split("/")[-1]: float(row["mos"]) for row in csv.DictReader(io.StringIO(out))}
    assert len(out.splitlines()) == 6
    gains = [mos["a.wav"] - mos["a.flac"]]
    assert "better in 100% (n = 2 pairs)" in err
    mean = float(re.search(r"MOS ([+-][0-9.]+) against the other, 95 % interval", err)[1])
    assert mean == pytest.approx(gains[0], abs=0.5)
    assert mean > 0.5
    one = run(capsys, tmp_path / "clean", "--against", tmp_path / "noisy")[2]
    assert f"MOS {gains[0]:+.3f} against the other, better in 100% (n = 1 pairs)" in one


def test_a_folder_is_compared_with_one_inside_it_however_it_is_named(capsys, tmp_path, speech, noisy, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noisy").mkdir()
    for name, signal in {"a.wav": speech, "b.wav": speech, "b.flac": noisy, "noisy/a.wav": noisy}.items():
        sf.write(name, signal, 16000)
    for name in ("noisy", "./noisy", tmp_path / "noisy"):
        status, _, err = run(capsys, ".", "-r", "--against", name)
        assert status == 0
        assert "better in 100% (n = 1 pairs)" in err
    sf.write("noisy/b.wav", noisy, 16000)  # the same name goes before the same stem
    assert "better in 100% (n = 2 pairs)" in run(capsys, ".", "-r", "--against", "noisy")[2]
    os.rename("noisy/b.wav", "noisy/b.ogg.wav")
    sf.write("noisy/b.ogg", noisy, 16000)
    status, _, err = run(capsys, ".", "-r", "--against", "noisy")
    assert status == 2
    assert "'b' has several suffixes" in err


def test_every_audio_file_of_a_folder_is_a_row(capsys, tmp_path, speech):
    for name, kind in {"a.aifc": "AIFF", "b.snd": "AU", "c.sph": "NIST", "d.WAV": "WAV"}.items():
        sf.write(tmp_path / name, speech, 16000, format=kind)
    (tmp_path / "e.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    (tmp_path / "notes.txt").write_text("no audio")
    status, out, _ = run(capsys, tmp_path)
    assert status == 1
    rows = {os.path.basename(row["path"]): row["status"] for row in csv.DictReader(io.StringIO(out))}
    assert list(rows) == ["a.aifc", "b.snd", "c.sph", "d.WAV", "e.m4a"]
    assert [status == "ok" for status in rows.values()] == [True] * 4 + [False]


def test_files_at_one_level(capsys, tmp_path):
    clip, report = EXAMPLES / "english_clean.flac", tmp_path / "report.csv"
    audio, rate = sf.read(clip)
    sf.write(tmp_path / "quiet.flac", audio / 10, rate, subtype="PCM_24")
    status, out, _ = run(capsys, clip, tmp_path / "quiet.flac", "--level-db", "-26")
    assert status == 0
    second, first = sorted(rows_of(out), key=lambda row: "quiet" not in row["path"])
    assert first["model"].endswith(" level -26 dBFS")
    assert float(first["mos"]) == pytest.approx(score(clip, level_db=-26), abs=1e-5)
    assert float(second["mos"]) == pytest.approx(float(first["mos"]), abs=0.05)
    assert run(capsys, clip, "-o", report)[0] == 0
    status, _, err = run(capsys, clip, "-o", report, "--resume", "--level-db", "-26")
    assert status == 2
    assert "--resume cannot go on" in err


def test_usage_errors(capsys, tmp_path):
    clip = EXAMPLES / "english_clean.flac"
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "sounds").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "no" / "r.csv")
    shutil.copy(clip, tmp_path / "sounds" / "other.flac")
    for arguments, message in [
        ([tmp_path], "no audio files"),
        ([clip, "-o", "report.xls"], "must end in"),
        ([clip, "-o", tmp_path / "no" / "r.csv"], "no such folder"),
        ([clip, "-o", tmp_path / "link.csv"], "no such folder"),
        ([clip, "-o", tmp_path / "folder.csv"], "is a folder or a device"),
        ([clip, "--channel", "left"], "`channel`"),
        ([clip, "--batch-size", "0"], "`batch_size` must be"),
        ([clip, "--level-db", "20"], "`level_db` must be"),
        ([clip, "--model", "nothing"], "no model 'nothing'"),
        ([clip, "--device", "abacus"], "`device`"),
        ([clip, "--resume"], "-o FILE"),
        ([clip, "--against", EXAMPLES], "compares two folders"),
        ([EXAMPLES, "--against", tmp_path / "sounds"], "has its name in"),
    ]:
        status, out, err = run(capsys, *arguments)
        assert status == 2
        assert message in err
        assert out == ""
    with pytest.raises(SystemExit, match="2"):
        main(["--nonsense"])


def test_self_test_prints_the_golden_scores(capsys):
    status, out, err = run(capsys, "--self-test")
    assert status == 0
    assert len(out.splitlines()) == 1 + len(list(EXAMPLES.glob("*.flac")))
    assert "largest difference: 0.000" in err
    for wrong in ([], ["--self-test", str(EXAMPLES)], ["--self-test", "-o", "r.csv"]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)


def test_version_and_quiet(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert __version__ in capsys.readouterr().out
    assert run(capsys, EXAMPLES / "english_clean.flac", "--quiet")[2] == ""


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.run(f"{' '.join(COMMAND)} {EXAMPLES} | head -1", shell=True, capture_output=True, text=True)
    assert process.stdout.startswith("path,")
    assert "Traceback" not in process.stderr


@pytest.mark.skipif(os.name != "posix", reason="closes streams with a POSIX shell")
@pytest.mark.skipif(
    importlib.util.find_spec("pretty_errors") is not None,
    reason="pretty_errors needs stderr at import",
)
def test_closed_streams_are_no_error(tmp_path):
    clip, report = EXAMPLES / "english_clean.flac", tmp_path / "report.csv"
    command = f"{' '.join(COMMAND)} {clip} -o {report} >&- 2>&-"
    assert subprocess.run(command, shell=True, stdin=subprocess.DEVNULL).returncode == 0
    assert [row["status"] for row in read_report(report)] == ["ok"]


def test_a_header_that_claims_a_million_years_costs_nothing(tmp_path, speech, monkeypatch):
    sf.write(tmp_path / "clip.wav", speech, 16000)
    monkeypatch.setattr(sf.SoundFile, "frames", property(lambda self: 2**62))
    with pytest.warns(UserWarning, match="ends after 84160 of 4611686018427387904 samples"):
        assert np.isnan(score([tmp_path / "clip.wav"]))


def test_files_damaged_at_random_are_scored_or_have_a_reason(tmp_path, speech):
    rng = np.random.default_rng(0)
    paths = []
    for suffix in ("wav", "flac", "ogg", "mp3"):
        sf.write(tmp_path / f"whole.{suffix}", speech[:24000], 16000)
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        for number in range(30):
            damaged = bytearray(whole)
            reach = 80 if rng.random() < 0.6 else len(damaged)  # headers more often than audio
            for place in rng.integers(0, reach, rng.integers(1, 12)):
                damaged[place] = rng.integers(256)
            cut = int(rng.integers(1, len(damaged))) if rng.random() < 0.3 else len(damaged)
            paths.append(tmp_path / f"{number}.{suffix}")
            paths[-1].write_bytes(damaged[:cut])
    with pytest.warns(UserWarning, match="not scored"):
        details = score(paths, return_details=True)
    assert len(details) == len(paths)
    assert all((d.reason is None) == (1 <= d.mos <= 5) for d in details)
    reasons = {d.reason.partition(" (")[0] for d in details if d.reason}
    assert {"not a readable audio file", "damaged audio file"} <= reasons
