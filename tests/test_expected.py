"""What the parameters of the simulation lead one to expect of a label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import needs_training

needs_training()

from training import add_labels, build_set, parameters_report
from training.data import expected
from training.data.calibration import DRAWN, Calibration
from training.data.expected import Expected
from training.data.labelled import TASKS, LabelledData, calibrate
from training.data.labels import LabelledClip, read_set
from training.regression import Regression

CLIPS = 400


def clips(kind: str, folder: str, seed: int) -> tuple[list[LabelledClip], np.ndarray, np.ndarray]:
    """Clips whose labels are a matter of their bit rate and codec, and of chance; what is due to each."""
    rng = np.random.default_rng(seed)
    rates, codecs, chance = rng.integers(1, 9, CLIPS), rng.integers(0, 2, CLIPS), rng.normal(0, 0.3, CLIPS)
    due = 1 + 0.25 * rates + 0.75 * codecs
    made = []
    for i in range(CLIPS):
        label = due[i] + chance[i]
        parameters = {"bit_rate": 1000.0 * rates[i], "codec": ("opus", "mp3")[codecs[i]]}
        path = Path(folder) / "00000" / f"{i:07d}.flac"
        made.append(LabelledClip(path, kind, (label, label / 5, label, label), 8000, -26, parameters=parameters))
    return made, due, chance


def test_what_is_expected_is_what_the_parameters_say():
    train, due, chance = clips("codec", "train", 1)
    expected = Expected(train, due + chance)
    assert np.abs(expected(train) - due).mean() < 0.12  # of 0.3 by chance
    assert abs(np.corrcoef(expected(train) - due, chance)[0, 1]) < 0.25
    other, due, _ = clips("codec", "valid", 2)
    other[0] = replace(other[0], parameters=other[0].parameters | {"codec": "new", "never": "seen"})
    assert np.abs(expected(other) - due)[1:].mean() < 0.08  # all trees have something to say of a new clip


def test_no_clip_has_a_part_in_what_is_expected_of_it():
    train, due, chance = clips("codec", "train", 1)
    before = Expected(train, due + chance)(train)
    labels = due + chance
    labels[7] += 50
    after = Expected(train, labels)(train)
    assert after[7] == before[7]
    assert np.abs(after - before).max() > 1


@pytest.mark.parametrize(("kind", "kept"), [("codec", 0.5), ("codec+noise", 1.0), ("noise", 1.0)])
def test_chance_counts_in_part_where_the_parameters_say_all(kind, kept):
    train, due, chance = clips(kind, "train", 1)
    whole, part = (Calibration.fit(train, own=own).targets(train)[:, 0] for own in (1.0, 0.5))

    def counts(mos: np.ndarray) -> float:
        return np.linalg.lstsq(np.column_stack([chance, due, np.ones(CLIPS)]), mos, rcond=None)[0][0]

    assert counts(part) / counts(whole) == pytest.approx(kept, abs=0.05)
    assert np.corrcoef(part, due)[0, 1] >= np.corrcoef(whole, due)[0, 1]


def test_damage_that_the_training_clips_do_not_have_keeps_its_labels():
    train, _, chance = clips("codec", "train", 1)
    whole, none = (Calibration.fit(train, own=own) for own in (1.0, 0.0))
    other = [replace(clip, condition="codec+jitter", path=Path("valid") / clip.path) for clip in train]
    np.testing.assert_allclose(none.targets(other)[:, 0], whole.targets(other)[:, 0], atol=1e-6)
    assert (
        np.corrcoef(none.targets(train)[:, 0], chance)[0, 1]
        < 0.5 * np.corrcoef(none.targets(other)[:, 0], chance)[0, 1]
    )


def test_clips_that_no_teacher_was_asked_about_have_the_label_that_their_parameters_lead_one_to_expect():
    train, due, _ = clips("codec", "train", 1)
    liked = np.where(np.arange(CLIPS) % 2, 3.0, 4.5)  # one talker's recordings are poor
    train = [replace(c, reference=r, talker=str(r)) for c, r in zip(train, liked, strict=True)]
    silent = [replace(c, labels=(np.nan,) * 4, reference=np.nan, path=Path("new") / c.path) for c in train]
    calibration = Calibration.fit([*train, *silent], recording=0.5)
    labelled, unlabelled = calibration.targets(train), calibration.targets(silent)
    np.testing.assert_array_equal(labelled, Calibration.fit(train, recording=0.5).targets(train))  # all of chance
    assert np.isnan(unlabelled[:, [1, 2, 3, 4, -1]]).all()
    assert not np.isnan(unlabelled[:, 0]).any()
    for talker in (0, 1):  # what is due to the parameters, scaled by what the talker's recordings are like
        assert np.corrcoef(unlabelled[talker::2, 0], due[talker::2])[0, 1] > 0.97
    assert unlabelled[::2, 0].mean() - unlabelled[1::2, 0].mean() > 0.2
    poor, unknown = replace(silent[0], talker="3.0"), replace(silent[0], talker="nobody's")
    assert (np.diff(calibration.targets([poor, unknown, silent[0]])[:, 0]) > 0.1).all()
    with pytest.raises(ValueError, match="labelled ones that tell of echo"):
        calibration.targets([replace(silent[0], condition="codec+echo")])
    with pytest.raises(ValueError, match="fitted with such clips"):
        Calibration.fit(train).targets(silent)
    with pytest.raises(ValueError, match="no teacher was asked about any"):
        Calibration.fit(silent)


@pytest.fixture
def small(monkeypatch) -> None:
    """Of the test sets' twelve clips, one of a kind has to do."""
    monkeypatch.setattr(expected, "LEAST_CLIPS", 1)


