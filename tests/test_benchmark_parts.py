"""What the benchmarks are made of: measures, adapters, processes of their own, timing, tables."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

pd = pytest.importorskip("pandas", reason="needs the bench extra")
pytest.importorskip("scipy", reason="needs the bench extra")
pytest.importorskip("soxr", reason="needs the bench extra")
pytest.importorskip("matplotlib", reason="needs the bench extra")

from conftest import small_model, write_noise  # noqa: E402
from scipy import stats  # noqa: E402

from benchmarks import probes, report, robustness, speed, timing, worker  # noqa: E402
from benchmarks.baselines import Unavailable, base, make, trained, wav2vec  # noqa: E402
from benchmarks.datasets import read_set  # noqa: E402
from benchmarks.measures import agreement, first_order_map, intervals, paired_test, pcc, srcc  # noqa: E402
from benchmarks.scores import score_clips  # noqa: E402
from benchmarks.worker import Worker, WorkError  # noqa: E402
from jsqa_metric.hub import write_folder  # noqa: E402
from training.projection import NonMatching, projection_head  # noqa: E402

RATE = 16000


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
    bounds = intervals(x, y, resamples=500)
    for name in ("pcc", "srcc", "rmse", "mae", "rmse_mapped"):
        assert bounds[f"{name}_low"] < found[name] < bounds[f"{name}_high"], name


def test_few_clips_have_intervals_too():
    x, y = np.array([1.0, 2, 3, 4, 4.5]), np.array([1.5, 2, 2, 4, 5])
    bounds = intervals(x, y, resamples=500)
    assert bounds["pcc_low"] < pcc(x, y) <= bounds["pcc_high"] <= 1


def test_constant_scores_have_no_correlation():
    y = np.arange(5.0)
    assert math.isnan(agreement(np.ones(5), y)["pcc"])
    assert math.isnan(intervals(np.ones(5), y, 100)["pcc_low"])
    assert intervals(np.ones(5), y, 100)["rmse_low"] > 0
    assert np.allclose(first_order_map(np.ones(5), y), 2.0)
    few = agreement(y[:2], y[:2])
    assert few.pop("n") == 2
    assert np.isnan(list(few.values())).all()


def test_paired_test_sees_a_difference_and_none():
    rng = np.random.default_rng(0)
    y = rng.standard_normal(150)
    good, bad = y + 0.3 * rng.standard_normal(150), y + 2 * rng.standard_normal(150)
    found = paired_test(good, bad, y, resamples=500)
    assert found["p"] < 0.01
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert paired_test(good, good, y, resamples=500)["p"] == 1.0


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
    sf.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)
    ours = make("jsqa")
    ours.load()
    audio, rate = base.read_mono(tmp_path / "a.wav")
    assert base.score_file(ours, tmp_path / "a.wav") == pytest.approx(float(ours.score(audio, rate)), abs=1e-4)


@pytest.fixture
def relatives(tmp_path, monkeypatch, speech):
    """Folders as `training.baselines` leaves them, with random weights; clean speech is the reference."""
    monkeypatch.setattr(trained, "TRAINED", tmp_path)
    for run in ("jsqa_published", "scoreq_style"):
        model = small_model("spectrogram")
        write_folder(model, tmp_path / run / "model")
    metric = NonMatching(model, projection_head(model.embedding_size)).eval()
    metric.refer_to([torch.from_numpy(speech)])
    metric.write(tmp_path / "scoreq_style" / "model")
    return tmp_path


@pytest.mark.parametrize("name", ["jsqa_published", "scoreq_style", "scoreq_style_nmr"])
def test_relatives_score_or_say_how_to_train_them(name, relatives, speech, noisy):
    metric = make(name)
    assert (metric.name, metric.spec) == (name, name)
    metric.load()
    one = float(metric.score(noisy, RATE))
    batch = np.stack([noisy, np.pad(speech[:RATE], (0, len(noisy) - RATE))])
    assert metric.score_padded(batch, [len(noisy), RATE], RATE)[0] == pytest.approx(one, abs=1e-4)
    assert len(metric.score(batch, RATE)) == 2
    assert np.isfinite(metric.gradient(noisy, RATE)).all()
    if name == "scoreq_style_nmr":
        assert metric.score(speech, RATE) == pytest.approx(5, abs=1e-3)  # the reference itself
        assert one < metric.score(speech, RATE)
    metric.files[-1].unlink()
    with pytest.raises(Unavailable, match=f"not trained: run `python -m training.baselines {metric.run}`"):
        make(name).load()


def test_a_model_folder_is_named_by_its_run_and_found_again(tmp_path):
    folder = tmp_path / "default" / "model"  # as in `runs/default/model`
    write_folder(small_model("spectrogram"), folder)
    ours = make(str(folder))
    assert ours.name == "default"
    assert make(ours.spec).files == ours.files
    assert make("jsqa").spec == "jsqa"


def test_linear_head_finds_a_linear_relation():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((200, 5))
    weights, offset = wav2vec.fit_head(features, features @ np.arange(5.0) + 3, ridge=1e-6)
    assert np.allclose(weights, np.arange(5.0), atol=1e-4)
    assert offset == pytest.approx(3, abs=1e-4)


@pytest.fixture
def tiny_wav2vec(tmp_path, monkeypatch):
    """The adapter with a network of random weights in a folder, and no head yet."""
    transformers = pytest.importorskip("transformers", reason="needs the bench extra")
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 8}
    sizes |= {"conv_dim": (4,) * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**sizes)).save_pretrained(tmp_path / "network")
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "network")
    monkeypatch.setattr(wav2vec, "HEAD", tmp_path / "head.npz")
    monkeypatch.setattr(wav2vec.Wav2vec, "repository", str(tmp_path / "network"))
    return make("wav2vec2")


def test_wav2vec_scores_by_its_pooled_features_and_its_head(tiny_wav2vec, tmp_path):
    with pytest.raises(Unavailable, match="head is not fitted"):
        tiny_wav2vec.load()
    write_noise(tmp_path / "a.wav")
    audio, rate = base.read_mono(tmp_path / "a.wav")
    features = tiny_wav2vec.embed(audio)
    assert features.shape == (8,)
    assert np.allclose(
        tiny_wav2vec.embed(audio * 0.5), features, atol=1e-3
    )  # as published: of zero mean, unit variance
    np.savez(wav2vec.HEAD, weights=np.arange(8.0), offset=3.0)
    tiny_wav2vec.load()
    assert tiny_wav2vec.score(audio, rate) == pytest.approx(features @ np.arange(8.0) + 3, abs=1e-4)


def test_wav2vec_without_network_says_so(monkeypatch):
    pytest.importorskip("transformers", reason="needs the bench extra")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(wav2vec.Wav2vec, "repository", "nobody/nothing")
    with pytest.raises(Unavailable, match="no weights of nobody/nothing in the Hub's cache, nor from the Hub"):
        make("wav2vec2").load()


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


def test_a_metric_that_fails_is_not_timed_and_others_are(monkeypatch):
    class Fails(timing.Floor):
        def score_path(self, path):
            raise RuntimeError("it broke")

    monkeypatch.setattr(timing, "limit_cores", lambda cores: None)
    monkeypatch.setattr(timing, "make", lambda name: Fails())
    costs = timing.time_in_turn(["fails", timing.FLOOR], "clip", 1.0, 1, "cpu", 2, 1.0)
    assert costs["fails"] == {"note": "RuntimeError: it broke"}
    assert costs[timing.FLOOR]["runs"] == 2


def test_what_failed_is_not_asked_for_more(monkeypatch):
    def measure(name, kind, size, args):
        asked.append((name, kind, size))
        return {"note": "too long"} if kind == "clip" and size > 1 else {"memory_mb": 1.0}

    asked = []
    monkeypatch.setattr(speed, "_memory", measure)
    monkeypatch.setattr(speed, "_timed", lambda rows, *rest: rows.items())
    args = argparse.Namespace(seconds=[60, 1, 8], batches=[2], threads=[1])
    rows = list(speed.measure(["a"], args))
    assert asked == [("a", "clip", 1), ("a", "clip", 8), ("a", "batch", 2)]
    assert rows[2] == ("a", {"note": "not tried: with 8, too long"})


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


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="needs Linux's /proc")
def test_memory_tells_data_from_code():
    before = worker.code_memory()
    assert before > 1e6  # Python and torch are in use
    kept = np.ones(8_000_000)
    assert abs(worker.code_memory() - before) < 1e6 < kept.nbytes
