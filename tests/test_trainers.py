"""`JSQAMetric` in a Lightning trainer, and in two processes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn
from torchmetrics import MeanMetric

from jsqa_metric import JSQAMetric, score

RATE = 16000


def test_in_a_lightning_trainer_the_metric_rises_with_training(tmp_path, speech, noisy):
    lightning = pytest.importorskip("lightning", reason="needs the extra `test`")
    clean = torch.from_numpy(speech[:80000].reshape(5, 16000))
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(noisy[:80000].reshape(5, 16000)), clean)

    class Enhancer(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Parameter(torch.tensor(0.0))
            self.mos, self.loss = JSQAMetric(RATE), MeanMetric()

        def forward(self, noisy, clean):
            return noisy + torch.sigmoid(self.mix) * (clean - noisy)

        def training_step(self, batch, index):
            return torch.nn.functional.l1_loss(self(*batch), batch[1]) * 100

        def validation_step(self, batch, index):
            self.mos.update(self(*batch))
            self.log("val/mos", self.mos, on_epoch=True)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=5.0)

        def on_validation_epoch_end(self):
            history.append(self.mos.compute().item())

    history: list[float] = []
    module, loader = Enhancer(), torch.utils.data.DataLoader(pairs, 2)
    trainer = lightning.Trainer(
        default_root_dir=tmp_path, max_epochs=3, logger=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    assert history[-1] > history[0]
    with torch.no_grad():
        expected = score(torch.cat([module(*b) for b in loader]), RATE).mean()
    assert trainer.callback_metrics["val/mos"].item() == pytest.approx(expected.item(), abs=1e-4)
    checkpoint = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=False)
    assert list(checkpoint["state_dict"]) == ["mix"]


DDP = """
import os, sys, torch, torch.distributed as dist
from jsqa_metric import JSQAMetric
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
torch.manual_seed(0)
clips = 0.1 * torch.randn(5, 8000) * torch.logspace(-2, 0, 8000)
part = clips[:4] if rank == 0 else clips[4:]
mean, every = JSQAMetric(16000), JSQAMetric(16000, reduction="none")
for metric in (mean, every):
    metric.update(part)
mean, every = mean.compute(), every.compute()
one = JSQAMetric(16000, sync_on_compute=False)
one.update(clips)
assert torch.allclose(mean, one.compute(), atol=1e-5), (mean, one.compute())
assert every.shape == (5,), every.shape
dist.destroy_process_group()
"""


def test_two_processes_with_unequal_batches_equal_one(tmp_path):
    address = f"file://{tmp_path / 'rendezvous'}"
    ranks = [
        subprocess.Popen([sys.executable, "-c", DDP, str(rank), address], stderr=subprocess.PIPE, text=True, cwd=ROOT)
        for rank in (0, 1)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
