"""The metric as a plug-in of VERSA, a toolkit for evaluating speech (https://github.com/wavlab-speech/versa).

VERSA is not installed with this package, and only this module needs it.

Source: interface of `versa.definition` (Shi et al., "VERSA: A Versatile Evaluation Toolkit for Speech, Audio, and
Music", 2025).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jsqa_metric.functional import score
from jsqa_metric.hub import load_scorer
from jsqa_metric.level import check_level

try:
    from versa.definition import BaseMetric, MetricCategory, MetricMetadata, MetricRegistry, MetricType
except ImportError as error:
    raise ImportError(
        "jsqa_metric.versa is for VERSA with `versa.definition`, which is not installed here: see "
        "https://github.com/wavlab-speech/versa"
    ) from error


def _metadata() -> MetricMetadata:
    return MetricMetadata(
        name="jsqa",
        category=MetricCategory.INDEPENDENT,
        metric_type=MetricType.FLOAT,
        requires_reference=False,
        requires_text=False,
        gpu_compatible=True,
        auto_install=False,
        dependencies=["jsqa_metric"],
        description="JSQA: mean opinion score (1 to 5) of speech, without a reference",
    )


class VersaJSQA(BaseMetric):  # type: ignore[misc]
    """JSQA for VERSA.

    Entries of `config`: `model` and `revision` (see `load_model`), `level_db` (see `score`), `use_gpu`.
    """

    def _setup(self) -> None:
        device = "cuda" if self.config.get("use_gpu") else "cpu"
        self.level_db = check_level(self.config.get("level_db"))
        self.model = load_scorer(self.config.get("model", "default"), device, self.config.get("revision"))

    def compute(
        self, predictions: Any, references: Any = None, metadata: dict[str, Any] | None = None
    ) -> dict[str, float]:
        """Score a signal.

        Args:
            predictions: Waveform `(samples,)` at its own rate.
            references: Not used.
            metadata: Its `sample_rate` in Hz, which is never guessed.

        Returns:
            `jsqa_mos`, from 1 to 5; NaN, with a warning that says why, if the signal cannot be scored.

        Raises:
            ValueError: If the rate is missing, or the signal is not one waveform.
        """
        rate, signal = (metadata or {}).get("sample_rate"), np.asarray(predictions)
        if rate is None:
            raise ValueError("`metadata` must have the `sample_rate` of the signal in Hz")
        if signal.ndim != 1:
            raise ValueError(f"`predictions` must be one waveform (samples,), got shape {signal.shape}")
        return {"jsqa_mos": score(signal, rate, model=self.model, level_db=self.level_db)}

    def get_metadata(self) -> MetricMetadata:
        """What VERSA wants to know of a metric."""
        return _metadata()


def register_jsqa_metric(registry: MetricRegistry) -> None:
    """Make the metric known to VERSA as `jsqa` (alias `jsqa_mos`)."""
    registry.register(VersaJSQA, _metadata(), aliases=["jsqa_mos"])
