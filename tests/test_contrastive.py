"""Pretraining, fine-tuning, contrastive regression, exact resume and two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
import yaml
from conftest import needs_training

needs_training()

import lightning

from jsqa_metric import JSQAModel, ModelConfig, load_model
from training import baselines, publish
from training.checkpoints import load_encoder, read_model
from training.data.modules import RatedSet
from training.data.readers import open_rated
from training.finetune import ContrastiveRegression
from training.logs import read_log
from training.losses import nt_xent
from training.pretrain import Pretraining
from training.projection import NonMatching, projection_head
from training.regression import Regression
from training.train import TASKS, read_recipe, train

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "training" / "recipes"
SMALL = {
    "spectrogram": {"encoder": "spectrogram", "width": 4, "channels": 16, "layers": 1},
    "waveform": {"encoder": "waveform", "width": 2},
}
TRAINER = {
    "max_epochs": 2,
    "accelerator": "cpu",
    "devices": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


# runs


@pytest.fixture(scope="module")
def rated(tmp_path_factory) -> str:
    """12 rated clips of 0.5 s, in which the MOS falls with the noise."""
    folder = tmp_path_factory.mktemp("rated")
    speech = sf.read(ROOT / "examples" / "english_clean.flac", dtype="float32")[0]
    rng = np.random.default_rng(0)
    lines = ["file,mos,condition"]
    for i in range(12):
        noise = rng.standard_normal(8000) * 0.1 * i / 12
        sf.write(folder / f"{i}.flac", np.clip(speech[8000 + 400 * i :][:8000] + noise, -1, 1), 16000)
        lines.append(f"{i}.flac,{4.5 - 3 * i / 12:.2f},noise")
    (folder / "labels.csv").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("corpora")
    for talker in ("english", "german"):
        (root / "speech" / talker).mkdir(parents=True)
        (root / "noise").mkdir(exist_ok=True)
        clean = sf.read(ROOT / "examples" / f"{talker}_clean.flac", dtype="float32")[0]
        noisy = sf.read(ROOT / "examples" / f"{talker}_noise05.flac", dtype="float32")[0]
        sf.write(root / "speech" / talker / "a.flac", clean, 16000)
        sf.write(root / "noise" / f"{talker}.flac", noisy - clean, 16000)
    return {"speech": str(root / "speech"), "noise": str(root / "noise")}


def recipe_for(task: str, encoder: str, rated: str, corpora: dict[str, str], **trainer: object) -> dict:
    data = {"train": rated, "valid": rated, "batch_size": 4}
    if task == "jsqa_pretrain":
        data = {**corpora, "seconds": [0.5, 0.5], "pairs_per_epoch": 12, "batch_size": 4}
    module = {"model": SMALL[encoder]} | ({"projection": True} if task == "jsqa_pretrain" else {})
    return {"task": task, "seed": 3, "data": data, "module": module, "trainer": TRAINER | trainer}


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


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


def test_a_longer_run_after_a_short_one_is_one_long_run(rated, corpora, tmp_path):
    recipe = recipe_for("jsqa_finetune", "spectrogram", rated, corpora, max_epochs=-1)
    for out, lengths in {"whole": [8], "parts": [4, 8]}.items():
        for steps in lengths:
            train({**recipe, "trainer": recipe["trainer"] | {"max_steps": steps}}, tmp_path / out)
    whole, parts = (weights(tmp_path / name / "last.ckpt") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("encoder", SMALL)
def test_pretrain_then_fine_tune_then_publish(encoder, rated, corpora, tmp_path):
    pretrained = train(recipe_for("jsqa_pretrain", encoder, rated, corpora, max_epochs=1), tmp_path / "pretrain")
    recipe = recipe_for("jsqa_finetune", encoder, rated, corpora, max_epochs=1)
    recipe["module"] |= {"pretrained": str(pretrained), "freeze_layers": -1}
    best = train(recipe, tmp_path / "finetune")
    before, after = read_model(pretrained), read_model(best)
    for name, weight in before.encoder.state_dict().items():
        assert torch.equal(weight, after.encoder.state_dict()[name]), name  # batch statistics, too
    assert not torch.equal(before.head[0].weight, after.head[0].weight)
    publish.publish(best, tmp_path / "model", "test")
    assert load_model(tmp_path / "model").config.revision == "test"


def test_scoreq_learns_the_order_of_the_clips(rated, corpora, tmp_path):
    recipe = recipe_for("scoreq", "spectrogram", rated, corpora, max_epochs=6, check_val_every_n_epoch=6)
    recipe["data"]["batch_size"] = 12
    best = train(recipe, tmp_path)
    embedding = ContrastiveRegression.load_from_checkpoint(best, map_location="cpu", weights_only=True)
    norms = embedding.eval().embed(torch.randn(2, 8000), torch.tensor([8000, 6000])).norm(dim=1)
    assert torch.allclose(norms, torch.ones(2))
    rows = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("valid/pcc")
    assert max(float(row.split(",")[column] or 0) for row in rows[1:]) > 0.5  # nearness to good speech follows MOS


def test_relatives_are_trained_by_one_command(rated, corpora, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(baselines, "held_out", lambda data: RatedSet(open_rated(rated)))
    monkeypatch.setattr(baselines, "REFERENCES", 2)
    changes = [f"pretrain.data.{key}={value}" for key, value in corpora.items()]
    changes += ["pretrain.data.seconds=[0.5,0.5]", "pretrain.data.pairs_per_epoch=8", "pretrain.trainer.max_epochs=1"]
    for stage in ("pretrain", "finetune", "contrast", "head"):
        changes += [f"{stage}.module.model={SMALL['spectrogram']}", f"{stage}.trainer.accelerator=cpu"]
        if stage != "pretrain":
            changes += [f"{stage}.data.{part}={rated}" for part in ("train", "valid")]
            changes += [f"{stage}.data.batch_size=4", f"{stage}.trainer.max_steps=3"]
            changes += [f"{stage}.trainer.val_check_interval=3"]
    command = ["--runs", str(tmp_path), "--clean", corpora["speech"], "--set", *changes]
    baselines.main(command)
    assert "scoreq_style_nmr: PCC" in capsys.readouterr().out
    metric = NonMatching.read(tmp_path / "scoreq_style" / "model")
    wav = torch.randn(2, 8000)
    padded = metric(torch.nn.functional.pad(wav, (0, 4000)), torch.tensor([8000, 8000]))
    assert torch.allclose(metric(wav), padded, atol=1e-5)
    embedding = ContrastiveRegression.load_from_checkpoint(
        tmp_path / "scoreq_style" / "contrast" / "best.ckpt", map_location="cpu", weights_only=True
    )
    away = embedding.eval().embed(wav, torch.tensor([8000, 8000])) - metric.reference
    assert torch.allclose(metric(wav), 5 - 4 * away.norm(dim=1), atol=1e-5)
    assert load_model(tmp_path / "jsqa_published" / "model").config.revision == "jsqa_published-small"
    with monkeypatch.context() as patch:  # nothing is trained twice
        patch.setattr("training.train.train", lambda *_: pytest.fail("trained again"))
        baselines.main([*command[:4], "--set", *changes])


# parts


def test_projection_head_is_in_the_loss(corpora):
    torch.manual_seed(0)
    batch = torch.randn(4, 8000), torch.full((4,), 8000)
    module = Pretraining(SMALL["spectrogram"]).eval()
    module.log = lambda *args, **kwargs: None
    half = module.model.embed(*batch)[:, : module.half]
    assert module.training_step(batch, 0).item() == pytest.approx(nt_xent(half[:2], half[2:]).item(), rel=1e-5)
    module.projection = projection_head(module.half).eval()
    projected = module.projection(half)
    assert module.training_step(batch, 0).item() == pytest.approx(nt_xent(*projected.chunk(2)).item(), rel=1e-5)


def test_a_run_too_short_to_be_validated_keeps_its_last_weights(rated, corpora, tmp_path, capsys):
    recipe = recipe_for("jsqa_finetune", "spectrogram", rated, corpora, max_epochs=-1)
    recipe["trainer"] |= {"max_steps": 1, "val_check_interval": 3, "num_sanity_val_steps": 0}
    best = train(recipe, tmp_path)
    assert "the last weights" in capsys.readouterr().out
    kept = weights(tmp_path / "last.ckpt")
    assert all(torch.equal(kept[name], value) for name, value in weights(best).items())


def test_an_interrupted_run_keeps_its_log(rated, corpora, tmp_path):
    recipe = recipe_for("jsqa_finetune", "spectrogram", rated, corpora, max_epochs=1)
    for epochs in (1, 2):
        recipe["trainer"]["max_epochs"] = epochs
        train(recipe, tmp_path)
    epochs = read_log(tmp_path).dropna(subset=["valid/pcc"])["epoch"]
    assert epochs.tolist() == [0, 1]
    assert list((tmp_path / "tensorboard").rglob("events*"))


@pytest.mark.parametrize(
    ("change", "message"), [({"traner": {}}, "unknown entries in the recipe: traner"), ({"average": 1.0}, "`average`")]
)
def test_recipes_with_mistakes_are_errors(change, message, rated, corpora, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(recipe_for("jsqa_finetune", "spectrogram", rated, corpora, max_epochs=1) | change, tmp_path)


def test_warping_is_for_spectra_and_a_start_for_models(tmp_path):
    with pytest.raises(ValueError, match="`warp` is for the spectrogram encoder"):
        Regression({"encoder": "waveform", "width": 2}, warp=True)
    with pytest.raises(ValueError, match="not for gan_codec"):
        train(read_recipe(RECIPES / "gan_codec.yaml", ["start=some.ckpt"]), tmp_path)


def test_errors_say_what_to_do(tmp_path):
    model = JSQAModel(ModelConfig(**SMALL["waveform"]))
    with pytest.raises(FileNotFoundError, match="pretrain first"):
        load_encoder(model, tmp_path / "none.ckpt")
    with pytest.raises(ValueError, match="`task` must be one of"):
        train({"task": "guess"}, tmp_path)


@pytest.mark.parametrize("task", ["jsqa_pretrain", "jsqa_finetune"])
def test_a_model_of_another_rate_than_the_data_is_refused(task, rated, corpora, tmp_path):
    recipe = recipe_for(task, "spectrogram", rated, corpora, max_epochs=1)
    recipe["module"]["model"] = recipe["module"]["model"] | {"sample_rate": 48000}
    with pytest.raises(ValueError, match="the data come at 16000 Hz"):
        train(recipe, tmp_path)


def test_another_recipe_does_not_go_on_with_a_run(rated, corpora, tmp_path):
    recipe = recipe_for("jsqa_finetune", "spectrogram", rated, corpora, max_epochs=1)
    train(recipe, tmp_path)
    recipe["module"]["learning_rate"] = 0.1
    with pytest.raises(ValueError, match=r"another recipe \(module differ"):
        train(recipe, tmp_path)


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_recipes_build(recipe):
    content = read_recipe(recipe, [])
    if "model" in content["module"]:
        content["module"]["model"]["width"] = 2
    module, data = TASKS[content.get("task", "regression")]
    module(**content["module"])
    data(**content["data"])
    lightning.Trainer(**content["trainer"], logger=False)


def test_two_processes(rated, corpora, tmp_path):
    recipe = recipe_for("jsqa_pretrain", "spectrogram", rated, corpora, max_epochs=1, devices=2, strategy="ddp")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "training.train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PL_TORCH_DISTRIBUTED_BACKEND": "gloo"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    content = torch.load(tmp_path / "out" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 1  # 12 pairs: 6 for each process, a batch of 4
