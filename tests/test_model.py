"""The network: masks, ranges, gradients, sizes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from conftest import small_model

from jsqa_metric import JSQAModel, ModelConfig, load_model
from jsqa_metric.encoders import LogMel, mel_filters
from jsqa_metric.layers import MaskedBatchNorm, apply_mask, length_mask

LENGTHS = [16000, 15999, 8001, 1600, 4096]


def padded_batch(padding: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    wav = 0.1 * torch.randn(len(LENGTHS), 20000, generator=generator)
    lengths = torch.tensor(LENGTHS)
    return wav.masked_fill(~length_mask(lengths, 20000), padding), lengths


@pytest.mark.parametrize("padding", [0.0, 1.0, float("nan")])
def test_a_padded_batch_scores_as_its_clips_one_by_one(model, padding):
    wav, lengths = padded_batch(padding)
    with torch.no_grad():
        together = model(wav, lengths)
        alone = torch.cat([model(clip[None, :n]) for clip, n in zip(wav, LENGTHS, strict=True)])
    assert alone.std() > 1e-3, "all clips score the same: the test could not fail"
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_padding_changes_nothing_in_training_either(model):
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in getattr(model.encoder, "attention", []):
        layer.dropout = 0.0
    wav, lengths = padded_batch(0.0)
    torch.testing.assert_close(model(wav, lengths), model(wav[:, :16000], lengths), atol=1e-5, rtol=0)
    longer = torch.nn.functional.pad(wav, (0, 4000), value=3.0)
    torch.testing.assert_close(model(longer, lengths), model(wav, lengths), atol=1e-5, rtol=0)


def test_folded_models_score_the_same(model):
    wav, lengths = padded_batch(0.0)
    for module in model.modules():
        if isinstance(module, MaskedBatchNorm):  # of a trained network, no norm leaves all as it is
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    folded = copy.deepcopy(model)
    folded.fold()
    folded.fold()
    assert not any(isinstance(module, MaskedBatchNorm) for module in folded.modules())
    gradients = []
    for network in (model, folded):
        heard = wav.clone().requires_grad_()
        scores = network(heard, lengths)
        scores.sum().backward()
        gradients.append((scores.detach(), heard.grad))
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)


def test_masked_batch_norm_is_torchs_over_the_frames_inside():
    torch.manual_seed(0)
    ours, theirs = MaskedBatchNorm(3).train(), torch.nn.BatchNorm1d(3).train()
    mask = length_mask(torch.tensor([7, 4]), 7)
    features = apply_mask(torch.randn(2, 3, 5, 7), mask)
    inside = features.permute(1, 0, 3, 2)[:, mask].flatten(1).T  # (frames inside * 5, 3)
    expected = theirs(inside)
    out = ours(features, mask).permute(1, 0, 3, 2)[:, mask].flatten(1).T
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_folding_batch_norm_changes_nothing():
    layer = small_model("spectrogram").encoder.convolutions[1]
    features, mask = torch.randn(2, 4, 16, 9), length_mask(torch.tensor([9, 6]), 9)
    features = apply_mask(features, mask)
    folded, short = layer(features, mask)
    torch.testing.assert_close(folded, layer.norm(layer.convolution(features), short), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 100.0])
def test_scores_lie_between_1_and_5(model, scale):
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(50)
        scores = model(scale * torch.randn(8, 8000))
    assert (scores >= 1).all()
    assert (scores <= 5).all()


@pytest.mark.parametrize("kind", ["speech", "silence", "one sample", "constant"])
def test_gradients_are_finite(model, speech, kind):
    wav = torch.zeros(2, 16000)
    if kind == "speech":
        wav = torch.from_numpy(speech[:32000]).view(2, 16000).clone()
    elif kind == "one sample":
        wav[:, 5000] = 0.5
    elif kind == "constant":
        wav += 0.3
    wav.requires_grad_()
    model(wav, torch.tensor([16000, 9000])).sum().backward()
    assert wav.grad.isfinite().all()
    assert (wav.grad[1, 9000:] == 0).all(), "padding has a gradient"
    if kind == "speech":
        assert wav.grad.abs().max() > 0


def test_gradients_are_right(model):
    model.double()
    wav = 0.1 * torch.randn(2, 1800, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([1800, 1650])
    assert torch.autograd.gradcheck(lambda x: model(x, lengths), wav.requires_grad_(), fast_mode=True, atol=1e-4)


def test_the_papers_encoder_has_the_papers_size():
    encoder = JSQAModel(ModelConfig(encoder="waveform", width=64)).encoder
    count = sum(p.numel() for p in encoder.parameters())
    assert encoder.channels == 1024
    assert count == pytest.approx(26.05e6, rel=1e-3)


def test_convolutions_are_those_of_the_width_or_as_configured():
    explicit = ((8, 2, 1), (8, 2, 2), (16, 1, 1), (16, 2, 1), (32, 2, 2))
    models = [JSQAModel(ModelConfig(width=8)), JSQAModel(ModelConfig(width=3, convolutions=explicit))]
    models[1].load_state_dict(models[0].state_dict())
    wav = padded_batch(0.0)
    torch.testing.assert_close(*(model.eval()(*wav) for model in models))
    config = ModelConfig.from_dict({"convolutions": [[4, 2, 2], [8, 3, 1]], "bands": 50})  # as from JSON
    features, mask = JSQAModel(config).encoder(wav[0], wav[1])
    assert features.shape[-1] == mask.shape[1] == -(-(20000 // 256 + 1) // 2)


@pytest.mark.parametrize(
    "convolutions",
    [((8, 2),), ((0, 1, 1),), ((8, 5, 1),), ((8, 1, True),), (8, 2, 2), ("abc",), ((8, 1, 1),) * 17]
    + [((8, 1, 1, 0),), ((8, 1, 1, 257),), ((8, 1, 1, 4, 4),)],
)
def test_impossible_convolutions_are_errors(convolutions):
    with pytest.raises(ValueError, match="`convolutions` must be at most 16"):
        ModelConfig(convolutions=convolutions)


def test_the_waveform_encoder_has_its_own_convolutions():
    with pytest.raises(ValueError, match="`convolutions` is for the spectrogram encoder only"):
        ModelConfig(encoder="waveform", convolutions=((8, 1, 1),))


def test_embeddings_are_what_the_head_sees(model):
    wav = 0.1 * torch.randn(3, 8000)
    embedding = model.embed(wav)
    assert embedding.shape == (3, model.embedding_size)
    torch.testing.assert_close(1 + 4 * torch.sigmoid(model.head(embedding)[:, 0]), model(wav))


def test_mel_filters_cover_every_bin_and_see_every_tone():
    filters = mel_filters(64, 512, 16000)
    assert filters.shape == (64, 257)
    assert (filters.amax(dim=1) > 0.4).all(), "a band that hears nothing"
    assert (filters[:, 3:250].sum(dim=0) > 0.3).all(), "a tone that no band hears"


def test_rounding_noise_below_the_threshold_is_not_heard():
    generator = torch.Generator().manual_seed(0)
    tone = 0.05 * torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)[None]
    rounding = (torch.rand(1, 16000, generator=generator) - 0.5) / 32768 * 10 ** (15 / 20)  # turned up by 15 dB
    lengths = torch.tensor([16000])
    differences = []
    for threshold_db in (-100, -90):
        front_end = LogMel(16000, 64, 0, threshold_db)
        with_noise, alone = front_end(tone + rounding, lengths)[0], front_end(tone, lengths)[0]
        assert alone.min() == pytest.approx((threshold_db + 50) / 25, abs=0.01)  # of an empty band
        differences.append((with_noise - alone).abs().max())
    assert differences[0] > 3 * differences[1]
    assert differences[1] < 0.12  # 3 dB


def test_a_threshold_is_of_spectrograms():
    model = JSQAModel(ModelConfig(threshold_db=-90))
    assert model.encoder.front_end.threshold == pytest.approx(1e-9)
    for wrong in ({"threshold_db": -101}, {"threshold_db": -90, "encoder": "waveform"}):
        with pytest.raises(ValueError, match="`threshold_db`"):
            ModelConfig(**wrong)


def test_default_model_is_frozen_and_small():
    model = load_model()
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) < 2.5e6
