"""Codecs: those of FFmpeg through PyAV and AMR-WB, those of calls, and those that synthesise speech."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import av
import numpy as np
import torch
from scipy.signal import fftconvolve

from training.data import speech_codecs
from training.data.additive import Material, Parameters
from training.data.bandwidth import SIMULATION_RATE, measured_bandwidth_hz
from training.data.call_codecs import CALL_CODECS
from training.data.channel import lost_packets
from training.data.corpus import Signal, change_rate


@dataclass(frozen=True)
class Codec:
    """An encoder of FFmpeg, the container that carries it, its rate (Hz) and the bit rates (bit/s) it is used at."""

    encoder: str
    container: str
    rate: int
    bit_rates: tuple[int, ...]
    weight: float = 1.0


CODECS = {
    "opus": Codec("libopus", "ogg", 48000, (6000, 8000, 10000, 12000, 16000, 24000, 32000, 48000), 4),
    "opus-wb": Codec("libopus", "ogg", 16000, (6000, 8000, 10000, 12000, 16000, 24000), 2),
    "opus-nb": Codec("libopus", "ogg", 8000, (6000, 8000, 12000)),
    "amr-nb": Codec("libopencore_amrnb", "amr", 8000, (4750, 5150, 5900, 6700, 7400, 7950, 10200, 12200), 3),
    "amr-wb": Codec("vo-amrwbenc", "amr", speech_codecs.AMR_WB_RATE, speech_codecs.AMR_WB_BIT_RATES, 3),
    "g722": Codec("g722", "wav", 16000, (64000,)),
    "g723.1": Codec("g723_1", "wav", 8000, (6300,)),
    "g726": Codec("g726", "wav", 8000, (16000, 24000, 32000, 40000)),
    "mu-law": Codec("pcm_mulaw", "wav", 8000, (64000,)),
    "vselp": Codec("real_144", "rm", 8000, (8000,)),
    "nellymoser": Codec("nellymoser", "flv", 16000, (24000,), 0.5),
    "sbc": Codec("sbc", "sbc", 16000, (32000, 48000, 64000), 0.5),
    "mp3": Codec("libmp3lame", "mp3", 16000, (8000, 16000, 24000, 32000)),
    "mp3-cd": Codec("libmp3lame", "mp3", 44100, (32000, 40000, 48000, 64000, 96000)),
    "aac": Codec("aac", "adts", 16000, (8000, 12000, 16000, 24000)),
    "aac-fb": Codec("aac", "adts", 48000, (16000, 24000, 32000, 48000, 64000)),
    "wma": Codec("wmav2", "asf", 22050, (24000, 32000, 48000)),
}

FURTHER_CODECS = {
    "a-law": Codec("pcm_alaw", "wav", 8000, (64000,)),
    "adpcm-ms": Codec("adpcm_ms", "wav", 11025, (44100,)),
    "adx": Codec("adpcm_adx", "adx", 16000, (72000,)),
    "opus-swb": Codec("libopus", "ogg", 24000, (8000, 12000, 16000, 24000, 32000), 2),
    "opus-mb": Codec("libopus", "ogg", 12000, (6000, 8000, 12000, 16000)),
    "mp3-mpeg2": Codec("libmp3lame", "mp3", 24000, (16000, 24000, 32000, 40000)),
    "mp3-mpeg2.5": Codec("libmp3lame", "mp3", 11025, (8000, 16000)),
    "mp3-fb": Codec("libmp3lame", "mp3", 48000, (32000, 48000, 64000)),
    "aac-mb": Codec("aac", "adts", 12000, (8000, 12000, 16000)),
    "aac-swb": Codec("aac", "adts", 24000, (12000, 16000, 24000, 32000)),
    "aac-32": Codec("aac", "adts", 32000, (16000, 24000, 32000)),
    "wma-cd": Codec("wmav2", "asf", 44100, (32000, 48000, 64000)),
    "sbc-fb": Codec("sbc", "sbc", 44100, (64000, 96000)),
}
"""What no stage before the fourteenth has heard: other codecs, and the same at other rates."""

HELD_OUT_CODECS = {
    "ac3": Codec("ac3", "ac3", 48000, (32000, 40000, 48000, 64000)),
    "eac3": Codec("eac3", "eac3", 48000, (24000, 32000, 48000)),
    "mp2": Codec("mp2", "mp2", 16000, (8000, 16000, 24000, 32000), 2),
    "wma1": Codec("wmav1", "asf", 16000, (24000, 32000)),
    "adpcm-ima": Codec("adpcm_ima_wav", "wav", 8000, (32000,)),
    "adpcm-yamaha": Codec("adpcm_yamaha", "wav", 16000, (64000,)),
    "dfpwm": Codec("dfpwm", "wav", 16000, (16000,)),  # a bit a sample: delta modulation
    "dfpwm-fb": Codec("dfpwm", "wav", 48000, (48000,)),
}
"""No stage learns from these, though from relatives of most: how well it does on them is how well on unheard codecs."""


def encode_decode(signal: Signal, codec: Codec, bit_rate: int) -> Signal:
    """Pass a signal at the codec's rate through encoder and decoder; the codec's delay is left in."""
    if codec.encoder == "vo-amrwbenc":
        file = io.BytesIO(speech_codecs.amr_wb_encode(signal, bit_rate))
    else:
        file = _encode(signal, codec, bit_rate)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=codec.rate)
    with av.open(file, "r", format="aac" if codec.container == "adts" else codec.container) as container:
        frames = [out for decoded in container.decode(audio=0) for out in resampler.resample(decoded)]
        frames += resampler.resample(None)
    return np.concatenate([f.to_ndarray()[0] for f in frames])


def _encode(signal: Signal, codec: Codec, bit_rate: int) -> io.BytesIO:
    frame = av.AudioFrame.from_ndarray(
        np.clip(signal * 32767, -32768, 32767).astype(np.int16)[None], format="s16", layout="mono"
    )
    frame.sample_rate = codec.rate
    file = io.BytesIO()
    with av.open(file, "w", format=codec.container) as container:
        stream = container.add_stream(codec.encoder, rate=codec.rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = bit_rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    return file


def align(signal: Signal, reference: Signal, limit: int = 7200) -> Signal:
    """Remove the delay (up to `limit` samples either way) that gives the highest correlation."""
    signal = np.pad(signal, (0, max(0, len(reference) + limit - len(signal))))
    correlation = fftconvolve(signal, reference[::-1])
    centre = len(reference) - 1
    delay = int(np.argmax(correlation[centre - limit : centre + limit])) - limit
    if delay < 0:
        return np.pad(signal, (-delay, 0))[: len(reference)]
    return signal[delay : delay + len(reference)]


def codec(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """One or (one time in five) two passes of a random codec at a random bit rate."""
    return _one_of(CODECS, speech, rng)


def further_codec(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """As `codec`, of those that no stage before the fourteenth has heard."""
    return _one_of(FURTHER_CODECS, speech, rng)


def held_out_codec(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """As `codec`, of those for validation only."""
    return _one_of(HELD_OUT_CODECS, speech, rng)


def _one_of(table: Mapping[str, Codec], speech: Signal, rng: np.random.Generator) -> tuple[Signal, Parameters]:
    weights = np.array([c.weight for c in table.values()])
    name = str(rng.choice(list(table), p=weights / weights.sum()))
    chosen = table[name]
    bit_rate = int(rng.choice(chosen.bit_rates))
    passes = 1 + int(rng.random() < 0.2)
    peak = max(1.0, float(np.abs(speech).max()) / 0.99)  # leave clipping to `clipping`
    out = speech / peak
    for _ in range(passes):
        decoded = encode_decode(change_rate(out, SIMULATION_RATE, chosen.rate), chosen, bit_rate)
        out = align(change_rate(decoded, chosen.rate, SIMULATION_RATE), out)
    out = (out * peak).astype(np.float32)
    bandwidth_hz = min(measured_bandwidth_hz(speech, out), chosen.rate / 2)
    parameters: Parameters = {"codec": name, "bit_rate": float(bit_rate), "codec_passes": float(passes)}
    return out, parameters | {"bandwidth_hz": bandwidth_hz}


def call_codec(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """A codec of telephone calls; every second time packets get lost, 1 to 30 %, and its decoder conceals it."""
    name = str(rng.choice(list(CALL_CODECS)))
    chosen = CALL_CODECS[name]
    bit_rate, rate, burst = int(rng.choice(chosen.bit_rates)), 0.0, 1.0
    if rng.random() < 0.5:
        rate, burst = float(10 ** rng.uniform(-2, -0.5)), float(rng.choice([1.0, rng.uniform(1, 4)]))
    peak = max(1.0, float(np.abs(speech).max()) / 0.99)
    narrow = change_rate(speech / peak, SIMULATION_RATE, chosen.rate)
    decoded = chosen.transmit(narrow, bit_rate, lost_packets(rng, rate, burst))
    out = align(change_rate(decoded, chosen.rate, SIMULATION_RATE), speech) * peak
    known: Parameters = {"call_codec": name, "bit_rate": float(bit_rate), "bandwidth_hz": chosen.rate / 2}
    return out.astype(np.float32), known | ({"loss_rate": rate, "loss_burst": burst} if rate else {})


def neural_codec(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Speech that a decoder made up, wholly or in part: FARGAN, Opus' networks (also from lost packets), Codec 2."""
    kind = str(rng.choice(["fargan", "opus-networks", "opus-loss", "codec2"], p=[0.45, 0.3, 0.13, 0.12]))
    rate = speech_codecs.CODEC2_RATE if kind == "codec2" else speech_codecs.OPUS_RATE
    peak = max(1.0, float(np.abs(speech).max()) / 0.99)
    narrow = change_rate(speech / peak, SIMULATION_RATE, rate)
    parameters: Parameters = {"neural_codec": kind, "bandwidth_hz": rate / 2}
    if kind == "fargan":
        step = float(rng.choice([0.0, 10 ** rng.uniform(-0.9, 0.05)], p=[0.35, 0.65]))
        hold, pitch_step = int(rng.choice([1, 2, 3, 4], p=[0.5, 0.2, 0.15, 0.15])), 0.0
        if rng.random() < 0.3:
            pitch_step = float(rng.uniform(0.03, 0.2))
        decoded = speech_codecs.fargan(narrow, step, hold, pitch_step)
        parameters |= {"cepstrum_step": step, "frames_held": float(hold), "pitch_step": pitch_step}
    elif kind == "codec2":
        bit_rate = int(rng.choice([700, 1300, 1600, 2400, 3200]))
        decoded = speech_codecs.codec2(narrow, bit_rate)
        parameters |= {"bit_rate": float(bit_rate)}
    else:
        bit_rate = int(rng.choice([6000, 8000, 9000, 12000, 16000, 24000]))
        loss = 0 if kind == "opus-networks" and rng.random() < 0.4 else int(10 ** rng.uniform(0, 1.6))
        redundancy = bool(loss and rng.random() < 0.4)
        bit_rate = max(bit_rate, 24000) if redundancy else bit_rate
        decoded = speech_codecs.opus(narrow, bit_rate, loss, kind == "opus-networks", redundancy)
        parameters |= {"bit_rate": float(bit_rate), "loss_rate": loss / 100, "redundancy": float(redundancy)}
    out = align(change_rate(decoded, rate, SIMULATION_RATE), speech) * peak
    return out.astype(np.float32), parameters


