"""What the tests share: example clips, the folder of further material, and a small model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from jsqa_metric import JSQAModel, ModelConfig

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SHARED = ROOT.parent / "shared"
TRAINING = ("lightning", "auraloss", "av", "distillmos", "speechmos", "vector_quantize_pytorch", "visqol")
"""What `training/install.sh` installs, as far as importing a part of `training` asks for it."""


def needs_training(*modules: str) -> None:
    """Skip the calling test module unless these modules, by default all that training needs, are installed."""
    if missing := [module for module in modules or TRAINING if find_spec(module) is None]:
        reason = f"needs the training environment (bash training/install.sh), which has {', '.join(missing)}"
        pytest.skip(reason, allow_module_level=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (speech, noise and human-rated clips), which only developers and CI have")
    return SHARED


@pytest.fixture(scope="session")
def built_codecs() -> None:
    from training.data import speech_codecs

    if not speech_codecs.FOLDER.joinpath("liblc3.so.0").exists():
        pytest.skip("needs the speech codecs: bash training/install_codecs.sh")


@pytest.fixture(scope="session")
def folders(shared, built_codecs) -> dict[str, object]:
    """What a simulator draws from."""
    return {
        "speech": [shared / "speech" / "valid"],
        "noise": shared / "noise" / "valid",
        "rooms": sorted((shared / "rooms").glob("S*.flac")),
    }


@pytest.fixture(scope="session")
def labelled_set(folders, tmp_path_factory) -> tuple[Path, list[str]]:
    """12 simulated clips with their teachers' labels in two shards, and the arguments that made them."""
    from training import build_set

    folder = tmp_path_factory.mktemp("set")
    arguments = [folder, "--speech", *folders["speech"], "--noise", folders["noise"], "--rooms", *folders["rooms"]]
    build_set.main([str(a) for a in [*arguments, "--clips", 12, "--shard-clips", 6, "--workers", 2]])
    return folder, [str(a) for a in arguments]


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """5 s of clean speech, float32 at 16 kHz."""
    audio, rate = sf.read(EXAMPLES / "english_clean.flac", dtype="float32")
    assert rate == 16000
    return audio


@pytest.fixture(scope="session")
def noisy() -> np.ndarray:
    """The same with pink noise at 5 dB."""
    return sf.read(EXAMPLES / "english_noise05.flac", dtype="float32")[0]


@pytest.fixture
def write_wav(tmp_path):
    def write(name: str, audio: np.ndarray, rate: int = 16000, **options: str) -> Path:
        sf.write(tmp_path / name, audio, rate, **options)
        return tmp_path / name

    return write


def small_model(encoder: str, seed: int = 0) -> JSQAModel:
    """A small network with random weights that does not give everything the same score."""
    torch.manual_seed(seed)
    if encoder == "strided":
        encoder, convolutions = "spectrogram", ((4, 2, 2), (8, 4, 1, 3), (8, 1, 3), (8, 2, 2, 5))
    else:
        convolutions = ()
    config = ModelConfig(
        encoder=encoder, width=4, convolutions=convolutions, channels=16, layers=1, bands=64, tasks=("pesq",)
    )
    model = JSQAModel(config)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(3)
        for module in model.modules():  # statistics as after training, so that padding could do harm
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.bias.normal_()
    return model.eval()


@pytest.fixture(params=["spectrogram", "waveform", "strided"])
def model(request) -> JSQAModel:
    return small_model(request.param)


def write_noise(path, level=0.1, seconds=0.5, channels=1):
    """A file of white noise at 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(int(1000 * level)).standard_normal((int(seconds * 16000), channels))
    sf.write(path, np.clip(level * noise, -1, 1), 16000)


@pytest.fixture
def rated_folder(tmp_path):
    """A rated set: 12 clips of two conditions and a reference, louder is better."""
    place, rows = tmp_path / "own", ["file,mos,condition"]
    for index in range(12):
        write_noise(place / f"clip_{index:02d}.wav", level=0.02 * (index + 1))
        rows.append(f"clip_{index:02d}.wav,{1 + index / 3:.3f},{'ab'[index % 2]}")
    write_noise(place / "clip_ref.wav", 0.3)
    (place / "labels.csv").write_text("\n".join([*rows, "clip_ref.wav,5,Reference"]) + "\n")
    return place


# training runs


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
"""Encoders and a trainer for runs that only have to run."""


@pytest.fixture(scope="session")
def rated(tmp_path_factory) -> str:
    """12 rated clips of 0.5 s, in which the MOS falls with the noise."""
    folder = tmp_path_factory.mktemp("rated")
    speech = sf.read(EXAMPLES / "english_clean.flac", dtype="float32")[0]
    rng = np.random.default_rng(0)
    lines = ["file,mos,condition"]
    for i in range(12):
        noise = rng.standard_normal(8000) * 0.1 * i / 12
        sf.write(folder / f"{i}.flac", np.clip(speech[8000 + 400 * i :][:8000] + noise, -1, 1), 16000)
        lines.append(f"{i}.flac,{4.5 - 3 * i / 12:.2f},noise")
    (folder / "labels.csv").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture(scope="session")
def corpora(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("corpora")
    for talker in ("english", "german"):
        (root / "speech" / talker).mkdir(parents=True)
        (root / "noise").mkdir(exist_ok=True)
        clean = sf.read(EXAMPLES / f"{talker}_clean.flac", dtype="float32")[0]
        noisy = sf.read(EXAMPLES / f"{talker}_noise05.flac", dtype="float32")[0]
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
