"""JND pairs, the corpus of them, and the classifier of human judgements."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch

pytest.importorskip("lightning", reason="needs the training environment: bash training/install.sh")
pytest.importorskip("pesq", reason="needs the training environment: bash training/install.sh")

from training import jnd, jnd_corpus, jnd_report
from training.data.corpus import SAMPLE_RATE, Corpus, active_rms
from training.data.jnd_human import NOISES, Judgement, Remake, read_judgements
from training.data.jnd_pairs import DrawnPairs, JndPairs, WrittenPairs, collate_pairs, draw_snrs, read_manifest


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Two talkers and two noises, from the example clips."""
    root = tmp_path_factory.mktemp("corpora")
    examples = Path(__file__).parent.parent / "examples"
    for language in ("english", "german"):
        (root / "speech" / f"{language}1").mkdir(parents=True)
        clean, rate = sf.read(examples / f"{language}_clean.flac", dtype="float32")
        noisy, _ = sf.read(examples / f"{language}_noise05.flac", dtype="float32")
        sf.write(root / "speech" / f"{language}1" / "a.flac", clean, rate)
        (root / "noise").mkdir(exist_ok=True)
        sf.write(root / "noise" / f"{language}.flac", noisy - clean, rate)
    return root / "speech", root / "noise"


@pytest.fixture(scope="module")
def pairs(folders) -> JndPairs:
    return JndPairs(Corpus.from_folder(folders[0]), Corpus.from_folder(folders[1]), (1.0, 2.0))


def test_snrs_are_those_of_the_paper():
    rng = np.random.default_rng(0)
    snrs = np.array([draw_snrs(rng) for _ in range(20000)])
    delta = np.abs(snrs[:, 0] - snrs[:, 1])
    assert snrs.min() >= -3
    assert snrs.max() <= 9
    assert delta.max() <= 6
    assert delta.mean() == pytest.approx(2.0, abs=0.03)
    # triangular: half of the pairs lie below 6 (1 - sqrt(1/2)) dB
    assert np.median(delta) == pytest.approx(6 * (1 - np.sqrt(0.5)), abs=0.04)


def test_pairs_share_speech_and_noise_and_have_the_snrs_they_say(pairs):
    for index in range(5):
        pair = pairs.draw(3, index)
        difference = (pair.first - pair.second).astype(np.float64)  # noise alone, however it is scaled
        gains = 10 ** (-np.array(pair.snrs_db) / 20)
        noise = difference / (gains[0] - gains[1])
        speech = pair.first - noise * gains[0]
        assert np.allclose(speech, pair.second - noise * gains[1], atol=1e-4)
        snr_db = 20 * np.log10(active_rms(speech.astype(np.float32)) / np.sqrt(np.mean((noise * gains[0]) ** 2)))
        assert snr_db == pytest.approx(pair.snrs_db[0], abs=0.2)
        assert max(np.abs(pair.first).max(), np.abs(pair.second).max()) <= 1


def test_pairs_are_reproducible_and_never_come_twice(pairs):
    dataset = DrawnPairs(pairs, seed=5, size=4)
    assert len(dataset) == 4
    assert torch.equal(dataset[1], DrawnPairs(pairs, 5, 4)[1])
    drawn = [dataset[i] for i in range(8)]  # two epochs
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))
    assert dataset[0].shape != DrawnPairs(pairs, 6, 4)[0].shape
    dataset.set_epoch(1)
    assert all(torch.equal(dataset[i], drawn[4 + i]) for i in range(4))
    wav, lengths = collate_pairs(drawn[:3])
    assert wav.shape == (6, min(d.shape[1] for d in drawn[:3]))
    assert lengths.tolist() == [wav.shape[1]] * 6
    assert torch.equal(wav[4], drawn[1][1, : wav.shape[1]])


