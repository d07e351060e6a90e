"""What `benchmarks.speed` runs in processes of its own: timing all metrics in turn, and memory of one."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch

from benchmarks.baselines import Baseline, Unavailable, make
from benchmarks.baselines.base import Array, score_file
from benchmarks.probes import RATE, speech
from benchmarks.worker import code_memory, limit_cores, limit_memory, peak_memory, reset_peak

FLOOR = "floor"
BATCH_SECONDS = 8.0
_MIN_RUN_S = 0.05
"""Quick calls are repeated until a run takes so long."""
_MAX_CALLS = 50
_FFT, _HOP = 512, 160
_BLOCK = 8 * RATE


class Floor(Baseline):
    """What no metric can undercut: decoding the file and one STFT, in blocks, so that memory does not count."""

    name = FLOOR
    licence = "-"
    takes_batches = True
    takes_files = True
    devices = ("cpu", "cuda")

    def load(self, device: str = "cpu") -> None:
        """Make the window."""
        self._device, self._window = device, torch.hann_window(_FFT, device=device)

    def score(self, audio: Array, sample_rate: int, reference: Array | None = None) -> Any:
        """Mean power of the spectrogram."""
        signal = torch.from_numpy(audio).to(self._device)
        power = torch.stft(signal, _FFT, _HOP, window=self._window, return_complex=True).abs().square()
        return power.mean(dim=(-2, -1)).cpu().numpy()

    def score_path(self, path: Path) -> float:
        """Mean over the blocks of a file."""
        with sf.SoundFile(path) as file:
            powers = [self.score(block, file.samplerate) for block in file.blocks(_BLOCK, dtype="float32")]
        return float(np.mean(powers))


def get(name: str) -> Baseline:
    """A metric, or the floor."""
    return Floor() if name == FLOOR else make(name)


def write_clip(seconds: float, folder: str) -> Path:
    """A FLAC file of speech, 16 kHz mono."""
    path = Path(folder) / f"{seconds:g}.flac"
    if not path.is_file():
        sf.write(path, speech(seconds), RATE)
    return path


def _task(baseline: Baseline, kind: str, size: float, folder: str) -> Callable[[], Any]:
    """What is timed: a file of so many seconds, or a batch of so many clips in memory."""
    if kind == "clip":
        path = write_clip(size, folder)
        return lambda: score_file(baseline, path)
    rate = baseline.sample_rate or RATE
    batch = np.tile(speech(BATCH_SECONDS, rate), (int(size), 1))
    if baseline.takes_batches:
        return lambda: baseline.score(batch, rate)
    return lambda: [baseline.score(row, rate) for row in batch]


def audio_seconds(kind: str, size: float) -> float:
    """Seconds of audio in a task."""
    return size if kind == "clip" else size * BATCH_SECONDS


def measure_memory(name: str, kind: str, size: float, cores: int, device: str, limit_gb: float) -> dict[str, float]:
    """In a fresh process: memory after loading, its growth by one task, and the task's time, not warmed up.

    `data_mb` is the growth without the code of libraries that the task was the first to use.
    """
    limit_cores(cores)
    baseline = get(name)
    if device not in baseline.devices:
        raise Unavailable(f"does not run on {device}")
    baseline.load(device)
    with tempfile.TemporaryDirectory() as folder:
        task = _task(baseline, kind, size, folder)
        on_gpu = device != "cpu"
        if on_gpu:
            loaded = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        else:
            limit_memory(limit_gb)
            reset_peak()
            loaded = peak_memory()
        code_before = code_memory()
        start = time.perf_counter()
        task()
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() if on_gpu else peak_memory()
        code = 0 if on_gpu else code_memory() - code_before
    in_bytes = {"loaded_mb": loaded, "memory_mb": peak - loaded, "data_mb": max(0, peak - loaded - code)}
    return {name: value / 2**20 for name, value in in_bytes.items()} | {"first_s": seconds}


def time_in_turn(
    names: list[str], kind: str, size: float, cores: int, device: str, rounds: int, limit_s: float
) -> dict[str, dict[str, Any]]:
    """Time metrics on one task, one after the other in each round, each round starting with another one.

    Returns:
        For each metric, seconds per second of audio: median and quartiles of the rounds, and their number; a note
        instead for one that fails.
    """
    limit_cores(cores)
    warnings.simplefilter("ignore")
    times: dict[str, list[float]] = {name: [] for name in names}
    notes: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tasks, plans = {}, {}
        for name in names:
            try:
                tasks[name], once = _warm_up(name, kind, size, device, folder)
                plans[name] = (max(1, min(rounds, int(limit_s / once))), min(_MAX_CALLS, math.ceil(_MIN_RUN_S / once)))
            except Exception as error:  # noqa: BLE001 - the others are timed all the same
                notes[name] = {"note": f"{type(error).__name__}: {error}"[:160]}
        for turn in range(rounds):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                turns, calls = plans.get(name, (0, 0))
                if turn < turns:
                    times[name].append(_seconds(tasks[name], calls) / audio_seconds(kind, size))
    return {name: _summary(values) for name, values in times.items() if values} | notes


def _warm_up(name: str, kind: str, size: float, device: str, folder: str) -> tuple[Callable[[], Any], float]:
    """A metric's task and how many seconds it takes, done once before."""
    baseline = get(name)
    baseline.load(device)
    task = _task(baseline, kind, size, folder)
    task()
    return task, _seconds(task, 1)


def _seconds(task: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        task()
    return (time.perf_counter() - start) / calls


def _summary(values: list[float]) -> dict[str, float]:
    low, high = np.quantile(values, [0.25, 0.75])
    return {"cost": statistics.median(values), "low": float(low), "high": float(high), "runs": len(values)}
