"""The plug-in for VERSA, against a stand-in with the interface of `versa.definition` (VERSA is not on PyPI)."""

from __future__ import annotations

import importlib
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from conftest import EXAMPLES

from jsqa_metric import load_model, score


class MetricCategory(Enum):
    INDEPENDENT = "independent"


class MetricType(Enum):
    FLOAT = "float"


@dataclass
class MetricMetadata:
    name: str
    category: MetricCategory
    metric_type: MetricType
    requires_reference: bool
    requires_text: bool
    gpu_compatible: bool
    auto_install: bool
    dependencies: list[str]
    description: str
    paper_reference: str | None = None
    implementation_source: str | None = None


@dataclass
class MetricRegistry:
    metrics: dict[str, Any] = field(default_factory=dict)

    def register(self, metric_class: type, metadata: MetricMetadata, aliases: list[str] | None = None) -> None:
        self.metrics |= dict.fromkeys([metadata.name, *(aliases or [])], (metric_class, metadata))


class BaseMetric(ABC):
    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.config = config or {}
        self._setup()

    @abstractmethod
    def _setup(self) -> None: ...

    @abstractmethod
    def compute(self, predictions, references=None, metadata=None): ...

    @abstractmethod
    def get_metadata(self) -> MetricMetadata: ...


@pytest.fixture
def registry(monkeypatch) -> MetricRegistry:
    definition = ModuleType("versa.definition")
    for part in (MetricCategory, MetricType, MetricMetadata, MetricRegistry, BaseMetric):
        setattr(definition, part.__name__, part)
    monkeypatch.setitem(sys.modules, "versa", ModuleType("versa"))
    monkeypatch.setitem(sys.modules, "versa.definition", definition)
    monkeypatch.delitem(sys.modules, "jsqa_metric.versa", raising=False)
    registry = MetricRegistry()
    importlib.import_module("jsqa_metric.versa").register_jsqa_metric(registry)
    sys.modules.pop("jsqa_metric.versa")
    return registry


def test_it_scores_as_the_function_does(registry):
    metric_class, metadata = registry.metrics["jsqa"]
    assert registry.metrics["jsqa_mos"] == (metric_class, metadata)
    metric = metric_class()
    assert metric.get_metadata() == metadata
    assert not metadata.requires_reference
    for name in ("english_clean", "english_noise05"):
        path = EXAMPLES / f"{name}.flac"
        signal, rate = sf.read(path)  # float64, as VERSA reads
        result = metric.compute(signal, metadata={"sample_rate": rate})
        assert list(result) == ["jsqa_mos"]
        assert result["jsqa_mos"] == pytest.approx(score(path), abs=1e-4)


def test_other_weights_and_a_level_can_be_asked_for(registry):
    metric_class, _ = registry.metrics["jsqa"]
    path = EXAMPLES / "english_codec.flac"
    signal, rate = sf.read(path)
    old = metric_class({"revision": "2026.11"}).compute(signal, metadata={"sample_rate": rate})["jsqa_mos"]
    assert abs(old - score(path)) > 0.01
    level = metric_class({"level_db": -40}).compute(signal, metadata={"sample_rate": rate})["jsqa_mos"]
    assert level == pytest.approx(score(path, level_db=-40), abs=1e-4)
    with pytest.raises(ValueError, match="nonesuch"):
        metric_class({"revision": "nonesuch"})
    with pytest.raises(ValueError, match="`level_db`"):
        metric_class({"level_db": 20})


def test_its_network_is_nobody_elses(registry):
    metric = registry.metrics["jsqa"][0]()
    signal, rate = sf.read(EXAMPLES / "english_clean.flac")
    load_model().train()
    try:
        mos = metric.compute(signal, metadata={"sample_rate": rate})["jsqa_mos"]
    finally:
        load_model().eval()
    assert mos == pytest.approx(score(signal, rate), abs=1e-4)


def test_what_cannot_be_scored(registry):
    metric = registry.metrics["jsqa"][0]()
    with pytest.warns(UserWarning, match="silen"):
        assert np.isnan(metric.compute(np.zeros(16000), metadata={"sample_rate": 16000})["jsqa_mos"])
    with pytest.raises(ValueError, match="sample_rate"):
        metric.compute(np.zeros(16000))
    with pytest.raises(ValueError, match=r"\(2, 16000\)"):
        metric.compute(np.zeros((2, 16000)), metadata={"sample_rate": 16000})


def test_without_versa_the_error_says_so():
    code = "import sys, jsqa_metric; assert 'versa' not in sys.modules; import jsqa_metric.versa"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "ImportError: jsqa_metric.versa is for VERSA" in run.stderr
