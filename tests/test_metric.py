"""`JSQAMetric`: the torchmetrics contract, and life inside other people's modules and collections."""

from __future__ import annotations

import copy
import math
import pickle

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection, MetricTracker
from torchmetrics.audio import ScaleInvariantSignalDistortionRatio, ShortTimeObjectiveIntelligibility

from jsqa_metric import JSQAMetric, score

RATE = 16000


@pytest.fixture(scope="module")
def batch(speech, noisy) -> torch.Tensor:
    return torch.from_numpy(np.stack([speech[:40000], noisy[:40000], noisy[40000:80000]]))


def test_compute_is_the_mean_of_score(batch):
    metric = JSQAMetric(RATE)
    for part in batch.split(2):
        metric.update(part)
    expected = score(batch, RATE)
    assert metric.compute().shape == ()
    torch.testing.assert_close(metric.compute(), expected.mean(), atol=1e-5, rtol=0)
    metric.reset()
    assert math.isnan(metric.compute())
    every = JSQAMetric(RATE, reduction="none")
    every.update(batch[:2])
    every.update(batch[2])
    torch.testing.assert_close(every.compute(), expected, atol=1e-5, rtol=0)


def test_all_scores_are_kept_without_their_graph(batch):
    metric = JSQAMetric(RATE, reduction="none")
    for _ in range(2):
        wav = batch.clone().requires_grad_()
        value = metric(wav)
        value.sum().backward()
        assert wav.grad.abs().max() > 0
    assert not any(kept.requires_grad for kept in metric.scores)
    assert metric.compute().shape == (6,)
    assert not metric.compute().requires_grad


def test_padded_batches_score_as_their_clips(batch):
    lengths = torch.tensor([40000, 20000, 9000])
    padded = batch.clone()
    for row, n in zip(padded, lengths, strict=True):
        row[n:] = 0.9
    alone = [score(row[:n], RATE) for row, n in zip(batch, lengths, strict=True)]
    assert JSQAMetric(RATE)(padded, lengths=lengths).item() == pytest.approx(np.mean(alone), abs=1e-5)
    for length in (lengths[1], lengths[1:2], 20000, np.int64(20000)):
        assert JSQAMetric(RATE)(padded[1], lengths=length).item() == pytest.approx(alone[1], abs=1e-5)


def test_a_collection_keeps_metrics_of_other_rates_revisions_or_levels_apart_whatever_comes_first(batch):
    asked = {"a": (16000, None, None), "b": (8000, None, None), "c": (16000, "2026.11", None), "d": (16000, None, -40)}
    together = MetricCollection(
        {name: JSQAMetric(rate, revision=old, level_db=level) for name, (rate, old, level) in asked.items()}
    )
    with pytest.warns(UserWarning, match="silent"):
        together.update(torch.zeros(2, 16000))  # after which all have the same states
    together.update(batch)
    expected = {
        name: float(score(batch, rate, revision=old, level_db=level).mean())
        for name, (rate, old, level) in asked.items()
    }
    assert len(set(expected.values())) == 4
    assert together.compute() == pytest.approx(expected, abs=1e-5)


def test_a_metric_that_was_pickled_before_there_were_levels_goes_on(batch):
    metric = JSQAMetric(RATE)
    del metric.__dict__["level_db"]
    metric = pickle.loads(pickle.dumps(metric))
    assert float(metric(batch)) == pytest.approx(float(score(batch, RATE).mean()), abs=1e-5)


def test_sixteen_bits_count_many_clips(batch):
    metric = JSQAMetric(RATE).set_dtype(torch.bfloat16)
    for _ in range(300):
        metric.update(batch[:1, :1600])
    assert float(metric.compute()) == pytest.approx(float(score(batch[0, :1600], RATE)), abs=0.01)


def test_a_compiled_module_scores_as_it_does_uncompiled(batch):
    metric = JSQAMetric(RATE)

    class Net(nn.Module):
        def forward(self, wav):
            return score(2 * wav, RATE).sum() + metric(wav)

    wav = batch[:, :16000].clone().requires_grad_()
    expected = torch.autograd.grad(Net()(wav), wav)[0]
    compiled = torch.autograd.grad(torch.compile(Net(), backend="aot_eager")(wav), wav)[0]
    torch.testing.assert_close(compiled, expected)


def test_clips_that_cannot_be_scored_are_left_out_with_a_warning(batch):
    spoiled = torch.cat([batch, torch.zeros(1, 40000), torch.full((1, 40000), torch.nan)])
    metric = JSQAMetric(RATE)
    with pytest.warns(UserWarning, match="2 of 5 clips not scored"):
        metric.update(spoiled)
    torch.testing.assert_close(metric.compute(), score(batch, RATE).mean(), atol=1e-5, rtol=0)
    assert metric.total == 3


def test_the_network_is_not_in_the_metric(batch):
    metric = JSQAMetric(RATE)
    metric.update(batch)
    assert metric.state_dict() == {}
    assert list(metric.parameters()) == []
    assert [m for m in metric.modules() if m is not metric] == []


