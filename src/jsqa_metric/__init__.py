"""How good speech sounds to people (MOS, 1 to 5), predicted from the degraded signal alone."""

from typing import TYPE_CHECKING

from jsqa_metric.audio import AudioError
from jsqa_metric.engine import ScoreDetails, WindowScore
from jsqa_metric.functional import score
from jsqa_metric.hub import available_models, load_model
from jsqa_metric.model import Dimensions, JSQAModel, ModelConfig

if TYPE_CHECKING:
    from jsqa_metric.metric import JSQAMetric

__version__ = "0.1.0"
__all__ = [
    "AudioError",
    "Dimensions",
    "JSQAMetric",
    "JSQAModel",
    "ModelConfig",
    "ScoreDetails",
    "WindowScore",
    "available_models",
    "load_model",
    "score",
]


def __getattr__(name: str) -> object:
    # torchmetrics takes as long as torch to import, and brings transformers where that is installed: only who asks for
    # the metric pays for it
    if name == "JSQAMetric":
        from jsqa_metric.metric import JSQAMetric

        return JSQAMetric
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
