"""The benchmarks on small made-up sets; what needs peers' packages or weights is skipped with the reason."""

from __future__ import annotations

import math
import re
import shutil

import numpy as np
import pytest
import torch

pd = pytest.importorskip("pandas", reason="needs the bench extra")
pytest.importorskip("scipy", reason="needs the bench extra")
pytest.importorskip("soxr", reason="needs the bench extra")
pytest.importorskip("matplotlib", reason="needs the bench extra")


from conftest import ROOT, write_noise  # noqa: E402

from benchmarks import __main__ as overview  # noqa: E402
from benchmarks import accuracy, curves, probes, report  # noqa: E402
from benchmarks.baselines import NAMES, Baseline, Unavailable, make  # noqa: E402
from benchmarks.datasets import read_set  # noqa: E402
from benchmarks.scores import score_clips  # noqa: E402

RATE = 16000


class Loudness(Baseline):
    """A metric for tests: louder is better."""

    name = "loudness"
    licence = "-"

    def __init__(self, full_reference=False):
        self.calls, self.loads, self.full_reference = 0, 0, full_reference

    def load(self, device="cpu"):
        self.loads += 1

    def score(self, audio, sample_rate, reference=None):
        self.calls += 1
        return float(np.sqrt(np.mean(np.square(audio))))


class Missing(Loudness):
    name = "missing"

    def load(self, device="cpu"):
        raise Unavailable("no weights")


class Broken(Loudness):
    name = "broken"

    def score(self, audio, sample_rate, reference=None):
        raise RuntimeError("it broke")


def test_the_example_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "CACHE", tmp_path / "cache")
    (line,) = re.findall(r"^printf '(.*)' > mine/labels.csv$", (ROOT / "benchmarks" / "README.md").read_text(), re.M)
    for index, name in enumerate("abc"):
        write_noise(tmp_path / "mine" / f"{name}.wav", 0.1 * (index + 1))
    (tmp_path / "mine" / "labels.csv").write_text(line.replace("\\n", "\n"))
    accuracy.main([str(tmp_path / "mine"), "--baselines", "jsqa", "--out", str(tmp_path / "results")])
    assert "| jsqa | 3 |" in (tmp_path / "results" / "README.md").read_text()


def test_means_of_conditions_are_of_the_clips_that_were_scored():
    rng = np.random.default_rng(0)
    clips = pd.DataFrame({"file": "x", "condition": np.repeat(["a", "b", "c"], 10), "mos": rng.uniform(1, 5, 30)})
    clips["peer"] = clips["mos"].where(clips.index >= 5)  # right wherever it scores
    table = accuracy.set_table("own", clips, ["peer"], {}, 50).set_index("level")
    assert table.loc["condition", "pcc"] == pytest.approx(1)
    assert table.loc["condition", "rmse"] == pytest.approx(0, abs=1e-6)


def test_agreement_at_each_rate_is_told_where_rates_are_mixed():
    mos = np.random.default_rng(0).uniform(1, 5, 20)
    clips = pd.DataFrame({"condition": "", "mos": mos, "sample_rate": [16000, 48000] * 10})
    clips["peer"] = np.where(clips["sample_rate"] == 16000, mos, -mos)
    table = accuracy.rate_table(clips, ["peer", "missing"])
    assert table["rate"].tolist() == ["16000 Hz", "48000 Hz"]
    assert table["peer"].tolist() == pytest.approx([1, -1])
    assert accuracy.rate_table(clips[clips["sample_rate"] == 16000], ["peer"]).empty


def test_scores_are_made_anew_when_an_adapter_changes():
    class Other(Loudness):
        sample_rate = 8000

    class Reader(Loudness):
        def score_path(self, path):
            return 1.0

    assert len({metric.cache_key for metric in (Loudness(), Other(), Reader())}) == 3


def test_scores_are_made_anew_when_what_an_adapter_uses_changes(monkeypatch):
    names = ("dnsmospro", "scoreq_style_nmr", "scoreq_style")
    keys = [make(name).cache_key for name in names]
    assert [make(name).cache_key for name in names] == keys
    monkeypatch.setattr("benchmarks.baselines.dnsmospro._HOP", 80)
    monkeypatch.setattr("training.projection.NonMatching.forward", lambda self, *_: torch.zeros(1))
    assert [make(name).cache_key == key for name, key in zip(names, keys, strict=True)] == [False, False, True]


def test_metrics_of_one_name_are_refused(tmp_path, capsys):
    for place in ("one/run", "two/run", "jsqa"):
        shutil.copytree(ROOT / "src/jsqa_metric/weights/default", tmp_path / place / "model")
    for names in (f"{tmp_path}/one/run/model,{tmp_path}/two/run/model", f"{tmp_path}/jsqa/model"):
        with pytest.raises(SystemExit):
            accuracy.main([str(tmp_path), "--baselines", names])
        assert re.search("two metrics are called|name of another metric", capsys.readouterr().err)


