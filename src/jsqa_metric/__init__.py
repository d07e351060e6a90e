"""How good speech sounds to people (MOS, 1 to 5), predicted from the degraded signal alone."""

from jsqa_metric.audio import AudioError
from jsqa_metric.engine import ScoreDetails, WindowScore
from jsqa_metric.functional import score
from jsqa_metric.hub import available_models, load_model
from jsqa_metric.metric import JSQAMetric
from jsqa_metric.model import Dimensions, JSQAModel, ModelConfig

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
