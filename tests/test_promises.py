"""Promises of the README, in its words, that no other test has for its subject."""

from __future__ import annotations

import csv
import re
import runpy

import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import ROOT

from jsqa_metric import JSQAMetric, load_model, score
from jsqa_metric.audio import resample
from jsqa_metric.cli import main
from jsqa_metric.hub import write_folder

RATE = 16000
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_from_the_degraded_signal_alone(speech, noisy):
    wav, reference = torch.from_numpy(noisy[None, :32000]), torch.from_numpy(speech[None, :32000])
    scores = [JSQAMetric(RATE)(wav, target) for target in (None, reference, torch.zeros(3), "nothing")]
    assert len(set(map(float, scores))) == 1


@pytest.mark.parametrize("seconds", [0.1, 0.5, 3, 11.99, 12, 12.01, 40])
def test_any_length(speech, seconds):
    clip = torch.from_numpy(speech).roll(-8000).repeat(8)[: int(seconds * RATE)]
    assert 1 <= score(clip, RATE) <= 5


def test_two_to_768_khz(speech):
    for rate in (2000, 768000):
        assert 1 <= score(speech, rate) <= 5
    for rate in (1999, 768001):
        with pytest.raises(ValueError, match=f"from 2000 to 768000, got {rate}"):
            score(speech, rate)


def test_the_rate_is_never_guessed(speech):
    tensor = torch.from_numpy(speech)
    for audio in (speech, tensor, [speech], [tensor], speech[None]):
        with pytest.raises(ValueError, match="`sample_rate`.*never guessed"):
            score(audio)
    with pytest.raises(TypeError, match="sample_rate"):
        JSQAMetric()


def test_it_punishes_low_level(speech):
    assert score(speech / 10, RATE) < score(speech, RATE) - 0.3


def test_offline_the_cache_is_used_and_a_miss_says_what_to_do(capsys):
    clip = str(ROOT / "examples" / "english_clean.flac")
    assert main([clip, "--offline", "--model", "nobody/has-this-model", "--revision", "0" * 40]) == 2
    captured = capsys.readouterr()
    assert "cannot get model 'nobody/has-this-model'" in captured.err
    assert captured.out == ""


def test_the_code_in_the_readme_runs(tmp_path, monkeypatch, speech):
    lightning = pytest.importorskip("lightning", reason="needs the extra `test`")
    monkeypatch.chdir(tmp_path)
    for name in ("enhanced.wav", "clip.flac", "a.wav", "b.mp3", "talk.wav"):
        sf.write(name, speech, RATE)
    write_folder(load_model(), tmp_path / "path" / "to" / "folder")
    clips = torch.from_numpy(speech[:48000].reshape(3, 16000))
    known = dict.fromkeys(("batch", "waveforms", "padded"), clips)
    known |= {"lengths": torch.tensor([16000, 12000, 8000]), "lightning": lightning}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        code = "\n".join(line for line in block.splitlines() if "owner/name" not in line)  # needs a network
        scope = dict(known)
        exec(compile(code, "README.md", "exec"), scope)
        if "Enhancer" in scope:
            module = scope["Enhancer"]()
            assert list(module.parameters()) == []
            assert module.state_dict() == {}


def test_it_hears_up_to_20_khz(speech):
    fullband = resample(torch.from_numpy(speech)[None], 16000, 48000)[0].numpy()
    hiss = np.fft.rfft(np.random.default_rng(0).standard_normal(len(fullband)))
    hz = np.arange(len(hiss)) * 48000 / len(fullband)
    scores = []
    for top_hz in (8000, 10000, 14000, 20000):
        band = np.fft.irfft(hiss * ((hz >= 8000) & (hz < top_hz)), len(fullband))
        scores.append(score(fullband + 0.02 * fullband.std() * band, 48000))
    assert (np.diff(scores) > 0.03).all()
    quiet_band = np.fft.irfft(hiss * (hz >= 8000), len(fullband)) * 1e-5 * fullband.std()
    assert score(fullband + quiet_band, 48000) == pytest.approx(scores[0], abs=0.01)  # not heard
    batch = np.stack([np.pad(fullband + 0.02 * fullband.std() * band, (0, 48000)), np.full(len(fullband) + 48000, 0.1)])
    assert score(batch, 48000, lengths=[len(fullband), 48000])[0] == pytest.approx(scores[-1], abs=1e-5)


def _results(part):
    lines = (ROOT / "benchmarks" / "results" / part / f"{part}.csv").read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _table(first_line):
    """Rows of a table of the README by their first cell, without the heads and bold print."""
    lines = README[README.index(first_line) :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


SHORT_NAMES = {
    "jsqa_metric, each clip at -26 dBFS (`level_db`)": "jsqa_level",
    "jsqa_metric, light weights": "jsqa_light",
    "jsqa_metric": "jsqa",
    "NISQA v2": "nisqa",
    "NISQA v2 (torchmetrics)": "nisqa",
    "Distill-MOS": "distillmos",
    "DNSMOS P.808": "dnsmos_p808",
    "DNSMOS Pro": "dnsmospro",
    "PLCMOS": "plcmos",
}


def test_the_agreement_in_the_readme_is_that_of_the_results():
    found = {(row["set"], row["metric"]): row["pcc"] for row in _results("accuracy") if row["level"] == "file"}
    table = _table("| | TCD-VoIP")
    assert len(table) == 8
    for name, cells in table.items():
        expected = [f"{float(found[rated, SHORT_NAMES[name]]):.3f}" for rated in ("tcd", "p808", "codec")]
        assert cells == expected, name


def test_the_cost_in_the_readme_is_that_of_the_results():
    kinds = [("clip", 1, 1), ("clip", 8, 1), ("batch", 8, 16), ("clip", 3600, 1)]
    found = {
        (row["metric"], row["kind"], float(row["seconds"]), int(row["batch"])): row
        for row in _results("speed")
        if row["threads"] == "2"
    }
    for name, cells in _table("| | seconds per second of audio").items():
        rows = [found[(SHORT_NAMES[name], *kind)] for kind in kinds]
        for cell, row in zip(cells, rows, strict=False):
            assert cell == (f"{float(row['cost']):.4f}" if row["cost"] else "–"), (name, row)
        assert cells[-1] == f"{float(rows[1]['memory_mb']):.0f} MB"


def test_the_cost_of_the_light_weights_in_the_readme_is_that_of_the_results():
    ratios = {(row["metric"], row["kind"], row["threads"]): row["ratio"] for row in _results("speed")
              if float(row["seconds"]) == 8}  # fmt: skip
    places = [("clip", "1"), ("clip", "2"), ("batch", "2")]
    light, default = ([f"{float(ratios[(name, *place)]):.1f}" for place in places] for name in ("jsqa_light", "jsqa"))
    part = README[README.index("**The light weights**") :].split("\n\n")[0]
    assert re.findall(r"\d+\.\d", part) == [*light[:2], *default[:2], light[2], default[2]]


def test_the_example_improves_a_clip_by_gradient(noisy):
    improve = runpy.run_path(str(ROOT / "examples" / "improve_by_gradient.py"))["improve"]
    clip = torch.from_numpy(noisy[: 2 * RATE])
    assert score(improve(clip, RATE, steps=8), RATE) > score(clip, RATE) + 0.1
