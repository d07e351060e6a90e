"""The benchmarks on small made-up sets; what needs peers' packages or weights is skipped with the reason."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import soundfile as sf

pd = pytest.importorskip("pandas", reason="needs the bench extra")
pytest.importorskip("scipy", reason="needs the bench extra")
pytest.importorskip("soxr", reason="needs the bench extra")
pytest.importorskip("matplotlib", reason="needs the bench extra")

from scipy import stats  # noqa: E402

from benchmarks import accuracy, probes, report, robustness, speed  # noqa: E402
from benchmarks.baselines import NAMES, Baseline, Unavailable, base, make, wav2vec  # noqa: E402
from benchmarks.datasets import read_set  # noqa: E402
from benchmarks.measures import agreement, first_order_map, interval, paired_test, pcc, srcc  # noqa: E402
from benchmarks.scores import score_clips  # noqa: E402
from benchmarks.worker import Worker, WorkError  # noqa: E402

RATE = 16000


def write(path, level=0.1, seconds=0.5, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(int(1000 * level)).standard_normal((int(seconds * RATE), channels))
    sf.write(path, np.clip(level * noise, -1, 1), RATE)


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


@pytest.fixture
def folder(tmp_path):
    """12 clips of two conditions and a reference, in our layout."""
    place, rows = tmp_path / "own", ["file,mos,condition"]
    for index in range(12):
        write(place / f"clip_{index:02d}.wav", level=0.02 * (index + 1))
        rows.append(f"clip_{index:02d}.wav,{1 + index / 3:.3f},{'ab'[index % 2]}")
    write(place / "clip_ref.wav", 0.3)
    (place / "labels.csv").write_text("\n".join([*rows, "clip_ref.wav,5,Reference"]) + "\n")
    return place


def test_reads_own_layout_and_finds_references(folder):
    (rated,) = read_set(folder)
    assert rated.name == "own"
    assert len(rated.clips) == 13
    assert rated.clips[3].condition == "b"
    assert rated.clips[3].mos == pytest.approx(2.0)
    assert rated.clips[3].reference == folder / "clip_ref.wav"
    assert rated.clips[-1].reference is None


def test_reference_column_wins(folder):
    write(folder / "clean.wav", 0.2)
    (folder / "labels.csv").write_text("file,mos,reference\nclip_00.wav,2,clean.wav\nclip_01.wav,3,\n")
    clips = read_set(folder)[0].clips
    assert clips[0].reference == folder / "clean.wav"
    assert clips[1].reference is None
    assert clips[1].condition == ""


@pytest.mark.parametrize("column", ["file", "filename_deg"])
def test_reads_nisqa_corpus(tmp_path, column):
    for split in ("NISQA_TEST_FOR", "NISQA_VAL_SIM"):
        write(tmp_path / split / "deg" / "a.wav")
        write(tmp_path / split / "ref" / "r.wav")
        table = f"db,con,{column},filename_ref,mos,noi,dis,col,loud\n{split},7,a.wav,r.wav,3.5,3,3,3,3\n"
        (tmp_path / split / f"{split}_file.csv").write_text(table)
    (tmp_path / "NISQA_corpus_file.csv").write_text("db,con,file,mos\n")
    sets = read_set(tmp_path)
    assert [rated.name for rated in sets] == ["NISQA_TEST_FOR", "NISQA_VAL_SIM"]
    clip = sets[0].clips[0]
    assert (clip.mos, clip.condition) == (3.5, "NISQA_TEST_FOR/7")
    assert clip.reference == tmp_path / "NISQA_TEST_FOR" / "ref" / "r.wav"
    assert read_set(tmp_path / "NISQA_VAL_SIM")[0].clips[0].path.is_file()


def test_reads_nisqa_corpus_by_its_common_table(tmp_path):
    write(tmp_path / "NISQA_TEST_P501" / "deg" / "a.wav")
    (tmp_path / "NISQA_corpus_file.csv").write_text(
        "db,con,file,filepath_deg,mos\nNISQA_TEST_P501,1,a.wav,NISQA_TEST_P501/deg/a.wav,4\n"
    )
    (rated,) = read_set(tmp_path)
    assert rated.name == "NISQA_TEST_P501"
    assert rated.clips[0].path.is_file()


def test_reads_voicemos(tmp_path):
    write(tmp_path / "DATA" / "wav" / "sys01-utt1.wav")
    (tmp_path / "DATA" / "sets").mkdir()
    (tmp_path / "DATA" / "sets" / "val_mos_list.txt").write_text("sys01-utt1.wav,2.5\n")
    (rated,) = read_set(tmp_path)
    assert rated.name.endswith("-val")
    assert rated.clips[0].condition == "sys01"
    assert rated.clips[0].mos == 2.5


@pytest.mark.parametrize(
    ("content", "message"),
    [("file,score\na.wav,1\n", "no column mos"), ("file,mos\nno.wav,1\n", "missing"), (None, "no rated set")],
)
def test_bad_sets_say_why(tmp_path, content, message):
    if content:
        (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_set(tmp_path)


def test_measures_agree_with_scipy():
    rng = np.random.default_rng(0)
    y = rng.uniform(1, 5, 60)
    x = 0.5 * y + rng.standard_normal(60)
    found = agreement(x, y)
    assert found["pcc"] == pytest.approx(stats.pearsonr(x, y)[0])
    assert found["srcc"] == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-5)
    assert found["kendall"] == pytest.approx(stats.kendalltau(x, y)[0], abs=1e-5)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((x - y) ** 2)))
    assert found["rmse_mapped"] == pytest.approx(y.std() * np.sqrt(1 - found["pcc"] ** 2))
    assert pcc(x, y) == pytest.approx(found["pcc"])
    assert srcc(x, y) == pytest.approx(found["srcc"], abs=1e-5)
    low, high = interval(x, y, resamples=500)
    assert low < found["pcc"] < high


def test_constant_scores_have_no_correlation():
    y = np.arange(5.0)
    assert math.isnan(agreement(np.ones(5), y)["pcc"])
    assert math.isnan(interval(np.ones(5), y)[0])
    assert np.allclose(first_order_map(np.ones(5), y), 2.0)
    assert agreement(y[:2], y[:2]) == {"n": 2}


def test_paired_test_sees_a_difference_and_none():
    rng = np.random.default_rng(0)
    y = rng.standard_normal(150)
    good, bad = y + 0.3 * rng.standard_normal(150), y + 2 * rng.standard_normal(150)
    found = paired_test(good, bad, y, resamples=500)
    assert found["p"] < 0.01
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert paired_test(good, good, y, resamples=500)["p"] == 1.0


def test_scores_are_kept_by_content(folder, tmp_path):
    clips, cache = read_set(folder)[0].clips, tmp_path / "cache"
    first = Loudness()
    scores, note = score_clips(first, clips, folder=cache)
    assert (first.calls, first.loads, note) == (13, 1, "")
    (folder / "clip_00.wav").rename(folder / "renamed.wav")
    (folder / "labels.csv").write_text("file,mos\nrenamed.wav,1\n")
    again = Loudness()
    assert score_clips(again, read_set(folder)[0].clips, folder=cache)[0] == scores[:1]
    assert (again.calls, again.loads) == (0, 0)
    write(folder / "renamed.wav", 0.5)
    assert score_clips(again, read_set(folder)[0].clips, folder=cache)[0] != scores[:1]


def test_full_reference_leaves_references_out(folder, tmp_path):
    scores, _ = score_clips(Loudness(full_reference=True), read_set(folder)[0].clips, folder=tmp_path / "cache")
    assert math.isnan(scores[-1])
    assert np.isfinite(scores[:-1]).all()


def test_accuracy_writes_everything_whatever_peers_do(folder, tmp_path):
    out = tmp_path / "out"
    baselines = [Loudness(), Missing(), Broken()]
    baselines[0].name = "jsqa"
    (rated,) = read_set(folder)
    clips, notes = accuracy.score_set(rated, baselines, cache=tmp_path / "cache")
    assert set(notes) == {"missing", "broken"}
    assert clips["jsqa"].notna().all()
    table = accuracy.set_table("own", clips, ["jsqa", "missing", "broken"], notes, 100)
    row = table.set_index(["level", "metric"]).loc[("file", "jsqa")]
    assert row["pcc"] > 0.9
    assert row["n"] == 13
    accuracy.run([folder], baselines, out, "cpu", 100, ["command: test"], tmp_path / "cache")
    page = (out / "README.md").read_text()
    assert "cannot run: no weights" in page
    assert "it broke" in page
    for name in ("accuracy.csv", "conditions.csv", "paired.csv", "scores.csv"):
        text = (out / name).read_text()
        assert text.startswith("# command: test")
    assert (out / "own-scatter.png").is_file()
    assert (out / "own-conditions.png").is_file()
    assert len(pd.read_csv(out / "scores.csv", comment="#")) == 13


def test_every_metric_says_what_it_is_and_loads_or_says_why(monkeypatch):
    def no_download(url, path):
        if not path.is_file():
            raise Unavailable("no network in tests")
        return path

    for module in ("scoreq_package", "squim", "wav2vec"):
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


def test_fetch_names_the_file_and_the_address(tmp_path):
    with pytest.raises(Unavailable, match="no weights at .*w.pt, and no download from file:///"):
        base.fetch("file:///nowhere/w.pt", tmp_path / "w.pt")
    assert not list(tmp_path.iterdir())


def test_files_are_mixed_down_and_resampled(tmp_path):
    sf.write(tmp_path / "a.wav", np.stack([np.ones(48000), np.zeros(48000)], 1) * 0.5, 48000)
    audio, rate = base.fit_rate(*base.read_mono(tmp_path / "a.wav"), RATE)
    assert (rate, audio.shape, audio.dtype) == (RATE, (RATE,), np.float32)
    assert audio[RATE // 2] == pytest.approx(0.25, abs=1e-3)


def test_ours_scores_files_as_arrays(tmp_path):
    write(tmp_path / "a.wav", 0.1, seconds=1.0)
    ours = make("jsqa")
    ours.load()
    audio, rate = base.read_mono(tmp_path / "a.wav")
    assert base.score_file(ours, tmp_path / "a.wav") == pytest.approx(float(ours.score(audio, rate)), abs=1e-4)


def test_linear_head_finds_a_linear_relation():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((200, 5))
    weights, offset = wav2vec.fit_head(features, features @ np.arange(5.0) + 3, ridge=1e-6)
    assert np.allclose(weights, np.arange(5.0), atol=1e-4)
    assert offset == pytest.approx(3, abs=1e-4)


def _act(what):
    if what == "raise":
        raise KeyError("no")
    if what == "hang":
        time.sleep(60)
    return what


def test_worker_survives_errors_and_hanging():
    with Worker(_act) as worker:
        assert worker.call("fine", timeout=60) == "fine"
        with pytest.raises(WorkError, match="KeyError"):
            worker.call("raise", timeout=60)
        with pytest.raises(WorkError, match="no answer within 0.2 s"):
            worker.call("hang", timeout=0.2)
        assert worker.call("again", timeout=60) == "again"


def test_probes_of_a_metric_that_ignores_everything():
    found = {name: probe(Loudness()) for name, probe in probes.PROBES.items() if name != "bounds"}
    assert found["silence"][0] == "-"
    assert found["repeated"] == ("+", "0.0000")
    assert found["gradient"] == ("-", "not differentiable")
    assert found["nan"] == ("+", "NaN")
    assert all(probes.describe(name) for name in probes.PROBES)


def test_robustness_tables_keep_those_that_cannot_run():
    rows = [{"metric": "a", "probe": name, "mark": "+", "finding": "fine"} for name in probes.PROBES]
    rows.append({"metric": "b", "probe": "all", "mark": "", "finding": "cannot run: no weights"})
    text = "\n".join(robustness.tables(pd.DataFrame(rows)))
    assert f"{len(probes.PROBES)} of {len(probes.PROBES)}" in text
    assert "- b: cannot run: no weights" in text


def test_speed_command_fills_its_tables(tmp_path):
    options = ["--seconds", "1", "--batches", "2", "--threads", "1", "--rounds", "2", "--baselines", "jsqa"]
    speed.main([*options, "--out", str(tmp_path)])
    table = pd.read_csv(tmp_path / "speed.csv", comment="#")
    assert len(table) == 4
    assert (table["cost"] > 0).all()
    assert (tmp_path / "cost.png").is_file()
    assert "One clip of 1 s, 1 core" in (tmp_path / "README.md").read_text()


def test_markdown_escapes_bars_and_shows_gaps():
    text = report.markdown(pd.DataFrame({"a": [1.23456, math.nan], "b": ["x|y", None]}))
    assert text == "| a | b |\n| --- | --- |\n| 1.235 | x/y |\n| – | – |\n"


@pytest.mark.parametrize(("metric", "expected"), [("nisqa", 0.869), ("dnsmospro", 0.787)])
def test_peers_agree_with_the_design(metric, expected, shared, tmp_path):
    baseline = make(metric)
    try:
        baseline.load()
    except Unavailable as error:
        pytest.skip(str(error))
    if not (shared / "human" / "p808").is_dir():
        pytest.skip("needs ../shared/human/p808")
    clips = read_set(shared / "human" / "p808")[0].clips
    scores, _ = score_clips(baseline, clips, folder=tmp_path)
    assert pcc(np.array(scores), np.array([clip.mos for clip in clips])) == pytest.approx(expected, abs=0.005)
