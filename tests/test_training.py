"""The training chain on real audio: simulate, label, train, resume, publish, score."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch

from jsqa_metric import JSQAModel, ModelConfig, load_model, score
from jsqa_metric.hub import write_folder

if importlib.util.find_spec("distillmos") is None or importlib.util.find_spec("av") is None:
    pytest.skip("needs the training environment: bash training/install.sh", allow_module_level=True)

from jsqa_metric.model import DIMENSIONS, LOG_STD
from training import ablation, add_labels, build_set, evaluate, publish, train
from training.checkpoints import read_model
from training.data.corpus import SAMPLE_RATE, Corpus
from training.data.labelled import LabelledSet, collate_cropped
from training.data.labels import Calibration, read_set
from training.data.simulate import draw_reference
from training.regression import Regression
from training.teachers import CODEC_TEACHERS, REFERENCE_LABEL, TEACHERS, Teachers


def test_references_of_older_sets_are_found_and_labelled(folders, tmp_path):
    corpus, drawn = Corpus.from_folders(folders["speech"]), []
    for index in range(3):
        rng = np.random.default_rng([9, index])
        drawn.append(draw_reference(corpus, rng, vary_voices=False))
    shard = tmp_path / "00000"
    shard.mkdir()
    sf.write(shard / "0000002.flac", drawn[2][0], SAMPLE_RATE)
    conditions = ["noise", "codec", "neural_codec"]
    rows = [
        {"file": f"{i:07d}.flac", "talker": talker, "condition": condition}
        for i, ((_, talker), condition) in enumerate(zip(drawn, conditions, strict=True))
    ]
    pd.DataFrame(rows).to_csv(shard / "labels.csv", index=False)
    arguments = [str(tmp_path), "--speech", *map(str, folders["speech"]), "--same-voices", "--workers", "1", "--seed"]
    with pytest.raises(ValueError, match="same speech"):
        add_labels.main([*arguments, "1"])
    add_labels.main([*arguments, "9"])
    labels = pd.read_csv(shard / "labels.csv")
    assert labels[REFERENCE_LABEL].tolist() == pytest.approx([Teachers().distillmos(s) for s, _ in drawn], abs=1e-3)
    assert labels[list(CODEC_TEACHERS)].notna().all(axis=1).tolist() == [False, False, True]
    assert labels["warpq"][2] < 1
    assert labels["visqol"][2] > 0.95
    before = (shard / "labels.csv").read_bytes()
    add_labels.main([*arguments, "1"])  # nothing is missing any more, so nothing is drawn
    assert (shard / "labels.csv").read_bytes() == before


def test_an_interrupted_set_is_finished_and_the_same(labelled_set, tmp_path):
    folder, arguments = labelled_set
    before = {p.name: p.read_bytes() for p in (folder / "00001").iterdir()}
    (folder / "00001" / "labels.csv").unlink()
    (folder / "00001").rename(folder / ".00001.999")
    build_set.main([*arguments, "--clips", "12", "--shard-clips", "6", "--workers", "1"])
    assert {p.name: p.read_bytes() for p in (folder / "00001").iterdir()} == before
    assert not list(folder.glob(".0*"))
    assert len(read_set(folder)) == 12


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


def recipe(folder, *changes):
    small = [
        f"data.train=[{folder}]", f"data.valid=[{folder}]", "data.batch_size=4", "trainer.max_epochs=2",
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
    publish.main([str(best), str(tmp_path / "model"), "--revision", "test"])  # again: nothing to keep
    assert not (tmp_path / "model" / "test").exists()
    model = load_model(tmp_path / "model", revision="test")
    assert model.config.tasks == (*TEACHERS, *DIMENSIONS, LOG_STD)
    assert model.config.limit_hz == 7500
    assert 1 <= score(speech, 16000, model=tmp_path / "model") <= 5
    details = score(speech, 16000, model=tmp_path / "model", return_details=True)
    assert 0 < details.std < 3
    assert all(1 <= mos <= 5 for mos in details.dimensions)


def test_a_run_starts_from_all_weights_of_another_and_keeps_their_mean(labelled_set, tmp_path):
    first = train.train(recipe(labelled_set[0]), tmp_path / "first")
    changes = [f"start={first}", "average=0.9", "module.learning_rate=0", "module.weight_decay=0"]
    second = train.train(recipe(labelled_set[0], *changes), tmp_path / "second")
    before, after = (dict(read_model(path).named_parameters()) for path in (first, second))
    torch.testing.assert_close(after, before)
    third = train.train(recipe(labelled_set[0], f"start={first}", "average=0.9"), tmp_path / "third")
    content = torch.load(third, weights_only=True)
    mean, last = content["state_dict"], content["current_model_state"]
    assert any(not torch.equal(mean[name], last[name]) for name in mean)
    with pytest.raises(ValueError, match="holds another model"):
        train.train(recipe(labelled_set[0], f"start={first}", "module.model.width=8"), tmp_path / "fourth")


def test_a_model_is_held_against_the_simulated_labels(labelled_set, tmp_path, monkeypatch):
    folder, _ = labelled_set
    monkeypatch.setattr(evaluate, "LEAST_CLIPS", 2)
    torch.manual_seed(0)
    write_folder(JSQAModel(ModelConfig(width=4, channels=16, layers=1, tasks=DIMENSIONS)), tmp_path / "model")
    sets = [f"data.train=[{folder}]", f"data.valid=[{folder}]"]
    evaluate.main([str(tmp_path / "model"), "--out", str(tmp_path / "report.md"), "--set", *sets])
    report = (tmp_path / "report.md").read_text()
    assert "| all | 12 |" in report
    assert all(f"| {name} |" in report for name in DIMENSIONS)
    assert "| loudness | 12 |" in report


def test_publishing_keeps_the_model_before(tmp_path):
    write_folder(JSQAModel(ModelConfig(width=4, channels=16, layers=1, revision="1.0")), tmp_path / "model")
    model = Regression({"width": 4, "channels": 16, "layers": 1, "sample_rate": 48000})
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    torch.save(content, tmp_path / "new.ckpt")
    publish.main([str(tmp_path / "new.ckpt"), str(tmp_path / "model"), "--revision", "1.1"])
    assert load_model(tmp_path / "model").config.revision == "1.1"
    assert load_model(tmp_path / "model" / "1.0").sample_rate == 16000


def test_the_ablation_trains_what_is_missing_and_reports(labelled_set, tmp_path):
    folder, _ = labelled_set
    small = [
        f"data.train=[{folder}]",
        f"data.valid=[{folder}]",
        "module.model.width=4",
        "trainer.enable_progress_bar=false",
    ]
    changes = [*small, "data.batch_size=4", "trainer.accelerator=cpu", "trainer.precision=32-true"]
    variants = ["default recipe", "after JND pretraining"]
    arguments = ["--out", str(tmp_path / "ablation"), "--runs", str(tmp_path / "runs"), "--seeds", "1", "--clips", "8"]
    arguments += ["--epochs", "1", "--pretrain-epochs", "1", "--pretrain-pairs", "8", "--set", *changes, "--variants"]
    ablation.main([*arguments, variants[0]])
    first = (tmp_path / "ablation.csv").read_text()
    ablation.main([*arguments, *variants])
    assert (tmp_path / "ablation.csv").read_text().startswith(first)
    rows = pd.read_csv(tmp_path / "ablation.csv")
    assert rows["variant"].tolist() == variants
    assert rows["pcc"].between(-1, 1).all()
    assert f"| {variants[1]} |" in (tmp_path / "ablation.md").read_text()
    assert "| +0.000 |" in (tmp_path / "ablation.md").read_text()
    with pytest.raises(ValueError, match="other settings"):
        ablation.main([*arguments, *variants, "--epochs", "2"])


def test_data_at_another_rate_than_the_model_are_refused(labelled_set, tmp_path):
    with pytest.raises(ValueError, match=r"the data come at 8000 Hz"):
        train.train(recipe(labelled_set[0], "data.sample_rate=8000"), tmp_path)


def test_the_standard_deviation_is_fitted_to_the_errors_and_has_no_say_in_the_mos():
    module = Regression({"encoder": "waveform", "width": 2})
    errors, log_std = torch.tensor([0.5, -0.5, 0.5, -0.5]), torch.zeros(1, requires_grad=True)
    targets = torch.full((4, 9), float("nan"))
    targets[:, 0] = 3.0
    mos = (3.0 + errors).requires_grad_()
    optimizer = torch.optim.SGD([log_std], lr=0.5)
    for _ in range(200):
        outputs = torch.cat([torch.zeros(4, 8), log_std.expand(4)[:, None]], dim=1)
        optimizer.zero_grad()
        module.losses(mos, outputs, targets)[2].backward()
        optimizer.step()
    assert log_std.exp().item() == pytest.approx(0.5, abs=0.01)
    assert mos.grad is None


def test_numbers_in_recipe_changes_may_have_exponents():
    changed = train.read_recipe("training/recipes/default.yaml", ["module.learning_rate=2e-3", "data.limit=5"])
    assert changed["module"]["learning_rate"] == 0.002
    assert changed["data"]["limit"] == 5


def test_a_recipe_change_must_have_a_value():
    with pytest.raises(ValueError, match="section.key=value"):
        train.read_recipe("training/recipes/default.yaml", ["data.limit"])