def test_scores_are_kept_by_content(rated_folder, tmp_path):
    clips, cache = read_set(rated_folder)[0].clips, tmp_path / "cache"
    first = Loudness()
    scores, note = score_clips(first, clips, folder=cache)
    assert (first.calls, first.loads, note) == (13, 1, "")
    (rated_folder / "clip_00.wav").rename(rated_folder / "renamed.wav")
    (rated_folder / "labels.csv").write_text("file,mos\nrenamed.wav,1\n")
    again = Loudness()
    assert score_clips(again, read_set(rated_folder)[0].clips, folder=cache)[0] == scores[:1]
    assert (again.calls, again.loads) == (0, 0)
    write_noise(rated_folder / "renamed.wav", 0.5)
    assert score_clips(again, read_set(rated_folder)[0].clips, folder=cache)[0] != scores[:1]


def test_an_interrupted_run_spoils_no_scores(rated_folder, tmp_path):
    clips, cache = read_set(rated_folder)[0].clips, tmp_path / "cache"
    scores, _ = score_clips(Loudness(), clips[:2], folder=cache)
    (file,) = cache.iterdir()
    with file.open("a") as handle:
        handle.write('\n{"key": "0a')  # torn in the middle of a line
    third, again = Loudness(), Loudness()
    assert score_clips(third, clips[:3], folder=cache)[0][:2] == scores
    score_clips(again, clips[:3], folder=cache)
    assert (third.calls, again.calls) == (1, 0)


def test_full_reference_leaves_references_out(rated_folder, tmp_path):
    scores, _ = score_clips(Loudness(full_reference=True), read_set(rated_folder)[0].clips, folder=tmp_path / "cache")
    assert math.isnan(scores[-1])
    assert np.isfinite(scores[:-1]).all()


def test_accuracy_writes_everything_whatever_peers_do(rated_folder, tmp_path):
    out = tmp_path / "out"
    baselines = [Loudness(), Missing(), Broken()]
    baselines[0].name = "jsqa"
    (rated,) = read_set(rated_folder)
    clips, notes = accuracy.score_set(rated, baselines, cache=tmp_path / "cache")
    assert set(notes) == {"missing", "broken"}
    assert clips["jsqa"].notna().all()
    table = accuracy.set_table("own", clips, ["jsqa", "missing", "broken"], notes, 100)
    row = table.set_index(["level", "metric"]).loc[("file", "jsqa")]
    assert row["pcc"] > 0.9
    assert row["n"] == 13
    accuracy.run([rated], baselines, out, "cpu", 100, ["command: test"], tmp_path / "cache")
    page = (out / "README.md").read_text()
    assert "cannot run: no weights" in page
    assert "it broke" in page
    for name in ("accuracy.csv", "conditions.csv", "paired.csv", "scores.csv"):
        text = (out / name).read_text()
        assert text.startswith("# command: test")
    assert (out / "own-scatter.png").is_file()
    assert (out / "own-conditions.png").is_file()
    assert len(pd.read_csv(out / "scores.csv", comment="#")) == 13


def test_the_overview_has_a_row_for_every_metric(rated_folder, tmp_path, monkeypatch):
    found = {"jsqa": Loudness(), "missing": Missing()}
    found["jsqa"].name = "jsqa"
    monkeypatch.setattr(report, "make", found.get)
    monkeypatch.setattr(accuracy, "CACHE", tmp_path / "cache")
    options = ["--baselines", "jsqa,missing", "--out", str(tmp_path / "out"), "--parts", "accuracy"]
    overview.main([str(rated_folder), *options])
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| jsqa | 0.9" in page
    assert "| missing | – | cannot run: no weights |" in page
    assert "[accuracy](accuracy/README.md)" in page


def test_curves_leave_out_what_cannot_run(rated_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "make", {"loudness": Loudness(), "missing": Missing()}.get)
    monkeypatch.setattr(curves, "CURVES", {"gain_db": curves.CURVES["gain_db"]})
    curves.main(
        [str(rated_folder), "--match", "*.wav", "--baselines", "missing,loudness", "--out", str(tmp_path / "out")]
    )
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| value | loudness |" in page
    assert "- missing: Unavailable: no weights" in page


def test_every_metric_says_what_it_is_and_loads_or_says_why(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def no_download(url, path):
        if not path.is_file():
            raise Unavailable("no network in tests")
        return path

    for module in ("scoreq_package", "squim"):
        monkeypatch.setattr(f"benchmarks.baselines.{module}.fetch", no_download)
    for name in NAMES:
        baseline = make(name)
        assert (baseline.name, bool(baseline.licence)) == (name, True)
        assert isinstance(baseline.version, str)
        if name in ("jsqa", "scoreq", "squim", "wav2vec2"):
            try:
                baseline.load()
            except Unavailable as error:
                assert str(error)  # noqa: PT017
    with pytest.raises(ValueError, match="no metric 'nothing'"):
        make("nothing")


def test_probes_of_a_metric_that_ignores_everything():
    found = {name: probe(Loudness()) for name, probe in probes.PROBES.items() if name != "bounds"}
    assert found["silence"][0] == "-"
    assert found["repeated"] == ("+", "0.0000")
    assert found["gradient"] == ("-", "not differentiable")
    assert found["nan"] == ("+", "NaN")
    assert all(probes.describe(name) for name in probes.PROBES)