def test_corpus_is_resumed_and_does_not_depend_on_workers(pairs, folders, tmp_path):
    arguments = ["--speech", str(folders[0]), "--noise", str(folders[1]), "--pairs", "5", "--shard-pairs", "2"]
    arguments += ["--seconds", "1", "2", "--seed", "3", "--figure", str(tmp_path / "figure4")]
    jnd_corpus.main([str(tmp_path / "a"), *arguments])
    assert "above 6 dB" in (tmp_path / "figure4.md").read_text()
    assert (tmp_path / "figure4.png").stat().st_size > 1000
    rows = read_manifest(tmp_path / "a")
    assert [int(r["pair"]) for r in rows] == [0, 1, 2, 3, 4]
    assert {r["speech"] for r in rows} == {"a.flac"}
    assert {r["noise"] for r in rows} <= {"english.flac", "german.flac"}
    jnd_corpus.write_corpus(tmp_path / "b", pairs, 5, seed=3, size=2, workers=2)
    stamp = (tmp_path / "b" / "00000" / "pairs.csv").stat().st_mtime_ns
    for file in (tmp_path / "b" / "00001").iterdir():
        file.unlink()
    (tmp_path / "b" / "00001").rmdir()
    (tmp_path / "b" / ".00001.77").mkdir()
    jnd_corpus.write_corpus(tmp_path / "b", pairs, 5, seed=3, size=2)
    assert (tmp_path / "b" / "00000" / "pairs.csv").stat().st_mtime_ns == stamp
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").glob("*/*.*"))
    assert files == sorted(p.relative_to(tmp_path / "b") for p in (tmp_path / "b").glob("*/*.*"))
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    written, drawn = WrittenPairs(tmp_path / "a"), DrawnPairs(pairs, 3, 5)
    assert len(written) == 5
    assert torch.allclose(written[2], drawn[2], atol=1e-4)
    jnd_corpus.write_corpus(tmp_path / "b", pairs, 6, seed=3, size=2)  # the last shard was one pair short
    assert [int(r["pair"]) for r in read_manifest(tmp_path / "b")] == [0, 1, 2, 3, 4, 5]
    jnd_corpus.write_corpus(tmp_path / "b", pairs, 3, seed=3, size=2)  # fewer pairs take none away
    assert len(read_manifest(tmp_path / "b")) == 6
    with pytest.raises(ValueError, match="was begun with"):
        jnd_corpus.main([str(tmp_path / "a"), *arguments[:-4], "--seed", "4"])
    with pytest.raises(FileNotFoundError, match="jnd_corpus"):
        read_manifest(tmp_path / "nothing")


def test_judgements(tmp_path):
    file = tmp_path / "linear.txt"
    file.write_text(
        "0.02_f4_script5_produced_clipped_67.5.wav\t0.2_f4_script5_produced_clipped_67.5.wav\t1\tcrickets\n"
        "300_f4_script5_produced_clipped_67.5.wav\t20_f4_script5_produced_clipped_67.5.wav\t0\tmp3\n"
        "6_m10_script1_produced_clipped_10.0.wav\t6_m10_script1_produced_clipped_10.0.wav\t0\tpink_noise\n"
    )
    first, second = read_judgements(file)
    assert (first.noise, first.talker, first.different) == ("crickets", "f4", True)
    assert first.delta_snr_db == pytest.approx(20)
    assert second.delta_snr_db == 0
    file.write_text("a.wav\tb.wav\t1\tsiren\n")
    with pytest.raises(ValueError, match="line 1: cannot read"):
        read_judgements(file)
    with pytest.raises(FileNotFoundError, match="PerceptualAudio"):
        read_judgements(tmp_path / "none.txt")


@pytest.fixture(scope="module")
def remake(folders, tmp_path_factory) -> Remake:
    recordings = tmp_path_factory.mktemp("recordings")
    noise = np.random.default_rng(0).standard_normal(5 * SAMPLE_RATE) * 0.1
    for name in ("ambient-sound-crickets_night", "1-104089-A-22", "esc50-4-67358-A-42", "esc50-4-67358-B-42"):
        padded = np.concatenate([noise[: 2 * SAMPLE_RATE], np.zeros(3 * SAMPLE_RATE)]) if "-42" in name else noise
        sf.write(recordings / f"{name}.opus", padded, SAMPLE_RATE, format="OGG", subtype="OPUS")
    return Remake(Corpus.from_folder(folders[0]), recordings, jnd.NOISE_RMS_DB)


