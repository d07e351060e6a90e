"""The parts of JSQA's two stages: sizes, freezing, the choice of the epoch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from conftest import needs_training

needs_training()

from training.checkpoints import FirstPlateau
from training.finetune import FineTuning
from training.pretrain import Pretraining

TINY = {"encoder": "waveform", "width": 2}


def test_only_the_asked_for_layers_are_frozen():
    module = FineTuning(TINY, freeze_layers=4)
    frozen = {name for name, p in module.model.named_parameters() if not p.requires_grad}
    assert {name.split(".")[2] for name in frozen} == {"0", "1", "2", "3"}
    module.train()
    module.on_train_batch_start(None, 0)
    assert [c.training for c in module.model.encoder.convolutions[:6]] == [False] * 4 + [True] * 2
    assert all(p.requires_grad for p in FineTuning(TINY).model.parameters())
    with pytest.raises(ValueError, match="`freeze_layers` must be"):
        FineTuning(TINY, freeze_layers=17)


def test_the_papers_sizes():
    model = Pretraining({"encoder": "waveform", "width": 64}, projection=True)
    assert model.half_size == 512
    assert [m.out_features for m in model.projection if isinstance(m, torch.nn.Linear)] == [256, 128]
    assert 25e6 < sum(p.numel() for p in model.model.encoder.parameters()) < 27e6
    assert len([m for m in model.model.head if isinstance(m, torch.nn.Linear)]) == 4
    assert not any(p.requires_grad for p in model.model.head.parameters())


def test_first_plateau_takes_the_first_epoch_after_which_the_loss_stopped_falling(tmp_path):
    class FakeTrainer:
        should_stop, saved, num_training_batches = False, None, 2
        strategy = SimpleNamespace(root_device="cpu", reduce=lambda mean, reduce_op: mean)

        def save_checkpoint(self, path, weights_only):
            self.saved = path

    def resumed(rule):
        new = FirstPlateau(tmp_path / "best.ckpt", min_delta=0.01, patience=3)
        new.load_state_dict(rule.state_dict())
        return new

    rule = FirstPlateau(tmp_path / "best.ckpt", min_delta=0.01, patience=3)
    saved, stopped = [], []
    for epoch, loss in enumerate([2.0, 1.5, 1.2, 1.195, 1.21, 1.192, 0.5]):
        trainer = FakeTrainer()
        for batch in (loss - 0.3, loss + 0.3):
            rule.on_train_batch_end(trainer, None, {"loss": torch.tensor(batch)}, None, 0)
            rule = resumed(rule) if epoch in (1, 4) else rule  # also in the middle of an epoch
        saved += [epoch] if trainer.saved else []
        stopped += [epoch] if trainer.should_stop else []
    assert saved == [0, 1, 2]
    assert stopped == [5]
    assert rule.chosen_epoch == 2
    again = FakeTrainer()
    resumed(rule).on_train_start(again, None)
    assert again.should_stop  # nothing is left to do
