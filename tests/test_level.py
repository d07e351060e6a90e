"""What a low level costs."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from jsqa_metric import ModelConfig, load_model, score
from jsqa_metric.level import active_level_db, gain_to, level_share, to_network, without_offset

RATE = 16000


def _with_levels(**levels):
    """The default network, with these whatever its configuration says."""
    loaded = copy.deepcopy(load_model())
    loaded.config = replace(loaded.config, **levels)
    return loaded


@pytest.fixture(scope="module")
def levelled():
    """A network that hears all clips at one level."""
    return _with_levels(floor_db=0, level_db=-26)


@pytest.fixture(scope="module", params=["floor", "one level"])
def model(request, levelled):
    """That one, and one that hears clips at their own level if that is no lower than a floor."""
    return levelled if request.param == "one level" else _with_levels(floor_db=-45, level_db=0)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_the_level_is_that_of_the_sound_without_pauses_and_clicks(rate):
    time = torch.arange(rate) / rate
    tone = 0.01 * torch.sin(2 * math.pi * 200 * time)
    pause = torch.zeros(3 * rate)
    click = tone.clone()
    click[rate // 2 : rate // 2 + rate // 100] = 0.5
    for signal in (tone, torch.cat([tone, pause]), torch.cat([tone, 1e-3 * tone, pause]), click):
        assert active_level_db(signal, rate) == pytest.approx(-43.01, abs=0.2)
    assert active_level_db(tone[: rate // 10], rate) == pytest.approx(-43.01, abs=0.2)  # the shortest clip
    assert active_level_db(torch.cat([pause, tone[: rate // 4], pause]), rate) == pytest.approx(-43.01, abs=0.5)


def test_above_the_floor_nothing_is_touched():
    gains, shares = to_network(torch.tensor([-44.9, -33.3, 5.0]), ModelConfig(floor_db=-45))
    assert gains.tolist() == shares.tolist() == [1, 1, 1]
    gains, shares = to_network(torch.tensor([-99.0, -33.3, 5.0]), ModelConfig())
    assert gains.tolist() == shares.tolist() == [1, 1, 1]


def test_below_it_comes_at_the_floor_and_costs_what_the_labels_say(speech):
    quiet = torch.from_numpy(speech * np.float32(1e-2))
    level = active_level_db(quiet, RATE)
    assert level < -60
    gains, shares = to_network(level[None], ModelConfig(floor_db=-45))
    assert active_level_db(quiet * gains[0], RATE) == pytest.approx(-45, abs=0.05)
    assert shares[0] == pytest.approx(float(level_share(level) / level_share(torch.tensor(-45.0))), abs=1e-5)
    assert level_share(torch.tensor(-57.0)) == pytest.approx(1 - 25 * 1.5 / 93.2, abs=1e-5)  # G.107
    assert 0 < level_share(torch.tensor(-120.0)) < 1e-2


def test_a_network_that_knows_one_level_hears_that_and_the_rest_is_the_formula(speech, levelled):
    assert score(speech, RATE, model=levelled) > 3
    for gain_db in (-15, 0, 15):
        clip = speech * np.float32(10 ** (gain_db / 20))
        level = active_level_db(torch.from_numpy(clip), RATE)
        there = score(clip, RATE, model=levelled, level_db=-26)
        assert there == pytest.approx(score(speech, RATE, model=levelled, level_db=-26), abs=1e-4)
        expected = 1 + (there - 1) * float(level_share(level))
        assert score(clip, RATE, model=levelled) == pytest.approx(expected, abs=1e-3)


def test_clips_are_brought_to_either_a_level_or_a_floor():
    with pytest.raises(ValueError, match="floor_db"):
        ModelConfig(floor_db=-45, level_db=-26)


def test_turning_a_clip_down_never_helps(speech, noisy, model):
    for clip in (speech, noisy):
        scores = [score(clip * 10 ** (gain_db / 20), RATE, model=model) for gain_db in range(-12, -66, -6)]
        assert all(np.diff(scores) <= 0.03), scores
        assert scores[-1] < 1.2


def test_quiet_clips_in_a_batch_and_a_file_score_as_alone(speech, noisy, model, write_wav):
    clips = [speech, noisy * 1e-2, speech[: 3 * RATE] * 3e-3]
    alone = [score(clip, RATE, model=model) for clip in clips]
    paths = [write_wav(f"{i}.wav", clip, RATE, subtype="FLOAT") for i, clip in enumerate(clips)]
    np.testing.assert_allclose(score(clips, RATE, model=model), alone, atol=1e-5)
    np.testing.assert_allclose(score(paths, model=model), alone, atol=1e-5)


def test_loudness_takes_the_loss_and_the_other_dimensions_none(speech, model):
    one, two = (score(speech * gain, RATE, model=model, return_details=True) for gain in (5e-3, 2e-3))
    assert two.dimensions.loudness < one.dimensions.loudness - 0.2
    assert two.std == pytest.approx(one.std, abs=1e-2)
    for name in ("noisiness", "coloration", "discontinuity"):
        assert getattr(two.dimensions, name) == pytest.approx(getattr(one.dimensions, name), abs=1e-3)


@pytest.mark.parametrize("gain", [1e-1, 1e-2, 1e-3])
def test_gradients_are_finite_and_louder_is_better(speech, gain, model):
    wav = torch.from_numpy(speech * np.float32(gain)).requires_grad_()
    score(wav, RATE, model=model).backward()
    assert wav.grad.isfinite().all()
    assert (wav.grad * wav).sum() > 1e-3


@pytest.mark.parametrize("samples", [200, 1600])
def test_the_shortest_clips_and_zeros_have_a_level(samples):
    wav = torch.zeros(samples, requires_grad=True)
    for config in (ModelConfig(floor_db=-45), ModelConfig(level_db=-26)):
        gains, shares = to_network(active_level_db(wav, 2000)[None], config)
        ((wav * gains).sum() + shares.sum()).backward()
        assert 0 <= shares[0] < 1e-2
    assert wav.grad.isfinite().all()


def test_neither_an_offset_nor_a_click_raises_a_score(noisy, model):
    for gain in (1, 10**-1, 10**-1.5, 10**-2.5):
        plain = score(noisy * gain, RATE, model=model)
        for constant in (0.02, 0.2, 0.5):
            assert score(noisy * gain + constant, RATE, model=model) == pytest.approx(plain, abs=0.02)
        click = (noisy * gain).copy()
        click[20000] = 0.1
        assert score(click, RATE, model=model) < plain + 0.1
    with pytest.warns(UserWarning, match="silent"):
        assert math.isnan(score(np.full(RATE, 0.5), RATE, model=model))  # nothing but an offset


def test_mixed_precision_finds_the_same_offset():
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 0.1, 4.0):
        noise = scale * torch.randn(16000, generator=generator)
        for relative in (0.04, 0.07, 1.0):
            signal = noise + relative * scale
            with torch.autocast("cpu", torch.bfloat16):
                mixed = without_offset(signal)
            assert torch.equal(mixed, without_offset(signal))
            assert torch.equal(mixed, signal) == (relative < 0.05)


def test_stretches_of_silence_and_hiss_do_not_count(speech, model):
    clip = np.tile(speech, 12)[: 22 * RATE]
    clip[-RATE // 10 :] *= np.linspace(1, 0, RATE // 10, dtype=np.float32)
    expected = score(clip, RATE, model=model)
    silence, tick = np.zeros(18 * RATE, np.float32), np.zeros(18 * RATE, np.float32)
    tick[RATE // 2] = 2e-4  # in a window that is silent otherwise
    hiss = 1e-4 * np.random.default_rng(0).standard_normal(30 * RATE).astype(np.float32)
    silent = score(np.concatenate([clip, silence]), RATE, model=model)
    assert silent == pytest.approx(expected, abs=0.15)
    assert score(np.concatenate([clip, tick]), RATE, model=model) == pytest.approx(silent, abs=0.03)
    longer = score(np.concatenate([clip, hiss]), RATE, model=model, return_details=True)
    assert longer.mos == pytest.approx(expected, abs=0.15)
    assert longer.windows[-1].weight < 0.2


def test_at_one_level_a_clip_scores_the_same_however_loud_it_came(speech, noisy, write_wav):
    clips = [speech, noisy, np.concatenate([1e-2 * speech, np.tile(speech, 7)])]  # the last one of several windows
    signals = [torch.from_numpy(clip) for clip in clips]
    by_hand = [score(s * 10 ** ((-26 - active_level_db(s, RATE)) / 20), RATE) for s in signals]
    for gain in (1, 1e-2, 3):
        louder = [clip * np.float32(gain) for clip in clips]
        np.testing.assert_allclose(score(louder, RATE, level_db=-26), by_hand, atol=2e-3)
    path = write_wav("quiet.wav", clips[2] * np.float32(1e-2), RATE, subtype="FLOAT")
    assert score(path, level_db=-26) == pytest.approx(by_hand[2], abs=2e-3)
    padded = torch.zeros(2, len(clips[2]))
    padded[0, : len(speech)], padded[1] = 1e-2 * signals[0], signals[2]
    scores = score(padded, RATE, lengths=[len(speech), len(clips[2])], level_db=-26)
    np.testing.assert_allclose(scores, [by_hand[0], by_hand[2]], atol=2e-3)
    assert score(speech, RATE, level_db=-45) < score(speech, RATE, level_db=-26) - 0.3


def test_one_gain_is_for_all_of_a_clip_and_leaves_its_pauses_pauses(speech):
    clip = np.concatenate([np.tile(speech, 3)[: 12 * RATE], 1e-3 * np.tile(speech, 7)[: 30 * RATE]])
    gain = gain_to(-26, [torch.from_numpy(clip)], RATE)
    chunks = torch.from_numpy(clip).split(600 * 320)
    assert len(chunks) > 1
    assert gain_to(-26, chunks, RATE) == pytest.approx(float(gain), rel=1e-5)
    by_hand = score(torch.from_numpy(clip) * gain, RATE, return_details=True)
    level = score(clip, RATE, level_db=-26, return_details=True)
    assert [w.weight for w in level.windows] == pytest.approx([w.weight for w in by_hand.windows], abs=1e-3)
    assert level.windows[-1].weight < 1e-3
    assert level.mos == pytest.approx(by_hand.mos, abs=2e-3)


def test_at_one_level_gradients_ask_for_no_more_of_it(speech):
    wav = torch.from_numpy(speech * np.float32(0.1)).requires_grad_()
    score(wav, RATE, level_db=-26).backward()
    assert wav.grad.isfinite().all()
    assert abs((wav.grad * wav).sum()) < 1e-4 * wav.grad.norm() * wav.detach().norm()
    for wrong in (-80, 5, "loud", True, math.nan):
        with pytest.raises(ValueError, match="`level_db` must be a level in dBFS from -45 to -15"):
            score(speech, RATE, level_db=wrong)


@pytest.mark.parametrize("sample", [math.nan, math.inf, 1000, 1e25])
def test_what_cannot_be_scored_at_one_level_says_why_and_spoils_no_gradient(speech, sample):
    long = np.tile(speech, 8)
    broken = torch.from_numpy(np.stack([long, long]))
    broken[0, -RATE] = sample  # in the last window only
    broken.requires_grad_()
    share = torch.ones((), requires_grad=True)  # of something before that both go through
    with pytest.warns(UserWarning, match="1 of 2 clips not scored"):
        torch.nanmean(score(broken * share, RATE, level_db=-26)).backward()
    assert broken.grad[1].isfinite().all()
    if math.isfinite(sample):
        assert broken.grad[0].isfinite().all()
        assert share.grad.isfinite()
    with pytest.warns(UserWarning, match="not scored"):
        detail = score(broken[0].detach(), RATE, level_db=-26, return_details=True)
    assert detail.reason.startswith("peak" if math.isfinite(sample) else "contains NaN")


def test_at_one_level_silence_stays_silence_and_an_offset_is_not_heard(speech):
    expected = score(speech, RATE, level_db=-26)
    assert score(speech * np.float32(0.05) + np.float32(0.3), RATE, level_db=-26) == pytest.approx(expected, abs=0.02)
    long = np.tile(speech, 7)[: 24 * RATE]
    plain = score(long * np.float32(0.05), RATE, level_db=-26)
    assert score(long * np.float32(0.05) + np.float32(0.3), RATE, level_db=-26) == pytest.approx(plain, abs=0.02)
    for nothing in (np.zeros(RATE), speech / np.abs(speech).max() * 9e-5, np.full(RATE, 0.5)):
        with pytest.warns(UserWarning, match="silent"):
            assert math.isnan(score(nothing.astype(np.float32), RATE, level_db=-26))
