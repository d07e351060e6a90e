"""The metrics that are compared, by name. To add one: a module with a `Baseline`, and a line in `_MODULES`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from benchmarks.baselines.base import Baseline, Unavailable

__all__ = ["NAMES", "OURS", "Baseline", "Unavailable", "make"]

OURS = "jsqa"
_MODULES = {
    OURS: "ours:Ours",
    "jsqa_light": "ours:Light",
    "jsqa_level": "ours:AtOneLevel",
    "nisqa": "nisqa:Nisqa",
    "distillmos": "distill:DistillMos",
    "dnsmos_p808": "speech_mos:DnsmosP808",
    "dnsmos_ovrl": "speech_mos:DnsmosOvrl",
    "plcmos": "speech_mos:Plcmos",
    "dnsmospro": "dnsmospro:DnsmosPro",
    "scoreq": "scoreq_package:Scoreq",
    "jsqa_published": "trained:JsqaPublished",
    "scoreq_style": "trained:ScoreqStyle",
    "scoreq_style_nmr": "trained:ScoreqStyleNmr",
    "squim": "squim:Squim",
    "wav2vec2": "wav2vec:Wav2vec",
    "pesq": "full_reference:Pesq",
    "estoi": "full_reference:Estoi",
}
NAMES = tuple(_MODULES)


def make(name: str) -> Baseline:
    """The metric of a name, not loaded yet. A folder is one of our models, under the folder's name.

    Raises:
        ValueError: If there is no such metric.
    """
    if name not in _MODULES:
        if (Path(name) / "config.json").is_file():
            from benchmarks.baselines.ours import Ours

            return Ours(name)
        raise ValueError(f"no metric {name!r}: expected a model folder or one of {', '.join(NAMES)}")
    module, attribute = _MODULES[name].split(":")
    baseline: Baseline = getattr(import_module(f"benchmarks.baselines.{module}"), attribute)()
    return baseline
