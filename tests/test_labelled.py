"""Labelled sets on their way into training: rates, crops, batches, levels, and targets that a model gives."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from conftest import needs_training

needs_training()

from jsqa_metric import load_model
from jsqa_metric.level import active_level_db, level_share
from training.data.calibration import DIMENSION_COLUMNS, DOUBT, Calibration
from training.data.labelled import FAINTEST_DB, LabelledData, LabelledSet, collate_cropped, taught_share, teach
from training.data.labels import read_set
from training.data.loading import SORTED_BATCHES, TrainingSampler
from training.teachers import TEACHERS


def test_sets_are_read_at_the_rate_of_the_model(labelled_set):
    clips = read_set(labelled_set[0])
    data = LabelledSet(clips, Calibration.fit(clips), 24000)
    for index, labelled in enumerate(clips):
        wav, _ = data[index]
        file = sf.info(labelled.path)
        assert len(wav) == -(-file.frames * 24000 // file.samplerate)
        assert 0.001 < wav.abs().max() <= 1


def test_training_batches_are_crops_without_padding():
    items = [(torch.arange(n).float(), torch.zeros(1)) for n in (50, 80, 60)]
    wav, lengths, _ = collate_cropped(items)
    assert wav.shape == (3, 50)
    assert lengths.tolist() == [50, 50, 50]
    assert (wav.diff(dim=1) == 1).all()


def test_batches_of_like_length_hold_each_clip_once_and_change_with_the_epoch():
    lengths = torch.randint(64000, 120000, (1000,), generator=torch.Generator().manual_seed(0))

    def epoch(number: int, rank: int = 0, ranks: int = 1) -> list[int]:
        batches = 1000 // ranks // 10
        trainer = SimpleNamespace(
            world_size=ranks, global_rank=rank, fit_loop=SimpleNamespace(total_batch_idx=number * batches - 1)
        )
        return list(TrainingSampler(range(1000), trainer, 10, seed=1, lengths=lengths))

    first, second = epoch(0), epoch(1)
    assert sorted(first) == sorted(second) == list(range(1000))
    assert first != second
    within = [np.ptp(lengths[batch].numpy()) for batch in np.split(np.array(first), 100)]
    assert np.mean(within) < 2 * 56000 / SORTED_BATCHES
    order = [lengths[batch].float().mean() for batch in np.split(np.array(first), 100)]
    assert abs(np.corrcoef(order, range(100))[0, 1]) < 0.3  # the long ones come at any time
    both = epoch(0, 0, 2), epoch(0, 1, 2)
    assert not set(both[0]) & set(both[1])
    halves = [abs(lengths[a].float().mean() - lengths[b].float().mean()) for a, b in zip(*both, strict=True)]
    assert np.mean(halves) < 800  # neither always has the longer ones


def test_clips_are_taught_what_a_model_says_of_them(labelled_set):
    folder, teacher = [str(labelled_set[0])], {"model": "default", "revision": "2027.07"}
    data = LabelledData(folder, folder, 16000, taught_by=[teacher])
    data.setup("fit")
    mos, _, dimensions = load_model(**teacher).predict_details(data.train_set[0][0][None])
    taught, labels = data.train_set.targets, data.valid_set.targets
    torch.testing.assert_close(taught[0, 0], mos[0])
    torch.testing.assert_close((taught[0, DIMENSION_COLUMNS] + 3).clamp(1, 5), dimensions[0])
    doubt = (labels[:, -1].square() + (taught[:, 0] - labels[:, 0]).square()).sqrt()
    torch.testing.assert_close(taught[:, -1], doubt)  # how much teachers of all kinds differ
    both = torch.stack([taught[:, 0], labels[:, 0]])
    assert 0.6 < torch.corrcoef(both)[0, 1] < 0.999
    with pytest.raises(ValueError, match="a model that teaches must predict pesq, .* at 24000 Hz"):
        LabelledData(folder, folder, 24000, taught_by=[teacher]).setup("fit")


def test_several_models_teach_their_mean_beside_labels_and_all_of_it_without(labelled_set):
    folder = [str(labelled_set[0])]
    models = [load_model("default", revision=revision) for revision in ("2027.07", "2027.10")]
    clips = read_set(folder[0])
    calibration = Calibration.fit(clips)
    said, (labels, half, whole) = [], [LabelledSet(clips, calibration, 16000) for _ in range(3)]
    for model in models:
        of_one = LabelledSet(clips, calibration, 16000)
        teach(of_one, [model], [1.0] * len(clips))
        said.append(of_one.targets[:, :DOUBT])
    mean = torch.stack(said).mean(0)
    whole.targets[0, DOUBT] = torch.nan  # no teacher was asked, or one
    teach(whole, models, [1.0] * len(clips))
    torch.testing.assert_close(whole.targets[:, :DOUBT], mean)
    stds = [model.predict_details(whole.signal(0)[None])[1][0] for model in models]
    torch.testing.assert_close(whole.targets[0, DOUBT], torch.stack(stds).mean())
    teach(half, models, [0.5] * len(clips))
    models[1] = copy.deepcopy(models[1])
    models[1].config = replace(models[1].config, floor_db=0, level_db=-20)
    with pytest.raises(ValueError, match="hears -20 dBFS cannot teach"):
        teach(whole, models, [1.0] * len(clips))
    known = ~labels.targets[:, :DOUBT].isnan()
    torch.testing.assert_close(
        half.targets[:, :DOUBT], torch.where(known, (labels.targets[:, :DOUBT] + mean) / 2, mean)
    )


def test_models_have_no_say_about_silent_stretches_whose_labels_they_may_not_know(labelled_set):
    labelled = read_set(labelled_set[0])[0]
    silent = replace(labelled, condition="chop", parameters={"chop": "silence", "chop_per_s": 2, "chop_ms": 25.0})
    unlabelled = replace(labelled, labels=(np.nan,) * len(TEACHERS))
    assert [taught_share(c, 0.5, gaps=True) for c in (labelled, silent, unlabelled)] == [0.5, 0, 1]
    assert taught_share(silent, 0.5, gaps=False) == 0.5


def test_clips_at_one_level_have_the_labels_of_that_level(labelled_set):
    clips = read_set(labelled_set[0])
    calibration = Calibration.fit(clips)
    there, brought = LabelledSet(clips, calibration, 16000), LabelledSet(clips, calibration, 16000, level_db=-26)
    quiet = np.array([clip.level_db for clip in clips]) < -33
    assert 0 < quiet.sum() < len(clips)
    for index in range(len(clips)):
        assert active_level_db(brought[index][0], 16000) == pytest.approx(-26, abs=0.01)
    mos, before = brought.targets[:, 0].numpy(), there.targets[:, 0].numpy()
    assert (mos[quiet] > before[quiet]).all()
    np.testing.assert_allclose(before, 1 + (mos - 1) * level_share(torch.tensor(there.levels_db)).numpy(), atol=1e-3)


def test_a_clip_at_another_level_has_the_labels_of_that_level(labelled_set):
    clips = read_set(labelled_set[0])
    calibration = Calibration.fit(clips)
    as_they_are, changed = (LabelledSet(clips, calibration, 16000, gain_db=gain) for gain in (0.0, 12.0))
    torch.manual_seed(0)
    gains_db = []
    loud = as_they_are.audio[0].abs().max()
    changed.audio[0] = as_they_are.audio[0] = (as_they_are.audio[0].float() * 32000 / loud).to(torch.int16)  # no room
    for index, clip in enumerate(clips):
        (before, _), (after, targets) = as_they_are[index], changed[index]
        gain_db = 20 * float((after.norm() / before.norm()).log10())
        gains_db.append(gain_db)
        torch.testing.assert_close(after, before * 10 ** (gain_db / 20), atol=1e-4, rtol=0)
        assert after.abs().max() <= 1.001
        level_db = clip.level_db + gain_db
        assert level_db >= min(FAINTEST_DB, clip.level_db) - 0.01
        assert abs(gain_db) <= 12.01
        expected = calibration.targets([replace(clip, level_db=level_db)], top_hz=8000)[0]
        if expected[0] > 1:  # at the bottom of the scale the MOS says nothing of what it was before
            torch.testing.assert_close(targets, torch.from_numpy(expected), atol=0.01, rtol=0, equal_nan=True)
    assert np.ptp(gains_db) > 6


def renamed(folder: str, target: Path, condition: str) -> str:
    """A copy of a labelled set in which every clip has another damage."""
    shutil.copytree(folder, target)
    for table in target.glob("[0-9]*/labels.csv"):
        pd.read_csv(table).assign(condition=condition).to_csv(table, index=False, na_rep="nan")
    return str(target)


def test_damage_that_is_for_validation_only_trains_nothing(labelled_set, tmp_path):
    held_out = renamed(labelled_set[0], tmp_path / "set", "noise+held_out_codec")
    LabelledData([str(labelled_set[0])], [held_out], 16000).setup("fit")
    with pytest.raises(ValueError, match="held_out_codec: such damage is for validation only"):
        LabelledData([held_out], [str(labelled_set[0])], 16000).setup("fit")


def test_teachers_that_compare_moment_by_moment_do_not_judge_stretched_time(labelled_set, tmp_path):
    stretched = read_set(renamed(labelled_set[0], tmp_path / "set", "noise+jitter"))
    for before, after in zip(read_set(labelled_set[0]), stretched, strict=True):
        for teacher, label, left in zip(TEACHERS, before.labels, after.labels, strict=True):
            assert np.isnan(left) if teacher in ("pesq", "estoi") else left == label
    assert all(clip.judged for clip in stretched)