@pytest.mark.parametrize("noise", NOISES)
def test_remade_pairs_have_the_level_ratio_of_the_judged_ones(remake, noise):
    quiet = Judgement(noise, 0.0, 0.02, "f1", "f1-1-10.0", True)  # level 0: the speech alone
    speech, low = remake.pair(quiet)
    _, high = remake.pair(Judgement(noise, 0.02, 0.08, "f1", "f1-1-10.0", True))
    ratio = np.std(high - speech) / np.std(low - speech)
    assert 20 * np.log10(ratio) == pytest.approx(12.04, abs=0.3)
    assert 20 * np.log10(active_rms(speech)) == pytest.approx(-25, abs=0.1)
    other, _ = remake.pair(Judgement(noise, 0.0, 0.02, "m1", "m1-1-10.0", True))
    assert not np.array_equal(other, speech)


def test_noises_without_a_recording_are_left_out(remake, folders, tmp_path):
    assert remake.noises == NOISES
    without = Remake(Corpus.from_folder(folders[0]), tmp_path, jnd.NOISE_RMS_DB)
    assert set(NOISES) - set(without.noises) == {"applause", "crickets", "siren"}
    sf.write(tmp_path / "1-1-A-42.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    with pytest.raises(ValueError, match="silent"):
        Remake(Corpus.from_folder(folders[0]), tmp_path, jnd.NOISE_RMS_DB)


def test_features_fall_with_the_difference(remake):
    values = [
        jnd.features(*remake.pair(Judgement("pink_noise", 0.1, 0.1 * f, "f1", "f1-1-10.0", True))) for f in (1, 2, 8)
    ]
    assert [v["pesq"] for v in values] == sorted((v["pesq"] for v in values), reverse=True)
    assert [v["si_sdr"] for v in values] == sorted((v["si_sdr"] for v in values), reverse=True)
    assert values[0]["si_sdr"] == jnd.MAX_SI_SDR_DB


def test_classifier_learns_a_threshold_and_the_report_says_so(tmp_path):
    rng = np.random.default_rng(0)
    judgements = []
    for index in range(300):
        ratio = 10 ** (float(rng.choice([0, 0, *rng.uniform(0.5, 40, 6)])) / 20)
        noise = ("pink_noise", "blue_noise", "siren")[index % 3]
        heard = 20 * np.log10(ratio) + rng.normal(0, 2) > 8
        judgements.append(Judgement(noise, 2.0, 2.0 * ratio, f"f{index % 10}", "", bool(heard)))
    table = pd.DataFrame([vars(j) | {"delta_snr_db": j.delta_snr_db} for j in judgements if j.noise != "siren"])
    table = table.assign(different=table["different"].astype(int), pesq=4.6 - 0.1 * table["delta_snr_db"])
    table["si_sdr"] = 30 - table["delta_snr_db"]
    accuracy = jnd.cross_validate(table).set_index("features")
    assert (accuracy.loc["PESQ"] > 0.85).all()
    generated = table[table["delta_snr_db"] <= 6]
    jnd_report.write_report(tmp_path / "jnd", judgements, table, generated)
    report = (tmp_path / "jnd.md").read_text()
    assert "within JND" in report
    assert "no recording of siren" in report
    assert (tmp_path / "jnd.png").stat().st_size > 1000
    near, far = jnd.human_share_different(table, np.array([1.0, 11.0]))
    assert near < 0.2
    assert far > 0.6


def test_the_published_judgements(shared):
    judgements = read_judgements(shared / "jnd" / "dataset_linear.txt")
    assert len(judgements) == 6938
    delta = np.array([j.delta_snr_db for j in judgements])
    different = np.array([j.different for j in judgements])
    assert different[delta == 0].mean() < 0.06
    assert different[delta > 40].mean() > 0.85
    assert 0.1 < different[(delta > 0) & (delta <= 6)].mean() < 0.5
