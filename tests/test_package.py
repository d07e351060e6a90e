"""Promises about the package as a whole: what importing does, golden scores, threads and processes."""

from __future__ import annotations

import json
import multiprocessing
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EXAMPLES, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

import jsqa_metric
from jsqa_metric import available_models, score
from jsqa_metric.hub import _load

QUIET_IMPORT = """
import socket, sys, builtins
def refuse(*a, **k): raise AssertionError("network at import")
socket.socket.connect = socket.getaddrinfo = refuse
for name in ("torchaudio", "training", "lightning", "pesq", "sklearn"):
    sys.modules[name] = None  # importing it is an error, asking whether it is there is not
import torch
before = torch.get_num_threads(), torch.get_default_dtype(), torch.random.initial_seed()
import jsqa_metric, jsqa_metric.cli
assert before == (torch.get_num_threads(), torch.get_default_dtype(), torch.random.initial_seed())
import numpy
state = torch.random.get_rng_state()
mos = jsqa_metric.score(numpy.random.default_rng(0).standard_normal(16000) * 0.1, 16000)
assert (torch.random.get_rng_state() == state).all(), "the seed was used"
assert 1 <= mos <= 5
assert "torch._dynamo" not in sys.modules, "the compiler was loaded, which takes a second"
assert "torchmetrics" not in sys.modules, "torchmetrics was loaded, which takes as long as torch"
assert set(jsqa_metric.__all__) <= set(dir(jsqa_metric))
from jsqa_metric import JSQAMetric
assert JSQAMetric is jsqa_metric.metric.JSQAMetric
"""


def test_import_and_scoring_need_no_network_no_torchaudio_and_print_nothing(tmp_path):
    process = subprocess.run([sys.executable, "-c", QUIET_IMPORT], capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout == process.stderr == ""


@pytest.mark.parametrize(("model", "file"), [("default", "golden.json"), ("light", "golden_light.json")])
def test_golden_scores_of_the_example_clips(model, file):
    golden = json.loads((EXAMPLES / file).read_text())
    paths = sorted(EXAMPLES.glob("*.flac"))
    assert sorted(golden) == [p.name for p in paths]
    np.testing.assert_allclose(score(paths, model=model), [golden[p.name] for p in paths], atol=1e-3)


def test_light_weights_agree_with_the_default_ones_and_are_not_they():
    paths = sorted(EXAMPLES.glob("*.flac"))
    default, light = score(paths), score(paths, model="light")
    assert np.corrcoef(default, light)[0, 1] > 0.95
    assert 0.02 < np.abs(default - light).mean() < 0.3


@pytest.mark.parametrize("model", available_models())
@pytest.mark.parametrize("talker", ["english", "german"])
def test_clean_speech_scores_highest_and_strong_noise_below_weak(talker, model):
    mos = {p.stem.partition("_")[2]: score(p, model=model) for p in EXAMPLES.glob(f"{talker}_*.flac")}
    assert max(mos, key=mos.__getitem__) == "clean"
    assert mos["noise05"] < mos["noise20"] < mos["clean"]
    assert mos["clean"] > 3.9


def test_threads_score_alike_also_at_first(speech):
    clips = [speech[i * 8000 : i * 8000 + 24000] for i in range(6)]
    alone = [score(clip, 16000) for clip in clips]
    _load.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda clip: score(clip, 16000), clips)) == pytest.approx(alone, abs=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_scores_as_the_cpu(speech, noisy):
    clips = [speech, noisy[:16000], np.tile(speech, 5), noisy * 1e-2]
    np.testing.assert_allclose(score(clips, 16000, device="cuda"), score(clips, 16000, device="cpu"), atol=5e-3)
    wav = torch.from_numpy(noisy).cuda().requires_grad_()
    score(wav, 16000).backward()
    assert wav.grad.isfinite().all()


class Scores(torch.utils.data.Dataset):
    def __init__(self, clip):
        self.clip = clip

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return score(self.clip[index * 8000 :], 16000)


@pytest.mark.skipif(sys.platform == "win32", reason="fork is not available on Windows")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_dataloader_workers_score_alike(speech, method):
    torch.set_num_threads(1)  # a forked child of a process with OpenMP threads may not use them (a limit of libgomp)
    dataset = Scores(speech)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context=multiprocessing.get_context(method)
    )
    assert list(loader) == pytest.approx([dataset[i] for i in range(4)], abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1600, 24000), min_size=1, max_size=5),
    dtype=st.sampled_from(["float32", "float64", "int16"]),
    padding=st.floats(-1, 1),
    leading=st.sampled_from([(-1,), (1, -1), (-1, 1, 1)]),
    kind=st.sampled_from([np.asarray, torch.from_numpy]),
    seed=st.integers(0, 2**16),
)
def test_any_batch_scores_as_its_clips_one_by_one(lengths, dtype, padding, leading, kind, seed):
    rng = np.random.default_rng(seed)
    scale = 20000 if dtype == "int16" else 0.6
    batch = np.full((len(lengths), max(lengths) + 100), padding * scale).astype(dtype)
    for row, n in zip(batch, lengths, strict=True):
        row[:n] = (rng.standard_normal(n) * rng.uniform(0.01, 0.2) * scale).astype(dtype)
    shaped = np.array(lengths).reshape(leading)
    together = score(kind(batch.reshape(*leading, batch.shape[1])), 16000, lengths=kind(shaped))
    alone = [score(row[:n], 16000) for row, n in zip(batch, lengths, strict=True)]
    assert together.shape == shaped.shape
    np.testing.assert_allclose(together.reshape(-1), alone, atol=1e-5)


def test_public_names_are_documented():
    for name in jsqa_metric.__all__:
        thing = getattr(jsqa_metric, name)
        assert thing.__doc__, name
        assert not thing.__doc__.startswith(f"{name}("), f"{name} has only the doc that dataclass makes"


def test_the_core_is_small_and_imports_only_what_it_may():
    sources = list((ROOT / "src" / "jsqa_metric").glob("*.py"))
    for source in sources:
        text = source.read_text()
        assert len(text.splitlines()) <= 300, source.name
        assert not re.search(r"^\s*(import|from) (torchaudio|training|benchmarks|lightning|pesq|sklearn)", text, re.M)


def test_the_readme_names_the_version_and_every_public_name():
    readme = Path(ROOT / "README.md").read_text()
    for name in ("score", "JSQAMetric", "load_model", "available_models", "jsqa-score"):
        assert name in readme


PEAK_MEMORY = """
import resource, sys
from jsqa_metric import score
score(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
score(sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_memory_does_not_grow_with_the_length_of_a_file(speech, write_wav):
    short, long = np.tile(speech, 23), np.tile(speech, 23 * 15)  # 2 and 30 minutes
    paths = [write_wav("short.wav", short), write_wav("long.wav", long)]
    process = subprocess.run([sys.executable, "-c", PEAK_MEMORY, *paths], capture_output=True, text=True, check=True)
    assert float(process.stdout) < 40, "MiB more for 28 minutes more (decoded they are 107 MiB)"
    assert score(paths[0]) == pytest.approx(score(paths[1]), abs=0.05)


PAGE_FAULTS = """
import resource, sys
from jsqa_metric import score
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    score(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other habits")
def test_a_clip_uses_the_memory_of_the_clip_before(speech, write_wav):
    path = str(write_wav("8s.wav", np.tile(speech, 2)[: 8 * 16000]))
    process = subprocess.run([sys.executable, "-c", PAGE_FAULTS, path], capture_output=True, text=True, check=True)
    assert int(process.stdout) < 300, "pages asked of the system again, as if none had been used (about 1,000)"
