"""The training chain on real audio: simulate, label, train, resume, publish, score."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from conftest import needs_training

from jsqa_metric import JSQAModel, ModelConfig, load_model, score
from jsqa_metric.hub import write_folder

needs_training()

from jsqa_metric.model import DIMENSIONS, LOG_STD
from training import ablation, add_labels, build_set, evaluate, publish, train
from training.checkpoints import read_model
from training.data.calibration import DIMENSION_COLUMNS
from training.data.corpus import SAMPLE_RATE, Corpus
from training.data.labelled import LabelledSet, calibrate
from training.data.labels import read_set
from training.data.simulate import draw_reference
from training.data.voices import change_speed
from training.regression import WARP_RANGE, Regression, warped
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
    for other in (["--seed", "2"], ["--kinds", "noise"], ["--shard-clips", "4"]):
        with pytest.raises(ValueError, match="was begun with"):
            build_set.main([*arguments, "--clips", "12", "--shard-clips", "6", *other])


def test_warped_frequencies_are_those_of_another_vocal_tract(speech, monkeypatch):
    front_end = JSQAModel(ModelConfig(limit_hz=7500)).encoder.front_end
    filters = front_end.filters.clone()

    def spectrum(signal: np.ndarray) -> torch.Tensor:
        features, _ = front_end(torch.from_numpy(signal)[None], torch.tensor([len(signal)]))
        return features.mean(-1)[0, 10:50]  # below, bins are coarse

    monkeypatch.setattr(torch, "rand", lambda size: torch.tensor(0.0))
    other = change_speed(speech, WARP_RANGE[0])  # pitch and formants times the factor
    with warped(front_end):
        back = spectrum(other)
    assert torch.equal(front_end.filters, filters)
    assert (back - spectrum(speech)).abs().mean() < 0.4 * (spectrum(other) - spectrum(speech)).abs().mean()
    assert (back - spectrum(speech)).mean().abs() < 0.2 / 25  # dB


def recipe(folder, *changes, name="default"):
    small = [
        f"data.train=[{folder}]", f"data.valid=[{folder}]", "data.batch_size=4", "trainer.max_epochs=2",
        "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.enable_model_summary=false",
        "trainer.log_every_n_steps=1",
    ]  # fmt: skip
    return train.read_recipe(f"training/recipes/{name}.yaml", [*small, *changes])


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
    more = ["module.warp=true", "data.gain_db=8", "data.whole=true", "module.model.dropout=0.2"]
    third = train.train(recipe(labelled_set[0], f"start={first}", "average=0.9", *more), tmp_path / "third")
    content = torch.load(third, weights_only=True)
    mean, last = content["state_dict"], content["current_model_state"]
    assert any(not torch.equal(mean[name], last[name]) for name in mean)
    with pytest.raises(ValueError, match="holds another model"):
        train.train(recipe(labelled_set[0], f"start={first}", "module.model.width=8"), tmp_path / "fourth")


def test_a_run_goes_on_from_published_weights_and_the_mean_of_both_is_published(labelled_set, tmp_path):
    seventh = recipe(labelled_set[0], "trainer.max_epochs=1", name="default_seventh")
    best = train.train(seventh, tmp_path / "run")
    before = load_model(**seventh["start"])
    write_folder(before, tmp_path / "before")
    publish.main([str(best), str(tmp_path / "model"), "--revision", "test", "--mean-with", str(tmp_path / "before")])
    first, second = (dict(model.named_parameters()) for model in (before, read_model(best)))
    assert 1e-5 < max((second[k] - v).abs().max() for k, v in first.items()) < 0.1  # trained, but not from chance
    expected = {name: ((value.double() + second[name]) / 2).half().float() for name, value in first.items()}
    torch.testing.assert_close(dict(load_model(tmp_path / "model").named_parameters()), expected)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("model", "before")]
    assert sizes[0] < 0.52 * sizes[1]
    with pytest.raises(ValueError, match="another model"):
        publish.take_mean(JSQAModel(ModelConfig(width=8)), before)


def test_a_model_is_held_against_the_simulated_labels(labelled_set, tmp_path, monkeypatch):
    folder, _ = labelled_set
    monkeypatch.setattr(evaluate, "LEAST_CLIPS", 2)
    torch.manual_seed(0)
    write_folder(JSQAModel(ModelConfig(width=4, channels=16, layers=1, tasks=DIMENSIONS)), tmp_path / "model")
    sets = [f"data.train=[{folder}]", f"data.valid=[{folder}]"]
    each = [argument for change in sets for argument in ("--set", change)]
    evaluate.main([str(tmp_path / "model"), "--out", str(tmp_path / "report.md"), *each])
    report = (tmp_path / "report.md").read_text()
    assert "| all | 12 |" in report
    clips = read_set(folder)
    valid = LabelledSet(clips, calibrate(clips, train.read_recipe(evaluate.RECIPE, [])["data"]), 16000)
    _, predicted = evaluate.predict(load_model(tmp_path / "model"), valid)
    labels = valid.targets[:, DIMENSION_COLUMNS].numpy() + 3
    for column, name in enumerate(DIMENSIONS):
        known = ~np.isnan(labels[:, column])
        row = next(line for line in report.splitlines() if line.startswith(f"| {name} | {known.sum()} |"))
        mae = np.abs(predicted[known, column] - labels[known, column]).mean()
        assert float(row.split("|")[-2]) == pytest.approx(mae, abs=0.001)


def test_a_model_is_held_against_the_labels_of_one_level(labelled_set, tmp_path, monkeypatch):
    folder, _ = labelled_set
    monkeypatch.setattr(evaluate, "LEAST_CLIPS", 2)
    sets = [f"data.train=[{folder}]", f"data.valid=[{folder}]"]
    evaluate.main(["default", "--level-db", "-40", "--out", str(tmp_path / "report.md"), "--set", *sets])
    assert "(12 clips at -40 dBFS)" in (tmp_path / "report.md").read_text()
    clips = read_set(folder)
    quiet = [replace(clip, level_db=-40) for clip in clips]
    valid = LabelledSet(quiet, calibrate(clips, train.read_recipe(evaluate.RECIPE, [])["data"]), 16000)
    mos, _ = evaluate.predict(load_model(), valid, -40)
    scores = [score(audio.float() / 32768, 16000, level_db=-40) for audio in valid.audio]
    np.testing.assert_allclose(mos, scores, atol=1e-3)
    rmse = float(np.sqrt(np.mean((mos - valid.targets[:, 0].numpy()) ** 2)))
    row = next(line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| all |"))
    assert float(row.split("|")[-3]) == pytest.approx(rmse, abs=0.001)
    as_they_are, dimensions = evaluate.predict(load_model(), valid)
    details = score([audio.float() / 32768 for audio in valid.audio], 16000, return_details=True)
    np.testing.assert_allclose(as_they_are, [detail.mos for detail in details], atol=1e-3)
    np.testing.assert_allclose(dimensions, [detail.dimensions for detail in details], atol=1e-3)


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


def test_a_network_that_knows_one_level_is_trained_at_it_and_scores_so(labelled_set, tmp_path, speech):
    short = recipe(labelled_set[0], "trainer.max_epochs=1", name="default_eleventh")
    best = train.train(short, tmp_path / "run")
    publish.publish(best, tmp_path / "model", "test")
    model = load_model(tmp_path / "model")
    assert model.config.level_db == -26
    loud, quiet = (score(speech * np.float32(gain), 16000, model=model, level_db=-26) for gain in (1, 0.1))
    assert loud == pytest.approx(quiet, abs=1e-4)
    assert 3 < loud < 4.75
    with pytest.raises(ValueError, match=r"`level_db` -26, `module.model.level_db` is 0"):
        train.train(short | {"module": recipe(labelled_set[0])["module"]}, tmp_path / "other")


@pytest.mark.parametrize("doubt", [0.0, 0.4])
def test_the_standard_deviation_is_fitted_to_errors_and_doubts_and_has_no_say_in_the_mos(doubt):
    module = Regression({"encoder": "waveform", "width": 2})
    errors, log_std = torch.tensor([0.5, -0.5, 0.5, -0.5]), torch.zeros(1, requires_grad=True)
    targets = torch.full((4, 10), float("nan"))
    targets[:, 0], targets[:, -1] = 3.0, doubt
    mos = (3.0 + errors).requires_grad_()
    optimizer = torch.optim.SGD([log_std], lr=0.5)
    for _ in range(200):
        outputs = torch.cat([torch.zeros(4, 8), log_std.expand(4)[:, None]], dim=1)
        optimizer.zero_grad()
        module.losses(mos, outputs, targets)[2].backward()
        optimizer.step()
    assert log_std.exp().item() == pytest.approx(math.hypot(0.5, doubt), abs=0.01)
    assert mos.grad is None


def test_numbers_in_recipe_changes_may_have_exponents():
    changed = train.read_recipe("training/recipes/default.yaml", ["module.learning_rate=2e-3", "data.limit=5"])
    assert changed["module"]["learning_rate"] == 0.002
    assert changed["data"]["limit"] == 5


def test_a_recipe_change_must_have_a_value():
    with pytest.raises(ValueError, match="section.key=value"):
        train.read_recipe("training/recipes/default.yaml", ["data.limit"])