def test_a_set_without_labels_is_the_same_clips_and_trains_beside_one_with_labels(labelled_set, tmp_path, small):
    folder, arguments = labelled_set
    build_set.main(
        [str(tmp_path), *arguments[1:], *("--clips", "6", "--shard-clips", "6", "--workers", "1", "--unlabelled")]
    )
    silent, judged = read_set(tmp_path), read_set(folder)
    assert len(silent) == 6
    for without, clip in zip(silent, judged, strict=False):
        assert without.path.read_bytes() == clip.path.read_bytes()
        assert (without.condition, without.parameters, without.judged, clip.judged) == (
            clip.condition, clip.parameters, False, True)  # fmt: skip
    data = LabelledData([str(folder), str(tmp_path)], [str(folder)], 16000, recording=0.5)
    data.setup("fit")
    assert len(data.train_set) == 18
    with pytest.raises(FileNotFoundError, match="for training only"):  # nobody is held against what is only expected
        LabelledData([str(folder)], [str(folder), str(tmp_path)], 16000, recording=0.5).setup("fit")
    with pytest.raises(FileNotFoundError, match="for training only"):
        parameters_report.main([str(folder), str(tmp_path), "--out", str(tmp_path / "report.md")])
    with pytest.raises(ValueError, match="built with --unlabelled"):
        add_labels.label_shard(tmp_path / "00000" / "labels.csv", seed=1, vary_voices=True)
    targets = data.train_set.targets
    assert not targets[:, 0].isnan().any()
    model = Regression({"encoder": "spectrogram", "sample_rate": 16000, "width": 4, "channels": 16, "layers": 1})
    losses = model.losses(torch.full((18,), 3.0), torch.zeros(18, len(TASKS), requires_grad=True), targets)
    assert all(loss.isfinite() for loss in losses)


def noisy_judges(shared_chance: float, seed: int = 1) -> list[LabelledClip]:
    """Clips of three judges: all hear the bit rate, and in part one thing that it does not tell; each errs besides."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(1000):
        rate = rng.integers(1, 9)
        heard = 0.3 * rate + shared_chance * rng.normal()
        pesq, distillmos, dnsmos = (1 + heard + 0.3 * rng.normal() for _ in range(3))
        path = Path("set") / "00000" / f"{i:07d}.flac"
        parameters = {"bit_rate": 1000.0 * rate}
        made.append(
            LabelledClip(
                path,
                "codec",
                (pesq, 0.5 * rate, distillmos, dnsmos),
                8000,
                -26,
                parameters=parameters,
                talker=str(i % 50),
            )
        )
    return made


@pytest.mark.parametrize("shared_chance", [0.0, 0.3])
def test_the_report_tells_what_is_chance(shared_chance):
    row = parameters_report.report(noisy_judges(shared_chance)).set_index("damage").loc["codec"]
    true = shared_chance**2 / (shared_chance**2 + 0.3**2 / 2)  # reliability of the mean of two
    for judge in ("both teachers", "DNSMOS"):
        assert float(row[judge].split()[0]) == pytest.approx(true, abs=0.15)
    variance = (0.3**2) * np.var(range(1, 9))
    chance = shared_chance**2 + 0.3**2 / 2
    assert row["expected"] == pytest.approx(variance / (variance + chance), abs=0.05)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of so few clips, some resamplings are of one
def test_the_report_of_a_real_set_says_what_it_was_made_of(labelled_set, tmp_path, monkeypatch):
    monkeypatch.setattr(parameters_report, "LEAST_CLIPS", 6)
    parameters_report.main([str(labelled_set[0]), "--out", str(tmp_path / "report.md")])
    report = (tmp_path / "report.md").read_text()
    assert "12 clips" in report
    drawn = sum(not DRAWN.isdisjoint(clip.kinds) for clip in read_set(labelled_set[0]))
    for name, count in {"with": drawn, "without": 12 - drawn}.items():
        assert (f"| **all {name} a recording drawn** | {count} |" in report) == (count >= 6)


def test_recipes_say_how_much_of_chance_counts(labelled_set, small):
    folder = str(labelled_set[0])
    whole, part = (LabelledData([folder], [folder], 16000, own=own) for own in (1.0, 0.2))
    whole.setup("fit")
    part.setup("fit")
    drawn = np.array([not DRAWN.isdisjoint(clip.kinds) for clip in read_set(folder)])
    for before, after in ((whole.train_set, part.train_set), (whole.valid_set, part.valid_set)):
        changed = (before.targets[:, 0] != after.targets[:, 0]).numpy()
        assert changed[~drawn].any()
        assert not changed[drawn].any()
    clips = read_set(folder)
    np.testing.assert_array_equal(calibrate(clips, {"own": 0.2, "seed": 1}).targets(clips)[:, 0],
                                  Calibration.fit(clips, own=0.2).targets(clips)[:, 0])  # fmt: skip


def test_labels_are_no_matter_of_chance_in_large_sets_and_tiny_ones_are_errors():
    train, due, chance = clips("codec", "train", 1)
    many = [replace(clip, path=Path(f"{copy}") / clip.path) for copy in range(32) for clip in train]  # 12,800
    labels = np.tile(due + chance, 32)
    np.testing.assert_array_equal(Expected(many, labels)(train), Expected(many, labels)(train))
    with pytest.raises(ValueError, match="at least 10"):
        Expected(train[:9], due[:9])
