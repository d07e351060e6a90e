"""Trainings begin with the weights of other models, also of other forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import needs_training

from jsqa_metric import JSQAModel, ModelConfig, load_model

needs_training()

from training.data.labelled import TASKS
from training.start import begin
from training.train import read_recipe

RECIPES = Path(__file__).parent.parent / "training" / "recipes"


def begun(name):
    """The model of a recipe, with the weights that it begins with; and the other model."""
    recipe = read_recipe(RECIPES / f"{name}.yaml", [])
    model = JSQAModel(ModelConfig(**{"tasks": TASKS, **recipe["module"]["model"]}))
    begin(model, recipe["start"])
    return model, load_model(recipe["start"]["model"], revision=recipe["start"]["revision"])


def test_all_but_the_convolutions_of_a_model_with_others_is_taken():
    model, other = begun("light")
    after, before = dict(model.named_parameters()), dict(other.named_parameters())
    own = {n for n in after if after[n].shape != before[n].shape or not torch.equal(after[n], before[n])}
    new = {name for name in after if name.startswith(("encoder.convolutions.", "encoder.flatten."))}
    assert {name for name in new if "norm" not in name} <= own <= new  # all norms begin alike
    with pytest.raises(ValueError, match="holds another model"):
        begin(JSQAModel(ModelConfig(channels=64)), {"model": "default", "convolutions": "new"})
    with pytest.raises(ValueError, match="'new', 'wider', 'low-rank' or numbers of the other's, got True"):
        begin(load_model("light"), {"model": "default", "convolutions": True})


def test_some_of_the_convolutions_and_the_first_layers_of_a_model_with_more_are_taken():
    model, other = begun("light_sixth")
    assert len(model.encoder.convolutions) == len(other.encoder.convolutions) - 1
    pairs = [
        (own, other.encoder.convolutions[i]) for own, i in zip(model.encoder.convolutions, (0, 1, 2, 4), strict=True)
    ]
    pairs += [(model.encoder.attention[0], other.encoder.attention[0]), (model.encoder.flatten, other.encoder.flatten)]
    for own, there in [*pairs, (model.pooling, other.pooling), (model.head, other.head)]:
        torch.testing.assert_close(dict(own.named_parameters()), dict(there.named_parameters()))
    for wrong in ([0, 1, 2], [1, 0, 2, 4], [0, 1, 2, 9]):
        with pytest.raises(ValueError, match="holds another model"):
            begin(model, {"model": "light", "revision": "2027.10", "convolutions": wrong})


def test_a_wider_and_deeper_network_says_what_the_other_says_and_learns_with_all_that_is_new(speech):
    torch.manual_seed(0)
    start, wav = {"model": "light", "revision": "2027.10"}, torch.from_numpy(speech)[None, :64000]
    other = load_model(**start)
    rows = [(channels + 8 * (i > 1), *strides) for i, (channels, *strides) in enumerate(other.config.convolutions)]
    config = replace(other.config, convolutions=tuple(rows), layers=other.config.layers + 1, dropout=0.0)
    model = JSQAModel(config).eval()
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    begin(model, {**start, "convolutions": "wider"})
    torch.testing.assert_close(model(wav), other(wav), rtol=0, atol=1e-6)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3)
    for _ in range(2):  # what adds zeros learns first, and then what comes before it
        optimizer.zero_grad()
        model(torch.cat([wav, wav.flip(1)])).square().sum().backward()
        optimizer.step()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name in ("encoder.convolutions.2.convolution.weight", "encoder.convolutions.4.convolution.weight"):
        assert (gradients[name][-8:].flatten(1).abs().amax(1) > 0).all(), name
        assert before[name][-8:].abs().min() > 0
    new = f"encoder.attention.{config.layers - 1}."
    assert all(g.abs().max() > 0 for n, g in gradients.items() if n.startswith(new) and n.endswith("weight"))
    narrower = tuple((8, *strides) for _, *strides in rows)
    slower = ((*rows[0][:2], 1), *rows[1:])
    for wrong in ({"layers": config.layers - 2}, {"convolutions": narrower}, {"convolutions": slower}):
        with pytest.raises(ValueError, match="holds another model"):
            begin(JSQAModel(replace(config, **wrong)), {**start, "convolutions": "wider"})


def test_a_network_of_low_rank_begins_with_what_is_nearest_to_the_other(speech):
    start, wav = {"model": "default", "revision": "2027.11"}, torch.from_numpy(speech)[None, :64000]
    other = load_model(**start)
    first, *rows = [(32, 2, 1), (32, 2, 2), (64, 1, 1), (64, 2, 1), (128, 2, 2)]
    apart = []
    for share in (0.1, 0.5, 1.0):
        ranks = [int(share * highest) for highest in (96, 96, 192, 192)]
        convolutions = (first, *((*row, rank) for row, rank in zip(rows, ranks, strict=True)))
        config = replace(other.config, convolutions=convolutions)
        model = JSQAModel(config).eval()
        begin(model, {**start, "convolutions": "low-rank"})
        apart.append(float((model.embed(wav) - other.embed(wav)).norm() / other.embed(wav).norm()))
    assert apart[0] > 0.3 > 0.1 > apart[1] > 0.01
    assert apart[2] < 1e-4
    too_many, slower = ((*first, 4), *rows), ((32, 2, 2), (32, 2, 1), *rows[1:])
    for wrong in (too_many, slower):
        with pytest.raises(ValueError, match="holds another model"):
            begin(JSQAModel(replace(config, convolutions=wrong)), {**start, "convolutions": "low-rank"})
    apart = []
    for hidden in (64, 192, 256):
        model = JSQAModel(replace(other.config, hidden=hidden)).eval()
        begin(model, {**start, "convolutions": "low-rank"})
        apart.append(float((model.embed(wav) - other.embed(wav)).norm() / other.embed(wav).norm()))
    assert apart[0] > apart[1] > 0.01
    assert apart[2] < 1e-4
    for wrong in ({"hidden": 512}, {"layers": 3}, {"convolutions": (first, *rows, (128, 1, 1, 8))}):
        with pytest.raises(ValueError, match="holds another model"):
            begin(JSQAModel(replace(other.config, **wrong)), {**start, "convolutions": "low-rank"})
    model, _ = begun("default_twelfth")
    torch.testing.assert_close(
        dict(model.encoder.attention[0].named_parameters()), dict(other.encoder.attention[0].named_parameters())
    )


def test_a_network_of_low_rank_begins_with_another_of_low_rank(tmp_path):
    torch.manual_seed(0)
    config = ModelConfig(channels=32, layers=1, convolutions=((8, 2, 1), (16, 2, 2, 6)))
    other, wav = JSQAModel(config).eval(), 0.1 * torch.randn(1, 16000)
    other.save_pretrained(tmp_path / "other")
    start = {"model": str(tmp_path / "other")}
    apart = []
    for rank in (6, 5, 1):
        model = JSQAModel(replace(config, convolutions=((8, 2, 1), (16, 2, 2, rank)))).eval()
        begin(model, {**start, "convolutions": "low-rank"})
        apart.append(float((model.embed(wav) - other.embed(wav)).norm()))
    assert apart[0] < 1e-4 < apart[1] < apart[2]
    explicit = JSQAModel(replace(config, hidden=64)).eval()  # which is what 0 stands for
    begin(explicit, start)
    assert torch.equal(explicit(wav), other(wav))
    JSQAModel(ModelConfig(encoder="waveform", width=4)).save_pretrained(tmp_path / "waveform")
    with pytest.raises(ValueError, match="holds another model"):
        begin(JSQAModel(config), {"model": str(tmp_path / "waveform"), "convolutions": "low-rank"})
