"""The teachers: what they say of real clips, and how their report weighs them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import needs_training

needs_training()

from training import consensus_report, recordings_report, teachers_report
from training.data import codecs, speech_codecs
from training.data.labels import LabelledClip
from training.teachers import ALL_LABELS, CODEC_TEACHERS, REFERENCE_LABEL, TEACHERS, Teachers
from training.warpq import warpq


def test_teachers_prefer_clean_speech(speech, noisy):
    teachers = Teachers()
    clean, damaged = teachers.label(speech, speech, "clean"), teachers.label(noisy, speech, "noise")
    assert tuple(clean) == ALL_LABELS
    assert clean[REFERENCE_LABEL] == damaged[REFERENCE_LABEL] == clean["distillmos"]
    for teacher in TEACHERS:
        assert clean[teacher] > damaged[teacher], teacher
    assert np.isnan([damaged[teacher] for teacher in CODEC_TEACHERS]).all()
    assert np.isnan(teachers.pesq(speech, np.zeros_like(speech)))


def test_codec_teachers_hear_codecs_and_not_what_resynthesis_makes_up(speech, built_codecs):
    teachers = Teachers()
    coded = {step: codecs.align(speech_codecs.fargan(speech, step), speech) for step in (0.0, 0.6, 1.1)}
    labels = [teachers.codec_labels(signal, speech, "neural_codec") for signal in (speech, *coded.values())]
    assert (np.diff([label["warpq"] for label in labels]) > 0.05).all()
    assert (np.diff([label["visqol"] for label in labels]) < -0.01).all()
    assert warpq(-speech, speech) == pytest.approx(warpq(speech, speech), abs=0.02)  # a matter of phase
    short = teachers.codec_labels(speech[:4000], speech[:4000], "codec")  # too little speech for either
    assert np.isnan(list(short.values())).all()


def test_shares_of_variance_belong_to_what_makes_it():
    settings, talkers = np.array([1.0, 2.0, 4.0])[:, None], np.array([0.0, 0.1, 0.3, 0.4])
    of_settings, of_talkers = teachers_report.shares(settings + talkers)
    assert of_settings + of_talkers == pytest.approx(1)
    assert of_settings / of_talkers == pytest.approx(settings.var() / talkers.var())
    assert teachers_report.shares(np.broadcast_to(settings, (3, 4))) == pytest.approx((1, 0))


def test_as_many_talkers_as_there_are(folders):
    with pytest.raises(ValueError, match="999 talkers are wanted"):
        next(teachers_report.references(list(map(str, folders["speech"])), 999, 1))


def test_the_report_of_teachers_on_real_speech(folders, tmp_path, monkeypatch, capsys):
    kept = [name for name in teachers_report.settings() if name == "none" or "700 bit" in name or "6600" in name]
    every = teachers_report.settings()
    monkeypatch.setattr(teachers_report, "settings", lambda: {name: every[name] for name in kept})
    arguments = ["--speech", *map(str, folders["speech"]), "--out", str(tmp_path / "report"), "--talkers"]
    teachers_report.main([*arguments, "1"])
    first = (tmp_path / "report.csv").read_text()
    teachers_report.main([*arguments, "2"])  # goes on, and does not ask again
    assert (tmp_path / "report.csv").read_text().startswith(first)
    assert "2 talkers through each of 3 settings" in capsys.readouterr().out
    rows = [line.split("|") for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| warpq")]
    assert float(rows[0][3]) > 0.9


def test_consensus_finds_what_each_judge_has_of_the_one_thing_in_common():
    rng, true = np.random.default_rng(1), np.array([0.9, 0.7, 0.5])
    heard = rng.standard_normal((4000, 1))
    labels = heard * true + rng.standard_normal((4000, 3)) * np.sqrt(1 - true**2)
    clips = [
        LabelledClip(None, kind, (pesq, 0.5, distillmos, dnsmos), 8000, -26, 0.0)
        for kind, (pesq, distillmos, dnsmos) in zip(["noise", "clean"] * 2000, labels + 3, strict=True)
    ]
    (row,) = consensus_report.report(clips).to_dict("records")
    assert (row["damage"], row["clips"]) == ("noise", 2000)
    found = np.array([row[judge] for judge in consensus_report.JUDGES])
    np.testing.assert_allclose(found, true, atol=0.06)
    weights = np.array([row[f"weight of {judge}"] for judge in consensus_report.JUDGES])
    assert weights.sum() == pytest.approx(1)
    for name, mean in {"weighted mean": weights, "mean of two": np.array([0.5, 0.5, 0])}.items():
        assert row[name] == pytest.approx(np.corrcoef(labels @ mean, heard[:, 0])[0, 1], abs=0.03)
    assert row["weighted mean"] > row["mean of two"]


def test_what_other_judges_share_of_an_opinion_of_recordings():
    rng = np.random.default_rng(1)
    distill = rng.normal(4, 0.3, 400)
    labels = pd.DataFrame({"distillmos": distill, "dnsmos_p808": 3 + 0.25 * distill, "plcmos": rng.normal(4, 0.3, 400)})
    table = recordings_report.agreement(labels, {"dnsmos_p808": 2.0, "plcmos": 1.0}, seed=1).set_index("judge")
    assert table["share given back"].tolist() == [pytest.approx(0.5), pytest.approx(0, abs=0.1)]
    assert table["pcc"].tolist() == [pytest.approx(1), pytest.approx(0, abs=0.1)]


def test_the_report_of_recordings_on_real_speech(folders, tmp_path, monkeypatch, capsys):
    clips = [LabelledClip(None, "noise", (2, 1, mos, 3 + mos / 4), 8000, -26) for mos in (1, 2, 3)]
    monkeypatch.setattr(recordings_report, "read_sets", lambda folders, judged: clips)
    arguments = ["--speech", *map(str, folders["speech"]), "--labelled", "set", "--out", str(tmp_path / "report")]
    recordings_report.main([*arguments, "--talkers", "2"])
    labels = pd.read_csv(tmp_path / "report.csv")
    assert ((labels[["distillmos", *recordings_report.OTHERS]] > 3) & (labels.iloc[:, 1:] < 5)).all(axis=None)
    recordings_report.main([*arguments, "--talkers", "2"])  # asks nobody again
    assert pd.read_csv(tmp_path / "report.csv").equals(labels)
    assert "are multiplied by 4.00" in capsys.readouterr().out
