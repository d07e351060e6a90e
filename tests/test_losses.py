"""Contrastive losses against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from conftest import needs_training

needs_training("lightning")

from training.losses import contrastive_regression, nt_xent


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_nt_xent_is_what_simclr_defines(temperature):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 5, 7))
    rows = np.concatenate([first, second])
    total = 0.0
    for i in range(10):
        cosines = [
            np.dot(rows[i], rows[k]) / np.linalg.norm(rows[i]) / np.linalg.norm(rows[k]) / temperature
            for k in range(10)
        ]
        partner = (i + 5) % 10
        total -= np.log(np.exp(cosines[partner]) / sum(np.exp(c) for k, c in enumerate(cosines) if k != i))
    loss = nt_xent(torch.from_numpy(first), torch.from_numpy(second), temperature)
    assert loss.item() == pytest.approx(total / 10, rel=1e-5)
    assert nt_xent(torch.eye(4), torch.eye(4), 0.01).item() == pytest.approx(0, abs=1e-6)


def test_nt_xent_is_as_exact_in_mixed_precision():
    first = torch.nn.functional.normalize(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    second = first + 0.01 * torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    expected = nt_xent(first, second, 0.05)
    with torch.autocast("cpu", torch.bfloat16):
        assert nt_xent(first, second, 0.05) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("margin", [None, 0.0, 0.3])
def test_contrastive_regression_over_all_triplets(margin):
    rng = np.random.default_rng(1)
    embeddings = rng.standard_normal((7, 4))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = np.array([1.0, 2.5, 2.5, 4.0, 4.2, 3.0, 1.1])
    terms = []
    for a, p, n in itertools.permutations(range(7), 3):
        near, far = abs(labels[a] - labels[p]), abs(labels[a] - labels[n])
        if near < far:
            gap = np.linalg.norm(embeddings[a] - embeddings[p]) - np.linalg.norm(embeddings[a] - embeddings[n])
            terms.append(max(0.0, gap + ((far - near) / 4 if margin is None else margin)))
    loss = contrastive_regression(torch.from_numpy(embeddings), torch.from_numpy(labels), margin)
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_contrastive_regression_at_its_edges():
    same = torch.ones(3, 2, requires_grad=True)
    loss = contrastive_regression(same, torch.tensor([1.0, 3.0, 5.0]))
    loss.backward()
    assert torch.isfinite(same.grad).all()
    assert contrastive_regression(torch.randn(3, 2), torch.tensor([2.0, 2.0, 2.0])).item() == 0
    ordered = torch.tensor([[0.0], [0.25], [1.0]])  # distances are label gaps / 4: the adaptive margin is met
    assert contrastive_regression(ordered, torch.tensor([1.0, 2.0, 5.0])).item() == pytest.approx(0, abs=1e-6)
