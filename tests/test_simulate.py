"""The degradation simulator on real speech."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from conftest import needs_training

from jsqa_metric.bandwidth import bandwidth_share, bark

needs_training()

from training.data.bandwidth import SIMULATION_RATE, measured_bandwidth_hz, widen
from training.data.channel import band_limit, gain_control, jitter, low_pass
from training.data.corpus import SAMPLE_RATE, active_rms, change_rate
from training.data.enhance import decision_directed, deep_filter, network_suppress
from training.data.labels import HELD_OUT_KINDS
from training.data.simulate import (
    COUNT_PROBABILITIES,
    DEFAULT_KINDS,
    DEGRADATIONS,
    DELIVERY_RATES,
    FURTHER_KINDS,
    LATER_KINDS,
    Simulator,
)
from training.data.suppressors import SUPPRESSORS
from training.data.voices import change_speed, colour


@pytest.fixture(scope="module")
def simulator(folders) -> Simulator:
    return Simulator(**folders)


@pytest.fixture(scope="module")
def fullband(speech) -> np.ndarray:
    return widen(speech, np.random.default_rng(0))


@pytest.mark.parametrize("name", [*DEFAULT_KINDS, *LATER_KINDS, *FURTHER_KINDS, *HELD_OUT_KINDS, "low_pass"])
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


@pytest.mark.parametrize("kind", ["deepfilter", *SUPPRESSORS])
def test_networks_remove_noise_and_keep_time(fullband, kind):
    noise = np.random.default_rng(0).standard_normal(len(fullband)).astype(np.float32) * 0.02
    suppress = deep_filter if kind == "deepfilter" else partial(network_suppress, kind=kind)
    cleaned = suppress(fullband + noise, limit_db=100.0)
    assert cleaned.shape == fullband.shape
    narrow, ours = (change_rate(signal, SIMULATION_RATE, SAMPLE_RATE) for signal in (fullband, cleaned))
    assert np.corrcoef(ours, narrow)[0, 1] > 0.85  # a delay of a few samples would destroy that
    left = change_rate(suppress(noise, limit_db=100.0), SIMULATION_RATE, SAMPLE_RATE)
    limited = change_rate(suppress(noise, limit_db=6.0), SIMULATION_RATE, SAMPLE_RATE)
    before = change_rate(noise, SIMULATION_RATE, SAMPLE_RATE)
    assert left.std() < 0.4 * before.std()
    assert 0.4 * before.std() < limited.std() < 0.8 * before.std()


def test_a_simulator_of_some_kinds_draws_no_others(folders):
    simulator = Simulator(**folders, kinds=["suppressor", "chop"], clean_share=0)
    drawn = [simulator.draw(1, index) for index in range(8)]
    assert {kind for clip in drawn for kind in clip.degradations} == {"suppressor", "chop"}
    assert all(1 <= len(clip.degradations) <= 2 for clip in drawn)
    with pytest.raises(ValueError, match="no such damage: hiss"):
        Simulator(**folders, kinds=["chop", "hiss"])


def test_gain_control_and_filters_leave_the_active_level(simulator, fullband):
    for name in ("gain_control", "equaliser"):
        for seed in range(6):
            out, _ = DEGRADATIONS[name][0](fullband, np.random.default_rng(seed), simulator.material)
            ratio = active_rms(out, SIMULATION_RATE) / active_rms(fullband, SIMULATION_RATE)
            assert 20 * np.log10(ratio) == pytest.approx(0, abs=0.5)


def test_jitter_moves_speech_in_time_and_leaves_it_whole(simulator, fullband):
    def power(signal: np.ndarray) -> np.ndarray:
        frames = signal[: len(signal) // 480 * 480].reshape(-1, 480)
        return np.log10(np.mean(frames**2, axis=1) + 1e-7)

    for seed in range(4):
        out, known = jitter(fullband, np.random.default_rng(seed), simulator.material)
        moves = [np.corrcoef(power(fullband)[50:-50], np.roll(power(out), lag)[50:-50])[0, 1] for lag in range(-25, 26)]
        assert max(moves) > 0.7  # 10 ms by 10 ms, within a quarter of a second
        assert np.corrcoef(out, fullband)[0, 1] < 0.95
        jumps = np.abs(np.diff(out)).max() / np.abs(np.diff(fullband)).max()
        assert jumps < 1.5  # no clicks where periods are doubled or left out


def test_jitter_repeats_and_leaves_out_whole_periods(simulator):
    time = np.arange(3 * SIMULATION_RATE) / SIMULATION_RATE
    for seed, pitch_hz in enumerate((80.0, 137.0, 210.0)):
        tone = np.sum([np.sin(2 * np.pi * k * pitch_hz * time) / k for k in range(1, 9)], axis=0).astype(np.float32)
        out, _ = jitter(tone, np.random.default_rng(seed), simulator.material)
        period = SIMULATION_RATE / pitch_hz
        after = np.interp(np.arange(len(out) - 2 * int(period)) + period, np.arange(len(out)), out)
        assert np.std(after - out[: len(after)]) < 0.15 * np.std(tone)  # as periodic as before


def test_gates_open_and_compressors_close_as_fast_as_they_say(simulator):
    step = np.random.default_rng(0).standard_normal(2 * SIMULATION_RATE).astype(np.float32) * 0.1
    step[:SIMULATION_RATE] *= 0.01
    kinds = set()
    for seed in range(30):
        out, known = gain_control(step, np.random.default_rng(seed), simulator.material)
        if known["gain_control"] == "swing" or known["gain_depth_db"] < 10:
            continue
        kinds.add(known["gain_control"])
        gain_db = 20 * np.log10((out / step).reshape(-1, 480).mean(1) + 1e-9)[100:]  # from the onset on
        way = gain_db - gain_db[-1]
        there = 10 * float(np.argmax(np.abs(way) < np.abs(way[0]) / np.e)) if abs(way[0]) > 3 else 0.0
        assert (way[0] <= 0.1) == (known["gain_control"] == "gate")
        wanted = known["gain_rise_ms" if known["gain_control"] == "gate" else "gain_fall_ms"]
        assert there <= 2 * wanted + 30
    assert kinds == {"gate", "compressor"}


def test_disturbances_have_the_snr_that_is_told(simulator, fullband):
    for seed in range(8):
        out, known = DEGRADATIONS["disturbance"][0](fullband, np.random.default_rng(seed), simulator.material)
        added_db = 20 * np.log10(active_rms(fullband, SIMULATION_RATE) / np.std(out - fullband))
        assert added_db == pytest.approx(known["disturbance_snr_db"], abs=0.05)


def test_decision_directed_suppression_takes_noise_and_keeps_time(fullband):
    noise = 0.02 * np.random.default_rng(0).standard_normal(len(fullband)).astype(np.float32)
    for seed in range(4):
        cleaned, _ = decision_directed(fullband + noise, np.random.default_rng(seed))
        left, known = decision_directed(noise, np.random.default_rng(seed))
        narrow = [change_rate(signal, SIMULATION_RATE, 8000) for signal in (fullband, cleaned, noise, left)]
        assert np.corrcoef(narrow[0], narrow[1])[0, 1] > 0.85
        assert narrow[3].std() < 0.6 * narrow[2].std(), known


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


def test_a_clip_is_always_the_same_and_no_two_are(simulator):
    first, again, other = simulator.draw(7, 3), simulator.draw(7, 3), simulator.draw(7, 4)
    assert np.array_equal(first.degraded, again.degraded)
    assert np.array_equal(first.reference, again.reference)
    assert first.degraded.shape != other.degraded.shape or not np.array_equal(first.degraded, other.degraded)
    assert np.abs(first.degraded).max() <= 1.05  # resampling may overshoot a little


def test_a_set_can_have_more_clean_clips(folders):
    clips = [Simulator(**folders, clean_share=share).draw(1, 0) for share in (1.0, 0.0)]
    assert [bool(clip.degradations) for clip in clips] == [False, True]
    assert Simulator(**folders).count_probabilities == pytest.approx(COUNT_PROBABILITIES)


def test_clips_come_at_all_rates_and_teachers_hear_16_khz(simulator):
    clips = [simulator.draw(1, i) for i in range(12)]
    assert {c.sample_rate for c in clips} <= set(DELIVERY_RATES)
    assert len({c.sample_rate for c in clips}) > 2
    for clip in clips:
        assert clip.heard.shape == clip.reference.shape
        assert len(clip.degraded) / clip.sample_rate == pytest.approx(len(clip.heard) / SAMPLE_RATE, abs=1e-3)
        assert 0 < clip.parameters["bandwidth_hz"] <= clip.sample_rate / 2


@pytest.mark.parametrize("limit", [band_limit, low_pass])
def test_band_limits_say_what_they_leave(simulator, fullband, limit):
    seen = [limit(fullband, np.random.default_rng(seed), simulator.material) for seed in range(12)]
    limited = [(out, p["bandwidth_hz"]) for out, p in seen if "bandwidth_hz" in p]
    assert limited
    for out, hz in limited:
        assert measured_bandwidth_hz(fullband, out) == pytest.approx(hz, abs=1000)


def test_low_passes_reach_from_narrowband_to_wideband_evenly_in_bark(simulator, fullband):
    draws = [low_pass(fullband[:4800], np.random.default_rng(i), simulator.material) for i in range(200)]
    cuts = np.array([parameters["bandwidth_hz"] for _, parameters in draws])
    assert 3000 <= cuts.min() < 3200
    assert 7600 < cuts.max() <= 8000
    middle = np.interp((bark(3000) + bark(8000)) / 2, [bark(hz) for hz in range(3000, 8001)], range(3000, 8001))
    assert 0.4 < (cuts < middle).mean() < 0.6


def test_competing_talkers_are_other_people(simulator):
    rng = np.random.default_rng(0)
    talkers = {e.group for e in simulator.material.speech.entries}
    assert len(talkers) > 10
    for _ in range(20):
        _, entry = simulator.material.speech.draw_speech(rng, 16000, other_than="kerstin")
        assert entry.group != "kerstin"
