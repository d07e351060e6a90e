"""The training chain on real audio: simulate, label, train, resume, publish, score."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch

from jsqa_metric import JSQAModel, ModelConfig, load_model, score
from jsqa_metric.bandwidth import bandwidth_share
from jsqa_metric.hub import write_folder

if importlib.util.find_spec("distillmos") is None or importlib.util.find_spec("av") is None:
    pytest.skip("needs the training environment: bash training/install.sh", allow_module_level=True)

from jsqa_metric.model import DIMENSIONS, LOG_STD
from training import ablation, build_set, evaluate, label_references, publish, train
from training.data import codecs, speech_codecs
from training.data.bandwidth import SIMULATION_RATE, measured_bandwidth_hz, widen
from training.data.channel import band_limit
from training.data.corpus import SAMPLE_RATE, Corpus, change_rate
from training.data.enhance import deep_filter
from training.data.labelled import LabelledSet, collate_cropped
from training.data.labels import Calibration, read_set
from training.data.simulate import DEGRADATIONS, DELIVERY_RATES, Simulator, draw_reference
from training.data.voices import change_speed, colour
from training.regression import Regression
from training.teachers import REFERENCE_LABEL, TEACHERS, Teachers


@pytest.fixture(scope="module")
def built_codecs() -> None:
    if not speech_codecs.FOLDER.is_dir():
        pytest.skip("needs the speech codecs: bash training/install_codecs.sh")


@pytest.fixture(scope="module")
def folders(shared, built_codecs) -> dict[str, object]:
    return {
        "speech": [shared / "speech" / "valid"],
        "noise": shared / "noise" / "valid",
        "rooms": sorted((shared / "rooms").glob("S*.flac")),
    }


@pytest.fixture(scope="module")
def simulator(folders) -> Simulator:
    return Simulator(**folders)


@pytest.fixture(scope="module")
def labelled_set(folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    arguments = [folder, "--speech", *folders["speech"], "--noise", folders["noise"], "--rooms", *folders["rooms"]]
    build_set.main([str(a) for a in [*arguments, "--clips", 12, "--shard-clips", 6, "--workers", 2]])
    return folder, [str(a) for a in arguments]


@pytest.fixture(scope="module")
def fullband(speech) -> np.ndarray:
    return widen(speech, np.random.default_rng(0))


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_degradations_damage_and_keep_the_length(simulator, fullband, name):
    degrade, _ = DEGRADATIONS[name]
    for seed in range(3):
        damaged, parameters = degrade(fullband.copy(), np.random.default_rng(seed), simulator.material)
        assert damaged.shape == fullband.shape
        assert damaged.dtype == np.float32
        assert np.isfinite(damaged).all()
        assert not np.array_equal(damaged, fullband)
        assert parameters


def test_widened_speech_is_fullband_and_the_same_below_8_khz(speech, fullband):
    assert len(fullband) == 3 * len(speech)
    back = change_rate(fullband, SIMULATION_RATE, SAMPLE_RATE)
    assert np.corrcoef(back, speech)[0, 1] > 0.999
    spectrum = np.abs(np.fft.rfft(fullband)) ** 2
    hz = np.arange(len(spectrum)) * SIMULATION_RATE / len(fullband)
    bands = [spectrum[(hz >= low) & (hz < low + 4000)].sum() for low in (4000, 8000, 12000, 16000)]
    falls_db = -np.diff(10 * np.log10(bands))
    assert ((falls_db > 2) & (falls_db < 14)).all()


def test_bandwidth_is_measured_and_costs_what_listeners_say(fullband):
    for cutoff_hz in (3400, 7000, 12000, 16000):
        narrow = change_rate(change_rate(fullband, SIMULATION_RATE, 2 * cutoff_hz), 2 * cutoff_hz, SIMULATION_RATE)
        assert measured_bandwidth_hz(fullband, narrow[: len(fullband)]) == pytest.approx(cutoff_hz, rel=0.1)
    shares = [bandwidth_share(hz) for hz in (4000, 8000, 11025, 16000, 20000, 24000)]
    assert shares[0] == shares[1] == pytest.approx(129 / 148)
    assert (np.diff(shares[1:5]) > 0).all()
    assert shares[4] == shares[5] == 1


def test_deepfilternet_removes_noise_and_keeps_time(fullband):
    noise = np.random.default_rng(0).standard_normal(len(fullband)).astype(np.float32) * 0.02
    cleaned = deep_filter(fullband + noise, 100.0)
    assert np.corrcoef(cleaned, fullband)[0, 1] > 0.9  # a delay of a few samples would destroy that
    assert np.std(cleaned - fullband) < 0.7 * np.std(noise)


def test_amr_wb_codes_speech_better_with_more_bits(speech, built_codecs):
    reference = np.pad(speech, (0, 320))
    distances = []
    for bit_rate in (6600, 23850):
        decoded = codecs.align(codecs.encode_decode(speech, codecs.CODECS["amr-wb"], bit_rate), reference)
        distances.append(np.std(decoded - reference) / np.std(reference))
    assert distances[1] + 0.02 < distances[0] < 0.8


def test_synthesised_speech_follows_the_original_as_far_as_it_is_sent(speech, built_codecs):
    def envelope_error(decoded: np.ndarray) -> float:
        """Of the log power over 20 ms, after alignment, in dB."""
        frames = [codecs.align(decoded, speech)[: len(speech) // 320 * 320], speech[: len(speech) // 320 * 320]]
        levels = [10 * np.log10(np.mean(f.reshape(-1, 320) ** 2, axis=1) + 1e-6) for f in frames]
        return float(np.std(levels[0] - levels[1]))

    good, coarse = envelope_error(speech_codecs.fargan(speech)), envelope_error(speech_codecs.fargan(speech, 1.0, 4))
    assert good < 2.5 < coarse
    whole = envelope_error(speech_codecs.opus(speech, 16000))
    assert whole < envelope_error(speech_codecs.opus(speech, 16000, loss_percent=30))


def test_missing_codecs_say_how_to_get_them(monkeypatch, tmp_path, speech):
    monkeypatch.setattr(speech_codecs, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"install_codecs\.sh"):
        speech_codecs.fargan(speech)


def test_other_voices_are_shifted_and_coloured_references(speech):
    hz = np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE)

    def centroid(signal: np.ndarray) -> float:
        magnitude = np.abs(np.fft.rfft(signal, len(speech)))
        return float((magnitude * hz).sum() / magnitude.sum())

    faster = change_speed(speech, 1.15)
    assert len(faster) == pytest.approx(len(speech) / 1.15, abs=50)
    assert centroid(faster) > 1.05 * centroid(speech)
    coloured = [colour(speech, np.random.default_rng(seed)) for seed in range(6)]
    changed = [c for c in coloured if not np.array_equal(c, speech)]
    assert 0 < len(changed) < 6
    for c in changed:
        assert np.corrcoef(c, speech)[0, 1] > 0.5


def test_references_of_older_sets_are_found_and_labelled(folders, tmp_path):
    corpus, drawn = Corpus.from_folders(folders["speech"]), []
    for index in range(2):
        rng = np.random.default_rng([9, index])
        drawn.append(draw_reference(corpus, rng, vary_voices=False))
    shard = tmp_path / "00000"
    shard.mkdir()
    rows = [{"file": f"{i:07d}.flac", "talker": talker, "pesq": 1.0} for i, (_, talker) in enumerate(drawn)]
    pd.DataFrame(rows).to_csv(shard / "labels.csv", index=False)
    arguments = [str(tmp_path), "--speech", *map(str, folders["speech"]), "--workers", "1", "--seed"]
    with pytest.raises(ValueError, match="same speech"):
        label_references.main([*arguments, "1"])
    label_references.main([*arguments, "9"])
    labels = pd.read_csv(shard / "labels.csv")[REFERENCE_LABEL]
    assert labels.tolist() == pytest.approx([Teachers().distillmos(s) for s, _ in drawn], abs=1e-3)


def test_a_clip_is_always_the_same_and_no_two_are(simulator):
    first, again, other = simulator.draw(7, 3), simulator.draw(7, 3), simulator.draw(7, 4)
    assert np.array_equal(first.degraded, again.degraded)
    assert np.array_equal(first.reference, again.reference)
    assert first.degraded.shape != other.degraded.shape or not np.array_equal(first.degraded, other.degraded)
    assert np.abs(first.degraded).max() <= 1.05  # resampling may overshoot a little


def test_clips_come_at_all_rates_and_teachers_hear_16_khz(simulator):
    clips = [simulator.draw(1, i) for i in range(12)]
    assert {c.sample_rate for c in clips} <= set(DELIVERY_RATES)
    assert len({c.sample_rate for c in clips}) > 2
    for clip in clips:
        assert clip.heard.shape == clip.reference.shape
        assert len(clip.degraded) / clip.sample_rate == pytest.approx(len(clip.heard) / SAMPLE_RATE, abs=1e-3)
        assert 0 < clip.parameters["bandwidth_hz"] <= clip.sample_rate / 2


def test_band_limits_say_what_they_leave(simulator, fullband):
    seen = [band_limit(fullband, np.random.default_rng(seed), simulator.material) for seed in range(12)]
    limited = [(out, p["bandwidth_hz"]) for out, p in seen if "bandwidth_hz" in p]
    assert limited
    for out, hz in limited:
        assert measured_bandwidth_hz(fullband, out) == pytest.approx(hz, abs=1000)


def test_competing_talkers_are_other_people(simulator):
    rng = np.random.default_rng(0)
    talkers = {e.group for e in simulator.material.speech.entries}
    assert len(talkers) > 10
    for _ in range(20):
        _, entry = simulator.material.speech.draw_speech(rng, 16000, other_than="kerstin")
        assert entry.group != "kerstin"


def test_teachers_prefer_clean_speech(speech, noisy):
    teachers = Teachers()
    clean, damaged = teachers.label(speech, speech), teachers.label(noisy, speech)
    assert tuple(clean) == (*TEACHERS, REFERENCE_LABEL)
    assert clean[REFERENCE_LABEL] == damaged[REFERENCE_LABEL] == clean["distillmos"]
    for teacher in TEACHERS:
        assert clean[teacher] > damaged[teacher], teacher
    assert np.isnan(teachers.pesq(speech, np.zeros_like(speech)))


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
    variants = ["half the width", "after JND pretraining"]
    arguments = ["--out", str(tmp_path / "ablation"), "--runs", str(tmp_path / "runs"), "--seeds", "1", "--clips", "8"]
    arguments += ["--epochs", "1", "--pretrain-epochs", "1", "--pretrain-pairs", "8", "--set", *changes, "--variants"]
    ablation.main([*arguments, variants[0]])
    first = (tmp_path / "ablation.csv").read_text()
    ablation.main([*arguments, *variants])
    assert (tmp_path / "ablation.csv").read_text().startswith(first)
    rows = pd.read_csv(tmp_path / "ablation.csv")
    assert rows["variant"].tolist() == variants
    assert rows["pcc"].between(-1, 1).all()
    assert variants[1] in (tmp_path / "ablation.md").read_text()


def test_data_at_another_rate_than_the_model_are_refused(labelled_set, tmp_path):
    with pytest.raises(ValueError, match=r"`data.sample_rate` is 8000"):
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


def test_a_recipe_change_must_have_a_value():
    with pytest.raises(ValueError, match="section.key=value"):
        train.read_recipe("training/recipes/default.yaml", ["data.limit"])
