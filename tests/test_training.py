"""The training chain on real audio: simulate, label, train, resume, publish, score."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from jsqa_metric import load_model, score

if importlib.util.find_spec("distillmos") is None or importlib.util.find_spec("av") is None:
    pytest.skip("needs the training environment: bash training/install.sh", allow_module_level=True)

from training import build_set, publish, train
from training.data.labelled import Calibration, LabelledClip, collate_cropped, read_set
from training.data.simulate import DEGRADATIONS, Simulator
from training.teachers import TEACHERS, Teachers


@pytest.fixture(scope="module")
def folders(shared) -> dict[str, object]:
    return {
        "speech": shared / "speech" / "valid",
        "noise": shared / "noise" / "valid",
        "rooms": sorted((shared / "rooms").glob("S*.flac")),
    }


@pytest.fixture(scope="module")
def simulator(folders) -> Simulator:
    return Simulator(**folders)


@pytest.fixture(scope="module")
def labelled_set(folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    arguments = [folder, "--speech", folders["speech"], "--noise", folders["noise"], "--rooms", *folders["rooms"]]
    build_set.main([str(a) for a in [*arguments, "--clips", 12, "--shard-clips", 6, "--workers", 2]])
    return folder, [str(a) for a in arguments]


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_degradations_damage_and_keep_the_length(simulator, speech, name):
    degrade, _ = DEGRADATIONS[name]
    for seed in range(3):
        damaged, parameters = degrade(speech.copy(), np.random.default_rng(seed), simulator.material)
        assert damaged.shape == speech.shape
        assert damaged.dtype == np.float32
        assert np.isfinite(damaged).all()
        assert not np.array_equal(damaged, speech)
        assert parameters


def test_a_clip_is_always_the_same_and_no_two_are(simulator):
    first, again, other = simulator.draw(7, 3), simulator.draw(7, 3), simulator.draw(7, 4)
    assert np.array_equal(first.degraded, again.degraded)
    assert np.array_equal(first.reference, again.reference)
    assert first.degraded.shape != other.degraded.shape or not np.array_equal(first.degraded, other.degraded)
    assert np.abs(first.degraded).max() <= 1


def test_competing_talkers_are_other_people(simulator):
    rng = np.random.default_rng(0)
    talkers = {e.group for e in simulator.material.speech.entries}
    assert len(talkers) > 10
    for _ in range(20):
        _, entry = simulator.material.speech.draw_speech(rng, 16000, other_than="kerstin")
        assert entry.group != "kerstin"


def test_teachers_prefer_clean_speech(speech, noisy):
    teachers = Teachers()
    clean, damaged = teachers.label(speech, speech), teachers.label(noisy, speech)
    assert tuple(clean) == TEACHERS
    for teacher in TEACHERS:
        assert clean[teacher] > damaged[teacher], teacher
    assert np.isnan(teachers.pesq(speech, np.zeros_like(speech)))


def test_an_interrupted_set_is_finished_and_the_same(labelled_set, tmp_path):
    folder, arguments = labelled_set
    before = {p.name: p.read_bytes() for p in (folder / "00001").iterdir()}
    (folder / "00001" / "labels.csv").unlink()
    (folder / "00001").rename(folder / ".00001.999")
    build_set.main([*arguments, "--clips", "12", "--shard-clips", "6", "--workers", "1"])
    assert {p.name: p.read_bytes() for p in (folder / "00001").iterdir()} == before
    assert not list(folder.glob(".0*"))
    assert len(read_set(folder)) == 12


def test_targets_put_clean_speech_on_top_and_leave_pesq_out_where_it_is_wrong():
    labels = {"clean": (4.64, 1, 4.6, 4), "noise": (2.0, 0.8, 3.0, 3), "chop": (1.1, 0.5, 1.3, 2)}
    clips = [LabelledClip(None, name, values) for name, values in labels.items() for _ in range(3)]
    calibration = Calibration.fit(clips)
    mos = calibration.targets(clips)[:, 0]
    assert mos[0] == pytest.approx(4.6)
    assert (np.diff(mos[::3]) < 0).all()
    assert mos.min() >= 1
    low, high = (LabelledClip(None, "vocoder", (pesq, 0.5, 3.0, 3)) for pesq in (1.0, 4.0))
    assert np.array_equal(calibration.targets([low])[:, 0], calibration.targets([high])[:, 0])
    assert np.isnan(calibration.targets([LabelledClip(None, "noise", (np.nan, 0.5, 3.0, 3))])[0]).tolist() == [
        False, True, False, False, False,
    ]  # fmt: skip


def test_training_batches_are_crops_without_padding():
    items = [(torch.arange(n).float(), torch.zeros(1)) for n in (50, 80, 60)]
    wav, lengths, _ = collate_cropped(items)
    assert wav.shape == (3, 50)
    assert lengths.tolist() == [50, 50, 50]
    assert (wav.diff(dim=1) == 1).all()


def recipe(folder, *changes):
    small = [
        f"data.train={folder}", f"data.valid={folder}", "data.batch_size=4", "trainer.max_epochs=2",
        "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.enable_model_summary=false",
        "trainer.log_every_n_steps=1",
    ]  # fmt: skip
    return train.read_recipe("training/recipes/default.yaml", [*small, *changes])


def test_train_publish_and_score(labelled_set, tmp_path, speech):
    folder, _ = labelled_set
    best = train.train(recipe(folder), tmp_path / "run")
    assert best.exists()
    last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6

    publish.main([str(best), str(tmp_path / "model"), "--revision", "test"])
    model = load_model(tmp_path / "model", revision="test")
    assert model.config.tasks == TEACHERS
    assert 1 <= score(speech, 16000, model=tmp_path / "model") <= 5


def test_a_recipe_change_must_have_a_value():
    with pytest.raises(ValueError, match="section.key=value"):
        train.read_recipe("training/recipes/default.yaml", ["data.limit"])
