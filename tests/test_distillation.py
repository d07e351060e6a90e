"""A network that learns what others say of clips blended anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import needs_training

from jsqa_metric import load_model

needs_training()

from training import train
from training.checkpoints import read_model
from training.data.labelled import LabelledData
from training.distillation import FAINTEST_GAIN_DB, HISS_RANGE_DB, Distillation, blended

DEFAULT = {"model": "default", "revision": "2027.11"}
LIGHT = {"model": "light", "revision": "2027.10"}


def student(teachers: list[dict[str, str]], **options: object) -> Distillation:
    """One that is the default network."""
    config = load_model(**DEFAULT).config.to_dict()
    names = ("sample_rate", "bands", "channels", "layers", "limit_hz", "level_db", "threshold_db")
    module = Distillation({name: config[name] for name in names}, teachers, **options)
    module.model.load_state_dict(load_model(**DEFAULT).state_dict())
    return module.eval()


def test_clips_are_mixed_with_another_or_go_over_to_it():
    torch.manual_seed(0)
    wav = torch.randn(200, 4000)
    assert torch.equal(blended(wav, 0.0), wav)
    half = (blended(wav, 0.5) == wav).all(1)
    assert 70 <= half.sum() <= 130
    places, gains = [], []
    for own, other, blend in zip(*(w.double().numpy() for w in (wav, wav.roll(1, 0), blended(wav, 1.0))), strict=True):
        place = int((blend == own).cumprod().sum())
        if place or np.array_equal(blend, other):
            assert np.array_equal(blend[place:], other[place:])
            places.append(place)
            continue
        (a, b), residual, *_ = np.linalg.lstsq(np.stack([own, other], 1), blend, rcond=None)
        assert residual < 1e-6
        assert np.hypot(a, b) == pytest.approx(1)
        gains.append(20 * np.log10(b / a))
    assert 70 <= len(places) <= 130
    assert min(places) < 1000 < 3000 < max(places)
    assert FAINTEST_GAIN_DB < min(gains) < -20 < -10 < max(gains) < 0


def test_a_share_is_not_more_than_all():
    with pytest.raises(ValueError, match="`blend` must be a share from 0 to 1, got 50"):
        student([DEFAULT], blend=50)


@pytest.mark.parametrize("options", [{}, {"blend": 1.0, "warp": True}])
def test_who_is_the_teacher_has_nothing_to_learn(labelled_set, options):
    folder = [str(labelled_set[0])]
    data = LabelledData(folder, folder, 16000, level_db=-26)
    data.setup("fit")
    signals = [data.train_set.signal(index)[:32000] for index in range(4)]
    batch = torch.stack(signals), torch.full((4,), 32000), data.train_set.targets[:4] * torch.nan
    losses = {}
    for name, teachers in {"itself": [DEFAULT], "another": [LIGHT], "both": [DEFAULT, LIGHT]}.items():
        module = student(teachers, **options)
        module.log_dict = lambda values, prog_bar, name=name: losses.update(
            {name: {key: float(value) for key, value in values.items()}}
        )
        torch.manual_seed(0)
        module.training_step(batch, 0)
        assert not any("teachers" in key for key in module.state_dict())
    assert losses["itself"]["train/mos_loss"] < 1e-10
    assert losses["itself"]["train/task_loss"] < 1e-10
    assert losses["another"]["train/mos_loss"] > 1e-4
    # half as far off as from the other alone, and the loss is squared
    assert losses["both"]["train/mos_loss"] == pytest.approx(losses["another"]["train/mos_loss"] / 4, rel=1e-3)


@pytest.mark.parametrize("hiss", [False, True])
def test_the_student_hears_a_hiss_of_its_own_in_each_clip_and_its_teachers_do_not(hiss):
    torch.manual_seed(0)
    module, heard = student([DEFAULT], hiss=hiss), []
    for model in (module.model, *module.teachers):
        model.encoder.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    module.log_dict = lambda *_, **__: None
    wav, lengths = 0.05 * torch.randn(40, 8000), torch.tensor([8000] * 39 + [4000])
    module.training_step((wav, lengths, torch.empty(0)), 0)
    taught, learns = heard
    difference = learns - taught
    assert (difference[-1, 4000:] == 0).all()  # nor does the padding
    if not hiss:
        assert (difference == 0).all()
        return
    level_db = 10 * difference[:-1].double().square().mean(1).log10()
    low, high = HISS_RANGE_DB
    assert low - 1 < level_db.min() < low + 6 < high - 6 < level_db.max() < high + 1
    alike = torch.corrcoef(difference[:-1].double())
    assert (alike - torch.eye(39)).abs().max() < 0.1


def test_hints_bring_the_features_nearer_to_those_of_the_first_teacher():
    torch.manual_seed(0)
    wav, lengths = 0.05 * torch.randn(4, 16000), torch.full((4,), 16000)
    logged = {}
    module = student([DEFAULT, LIGHT], hints=0.5)
    module.log_dict = lambda values, prog_bar: logged.update(values)
    module.log = lambda name, value: logged.update({name: value})
    loss = module.training_step((wav, lengths, torch.empty(0)), 0)
    assert logged["train/hint_loss"] < 1e-10  # it is the first teacher
    with torch.no_grad():
        for parameter in module.model.parameters():
            parameter += 0.1 * parameter.std() * torch.randn_like(parameter) if parameter.numel() > 1 else 0
    hints = []
    optimizer = torch.optim.SGD(module.model.encoder.parameters(), lr=1e-3)
    for _ in range(5):
        torch.manual_seed(1)
        optimizer.zero_grad()
        loss = module.training_step((wav, lengths, torch.empty(0)), 0)
        hints.append(float(logged["train/hint_loss"]))
        shares = {"train/mos_loss": 1, "train/task_loss": 0.5, "train/std_loss": 0.1, "train/hint_loss": 0.5}
        assert float(loss) == pytest.approx(sum(share * float(logged[name]) for name, share in shares.items()))
        logged["train/hint_loss"].backward()
        optimizer.step()
    assert 0 < hints[-1] < 0.9 * hints[0]
    with pytest.raises(ValueError, match="`hints` are for a network whose layers are like"):
        student([LIGHT], hints=0.5).training_step((wav, lengths, torch.empty(0)), 0)


def test_a_waveform_encoder_learns_from_others_but_takes_no_hints():
    small = {"encoder": "waveform", "width": 4, "level_db": -26}
    module = Distillation(small, [DEFAULT])
    module.log_dict = lambda *_, **__: None
    loss = module.training_step((0.05 * torch.randn(4, 16000), torch.full((4,), 16000), torch.empty(0)), 0)
    assert torch.isfinite(loss)
    with pytest.raises(ValueError, match="`hints` are for spectrogram encoders"):
        Distillation(small, [DEFAULT], hints=0.1)


@pytest.mark.parametrize("name", ["light_seventh", "light_ninth", "default_twelfth", "default_fourteenth"])
def test_the_recipes_train_models_that_score(name, labelled_set, tmp_path):
    folder = labelled_set[0]
    changes = [
        f"data.train=[{folder}]", f"data.valid=[{folder}]", "data.batch_size=4", "trainer.max_epochs=2", "start=",
        "trainer.accelerator=cpu", "trainer.precision=32", "trainer.enable_progress_bar=false",
        "trainer.log_every_n_steps=1",
    ]  # fmt: skip
    recipe = train.read_recipe(f"training/recipes/{name}.yaml", changes)
    best = train.train(recipe, tmp_path / "run")
    assert 1 <= read_model(best)(torch.randn(1, 16000) * 0.05) <= 5
    wrong = train.read_recipe(f"training/recipes/{name}.yaml", [*changes, "data.level_db=0"])
    wrong["module"]["model"]["level_db"] = 0
    with pytest.raises(ValueError, match="hears -26 dBFS cannot teach"):
        train.train(wrong, tmp_path / "wrong")