def test_forward_lets_gradients_through(batch):
    wav = batch.clone().requires_grad_()
    metric = JSQAMetric(RATE)
    metric(wav).backward()
    assert wav.grad.abs().amax(dim=1).min() > 0
    torch.testing.assert_close(metric.compute(), score(batch, RATE).mean())


def test_hash_pickle_clone_and_script(batch):
    metric = JSQAMetric(RATE)
    metric.update(batch)
    expected = metric.compute()
    hash(metric)
    for twin in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric), metric.clone()):
        assert twin.compute() == expected
        twin.update(batch)
        assert twin.compute().item() == pytest.approx(expected.item(), abs=1e-5)
    torch.jit.script(metric)
    every = JSQAMetric(RATE, reduction="none")
    every.update(batch)
    for twin in (pickle.loads(pickle.dumps(every)), every.clone()):
        assert torch.equal(twin.compute(), every.compute())
    every.reset()
    assert every.scores == []
    assert every.compute().shape == (0,)


@pytest.mark.skipif(not hasattr(JSQAMetric, "merge_state"), reason="came with torchmetrics 1.5")
def test_merge_state(batch):
    one, two = JSQAMetric(RATE), JSQAMetric(RATE)
    one.update(batch[:2])
    two.update(batch[2:])
    one.merge_state(two)
    torch.testing.assert_close(one.compute(), score(batch, RATE).mean(), atol=1e-5, rtol=0)


def test_in_a_collection_beside_metrics_with_a_reference(batch):
    references = {"sisdr": ScaleInvariantSignalDistortionRatio(), "stoi": ShortTimeObjectiveIntelligibility(RATE)}
    collection = MetricCollection({"mos": JSQAMetric(RATE), **references})
    target = batch[:1].expand_as(batch)
    expected = score(batch, RATE).mean().item()
    assert collection(batch, target)["mos"].item() == pytest.approx(expected, abs=1e-5)
    collection.reset()
    collection.update(preds=batch, target=target)
    assert collection.compute()["mos"].item() == pytest.approx(expected, abs=1e-5)


def test_in_a_collection_beside_pesq_and_stoi(batch):
    pytest.importorskip("pesq", reason="needs the extra `train` or `bench`")
    from torchmetrics.audio import PerceptualEvaluationSpeechQuality

    peers = [PerceptualEvaluationSpeechQuality(RATE, "wb"), ShortTimeObjectiveIntelligibility(RATE)]
    collection, target = MetricCollection([JSQAMetric(RATE), *peers]), batch[:1].expand_as(batch)
    expected = score(batch, RATE).mean().item()
    collection.update(batch, target)
    collection.update(preds=batch, target=target)
    values = collection.compute()
    assert len(values) == 3
    assert values["JSQAMetric"].item() == pytest.approx(expected, abs=1e-5)
    assert all(value.ndim == 0 for value in values.values())


def test_in_a_tracker(batch):
    tracker = MetricTracker(JSQAMetric(RATE))
    for part in (batch[1:2], batch[:1]):
        tracker.increment()
        tracker.update(part)
    best, step = tracker.best_metric(return_step=True)
    assert step == 1
    assert best == pytest.approx(score(batch[0], RATE), abs=1e-5)


def test_plot(batch):
    mpl.use("Agg")
    metric = JSQAMetric(RATE)
    metric.update(batch)
    _, axes = metric.plot()
    assert axes.get_ylim()[0] <= 1
    assert axes.get_ylim()[1] >= 5


def test_wrong_arguments():
    for arguments, message in [
        ({"sample_rate": None}, "`sample_rate`"),
        ({"sample_rate": RATE, "reduction": "sum"}, "`reduction`"),
        ({"sample_rate": RATE, "model": nn.Linear(1, 1)}, "`model`"),
        ({"sample_rate": RATE, "batch_size": 0}, "`batch_size`"),
        ({"sample_rate": RATE, "revision": 2026.11}, "`revision`"),
        ({"sample_rate": RATE, "level_db": "loud"}, "`level_db`"),
    ]:
        with pytest.raises(ValueError, match=message):
            JSQAMetric(**arguments)
    with pytest.raises(ValueError, match="`preds` must be a tensor"):
        JSQAMetric(RATE).update([[0.0] * RATE])


class Parent(nn.Module):
    def __init__(self, with_metric: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        if with_metric:
            self.mos = JSQAMetric(RATE)


def test_nothing_leaks_into_a_parent(batch):
    parent, old = Parent(True), Parent(False)
    expected = parent.mos(batch)
    assert len(list(parent.parameters())) == 2
    assert parent.state_dict().keys() == old.state_dict().keys()
    parent.load_state_dict(old.state_dict(), strict=True)
    parent.train()
    assert parent.mos(batch) == expected
    parent.half()
    assert parent.mos(batch) == expected
    parent.to("cpu").double().eval()
    assert parent.mos(batch) == expected