def gan_codec(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """A codec that was trained for this (`training.gan_codec`): a random snapshot and bit rate.

    Two times in three only a part of what the codec changed is there, down to 18 dB less: after so short a training,
    even its last snapshot does more harm than codecs in use. One with finer frames does less: there, one time in three.
    """
    from training import gan_codec as gan  # with all that training needs

    codecs = gan.read_snapshots(gan.FOLDER)
    name = str(rng.choice(list(codecs)))
    codec = codecs[name]
    quantizers = int(rng.integers(1, codec.quantizer.num_quantizers + 1))
    whole = 1 / 3 if codec.hop >= 160 else 2 / 3
    share = float(rng.choice([1.0, 10 ** rng.uniform(-0.9, 0)], p=[whole, 1 - whole]))
    narrow = change_rate(speech, SIMULATION_RATE, gan.RATE)
    changed = codec.code(torch.from_numpy(narrow), quantizers).numpy() - narrow
    out = change_rate(narrow + np.float32(share) * changed, gan.RATE, SIMULATION_RATE)
    out = np.pad(out, (0, 2))[: len(speech)]  # there is no delay
    known: Parameters = {"gan_codec": name, "quantizers": float(quantizers), "share": share}
    return out, known | {"bandwidth_hz": gan.RATE / 2}
