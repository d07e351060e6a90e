"""Agreement with listeners on the human-rated sets in ../shared, which nothing was trained or chosen on."""

from __future__ import annotations

import csv

import pytest
import torch
from torchmetrics.functional import pearson_corrcoef

from jsqa_metric import score


@pytest.mark.parametrize(("name", "at_least"), [("tcd", 0.82), ("p808", 0.86)])
def test_correlation_with_listeners(shared, name, at_least):
    with (shared / "human" / name / "labels.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    scores = torch.from_numpy(score([shared / "human" / name / row["file"] for row in rows]))
    pcc = pearson_corrcoef(scores, torch.tensor([float(row["mos"]) for row in rows]))
    assert pcc >= at_least
