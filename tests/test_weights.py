"""Loading models: embedded and from folders; and what must never load."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, small_model
from safetensors.torch import load_file, save_file

from jsqa_metric import JSQAModel, ModelConfig, available_models, load_model, score
from jsqa_metric.hub import _load, identity, read_folder, write_folder

EMBEDDED = ROOT / "src" / "jsqa_metric" / "weights" / "default"


@pytest.fixture
def folder(tmp_path) -> Path:
    write_folder(small_model("spectrogram"), tmp_path / "model")
    return tmp_path / "model"


def test_the_embedded_model_loads_once_for_all():
    assert available_models() == ["default", "light"]
    assert load_model() is load_model("default", "cpu")
    for name in available_models():
        assert (EMBEDDED.parent / name / "model.safetensors").stat().st_size < 10e6
    revision = load_model().config.revision
    assert load_model(revision=revision).config.revision == revision
    with pytest.raises(ValueError, match="not 'other'"):
        load_model(revision="other")


def test_older_weights_stay_loadable_by_revision():
    older = load_model(revision="2026.11")
    assert older.config.revision == "2026.11"
    assert older.sample_rate == 16000
    for odd in ("../default", "2026.10", "."):
        with pytest.raises(ValueError, match="has revision"):
            load_model(revision=odd)


def test_a_revision_is_text():
    with pytest.raises(ValueError, match="`revision` must be text, got 2026"):
        load_model("default", revision=2026)


def test_a_folder_gives_back_what_was_written(folder, speech):
    clip = torch.from_numpy(speech[None, :16000])
    with torch.no_grad():  # as what is loaded: where weights are to learn, attention is computed in another way
        written = small_model("spectrogram")(clip)
    for loaded in (load_model(folder), load_model(str(folder)), JSQAModel.from_pretrained(folder)):
        assert torch.equal(loaded(clip), written)
        assert not loaded.training
    assert score(speech, 16000, model=folder) != score(speech, 16000)


def test_a_relative_folder_is_that_of_the_working_folder(tmp_path, monkeypatch):
    for name, width in (("a", 4), ("b", 8)):
        write_folder(JSQAModel(ModelConfig(width=width, channels=16, layers=1)), tmp_path / name / "model")
    widths = []
    for name in ("a", "b"):
        monkeypatch.chdir(tmp_path / name)
        widths.append(load_model("model").config.width)
    assert widths == [4, 8]


def test_both_encoders_survive_save_pretrained(tmp_path, model):
    model.save_pretrained(tmp_path)
    clip = 0.1 * torch.randn(1, 8000)
    assert torch.allclose(load_model(tmp_path)(clip), model(clip), atol=1e-6)


def _edit_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def _edit_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


TAMPERINGS = {
    "missing key": (lambda f: _edit_weights(f, lambda w: w.pop("head.0.bias")), "Missing key"),
    "additional key": (lambda f: _edit_weights(f, lambda w: w.update(extra=torch.ones(1))), "Unexpected key"),
    "wrong shape": (lambda f: _edit_weights(f, lambda w: w.update({"head.0.bias": torch.ones(3)})), "size mismatch"),
    "NaN": (lambda f: _edit_weights(f, lambda w: w["head.0.bias"].fill_(torch.nan)), "NaN"),
    "truncated": (lambda f: os.truncate(f / "model.safetensors", 1000), "does not hold the weights"),
    "empty": (lambda f: os.truncate(f / "model.safetensors", 0), "does not hold the weights"),
    "pickle": (lambda f: (f / "model.safetensors").write_bytes(pickle.dumps(Bomb())), "does not hold the weights"),
    "newer format": (lambda f: _edit_config(f, format_version=2), "format 2"),
    "unknown entry": (lambda f: _edit_config(f, new_option=1), "unknown entries in config.json: new_option"),
    "unknown encoder": (lambda f: _edit_config(f, encoder="quantum"), "`encoder`"),
    "other width": (lambda f: _edit_config(f, width=8), "size mismatch"),
    "no convolutions": (lambda f: _edit_config(f, convolutions=5), "`convolutions` must be at most 16"),
    "huge convolutions": (lambda f: _edit_config(f, convolutions=[[10**9, 1, 1]]), "`convolutions` must be at most 16"),
    "too large": (lambda f: _edit_config(f, width=10**9), "`width` must be a whole number"),
    "no window": (lambda f: _edit_config(f, window_seconds=0), "`window_seconds`"),
    "rate as text": (lambda f: _edit_config(f, sample_rate="16000"), "`sample_rate`"),
    "limit of waveforms": (lambda f: _edit_config(f, encoder="waveform", limit_hz=7500), "`limit_hz` is for"),
    "perceptrons of waveforms": (lambda f: _edit_config(f, encoder="waveform", hidden=8), "`hidden` is for"),
    "tasks twice": (lambda f: _edit_config(f, tasks=["pesq", "pesq"]), "`tasks`"),
    "deep json": (lambda f: (f / "config.json").write_text("[" * 100_000), "no configuration"),
    "integers": (lambda f: _edit_weights(f, lambda w: w.update({k: v.int() for k, v in w.items()})), "than float"),
    "no json": (lambda f: (f / "config.json").write_text("{"), "no configuration"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "no configuration"),
}


def test_a_single_bit_that_has_changed_is_found(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="they have changed since they were saved"):
        load_model(folder)


def test_the_identity_of_a_model_is_that_of_weights_and_configuration(folder):
    before = identity(load_model(folder))
    assert before == identity(load_model(folder))
    _edit_config(folder, floor_db=-50)
    _load.cache_clear()
    assert identity(load_model(folder)) != before


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_tampered_models_are_refused_and_nothing_is_run(folder, kind, monkeypatch):
    tamper, message = TAMPERINGS[kind]
    monkeypatch.chdir(folder)
    tamper(folder)
    with pytest.raises(ValueError, match=message):
        load_model(folder)
    assert not Path("exploded").exists()


def test_weights_that_give_nan_are_a_reason_and_no_crash(folder, speech):
    _edit_weights(folder, lambda w: w["encoder.convolutions.0.norm.running_var"].fill_(-1e3))
    with pytest.warns(UserWarning, match="the model gives NaN"):
        assert np.isnan(score([speech], 16000, model=load_model(folder))).all()


def test_others_may_read_what_is_saved(tmp_path):
    write_folder(small_model("spectrogram"), tmp_path)
    assert len({(tmp_path / name).stat().st_mode & 0o777 for name in ("config.json", "model.safetensors")}) == 1


def test_a_loaded_model_does_not_change_with_its_file(folder):
    model = load_model(folder)
    before = identity(model)
    (folder / "model.safetensors").write_bytes(b"")
    assert identity(model) == before


def test_what_is_saved_in_sixteen_bits_is_loaded(tmp_path):
    model = small_model("spectrogram").bfloat16()
    model.save_pretrained(tmp_path)
    for name, weight in load_model(tmp_path).state_dict().items():
        assert torch.equal(weight, model.state_dict()[name].to(weight.dtype)), name


def test_loading_draws_no_random_numbers(folder):
    state = torch.random.get_rng_state()
    read_folder(folder)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_users_do_to_a_model_does_not_change_the_scores(speech):
    before, model = score(speech, 16000), load_model()
    try:
        model.train().half()
        assert score(speech, 16000) == before
        with pytest.raises(ValueError, match="training mode"):
            score(speech, 16000, model=model)
        with pytest.raises(ValueError, match="float32"):
            score(speech, 16000, model=model.eval())
    finally:
        _load.cache_clear()


def test_missing_files_say_what_is_missing(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load_model(folder)
    with pytest.raises(FileNotFoundError):
        JSQAModel.from_pretrained(folder)


def test_older_weights_can_score(speech):
    old = load_model("default", revision="2026.11")
    assert score(speech, 16000, revision="2026.11") == score(speech, 16000, model=old) != score(speech, 16000)
    for wrong in ({"revision": "1999"}, {"revision": 2026.11}, {"revision": "2026.11", "model": old}):
        with pytest.raises(ValueError, match="revision"):
            score(speech, 16000, **wrong)
