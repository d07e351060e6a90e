"""The neural codec that is trained as damage, and the excerpts that it learns from."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import needs_training

needs_training()

from training import gan_codec, train
from training.data.bandwidth import SIMULATION_RATE, widen
from training.data.codecs import gan_codec as damage
from training.data.corpus import Corpus
from training.data.modules import Excerpts
from training.data.simulate import Simulator
from training.gan_codec import GanCodec, GanCodecTraining, SpectralDiscriminator

TINY = {"channels": 32, "encoder_blocks": 1, "decoder_blocks": 2, "quantizers": 3, "code_size": 8}


def short_recipe(folders) -> dict:
    """8 batches, 4 of them with discriminators."""
    changes = [
        f"data.speech=[{folders['speech'][0]}]", "data.excerpts_per_epoch=16", "data.seconds=0.5", "data.batch_size=4",
        "module.adversarial_after=4", "module.snapshots=4", f"module.codec={TINY}".replace("'", ""),
        "trainer.max_steps=16", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
        "trainer.log_every_n_steps=1",
    ]  # fmt: skip
    return train.read_recipe("training/recipes/gan_codec.yaml", changes)


@pytest.fixture(scope="module")
def snapshots(folders, tmp_path_factory):
    """The folder of a short training."""
    out = tmp_path_factory.mktemp("codec")
    train.train(short_recipe(folders), out)
    return out


def test_a_resumed_training_gives_the_same_codecs(snapshots, folders, tmp_path, monkeypatch):
    step = GanCodecTraining.training_step

    def failing_step(self, batch, batch_index):
        if self.global_step == 12:
            raise InterruptedError
        return step(self, batch, batch_index)

    monkeypatch.setattr(train, "SAVE_EVERY_STEPS", 10)
    with monkeypatch.context() as patch:
        patch.setattr(GanCodecTraining, "training_step", failing_step)
        with pytest.raises(InterruptedError):
            train.train(short_recipe(folders), tmp_path)
    train.train(short_recipe(folders), tmp_path)
    whole, parts = (gan_codec.read_snapshots(folder) for folder in (snapshots, tmp_path))
    assert list(whole) == list(parts)
    for name in whole:
        torch.testing.assert_close(parts[name].state_dict(), whole[name].state_dict(), atol=0, rtol=0)


def test_training_leaves_a_codec_for_each_snapshot(snapshots):
    codecs = gan_codec.read_snapshots(snapshots)
    assert len(codecs) == 2
    first, second = (codec.synthesis.weight for codec in codecs.values())
    assert not torch.equal(first, second)
    log = next((snapshots / "csv").glob("*.csv")).read_text()
    assert {"train/spectral", "train/told", "train/matching"} <= set(log.splitlines()[0].split(","))


def test_without_codecs_the_error_says_how_to_train_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"recipes/gan_codec\.yaml"):
        gan_codec.read_snapshots(tmp_path)


def test_the_simulator_has_it_on_request(snapshots, folders, speech, monkeypatch):
    monkeypatch.setattr(gan_codec, "FOLDER", snapshots)
    fullband = widen(speech, np.random.default_rng(0))
    damaged, parameters = damage(fullband, np.random.default_rng(0), None)
    assert damaged.shape == fullband.shape
    assert damaged.dtype == np.float32
    assert np.isfinite(damaged).all()
    assert parameters["bandwidth_hz"] == 8000
    clip = Simulator(**folders, kinds=["gan_codec"], clean_share=0.0).draw(1, 0)
    assert clip.degradations == ("gan_codec",)
    assert "gan_codec" not in Simulator(**folders).kinds
    spectrum = np.abs(np.fft.rfft(damaged)) ** 2
    hz = np.fft.rfftfreq(len(damaged), 1 / SIMULATION_RATE)
    assert spectrum[hz > 8500].sum() < 0.01 * spectrum.sum()


@pytest.mark.parametrize(("hop", "expected"), [(160, 1 / 3), (80, 2 / 3)])
def test_codecs_with_finer_frames_come_whole_more_often(hop, expected, speech, monkeypatch):
    codecs = {"tiny": GanCodec(**TINY, hop=hop).eval()}
    monkeypatch.setattr(gan_codec, "read_snapshots", lambda folder: codecs)
    rng, short = np.random.default_rng(1), widen(speech[:1600], np.random.default_rng(0))
    shares = np.array([damage(short, rng, None)[1]["share"] for _ in range(200)])
    assert abs(np.mean(shares == 1) - expected) < 0.1
    assert shares.min() > 0.12


def test_a_training_must_say_its_length_and_keep_it(snapshots, folders, tmp_path):
    recipe = short_recipe(folders)
    shutil.copytree(snapshots, tmp_path / "longer")
    recipe["trainer"]["max_steps"] = 20
    with pytest.raises(ValueError, match="max_steps: 16"):
        train.train(recipe, tmp_path / "longer")
    recipe["trainer"] |= {"max_steps": -1, "max_epochs": 1}
    with pytest.raises(ValueError, match="max_steps"):
        train.train(recipe, tmp_path)


def test_a_codec_learns_to_pass_speech_on(speech):
    torch.manual_seed(0)
    module = GanCodecTraining({**TINY, "quantizers": 8})
    excerpts = torch.from_numpy(speech[:64000]).view(8, -1)
    optimizer, losses = torch.optim.AdamW(module.codec.parameters(), 3e-3), []
    for _ in range(60):
        decoded, commitment = module.codec(excerpts)
        losses.append(module.spectral_loss(decoded[:, None], excerpts[:, None]))
        optimizer.zero_grad()
        (losses[-1] + commitment).backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]
    codec = module.codec.eval()
    odd = torch.from_numpy(speech[:16123])
    assert codec.code(odd, 8).shape == odd.shape
    few, many = (module.spectral_loss(codec.code(odd, n)[None, None], odd[None, None]) for n in (1, 8))
    assert many < few  # more bits, less damage


@pytest.mark.parametrize("hop", [160, 80])
def test_frames_overlap_and_add_up_to_the_input(hop):
    codec = GanCodec(**TINY, hop=hop)
    spike = torch.zeros(1, 10 * hop)
    spike[0, 5 * hop] = 1
    touched = (codec.encode(spike) - codec.encode(0 * spike)).abs().sum(-1)[0] > 1e-6
    assert len(touched) == 11
    assert touched[5]
    assert not touched[[0, 10]].any()  # within the convolutions' reach of 3 frames
    assert codec.decode(codec.encode(spike)).shape == spike.shape


def test_discriminators_learn_to_tell_decoded_from_natural_speech(speech):
    torch.manual_seed(0)
    module = GanCodecTraining(TINY)
    natural = torch.from_numpy(speech[:64000]).view(8, -1)
    with torch.no_grad():
        decoded, _ = module.codec(natural)
    optimizer = torch.optim.AdamW(module.discriminators.parameters(), 1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        told = module._told(natural, decoded)
        told.backward()
        optimizer.step()
    assert told < 0.2
    fooled, matching = module._fooled(natural, decoded.requires_grad_())
    assert fooled > 0.5
    (fooled + matching).backward()
    assert decoded.grad.abs().max() > 0
    assert module._fooled(natural, natural)[1] == 0
    assert all(parameter.requires_grad for parameter in module.discriminators.parameters())


def test_discriminators_see_the_phase():
    torch.manual_seed(0)
    discriminator = SpectralDiscriminator(256)
    wav = torch.randn(1, 4000)
    (natural, _), (turned, _) = discriminator(wav), discriminator(-wav)
    assert not torch.allclose(natural, turned)


def test_excerpts_are_the_same_for_an_index_and_differ_in_level(tmp_path, speech):
    sf.write(tmp_path / "a.flac", speech[:12000], 16000)  # shorter than what is asked for
    excerpts = Excerpts(Corpus.from_folder(tmp_path), 1.0, seed=3, size=8)
    drawn = [excerpts[i] for i in range(8)]
    assert all(len(excerpt) == 16000 for excerpt in drawn)
    assert torch.equal(drawn[5], Excerpts(Corpus.from_folder(tmp_path), 1.0, seed=3, size=8)[5])
    levels_db = [20 * float(excerpt.square().mean().sqrt().log10()) for excerpt in drawn]
    assert np.ptp(levels_db) > 5
    assert -45 < min(levels_db) < max(levels_db) < -15
    sf.write(tmp_path / "a.flac", np.zeros(16000), 16000)
    with pytest.raises(ValueError, match="silent"):
        Excerpts(Corpus.from_folder(tmp_path), 1.0, seed=3, size=8)[0]
