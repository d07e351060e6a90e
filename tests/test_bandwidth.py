"""What sound above 8 kHz adds to a score, measured on speech with a known bandwidth."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly

from jsqa_metric import score
from jsqa_metric.audio import resample
from jsqa_metric.bandwidth import WIDE_BAND_SHARE, bandwidth_gain, bandwidth_share, extend


def speech_up_to(speech: np.ndarray, top_hz: float, rate: int) -> torch.Tensor:
    """The speech at another rate, with noise 35 dB below it from 8 kHz to `top_hz`."""
    signal = resample(torch.from_numpy(speech)[None], 16000, rate)[0]
    spectrum = torch.fft.rfft(torch.randn(len(signal), generator=torch.Generator().manual_seed(0)))
    hz = torch.fft.rfftfreq(len(signal), 1 / rate)
    high = torch.fft.irfft(spectrum * ((hz > 8000) & (hz < top_hz)), len(signal))
    return signal + high * signal.std() / high.std() * 10 ** (-35 / 20) if top_hz > 8000 else signal


@pytest.mark.parametrize("rate", [22050, 24000, 32000, 44100, 48000, 96000, 384000])
def test_the_gain_follows_the_bandwidth_and_not_the_rate(speech, rate):
    tops = [hz for hz in (8000, 10000, 12000, 16000, 20000) if hz <= rate / 2] + ([rate / 2] if rate < 32000 else [])
    margin = 200  # a brick wall on the edge of a band leaks into the next
    gains = [float(bandwidth_gain(speech_up_to(speech, hz - margin, rate), rate)) for hz in tops]
    expected = [bandwidth_share(hz) / WIDE_BAND_SHARE for hz in tops]
    assert gains == pytest.approx(expected, abs=0.012)


def test_up_to_16_khz_there_is_nothing_to_gain_and_hardly_beyond():
    noise = torch.randn(16000, generator=torch.Generator().manual_seed(0))
    assert bandwidth_gain(noise, 16000) == 1
    assert bandwidth_gain(noise, 16001) == pytest.approx(1, abs=1e-3)
    assert bandwidth_gain(noise, 17000) < 1.02


@pytest.mark.parametrize("rate", [24000, 44100, 48000])
def test_images_that_other_resamplers_leave_are_no_bandwidth(speech, rate):
    ratio = Fraction(rate, 16000)
    wide = resample_poly(speech, ratio.numerator, ratio.denominator).astype(np.float32)
    assert bandwidth_gain(torch.from_numpy(wide), rate) == pytest.approx(1, abs=0.01)


def test_rounding_noise_is_no_bandwidth(speech):
    wide = resample(torch.from_numpy(speech)[None], 16000, 48000)[0]
    quiet = (wide * (0.001 / wide.std()) * 32768).round() / 32768
    assert bandwidth_gain(quiet, 48000) < 1.02


def test_silence_has_no_bandwidth():
    assert bandwidth_gain(torch.zeros(4800), 48000) == 1
    tail = torch.zeros(10 * 1024 + 500)
    tail[-500:] = torch.randn(500)
    assert bandwidth_gain(tail, 48000) == 1


def test_the_default_dtype_does_not_matter(speech):
    before, clip = torch.get_default_dtype(), speech[:16000]
    expected = score(clip, 48000)
    try:
        torch.set_default_dtype(torch.float64)
        assert score(clip, 48000) == pytest.approx(expected, abs=1e-4)
    finally:
        torch.set_default_dtype(before)


def test_a_clip_that_ends_in_mid_sound_is_not_wide(speech):
    wide = resample(torch.from_numpy(speech)[None], 16000, 48000)[0]
    cut = wide[: int(wide.abs().argmax()) + 1]
    assert len(cut) > 1024
    assert bandwidth_gain(cut, 48000) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("samples", [1, 1023, 1025, 4800])
def test_short_and_silent_clips_have_finite_gains_and_gradients(samples):
    for fill in (torch.zeros(samples), torch.randn(samples)):
        clip = fill.requires_grad_()
        gain = bandwidth_gain(clip, 48000)
        gain.backward()
        assert 1 <= gain <= 1 / WIDE_BAND_SHARE + 1e-6
        assert clip.grad.isfinite().all()


def test_scores_stay_in_range_and_the_worst_gains_nothing():
    mos = extend(torch.tensor([1.0, 3.0, 4.9]), torch.full((3,), 1 / WIDE_BAND_SHARE))
    assert mos.tolist() == pytest.approx([1.0, 1 + 2 * 148 / 129, 5.0])


def test_a_batch_of_several_rates_gains_as_its_clips_alone(speech, write_wav):
    paths = [
        write_wav(f"{rate}.wav", speech_up_to(speech, min(16000, rate / 2), rate).numpy(), rate)
        for rate in (16000, 32000, 48000)
    ]
    together = score(paths)
    assert np.isfinite(together).all()
    assert together.tolist() == pytest.approx([score(path) for path in paths], abs=1e-5)
    assert together[1] > together[0] + 0.1


def test_an_offset_is_no_speech(speech):
    fullband = speech_up_to(speech, 19800, 48000)
    gains = [float(bandwidth_gain(fullband + offset, 48000)) for offset in (0.0, 0.01, 0.1)]
    assert gains[0] > 1.05
    assert gains == pytest.approx(gains[:1] * 3, abs=0.005)
