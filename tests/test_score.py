"""`score`: what comes out, batches and windows, gradients."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from conftest import EXAMPLES

from jsqa_metric import JSQAModel, ModelConfig, ScoreDetails, load_model, score
from jsqa_metric.audio import _filter_bank
from jsqa_metric.hub import _load

RATE = 16000


def test_one_clip_gives_a_float(speech):
    path = EXAMPLES / "english_clean.flac"
    for mos in (score(speech, RATE), score(torch.from_numpy(speech), RATE), score(path), score(str(path))):
        assert isinstance(mos, float)
        assert 1 <= mos <= 5


def test_a_path_an_array_and_a_tensor_score_the_same(speech):
    scores = [score(EXAMPLES / "english_clean.flac"), score(speech, RATE), score(torch.from_numpy(speech), RATE)]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-6)


def test_any_leading_shape(speech):
    clips = speech[:48000].reshape(1, 3, 16000)
    scores = score(clips, RATE)
    assert isinstance(scores, np.ndarray)
    assert scores.shape == (1, 3)
    tensor = score(torch.from_numpy(clips), RATE)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.shape == (1, 3)
    np.testing.assert_allclose(scores, tensor, atol=1e-6)
    assert scores[0, 1] == pytest.approx(score(clips[0, 1], RATE), abs=1e-5)
    assert score(speech[None], RATE).shape == (1,)
    assert score(np.zeros((0, 16000)), RATE).shape == (0,)


def test_lists_of_different_lengths(speech):
    clips = [speech, speech[:20000], speech[:1600]]
    alone = [score(clip, RATE) for clip in clips]
    np.testing.assert_allclose(score(clips, RATE), alone, atol=1e-5)
    tensors = score([torch.from_numpy(clip) for clip in clips], RATE)
    assert isinstance(tensors, torch.Tensor)
    np.testing.assert_allclose(tensors, alone, atol=1e-5)
    paths = sorted(EXAMPLES.glob("*.flac"))
    np.testing.assert_allclose(score(paths), [score(path) for path in paths], atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_batch_equals_one_by_one_at_every_rate_whatever_the_padding(speech, rate, batch_size):
    lengths = np.array([30000, 20001, 4800, 0, 300])
    batch = np.full((5, 31000), 5.0, np.float32)
    for row, length in zip(batch, lengths, strict=True):
        row[:length] = speech[5000 : 5000 + length]
    with pytest.warns(UserWarning, match="not scored"):
        together = score(batch, rate, lengths=lengths, batch_size=batch_size)
    alone = [score(row[:n], rate) if n >= rate / 10 else math.nan for row, n in zip(batch, lengths, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_files_of_different_rates_score_in_one_batch_as_one_by_one(speech, noisy, write_wav):
    paths = [
        write_wav("a.wav", speech[: 3 * RATE], RATE, subtype="FLOAT"),
        write_wav("b.wav", noisy, 44100, subtype="FLOAT"),
        write_wav("c.wav", speech, 8000, subtype="FLOAT"),
    ]
    np.testing.assert_allclose(score(paths), [score(path) for path in paths], atol=1e-5)


def test_order_does_not_matter(speech):
    clips = [speech[i * 9000 : i * 9000 + 3000 * (i + 1)] for i in range(6)]
    np.testing.assert_allclose(score(clips, RATE), score(clips[::-1], RATE)[::-1], atol=1e-5)


def test_repeated_runs_are_bit_identical(speech):
    clips = speech[:64000].reshape(4, 16000)
    assert (score(clips, 22050) == score(clips, 22050)).all()


def test_noise_scores_below_clean_speech(speech, noisy):
    assert score(noisy, RATE) < score(speech, RATE) - 1


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_file_scores_as_the_array_in_it_also_in_windows(speech, write_wav, rate):
    long = np.tile(speech, 12)[: 30 * rate]
    path = write_wav("long.wav", long, rate, subtype="FLOAT")
    from_file, from_array = score(path, return_details=True), score(long, rate, return_details=True)
    assert from_file.mos == pytest.approx(from_array.mos, abs=1e-6)
    assert len(from_file.windows) > 1
    assert from_file.windows[0].start_s == 0
    assert from_file.windows[-1].end_s == pytest.approx(len(long) / rate)
    mean = np.average([w.mos for w in from_file.windows], weights=[w.weight for w in from_file.windows])
    assert from_file.mos == pytest.approx(mean, abs=1e-6)


def test_silent_windows_of_a_long_clip_do_not_count(speech):
    padded = np.concatenate([speech, np.zeros(40 * RATE, np.float32), speech])
    details = score(padded, RATE, return_details=True)
    silent = [w for w in details.windows if math.isnan(w.mos)]
    assert silent
    mos, weights = zip(*[(w.mos, w.weight) for w in details.windows if not math.isnan(w.mos)], strict=True)
    assert details.mos == pytest.approx(np.average(mos, weights=weights), abs=1e-6)


def test_silence_begins_at_80_db_below_full_scale(speech):
    loudest = speech[:RATE] / np.abs(speech[:RATE]).max()
    assert not math.isnan(score(loudest * 1.01e-4, RATE))
    with pytest.warns(UserWarning, match="silent: no sample reaches -80 dB"):
        assert math.isnan(score(loudest * 0.99e-4, RATE))


@pytest.mark.parametrize("place", [0.01, 0.5, 0.99])
def test_one_bad_sample_anywhere_in_a_long_clip_spoils_it(speech, place):
    long = np.tile(speech, 8)
    long[int(place * len(long))] = np.nan
    with pytest.warns(UserWarning, match="NaN or infinite"):
        assert math.isnan(score(long, RATE, batch_size=1))


def test_shifting_a_long_clip_by_a_sample_moves_its_score_by_less_than_a_hundredth(speech, noisy):
    long = np.concatenate([speech, noisy, speech, noisy, speech])
    scores = [score(long[i:], RATE) for i in (0, 1, 2, 50)]
    assert np.ptp(scores[:3]) < 0.01
    assert np.ptp(scores) < 0.03


@pytest.mark.parametrize("seconds", [12, 23, 34])
def test_a_sample_that_begins_another_window_moves_the_score_by_less_than_a_hundredth(speech, noisy, seconds):
    long, samples = np.tile(np.concatenate([speech, noisy, speech * 0.2]), 3), seconds * RATE
    before, after = (score(long[: samples + i], RATE, return_details=True) for i in (0, 1))
    assert len(after.windows) == len(before.windows) + 1
    assert abs(after.mos - before.mos) < 0.01
    as_tensor = score(torch.from_numpy(long[: samples + 1])[None], RATE)
    assert float(as_tensor) == pytest.approx(after.mos, abs=1e-5)


def test_gradients_reach_the_waveform_through_resampling(noisy):
    for rate in (8000, 16000, 44100):
        wav = torch.from_numpy(noisy[:64000].reshape(2, -1).copy()).requires_grad_()
        lengths = torch.tensor([32000, 20000])
        score(wav, rate, lengths=lengths).sum().backward()
        assert wav.grad.isfinite().all()
        assert wav.grad[0].abs().max() > 0
        assert (wav.grad[1, 20000:] == 0).all()
    one = torch.from_numpy(noisy[:32000].copy()).requires_grad_()
    mos = score(one, RATE)
    assert isinstance(mos, torch.Tensor)
    assert mos.dim() == 0
    with torch.no_grad():
        assert isinstance(score(one, RATE), float)


def test_the_gradient_points_to_better_scores(noisy):
    wav = torch.from_numpy(noisy[:48000].copy()).requires_grad_()
    before = score(wav, RATE)
    before.backward()
    step = wav.detach() + 1e-3 * wav.grad / wav.grad.norm() * wav.detach().norm()
    assert score(step, RATE) > before.item()


def test_unscorable_clips_have_zero_gradient_beside_others(noisy):
    wav = torch.from_numpy(np.stack([noisy[:32000], np.zeros(32000, np.float32)])).requires_grad_()
    with pytest.warns(UserWarning, match="silent"):
        scores = score(wav, RATE)
    scores[~scores.isnan()].sum().backward()
    assert wav.grad.isfinite().all()
    assert (wav.grad[1] == 0).all()


@pytest.mark.parametrize("fill", [0.0, math.nan, math.inf])
def test_where_nothing_can_be_scored_the_gradient_is_zero(fill):
    for wav in (torch.full((16000,), fill, requires_grad=True), torch.full((2, 100), fill, requires_grad=True)):
        with pytest.warns(UserWarning, match="not scored"):
            scores = score(wav, RATE)
        assert scores.isnan().all()
        scores.sum().backward()
        assert (wav.grad == 0).all()


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])  # the resampler must keep its precision as well
def test_mixed_precision_around_changes_neither_score_nor_gradient(speech, rate):
    tensor = torch.from_numpy(speech)
    with torch.autocast("cpu", torch.bfloat16):
        inside = score(tensor, rate)
        wav = tensor.clone().requires_grad_()
        loss = score(wav, rate)
    loss.backward()
    assert inside == score(tensor, rate)
    outside = tensor.clone().requires_grad_()
    score(outside, rate).backward()
    torch.testing.assert_close(wav.grad, outside.grad)
    assert score(tensor.bfloat16(), rate) == pytest.approx(score(tensor, rate), abs=0.3)


def test_inference_mode_first_does_not_spoil_later_gradients(speech):
    from jsqa_metric import hub

    hub._load.cache_clear()
    with torch.inference_mode():
        score(torch.from_numpy(speech), RATE)
    wav = torch.from_numpy(speech.copy()).requires_grad_()
    score(wav, RATE).backward()
    assert wav.grad.abs().max() > 0


def test_a_first_score_inside_a_transform_loads_the_model_like_any_other(speech):
    from jsqa_metric import hub

    wav = torch.from_numpy(speech)
    hub._load.cache_clear()
    first = torch.func.grad(lambda x: score(x, RATE))(wav)
    assert score(speech, RATE) == score(wav.clone(), RATE)
    torch.testing.assert_close(torch.func.grad(lambda x: score(x, RATE))(wav), first)
    assert first.abs().max() > 0


def test_scores_without_gradients_are_constants_inside_a_transform(speech):
    gradient = torch.func.grad(lambda w: w * score(torch.from_numpy(speech), RATE))(torch.tensor(1.0))
    assert float(gradient) == pytest.approx(score(speech, RATE), abs=1e-5)


def test_details(speech):
    details = score(speech, RATE, return_details=True)
    assert isinstance(details, ScoreDetails)
    assert details.reason is None
    assert details.sample_rate == RATE
    assert details.duration_s == pytest.approx(len(speech) / RATE)
    several = score(speech[:32000].reshape(2, 16000), RATE, return_details=True)
    assert [d.duration_s for d in several] == [1.0, 1.0]


def test_dimensions_have_their_names_and_are_means_over_windows(speech):
    torch.manual_seed(0)
    names = ("discontinuity", "pesq", "noisiness", "loudness")  # in another order, with another task, one missing
    model = JSQAModel(ModelConfig(width=4, channels=16, layers=1, tasks=names, window_seconds=2.0)).eval()
    details = score(speech, 16000, model=model, return_details=True)
    assert len(details.windows) > 1
    parts = []
    for window in details.windows:
        wav = torch.from_numpy(speech[round(window.start_s * 16000) : round(window.end_s * 16000)])[None]
        parts.append(model.predict(wav)[1][0] + 3)
    expected = dict(zip(names, torch.stack(parts).mean(0).tolist(), strict=True))
    for name in ("discontinuity", "noisiness", "loudness"):
        assert getattr(details.dimensions, name) == pytest.approx(expected[name], abs=1e-4), name
    assert math.isnan(details.dimensions.coloration)
    with pytest.warns(UserWarning, match="silent"):
        silent = score(np.zeros(16000), 16000, model=model, return_details=True)
    assert all(math.isnan(value) for value in silent.dimensions)


def test_the_default_model_says_where_quality_is_lost(speech, noisy):
    clean = score(speech, 16000, return_details=True).dimensions
    assert score(noisy, 16000, return_details=True).dimensions.noisiness < clean.noisiness - 1
    gaps = speech.copy()
    for start in range(4000, len(gaps) - 800, 4000):
        gaps[start : start + 800] = 0
    assert score(gaps, 16000, return_details=True).dimensions.discontinuity < clean.discontinuity - 1
    assert score(speech * 0.02, 16000, return_details=True).dimensions.loudness < clean.loudness - 0.2


def test_a_loaded_model_can_be_passed(speech):
    assert score(speech, RATE, model=load_model()) == score(speech, RATE)
    with pytest.raises(ValueError, match="training mode"):
        score(speech, RATE, model=JSQAModel(ModelConfig(width=4)))


def test_no_global_state_is_changed(speech):
    score(speech, RATE)  # what torch and others set up at first use is not ours
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    filters, numpy_state = list(warnings.filters), np.random.get_state()[1].copy()
    score(torch.from_numpy(speech).requires_grad_(), 44100).backward()
    with pytest.warns(UserWarning, match="silent"):
        score(np.zeros(RATE), RATE)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert warnings.filters == filters
    assert (np.random.get_state()[1] == numpy_state).all()
    assert torch.get_num_threads() == threads
    assert (torch.random.get_rng_state() == state).all()
    assert torch.get_default_dtype() == torch.float32


def test_the_default_device_does_not_matter(speech):
    before = score(speech, 44100)
    _load.cache_clear()
    _filter_bank.cache_clear()
    with torch.device("meta"):  # what is made without a device has no data
        assert score(speech, 44100) == before
        assert score(torch.from_numpy(speech), 44100) == pytest.approx(before)
