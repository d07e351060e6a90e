"""Pretraining, fine-tuning, contrastive regression, recipes and two processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import ROOT, SMALL, TRAINER, needs_training, recipe_for, weights

needs_training()

import lightning

from jsqa_metric import JSQAModel, ModelConfig, load_model
from training import baselines, publish
from training.checkpoints import load_encoder, read_model
from training.data.modules import RatedData, RatedSet
from training.data.readers import open_rated
from training.finetune import ContrastiveRegression
from training.logs import read_log
from training.losses import nt_xent
from training.pretrain import Pretraining
from training.projection import NonMatching, projection_head
from training.regression import Regression
from training.train import TASKS, read_recipe, train

RECIPES = ROOT / "training" / "recipes"
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


# runs


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
    assert torch.allclose(metric(wav), 5 - 4 * away.norm(dim=1), atol=1e-3)  # published in half precision
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
    half = module.model.embed(*batch)[:, : module.half_size]
    assert module.training_step(batch, 0).item() == pytest.approx(nt_xent(half[:2], half[2:]).item(), rel=1e-5)
    module.projection = projection_head(module.half_size).eval()
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


def train_in_two_processes(recipe, tmp_path):
    """Run the command on two processes; returns the folder of the run."""
    recipe["trainer"] |= {"devices": 2, "strategy": "ddp"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "training.train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PL_TORCH_DISTRIBUTED_BACKEND": "gloo"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return tmp_path / "two"


def test_pretraining_in_two_processes(rated, corpora, tmp_path):
    recipe = recipe_for("jsqa_pretrain", "spectrogram", rated, corpora, max_epochs=1)
    content = torch.load(train_in_two_processes(recipe, tmp_path) / "last.ckpt", weights_only=True)
    assert content["global_step"] == 1  # 12 pairs: 6 for each process, a batch of 4


def test_two_processes_learn_what_one_does_from_twice_the_batch(rated, corpora, tmp_path):
    recipe = recipe_for("jsqa_finetune", "spectrogram", rated, corpora, max_epochs=2)
    # the head alone, without dropout: batch statistics and what is dropped are each process' own
    recipe["module"] = {"model": SMALL["spectrogram"] | {"dropout": 0.0}, "freeze_layers": -1}
    train(recipe, tmp_path / "one")
    recipe["data"]["batch_size"] //= 2
    train_in_two_processes(recipe, tmp_path)
    one, two = (dict(weights(tmp_path / name / "last.ckpt")) for name in ("one", "two"))
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)
    measures = ["valid/pcc", "valid/srcc", "valid/rmse", "valid/mae"]
    alone, together = (read_log(tmp_path / name)[measures].dropna().to_numpy() for name in ("one", "two"))
    assert together == pytest.approx(alone, rel=1e-3)


def test_two_processes_measure_on_the_clips_of_both(rated, corpora, tmp_path):
    recipe = recipe_for("scoreq", "spectrogram", rated, corpora, max_epochs=1)
    out = train_in_two_processes(recipe, tmp_path)
    trained = ContrastiveRegression.load_from_checkpoint(out / "last.ckpt", map_location="cpu", weights_only=True)
    (alone,) = lightning.Trainer(**TRAINER, logger=False).validate(trained, RatedData(rated, rated), verbose=False)
    assert read_log(out)["valid/pcc"].dropna().item() == pytest.approx(alone["valid/pcc"], abs=1e-4)


def test_there_cannot_be_more_clips_than_there_are(rated):
    with pytest.raises(ValueError, match="`limit` is 13, but there are 12 training clips"):
        RatedData(rated, rated, limit=13).setup("fit")
