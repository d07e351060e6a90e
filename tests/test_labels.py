"""Labels of simulated clips: the mixture of the teachers, what no teacher hears, and the dimensions of quality."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import needs_training

needs_training()

from jsqa_metric.model import DIMENSIONS
from training import e_model_report
from training.data.calibration import CLEAN_MOS, LEAST_ANCHORS, Calibration
from training.data.e_model import SILENCE_ROBUSTNESS, loss_share
from training.data.labels import UNKNOWN, LabelledClip, read_set
from training.teachers import CODEC_TEACHERS, TEACHERS


def clip(
    condition: str, labels, bandwidth_hz=20000.0, level_db=-26.0, reference=float("nan"), codec_labels=UNKNOWN
) -> LabelledClip:
    return LabelledClip(None, condition, labels, bandwidth_hz, level_db, reference, codec_labels)


LABELS = {"clean": (4.64, 1, 4.6, 4), "noise": (2.0, 0.8, 3.0, 3), "chop": (1.1, 0.5, 1.3, 2)}


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration.fit([clip(name, values) for name, values in LABELS.items() for _ in range(3)])


def test_targets_put_clean_speech_on_top_and_mark_what_is_unknown(calibration):
    mos = calibration.targets([clip(name, values) for name, values in LABELS.items()])[:, 0]
    assert mos[0] == pytest.approx(CLEAN_MOS)
    assert (np.diff(mos) < 0).all()
    assert mos.min() >= 1
    unknown = calibration.targets([clip("noise", (np.nan, 0.5, 3.0, 3))])[0]
    assert np.isnan(unknown[:5]).tolist() == [False, True, False, False, False]


def test_each_damage_is_taught_by_the_teacher_that_hears_it(calibration):
    def spread(condition: str) -> float:
        low, high = (calibration.targets([clip(condition, (pesq, 0.5, 3.0, 3))])[0, 0] for pesq in (1.5, 4.0))
        return high - low

    assert spread("vocoder") == 0
    assert 0 < spread("clipping") < spread("noise") < spread("echo")
    assert spread("clipping+echo") == pytest.approx((spread("clipping") + spread("echo")) / 2)


def test_dnsmos_has_a_share_where_it_is_asked_and_knows_the_damage():
    clips = [clip(name, values) for name, values in LABELS.items() for _ in range(3)]
    without, asked = (Calibration.fit(clips, dnsmos=dnsmos) for dnsmos in (False, True))

    def spread(calibration: Calibration, condition: str) -> float:
        low, high = (calibration.mixture([clip(condition, (2.0, 0.8, 3.0, d))])[0][0] for d in (2.0, 4.0))
        return (high - low) / 2 * calibration.std[TEACHERS.index("dnsmos_p808")]

    for condition, share in {"noise": 0.25, "reverb": 0.25, "noise+chop": 0.125, "chop": 0, "gan_codec": 0}.items():
        assert spread(asked, condition) == pytest.approx(share)
        assert spread(without, condition) == 0
    silent = clip("noise", (2.0, 0.8, 3.0, np.nan))
    assert asked.mixture([silent])[0] == pytest.approx(without.mixture([silent])[0])


def test_codecs_of_calls_interrupt_speech_only_where_packets_get_lost():
    assert clip("call_codec", LABELS["noise"]).touched == {"coloration"}
    lossy = replace(clip("call_codec", LABELS["noise"]), parameters={"loss_rate": 0.1})
    assert lossy.touched == clip("call_codec+chop", LABELS["noise"]).touched == {"coloration", "discontinuity"}


def test_damage_is_a_loss_in_its_own_dimension_only(calibration):
    def dimensions(condition: str, **known: float) -> dict[str, float]:
        labels = calibration.targets([clip(condition, LABELS["noise"], **known)])[0, -5:-1] + 3
        return dict(zip(DIMENSIONS, labels, strict=True))

    clean = CLEAN_MOS
    noisy, gaps = dimensions("noise"), dimensions("chop+packet_loss")
    assert noisy["noisiness"] < 4 > gaps["discontinuity"]
    assert noisy["discontinuity"] == noisy["coloration"] == gaps["noisiness"] == pytest.approx(clean)
    both = dimensions("noise+chop")
    assert np.isnan([both["noisiness"], both["discontinuity"]]).all()
    assert both["coloration"] == pytest.approx(clean)
    assert np.isnan(dimensions("noise", bandwidth_hz=4000.0)["noisiness"])  # the bandwidth is damage, too
    assert dimensions("noise", level_db=-46.0)["loudness"] < noisy["loudness"] == pytest.approx(clean)


def test_the_doubt_is_how_much_the_teachers_differ_in_mos(calibration):
    def doubt(condition: str, labels: tuple[float, ...], **known: float) -> float:
        return float(calibration.targets([clip(condition, labels, **known)])[0, -1])

    agree, differ = doubt("noise", LABELS["clean"]), doubt("noise", (4.64, 1, 1.3, 4))
    assert agree < 0.2
    two = [calibration.targets([clip(c, (4.64, 1, 1.3, 4))])[0, 0] for c in ("echo", "clipping")]  # weights .75 and .2
    assert differ == pytest.approx((two[0] - two[1]) / 0.55 / 2, rel=0.01)
    assert np.isnan([doubt("vocoder", (4.64, 1, 1.3, 4)), doubt("noise", (np.nan, 1, 1.3, 4))]).all()  # one alone
    assert doubt("noise", (4.64, 1, 1.3, 4), level_db=-46.0) < differ  # all of it counts less


def test_the_damage_is_judged_and_not_the_talker():
    talkers = [clip(name, (*values[:2], 1 + (values[2] - 1) * liked, values[3]), reference=1 + 3.6 * liked)
               for liked in (0.8, 0.9, 1.0) for name, values in LABELS.items()]  # fmt: skip
    mos = Calibration.fit(talkers).targets(talkers)[:, 0].reshape(3, 3)
    assert np.ptp(mos, axis=0).max() < 1e-3
    as_they_are = Calibration.fit(talkers, by_reference=False).targets(talkers)[:, 0].reshape(3, 3)
    assert np.ptp(as_they_are, axis=0).max() > 0.2


def test_a_recording_counts_as_much_as_is_asked():
    liked = (3.8, 4.2, 4.6)
    talkers = [clip(name, (*values[:2], 1 + (values[2] - 1) * (own - 1) / 3.6, values[3]), reference=own)
               for own in liked for name, values in LABELS.items()]  # fmt: skip

    def mos(recording: float) -> np.ndarray:
        return Calibration.fit(talkers, recording=recording).targets(talkers)[:, 0].reshape(3, 3) - 1

    share = (np.array(liked) - 1) / (np.mean(liked) - 1)
    expected = mos(0) * np.sqrt(share)[:, None]  # as much of each clip's MOS, whatever was done to it
    assert mos(0.5) == pytest.approx(np.clip(expected, 0, 4), abs=1e-3)
    unknown = [clip(name, values) for name, values in LABELS.items()]
    known = Calibration.fit(talkers, recording=0.5)
    assert known.targets(unknown)[:, 0] == pytest.approx(Calibration.fit(talkers).targets(unknown)[:, 0])
    for settings in ({"recording": 1.1}, {"recording": 0.5, "by_reference": False}, {"own": -0.1}):
        with pytest.raises(ValueError, match="`recording` and `own` must be from 0 to 1"):
            Calibration.fit(talkers, **settings)


def test_bandwidth_and_level_that_no_teacher_hears_are_in_the_target(calibration):
    clean = LABELS["clean"]
    bands = [calibration.targets([clip("clean", clean, hz)])[0, 0] for hz in (8000, 12000, 20000)]
    assert (np.diff(bands) > 0.1).all()
    unheard = [calibration.targets([clip("clean", clean, hz)], top_hz=8000)[0, 0] for hz in (8000, 20000)]
    assert unheard == [bands[0]] * 2
    levels = [calibration.targets([clip("clean", clean, level_db=db)])[0, 0] for db in (-46, -36, -30, -20)]
    assert levels[0] < levels[1] < levels[2] == levels[3]


def test_narrow_bands_cost_what_the_e_model_says_where_the_teachers_say_less():
    clips = [clip(name, values) for name, values in LABELS.items() for _ in range(3)]
    lenient, strict = (Calibration.fit(clips, narrowband=narrowband) for narrowband in (False, True))
    rating = {3400: 93.2 / 129, 7000: 1, 8000: 1, 20000: 1}  # G.107.1, relative to undamaged wideband speech
    for hz, share in rating.items():
        before, after = (c.targets([clip("clean", LABELS["clean"], hz)], top_hz=8000)[0, 0] for c in (lenient, strict))
        assert after - 1 == pytest.approx(share * (before - 1), rel=1e-3)
    cuts = [strict.targets([clip("clean", LABELS["clean"], hz)])[0] for hz in np.linspace(1000, 7000, 13)]
    assert (np.diff([cut[0] for cut in cuts]) > 0).all()
    coloration = 1 + len(TEACHERS) + DIMENSIONS.index("coloration")
    assert (np.diff([cut[coloration] for cut in cuts]) > 0).all()
    for heard in (clip("noise", LABELS["noise"], 4000), clip("clean", LABELS["clean"], 7000)):  # nothing on top of it
        np.testing.assert_array_equal(strict.targets([heard]), lenient.targets([heard]))


def test_silence_in_the_place_of_speech_costs_what_the_e_model_says_however_lenient_the_teachers():
    def lost(percent: float, concealed: float = 0.0, more: str = "") -> LabelledClip:
        share = float(loss_share(np.array(percent), 9.0))
        found = clip("packet_loss" + more, (1 + 3.64 * share, share, 1 + 3.6 * share, 1 + 3 * share))
        return replace(found, parameters={"loss_rate": percent / 100, "loss_concealed": concealed})

    ends = [clip("clean", LABELS["clean"])] * 10 + [clip("noise", (1, 0, 1, 1))] * 10
    clips = ends + [lost(percent) for percent in np.linspace(1, 30, 80)]
    lenient, strict = (Calibration.fit(clips, gaps=gaps) for gaps in (False, True))
    assert strict.leniency == pytest.approx(9, rel=0.02)
    for percent, left in {1: 0.808, 5: 0.452, 20: 0.161}.items():  # G.113, appendix I: 95 P / (P + 4.3) of 93.2
        before, after = (c.targets([lost(percent)])[0, 0] for c in (lenient, strict))
        assert before > after == pytest.approx(1 + (CLEAN_MOS - 1) * left, abs=0.03)
        noisy = [c.targets([lost(percent, more="+noise")])[0, 0] for c in (lenient, strict)]
        assert (noisy[1] - 1) / (noisy[0] - 1) == pytest.approx((after - 1) / (before - 1), abs=1e-3)
        assert strict.targets([lost(percent, concealed=1.0)])[0, 0] == before
    chopped = replace(clip("chop", LABELS["noise"]), parameters={"chop": "silence", "chop_per_s": 2, "chop_ms": 25.0})
    assert chopped.silent_percent == 5
    assert replace(chopped, parameters=chopped.parameters | {"chop": "repeat"}).silent_percent == 0
    assert Calibration.fit(clips[:40], gaps=True).leniency == SILENCE_ROBUSTNESS  # too few to tell


def test_labels_stand_beside_the_ratings_of_the_e_model(tmp_path):
    (tmp_path / "00000").mkdir()
    with (tmp_path / "00000" / "labels.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file", "condition", *TEACHERS, "parameters"])
        codec = {"codec": "mu-law", "bit_rate": 64000.0, "codec_passes": 1.0}
        for condition, hz, known in (("clean", 8000, {}), ("low_pass", 3400, {}), ("codec", 3400, codec)):
            parameters = json.dumps({"level_db": -26, "bandwidth_hz": hz} | known)
            writer.writerows([["a.flac", condition, *LABELS["clean"], parameters]] * 6)
        writer.writerows([["a.flac", "noise", *LABELS["noise"], json.dumps({"level_db": -26})]] * 6)
    out = tmp_path / "report.md"
    e_model_report.main(["--set", f"data.train=[{tmp_path}]", "data.own=1", "--out", str(out)])
    report = out.read_text()
    for row in ("mu-law 64 kbit/s | 6 | 0.72 |", "3000 to 3500 Hz | 6 | 0.72 |"):
        line = next(line for line in report.splitlines() if row in line)
        assert re.search(r"\| (0.9|1.0).* \| 0.72 ± 0.00 \|$", line)
    assert "amr" not in report


def test_codec_teachers_judge_resynthesised_speech_on_the_scale_of_classic_codecs():
    def classic(share: float) -> LabelledClip:  # the teachers agree, each on its own scale
        labels = (1 + 3.64 * share, share, 1 + 3.6 * share, 1 + 3 * share)
        return clip("codec", labels, codec_labels=(3 - 2.4 * share, 2 + 3 * share))

    anchors = [classic(share) for share in np.linspace(0.2, 1, LEAST_ANCHORS)]
    calibration = Calibration.fit(anchors)

    def mos(condition: str, distill: float, codec_labels: tuple[float, float]) -> float:
        return float(calibration.targets([clip(condition, (2.0, 0.5, distill, 3), codec_labels=codec_labels)])[0, 0])

    like = float(calibration.targets([classic(0.5)])[0, 0])
    assert mos("fargan", 2.8, (1.8, 3.5)) == pytest.approx(like, abs=0.01)
    assert mos("fargan", 2.8, (2.4, 3.5)) < mos("fargan", 2.8, (1.8, 2.9)) < like  # WARP-Q is a cost
    assert mos("fargan", 2.0, (1.8, 3.5)) < like
    for condition in ("noise", "vocoder", "clipping"):
        assert mos(condition, 2.8, (1.8, 3.5)) == mos(condition, 2.8, (2.8, 1.5))
    few = Calibration.fit(anchors[1:])
    assert few.codec_lines == ()
    alike = few.targets([clip("fargan", (2.0, 0.5, 2.8, 3), codec_labels=label) for label in ((1.8, 3.5), UNKNOWN)])
    assert alike[0, 0] == alike[1, 0]


def test_gaps_are_not_the_business_of_codec_teachers(tmp_path):
    (tmp_path / "00000").mkdir()
    columns = ["file", "condition", *TEACHERS, *CODEC_TEACHERS, "parameters"]
    with (tmp_path / "00000" / "labels.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        for loss in (0.0, 0.2):
            known = {"level_db": -26, "neural_codec": "opus-networks", "loss_rate": loss}
            writer.writerow(["a.flac", "neural_codec", 2, 0.8, 3, 3, 1.2, 0.9, json.dumps(known)])
    whole, lossy = read_set(tmp_path)
    assert whole.condition == lossy.condition == "opus-networks"
    assert whole.codec_labels == (1.2, 0.9)
    assert np.isnan(lossy.codec_labels).all()
