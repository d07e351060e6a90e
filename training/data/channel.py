"""Degradations of the path: rooms, echo, clipping, gaps, packet loss, jitter, filters, gain control, quantisation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyroomacoustics as pra
from scipy.signal import butter, fftconvolve, sosfiltfilt

from jsqa_metric.bandwidth import bark
from training.data.additive import Material, Parameters
from training.data.bandwidth import SIMULATION_RATE
from training.data.corpus import Signal, active_rms


def simulated_room(rng: np.random.Generator) -> Signal:
    """Impulse response of a random shoebox room, image-source method."""
    size = rng.uniform([3, 2.5, 2.3], [9, 7, 4])
    shortest_s = 0.1 * np.prod(size) / (np.dot(size, np.roll(size, 1)) * 2) * 2.2  # Sabine at absorption 0.75
    rt60_s = float(rng.uniform(max(0.15, shortest_s), max(0.9, shortest_s + 0.1)))
    absorption, order = pra.inverse_sabine(rt60_s, size)
    room = pra.ShoeBox(size, fs=SIMULATION_RATE, materials=pra.Material(absorption), max_order=min(order, 14))
    room.add_source(rng.uniform(0.5, size - 0.5))
    room.add_microphone(rng.uniform(0.5, size - 0.5))
    room.compute_rir()
    return np.asarray(room.rir[0][0], dtype=np.float32)


def reverb(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """A room, measured or simulated, with a random part of direct sound; aligned at the direct path."""
    measured = rng.random() < 0.3
    response = material.rooms[rng.integers(len(material.rooms))] if measured else simulated_room(rng)
    direct = int(np.argmax(np.abs(response)))
    response = response[direct:] / np.abs(response[direct])
    wet = float(rng.uniform(0.2, 1.0))
    tail = fftconvolve(speech, response)[: len(speech)] - speech
    return (speech + wet * tail).astype(np.float32), {"reverb_wet": wet}


def echo(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Echo after 20..250 ms, 2..35 dB down, single or with feedback (a decaying series)."""
    delay_ms, attenuation_db = float(rng.uniform(20, 250)), float(rng.uniform(2, 35))
    feedback = float(rng.choice([0.0, rng.uniform(0.1, 0.8)]))
    step, gain = int(delay_ms * SIMULATION_RATE / 1000), 10 ** (-attenuation_db / 20)
    out = speech.copy()
    for n in range(1, 1 + (len(speech) - 1) // step):
        if gain < 1e-3:
            break
        out[n * step :] += gain * speech[: -n * step]
        gain *= feedback
    return out, {"echo_delay_ms": delay_ms, "echo_attenuation_db": attenuation_db, "echo_feedback": feedback}


def clipping(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Hard or soft amplitude clipping of 0.01 % to 40 % of the samples, loud or back at speech level."""
    share = float(10 ** rng.uniform(-4, -0.4))
    limit = float(np.quantile(np.abs(speech), 1 - share)) + 1e-4
    soft = rng.random() < 0.2
    clipped = limit * np.tanh(speech / limit) if soft else np.clip(speech, -limit, limit)
    if rng.random() < 0.5:
        clipped = clipped * (rng.uniform(0.7, 0.99) / limit)
    return clipped.astype(np.float32), {"clipped_share": share}


def chop(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Regular or random gaps of 10..60 ms: silence, the sound before repeated, or cut out."""
    mode = str(rng.choice(["silence", "repeat", "delete"]))
    per_second, gap_ms = float(rng.uniform(0.5, 8)), float(rng.uniform(10, 60))
    gap, count = int(gap_ms * SIMULATION_RATE / 1000), max(1, int(per_second * len(speech) / SIMULATION_RATE))
    if rng.random() < 0.5:
        starts = np.sort(rng.integers(gap, len(speech) - gap, count))
    else:
        starts = np.linspace(gap, len(speech) - 2 * gap, count).astype(int)
    out, keep = speech.copy(), np.ones(len(speech), bool)
    for start in starts:
        if mode == "silence":
            out[start : start + gap] = 0
        elif mode == "repeat":
            out[start : start + gap] = out[start - gap : start]
        else:
            keep[start : start + gap] = False
    out = out[keep]
    return np.pad(out, (0, len(speech) - len(out))), {"chop": mode, "chop_per_s": per_second, "chop_ms": gap_ms}


def lost_packets(rng: np.random.Generator, rate: float, burst: float) -> Iterator[bool]:
    """Whether each packet gets lost: a share of them, in bursts of so many on average (Gilbert's model)."""
    stay, lost = 1 - 1 / max(burst, 1 / (1 - rate)), False
    enter = rate / (1 - rate) * (1 - stay)
    while True:
        lost = bool(rng.random() < (stay if lost else enter))
        yield lost


def packet_loss(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Lost frames of 10, 20 or 40 ms, random or bursty (Gilbert), concealed by decaying repetition or not."""
    frame = int(rng.choice([10, 20, 40]) * SIMULATION_RATE / 1000)
    rate, burst = float(10 ** rng.uniform(-2, -0.5)), float(rng.choice([1.0, rng.uniform(1, 5)]))
    conceal = bool(rng.random() < 0.6)
    out, run = speech.copy(), 0
    fade = np.linspace(0, 1, SIMULATION_RATE // 500, dtype=np.float32)
    for start, lost in zip(range(frame, len(speech) - frame, frame), lost_packets(rng, rate, burst), strict=False):
        if lost:
            run += 1
            last = out[start - frame : start]
            out[start : start + frame] = last * 0.6 ** (run - 1) if conceal else 0
        elif run:
            run = 0
            if conceal:  # a cross-fade back, as decoders do
                back, before = slice(start, start + len(fade)), slice(start - frame, start - frame + len(fade))
                out[back] = out[back] * fade + out[before] * (1 - fade)
    return out, {"loss_rate": rate, "loss_burst": burst, "loss_concealed": float(conceal)}


def _period(speech: Signal, place: int) -> int:
    """The lag in samples, 2.5 to 15 ms, at which what follows a place resembles it most: a pitch period or several."""
    step = 4  # the correlation of 12 kHz will do
    excerpt = speech[place : place + SIMULATION_RATE // 25 : step]
    lags = range(SIMULATION_RATE // 400 // step, SIMULATION_RATE * 3 // 200 // step)
    size = len(excerpt) - lags.stop
    head = excerpt[:size] / (np.linalg.norm(excerpt[:size]) + 1e-9)
    windows = np.lib.stride_tricks.sliding_window_view(excerpt, size)[lags.start : lags.stop]
    return step * (lags.start + int(np.argmax(windows @ head / (np.linalg.norm(windows, axis=1) + 1e-9))))


def jitter(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """A play-out buffer after a jittery network: stretches are played slower, others faster, by whole pitch periods."""
    per_second, most = float(rng.uniform(0.5, 6)), int(rng.integers(1, 9))
    count = max(1, int(per_second * len(speech) / SIMULATION_RATE))
    starts = np.sort(rng.integers(0, len(speech) - SIMULATION_RATE // 10, count))
    parts, place, ahead = [], 0, 0
    for start in starts:
        if start <= place:
            continue
        parts.append(speech[place:start])
        place, slower = int(start), ahead <= 0  # in turn, so that time stays within a stretch
        for _ in range(rng.integers(1, most + 1)):
            if place + SIMULATION_RATE // 25 > len(speech):
                break
            lag = _period(speech, place)
            fade = np.linspace(0, 1, lag, dtype=np.float32)
            here, after = speech[place : place + lag], speech[place + lag : place + 2 * lag]
            if slower:  # back from the second period to the first, and on
                parts += [here, after * (1 - fade) + here * fade]
            else:
                parts.append(here * (1 - fade) + after * fade)
            place += lag if slower else 2 * lag
            ahead += lag if slower else -lag
    out = np.concatenate([*parts, speech[place:]])
    return np.pad(out, (0, max(0, -ahead)))[: len(speech)], {"jitter_per_s": per_second, "jitter_periods": float(most)}


def gain_control(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """A level that does not stay: a compressor, a gate that cuts into words, or swings; the active level is as before.

    Both follow in 3 ms to a second: from distortion within a word to pumping.
    """
    kind = str(rng.choice(["compressor", "gate", "swing"]))
    hop = SIMULATION_RATE // 100
    frames, depth_db = -(-len(speech) // hop), float(rng.uniform(3, 30))
    if kind == "swing":
        points = np.arange(0, frames + 200, rng.uniform(20, 200))
        gain_db = np.interp(np.arange(frames), points, rng.uniform(-depth_db, 0, len(points)))
        rise_ms = fall_ms = 10.0
    else:
        power = np.pad(speech, (0, frames * hop - len(speech))).reshape(frames, hop)
        level_db = 20 * np.log10(power.std(axis=1) / active_rms(speech, SIMULATION_RATE) + 1e-6)
        rise_ms, fall_ms = (float(10 ** rng.uniform(0.5, high)) for high in (2.3, 3.0))
        if kind == "compressor":  # the more it is over the threshold, the more is taken off
            gain_db = -np.maximum(level_db + depth_db, 0) * rng.uniform(0.5, 1)
            rise_ms, fall_ms = fall_ms, rise_ms  # quickly down, slowly up
        else:
            gain_db = np.where(level_db < rng.uniform(-25, -5), -depth_db * 2, 0.0)
    smooth, last = np.empty(frames), gain_db[0]
    for i, wanted in enumerate(gain_db):
        last = wanted + (last - wanted) * np.exp(-10 / (rise_ms if wanted > last else fall_ms))
        smooth[i] = last
    out = speech * 10 ** (np.interp(np.arange(len(speech)) / hop, np.arange(frames), smooth) / 20)
    out *= active_rms(speech, SIMULATION_RATE) / (active_rms(out.astype(np.float32), SIMULATION_RATE) + 1e-9)
    known: Parameters = {"gain_control": kind, "gain_depth_db": depth_db, "gain_rise_ms": rise_ms}
    return out.astype(np.float32), known | {"gain_fall_ms": fall_ms}


def equaliser(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """A poor microphone or speaker: up to five peaks and dips of up to 24 dB and a tilt, or the comb of a near wall."""
    hz = np.fft.rfftfreq(len(speech), 1 / SIMULATION_RATE)
    if rng.random() < 0.25:
        delay_ms, depth = float(10 ** rng.uniform(-0.5, 0.9)), float(rng.uniform(0.2, 0.95))
        gain = np.abs(1 + depth * np.exp(-2j * np.pi * hz * delay_ms / 1000))
        known: Parameters = {"comb_delay_ms": delay_ms, "comb_depth": depth}
    else:
        octave = np.log2(np.maximum(hz, 60) / 1000)
        strength_db, tilt_db = float(rng.uniform(4, 24)), float(rng.uniform(-5, 5))
        gain_db = tilt_db * octave
        for _ in range(rng.integers(1, 6)):
            centre, width, height = rng.uniform(-3, 3), 10 ** rng.uniform(-1, 0), rng.uniform(-strength_db, strength_db)
            gain_db = gain_db + height * np.exp(-(((octave - centre) / width) ** 2) / 2)
        gain, known = 10 ** (gain_db / 20), {"equaliser_db": strength_db, "equaliser_tilt_db": tilt_db}
    out = np.fft.irfft(np.fft.rfft(speech) * gain, len(speech)).astype(np.float32)
    level = active_rms(speech, SIMULATION_RATE) / (active_rms(out, SIMULATION_RATE) + 1e-9)
    return (out * level).astype(np.float32), known


def band_limit(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Low-pass 0.7..16 kHz, high-pass 100..800 Hz, or the telephone band."""
    low, high = 0.0, 0.0
    kind = rng.choice(["telephone", "low", "high", "both"], p=[0.3, 0.35, 0.15, 0.2])
    if kind == "telephone":
        low, high = 300.0, 3400.0
    if kind in ("low", "both"):
        high = float(700 * 10 ** rng.uniform(0, 1.36))
    if kind in ("high", "both"):
        low = float(rng.uniform(100, 800))
    out = speech
    if high:
        out = sosfiltfilt(butter(8, high, "low", fs=SIMULATION_RATE, output="sos"), out)
    if low:
        out = sosfiltfilt(butter(2, low, "high", fs=SIMULATION_RATE, output="sos"), out)
    known: Parameters = {"low_cut_hz": low, "high_cut_hz": high}
    return out.astype(np.float32), known | ({"bandwidth_hz": high} if high else {})


def low_pass(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Low-pass 3..8 kHz, the cut drawn evenly in Bark: from narrowband to wideband speech."""
    low, high = bark(3000.0), bark(8000.0)
    place = (rng.uniform(low, high) + 0.53) / 26.81
    cut_hz = float(1960 * place / (1 - place))
    order = int(rng.choice([6, 12, 24]))  # and back: from 72 dB per octave to as steep as a resampler
    out = sosfiltfilt(butter(order, cut_hz, "low", fs=SIMULATION_RATE, output="sos"), speech)
    return out.astype(np.float32), {"low_cut_hz": 0.0, "high_cut_hz": cut_hz, "bandwidth_hz": cut_hz}


def quantise(speech: Signal, rng: np.random.Generator, material: Material) -> tuple[Signal, Parameters]:
    """Uniform quantisation to 4..10 bit of the peak range."""
    bits = float(rng.uniform(4, 10))
    step = np.abs(speech).max() * 2 / 2**bits + 1e-9
    return (np.round(speech / step) * step).astype(np.float32), {"quantise_bits": bits}


def set_level(speech: Signal, rng: np.random.Generator) -> tuple[Signal, Parameters]:
    """Bring the active speech level to about -26 dBFS, now and then far off."""
    level_db = float(rng.normal(-26, 4) if rng.random() < 0.85 else rng.uniform(-46, -14))
    gain = 10 ** (level_db / 20) / (active_rms(speech, SIMULATION_RATE) + 1e-9)
    return (speech * gain).astype(np.float32), {"level_db": level_db}
