"""Runs that are interrupted, resumed and made longer."""

from __future__ import annotations

import pytest
import torch
import yaml
from conftest import needs_training, recipe_for, weights

needs_training()

from training.finetune import FineTuning
from training.train import TASKS, train, train_once

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


class InterruptionError(Exception):
    """What ends a run in the middle."""


@pytest.mark.parametrize(
    ("task", "encoder", "average"), [("jsqa_pretrain", "waveform", None), ("jsqa_finetune", "spectrogram", 0.9)]
)
@pytest.mark.parametrize(("save_every", "fail_at", "saved_at"), [(200, 4, 3), (2, 5, 4)])  # of 3 x 3 steps
def test_resumed_run_gives_the_same_weights(
    task, encoder, average, save_every, fail_at, saved_at, rated, corpora, tmp_path, monkeypatch
):
    recipe = recipe_for(task, encoder, rated, corpora, max_epochs=3) | {"average": average}
    train(recipe, tmp_path / "whole")

    module_type = TASKS[task][0]
    step = module_type.training_step

    def failing_step(self, batch, batch_index):
        if self.global_step == fail_at:
            raise InterruptionError
        return step(self, batch, batch_index)

    monkeypatch.setattr("training.train.SAVE_EVERY_STEPS", save_every)
    with monkeypatch.context() as patch:
        patch.setattr(module_type, "training_step", failing_step)
        with pytest.raises(InterruptionError):
            train(recipe, tmp_path / "parts")
    assert torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["global_step"] == saved_at
    train(recipe, tmp_path / "parts")
    for file in ("last.ckpt", "best.ckpt"):
        whole, parts = (weights(tmp_path / name / file) for name in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        for name in whole:
            assert torch.equal(whole[name], parts[name]), (file, name)


@pytest.mark.parametrize(("task", "file"), [("jsqa_finetune", "last.ckpt"), ("jsqa_pretrain", "best.ckpt")])
def test_a_longer_run_after_a_short_one_is_one_long_run(task, file, rated, corpora, tmp_path):
    recipe = recipe_for(task, "spectrogram", rated, corpora, max_epochs=-1)
    for out, lengths in {"whole": [8], "parts": [4, 8]}.items():
        for steps in lengths:
            train({**recipe, "trainer": recipe["trainer"] | {"max_steps": steps}}, tmp_path / out)
    whole, parts = (weights(tmp_path / name / file) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize(
    ("where", "first"),
    [("training_step", 2), ("validation_step", 2), ("validation_step", 3), ("on_train_epoch_end", 3)],
)
def test_a_run_interrupted_about_a_validation_chooses_the_same_weights(
    where, first, rated, corpora, tmp_path, monkeypatch
):
    recipe = recipe_for("jsqa_finetune", "spectrogram", rated, corpora, max_epochs=2, num_sanity_val_steps=0)
    if first == 2:  # and not once in an epoch of 3 steps
        recipe["trainer"] |= {"val_check_interval": 2, "check_val_every_n_epoch": None}
    monkeypatch.setattr("training.train.SAVE_EVERY_STEPS", 2)
    # the first validation is the best: a run that forgets or skips it chooses another
    monkeypatch.setattr(FineTuning, "validation_step", falling_quality)
    train(recipe, tmp_path / "whole")
    step = getattr(FineTuning, where)

    def failing_step(self, *arguments):
        if self.global_step == first:
            raise InterruptionError
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FineTuning, where, failing_step)
        with pytest.raises(InterruptionError):
            train(recipe, tmp_path / "parts")
    train(recipe, tmp_path / "parts")
    assert torch.load(tmp_path / "whole" / "best.ckpt", weights_only=True)["global_step"] == first
    for file in ("last.ckpt", "best.ckpt"):
        whole, parts = (weights(tmp_path / name / file) for name in ("whole", "parts"))
        assert all(torch.equal(whole[name], parts[name]) for name in whole), file


def falling_quality(self, batch, batch_index):
    self.log("valid/pcc", torch.tensor(-float(self.global_step)))


def test_a_finished_stage_is_not_taken_for_a_longer_one(rated, corpora, tmp_path):
    recipe = recipe_for("jsqa_finetune", "spectrogram", rated, corpora, max_epochs=1)
    best = train_once(recipe, tmp_path)
    kept, before = tmp_path / "recipe.yaml", best.read_bytes()
    assert train_once(recipe | {"trainer": recipe["trainer"] | {"enable_model_summary": True}}, tmp_path) == best
    with pytest.raises(ValueError, match=r"\(trainer.max_epochs differ\)"):
        train_once(recipe | {"trainer": recipe["trainer"] | {"max_epochs": 4}}, tmp_path)
    assert yaml.safe_load(kept.read_text()) == recipe
    assert best.read_bytes() == before
