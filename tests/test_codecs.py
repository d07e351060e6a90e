"""The codecs of the simulator on real speech: classic ones, those of calls, and those that synthesise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import needs_training

needs_training()

from training.data import call_codecs, codecs, speech_codecs
from training.data.channel import lost_packets
from training.data.corpus import SAMPLE_RATE, change_rate
from training.data.labels import HELD_OUT_KINDS
from training.data.simulate import DEFAULT_KINDS, FURTHER_KINDS, LATER_KINDS
from training.data.transform_codec import TransformCodec, draw_codec

CODECS = codecs.CODECS | codecs.FURTHER_CODECS | codecs.HELD_OUT_CODECS


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_takes_each_of_its_bit_rates(speech, built_codecs, name):
    codec = CODECS[name]
    sent = change_rate(speech, SAMPLE_RATE, codec.rate)
    for bit_rate in codec.bit_rates:
        decoded = codecs.align(codecs.encode_decode(sent, codec, bit_rate), sent)
        assert np.corrcoef(decoded, sent)[0, 1] > 0.4


def test_codecs_that_are_held_out_are_no_codec_of_training():
    assert not {(c.encoder, c.rate) for c in codecs.HELD_OUT_CODECS.values()} & {
        (c.encoder, c.rate) for c in (codecs.CODECS | codecs.FURTHER_CODECS).values()
    }
    assert set(HELD_OUT_KINDS).isdisjoint((*DEFAULT_KINDS, *LATER_KINDS, *FURTHER_KINDS))


def test_the_transform_codec_is_as_good_as_its_bits(speech):
    rng = np.random.default_rng(0)
    signal_to_noise = {}
    for bits in (0.125, 0.5, 2.0, 16.0):
        out = TransformCodec(320, bits, slope=0.5, dead_zone=0.1, filling=0.0, top=1.0).code(speech, rng)
        assert out.shape == speech.shape
        signal_to_noise[bits] = 20 * np.log10(np.std(speech) / np.std(out - speech))
    assert list(signal_to_noise.values()) == sorted(signal_to_noise.values())
    assert 3 < signal_to_noise[0.125] < 15
    assert 30 < signal_to_noise[2.0] < 50
    assert signal_to_noise[16.0] > 100  # nothing else is lost


def test_what_the_transform_codec_does_not_send_is_filled_with_noise(speech):
    settings = {"hop": 320, "bits": 0.1, "slope": 0.5, "dead_zone": 0.2, "top": 1.0}
    empty, filled = (
        TransformCodec(**settings, filling=filling).code(speech, np.random.default_rng(0)) for filling in (0.0, 0.3)
    )
    top = [np.abs(np.fft.rfft(signal))[len(signal) * 3 // 8 :].std() for signal in (empty, filled)]  # from 6 kHz
    assert top[1] > 1.1 * top[0]
    narrow = TransformCodec(**settings | {"top": 0.5}, filling=0.3).code(speech, np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(narrow)) ** 2
    assert spectrum[len(narrow) * 17 // 64 :].sum() < 1e-3 * spectrum.sum()  # 4 kHz and the width of a frame's line


def test_no_random_transform_codec_sends_nothing(speech):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        out = draw_codec(rng, int(rng.choice([8000, 16000]))).code(speech, rng)
        assert 0.4 * np.std(speech) < np.std(out) < 1.2 * np.std(speech)


def test_random_transform_codecs_leave_silence_silent():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        assert np.abs(draw_codec(rng, 16000).code(np.zeros(8000, np.float32), rng)).max() < 1e-5


def test_amr_wb_codes_speech_better_with_more_bits(speech, built_codecs):
    reference = np.pad(speech, (0, 320))
    distances = []
    for bit_rate in (6600, 23850):
        decoded = codecs.align(codecs.encode_decode(speech, codecs.CODECS["amr-wb"], bit_rate), reference)
        distances.append(np.std(decoded - reference) / np.std(reference))
    assert distances[1] + 0.02 < distances[0] < 0.8


@pytest.mark.parametrize("name", call_codecs.CALL_CODECS)
def test_codecs_of_calls_lose_what_is_not_sent_and_conceal_it(speech, built_codecs, name):
    codec = call_codecs.CALL_CODECS[name]
    sent = change_rate(speech, SAMPLE_RATE, codec.rate)

    def heard(bit_rate: int, lost: list[bool]) -> np.ndarray:
        decoded = codec.transmit(sent, bit_rate, itertools.cycle(lost))
        return codecs.align(decoded, sent)

    def likeness(bit_rate: int, lost: list[bool]) -> float:
        return float(np.corrcoef(heard(bit_rate, lost), sent)[0, 1])

    low, high = (likeness(rate, [False]) for rate in (codec.bit_rates[0], codec.bit_rates[-1]))
    assert high > 0.7
    assert low < high or len(codec.bit_rates) == 1
    assert 0.3 < likeness(codec.bit_rates[-1], [True, False, False, False]) < high - 0.02
    for lost, least, most in (([True, *[False] * 9], 0.3, 1.5), ([False] * 10 + [True] * 200, 0, 0.3)):
        whole, lossy = heard(codec.bit_rates[-1], [False]), heard(codec.bit_rates[-1], lost)
        gone = np.repeat(np.resize(lost, len(sent) // codec.packet), codec.packet)
        there = np.flatnonzero(gone)[codec.packet * (10 if least == 0 else 0) :]  # concealed first, then fading
        assert least <= np.std(lossy[there]) / np.std(whole[there]) < most


def test_lost_packets_come_as_often_and_in_bursts_as_long_as_wanted():
    lost = np.array(list(itertools.islice(lost_packets(np.random.default_rng(0), 0.1, 4.0), 50000)))
    assert lost.mean() == pytest.approx(0.1, abs=0.015)
    bursts = np.diff(np.flatnonzero(np.diff(np.pad(lost, 1).astype(int))))[::2]
    assert bursts.mean() == pytest.approx(4.0, abs=0.3)
    assert not any(itertools.islice(lost_packets(np.random.default_rng(0), 0.0, 1.0), 100))


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
