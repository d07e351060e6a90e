"""The grid of the paper's tables, in the smallest size."""

from __future__ import annotations

import shlex

import pandas as pd
import pytest
from conftest import needs_training

needs_training()

from training import tables, tables_report
from training.tables import PRETRAINING


@pytest.fixture
def command(labelled_set, folders, tmp_path) -> list[str]:
    folder, out = str(labelled_set[0]), tmp_path / "out" / "tables"
    sources = ["--speech", str(folders["speech"][0]), "--noise", str(folders["noise"])]
    size = shlex.split("--steps 2 --validations 1 --pretrain-epochs 1 --pretrain-pairs 8 --pair-seconds 0.5")
    grid = shlex.split("--encoders toy --seeds 1 2 --clips 8 --accelerator cpu")
    places = ["--out", str(out), "--runs", str(tmp_path / "runs"), "--train", folder, "--valid", folder]
    return [*places, *sources, *size, *grid]


def test_the_grid_is_run_once_reported_and_not_mixed_with_other_settings(command, rated_folder, tmp_path, monkeypatch):
    without_listeners, command = command, [*command, "--human", str(rated_folder)]
    tables.main(command)
    rows = pd.read_csv(tmp_path / "out" / "tables.csv")
    assert set(rows["pretraining"]) == set(PRETRAINING)
    assert set(rows["set"]) == {"simulated", "own"}
    assert len(rows) == 2 * 3 * 2
    page = (tmp_path / "out" / "tables.md").read_text()
    assert "2 steps of 8 clips" in page
    assert "±" in page
    assert (tmp_path / "out" / "tables_amounts.png").stat().st_size > 1000
    learning = pd.read_csv(tmp_path / "out" / "tables_learning.csv")
    assert set(learning["pretraining"]) == set(PRETRAINING)
    assert learning["step"].max() > 0
    monkeypatch.setattr(tables, "finetune", None)  # what is there is not done again
    tables.main(command)
    with pytest.raises(ValueError, match="other settings"):
        tables.main([*command, "--steps", "3"])
    with pytest.raises(ValueError, match="other settings"):
        tables.main([*command, "--valid-clips", "6"])
    with pytest.raises(ValueError, match="rows of other sets"):
        tables.main(without_listeners)


def test_the_grid_runs_on_published_corpora(command, rated_folder, tmp_path, monkeypatch):
    rated, reported, evaluate = f"{{layout: folder, root: {rated_folder}}}", [], tables.evaluate

    def recorded(model, clips, precision):
        reported.append((len(clips), precision))
        return evaluate(model, clips, precision)

    monkeypatch.setattr(tables, "evaluate", recorded)
    short = shlex.split("--seeds 1 --precision bf16-mixed --report-clips 2")
    tables.main([*command, "--train", rated, "--valid", rated, *short])
    assert reported == 3 * [(2, "bf16-mixed")]
    rows = pd.read_csv(tmp_path / "out" / "tables.csv")
    assert set(rows["set"]) == {"folder"}
    assert len(rows) == 3
    assert rows["settings"].str.contains(f"layout: folder, root: {rated_folder}").all()
    assert rows["settings"].str.contains("valid of {layout", regex=False).all()
    with pytest.raises(ValueError, match="for `train` and `valid` together"):
        tables.main([*command, "--out", str(tmp_path / "other" / "tables"), "--valid", rated])


def test_undefined_correlations_do_not_narrow_an_interval():
    assert tables_report.cell_text(pd.Series([0.2, 0.4, float("nan")])) == "0.300 ± 1.271 (of 2)"
    assert tables_report.cell_text(pd.Series([0.2, 0.4])) == "0.300 ± 1.271"
    assert tables_report.cell_text(pd.Series([0.2])) == "0.200"
