"""Speech codecs that FFmpeg does not have: Opus with its networks, the FARGAN vocoder, Codec 2, AMR-WB.

The programs and the library come from Debian, fetched and built by `training/install_codecs.sh` (BSD, LGPL and Apache
licences). Signals come and go at the codec's rate; its delay is left in.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.corpus import Signal

FOLDER = Path(os.environ.get("JSQA_CODECS", ".cache/codecs"))
"""Where `training/install_codecs.sh` put them."""
OPUS_RATE, CODEC2_RATE, AMR_WB_RATE = 16000, 8000, 16000
AMR_WB_BIT_RATES = (6600, 8850, 12650, 14250, 15850, 18250, 19850, 23050, 23850)
"""In the order of the codec's modes."""
CEPSTRUM = 18
"""FARGAN's features per 10 ms: the cepstrum, then the pitch and its strength, then what it does not read."""


def find_codec(name: str) -> Path:
    """Where a program or library is.

    Raises:
        FileNotFoundError: If it was not installed.
    """
    path = FOLDER / name
    if not path.exists():
        raise FileNotFoundError(f"no {path}: run `bash training/install_codecs.sh` in the root of the repository")
    return path.resolve()


def _pcm(signal: Signal) -> bytes:
    return np.clip(signal * 32768, -32768, 32767).astype("<i2").tobytes()


def _signal(pcm: bytes) -> Signal:
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


def _run(program: str, arguments: list[str], data: bytes) -> bytes:
    """What a program that reads a file and writes another makes of `data`."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.write_bytes(data)
        environment = os.environ | {"LD_LIBRARY_PATH": str(FOLDER.resolve())}
        command = [str(find_codec(program)), *arguments, str(source), str(target)]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return target.read_bytes()


def opus(
    signal: Signal, bit_rate: int, loss_percent: int = 0, networks: bool = True, redundancy: bool = False
) -> Signal:
    """Wideband Opus 1.5 with packet loss.

    Args:
        signal: At `OPUS_RATE`.
        bit_rate: In bit/s.
        loss_percent: Share of packets that get lost, at random.
        networks: Decode with NoLACE (an enhancer) and conceal losses with a neural vocoder.
        redundancy: Send a second of the past with each packet, coded at about 1 kbit/s by a neural codec (DRED).
    """
    arguments = ["voip", str(OPUS_RATE), "1", str(bit_rate), "-bandwidth", "WB", "-loss", str(loss_percent)]
    arguments += ["-dec_complexity", "7"] if networks else []
    arguments += ["-dred", "100"] if redundancy else []
    return _signal(_run("opus_demo", arguments, _pcm(signal)))


def fargan(signal: Signal, step: float = 0.0, hold: int = 1, pitch_step: float = 0.0) -> Signal:
    """Resynthesis by the neural vocoder FARGAN from coarse features, as neural codecs of 1 to 3 kbit/s sound.

    Args:
        signal: At `OPUS_RATE`.
        step: Step of the cepstrum's quantisation; 0.5 is audible, 1 severe.
        hold: Only every so many frames of 10 ms are sent, the others are interpolated.
        pitch_step: Step of the pitch's quantisation, in octaves.
    """
    features: NDArray[np.float32] = np.frombuffer(_run("fargan_demo", ["-features"], _pcm(signal)), "<f4")
    features = features.reshape(-1, 36).copy()
    frames, sent = np.arange(len(features)), np.arange(0, len(features), hold)
    for column in range(CEPSTRUM):
        features[:, column] = np.interp(frames, sent, features[sent, column])
    if step:
        features[:, :CEPSTRUM] = np.round(features[:, :CEPSTRUM] / step) * step
    if pitch_step:
        features[:, CEPSTRUM] = np.round(features[:, CEPSTRUM] / pitch_step) * pitch_step
    return _signal(_run("fargan_demo", ["-fargan-synthesis"], features.tobytes()))


def codec2(signal: Signal, bit_rate: int) -> Signal:
    """Codec 2, a sinusoidal vocoder for radio: 700 to 3,200 bit/s, at `CODEC2_RATE`."""
    mode = "700C" if bit_rate == 700 else str(bit_rate)
    return _signal(_run("c2dec", [mode], _run("c2enc", [mode], _pcm(signal))))


@lru_cache(maxsize=1)
def _amr_wb_library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(find_codec("libvo-amrwbenc.so.0")))
    library.E_IF_init.restype = ctypes.c_void_p
    library.E_IF_encode.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    library.E_IF_exit.argtypes = [ctypes.c_void_p]
    return library


def amr_wb_encode(signal: Signal, bit_rate: int) -> bytes:
    """An AMR-WB file (RFC 4867) of a signal at `AMR_WB_RATE`."""
    library, mode = _amr_wb_library(), AMR_WB_BIT_RATES.index(bit_rate)
    samples = np.frombuffer(_pcm(np.pad(signal, (0, -len(signal) % 320))), np.int16)
    packet, out = ctypes.create_string_buffer(64), [b"#!AMR-WB\n"]
    state = library.E_IF_init()
    try:
        for frame in np.ascontiguousarray(samples).reshape(-1, 320):
            size = library.E_IF_encode(state, mode, frame.ctypes.data, packet, 0)
            out.append(packet.raw[:size])
    finally:
        library.E_IF_exit(state)
    return b"".join(out)
