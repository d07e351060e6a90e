"""The score as a loss: gradients that are finite for every clip, and right."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from jsqa_metric import JSQAMetric, score

RATE = 16000


def clip_of(kind: str, speech: np.ndarray) -> torch.Tensor:
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    click = np.where(np.arange(RATE) == 5000, 0.5, 0.0)
    clips = {
        "speech": speech[:32000],
        "noise": noise,
        "one click in digital silence": click,
        "speech after digital silence": np.concatenate([np.zeros(RATE), speech[:RATE]]),
        "barely over silence": speech / np.abs(speech).max() * 1.1e-4,
        "over full scale": speech / np.abs(speech).max() * 7,
        "constant": np.full(RATE, 0.3),
        "square": np.sign(noise),
        "shortest": speech[8000:9600],
        "several windows": np.tile(speech, 6)[: 25 * RATE],
    }
    return torch.from_numpy(clips[kind].astype(np.float32))


KINDS = [
    "speech", "noise", "one click in digital silence", "speech after digital silence", "barely over silence",
    "over full scale", "constant", "square", "shortest", "several windows",
]  # fmt: skip


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_for_every_clip(speech, kind, rate):
    if kind == "shortest" and rate == 48000:
        pytest.skip("is shorter than 0.1 s at this rate")
    wav = clip_of(kind, speech).requires_grad_()
    with pytest.warns(UserWarning, match="silent") if kind == "constant" else nullcontext():
        score(wav, rate).backward()
    assert wav.grad.isfinite().all()
    assert (wav.grad.abs().max() > 0) == (kind != "constant")  # which is silence


@pytest.mark.parametrize("level_db", [None, -26])
@pytest.mark.parametrize("kind", ["speech", "speech after digital silence", "shortest"])
def test_second_derivatives_are_finite_also_in_digital_silence(speech, kind, level_db):
    wav = clip_of(kind, speech).requires_grad_()
    (first,) = torch.autograd.grad(score(wav, RATE, level_db=level_db), wav, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), wav)
    assert second.isfinite().all()
    assert second.abs().max() > 0


@pytest.mark.parametrize("kind", ["speech", "one click in digital silence", "shortest"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_are_finite_in_every_precision(speech, kind, dtype, autocast):
    wav = clip_of(kind, speech).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        loss = -JSQAMetric(RATE)(wav[None])
    loss.backward()
    assert wav.grad.dtype == dtype
    assert wav.grad.isfinite().all()
    assert wav.grad.abs().max() > 0


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_gradient_predicts_the_change_of_the_score(noisy, rate):
    # gradcheck through `score` is out of reach, as it computes in float32; the direction of the gradient is where
    # a change stands out most from rounding
    wav = torch.from_numpy(noisy[20000 : 20000 + rate].copy()).requires_grad_()
    score(wav, rate).backward()
    steepness = wav.grad.norm()
    step = 1e-3 / steepness * wav.grad / steepness
    with torch.no_grad():
        change = score(wav + step, rate) - score(wav - step, rate)
    assert change == pytest.approx(2e-3, rel=0.1)


@pytest.mark.parametrize("rate", [16000, 48000])
def test_gradients_have_gradients(noisy, rate):
    wav = torch.from_numpy(noisy[20000:36000].copy()).requires_grad_()
    (first,) = torch.autograd.grad(score(wav, rate), wav, create_graph=True)
    one, other = torch.randn(2, len(wav), generator=torch.Generator().manual_seed(0)).unbind()
    (along_one,) = torch.autograd.grad(first @ one, wav, retain_graph=True)
    (along_other,) = torch.autograd.grad(first @ other, wav)
    assert along_one.abs().max() > 0
    assert along_one @ other == pytest.approx(float(along_other @ one), rel=1e-2)  # the order of two is free


def test_in_a_list_every_clip_has_a_gradient(noisy):
    clips = [torch.zeros(RATE), torch.from_numpy(noisy[20000:36000].copy()), torch.full((RATE,), torch.nan)]
    for clip in clips:
        clip.requires_grad_()
    with pytest.warns(UserWarning, match="2 of 3"):
        silent, good, bad = torch.autograd.grad(score(clips, RATE)[1], clips)
    assert good.abs().max() > 0
    assert (silent == 0).all()
    assert (bad == 0).all()


def test_a_padded_batch_with_gradients_scores_as_without(speech, noisy):
    padded, lengths = torch.from_numpy(np.stack([speech[:RATE], noisy[:RATE]])), torch.tensor([RATE, RATE // 2])
    expected = score(padded, RATE, lengths=lengths)
    with_gradients = score(padded.clone().requires_grad_(), RATE, lengths=lengths)
    torch.testing.assert_close(with_gradients.detach(), expected, atol=1e-5, rtol=0)


def test_scores_without_gradients_are_ordinary_tensors(speech, noisy):
    batch, weights = torch.from_numpy(np.stack([speech[:RATE], noisy[:RATE]])), torch.ones(2, requires_grad=True)
    metric = JSQAMetric(RATE, reduction="none")
    metric.update(batch)
    for scores in (score(batch, RATE), metric.compute()):
        (gradient,) = torch.autograd.grad((scores * weights).sum(), weights)
        torch.testing.assert_close(gradient, scores)
