"""`JSQAMetric`: the score as a torchmetrics class, a shell over `functional`."""

import os
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from jsqa_metric.audio import check_sample_rate
from jsqa_metric.engine import BATCH_SIZE
from jsqa_metric.functional import check_batch_size, score
from jsqa_metric.hub import check_revision, resolve_name
from jsqa_metric.level import check_level


class JSQAMetric(Metric):
    """Mean predicted MOS of speech, 1 (bad) to 5 (excellent), for logging in a trainer.

    The network is not part of the metric: it adds nothing to a parent's parameters, checkpoints or mode, and
    casts of the parent do not reach it. Clips that cannot be scored are left out of the mean, with one warning.

    Args:
        sample_rate: Rate of the waveforms, in Hz.
        model: Name, folder or Hub id; see `load_model`.
        reduction: "mean" for one scalar, "none" for the scores of all clips in the order of arrival.
        batch_size: Windows in one pass through the network.
        revision: Of the model; see `load_model`.
        level_db: Active level in dBFS that each clip is brought to first; see `score`.
        kwargs: Arguments of `torchmetrics.Metric`.

    Shape:
        - preds: `(..., time)`
        - lengths: `(...)`, samples of each clip in a padded batch
        - compute: a scalar, or `(clips,)` without reduction (torchmetrics makes a scalar of a single one)

    Raises:
        ValueError: If an argument is wrong.

    >>> _ = torch.manual_seed(0)
    >>> metric = JSQAMetric(sample_rate=16000)
    >>> metric.update(0.1 * torch.randn(2, 16000))
    >>> bool(metric.compute() < 2)
    True
    """

    is_differentiable = True
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 1.0
    plot_upper_bound = 5.0

    level_db: float | None = None  # for those that were pickled before there was one
    mos_sum: Tensor
    total: Tensor
    scores: list[Tensor]

    def __init__(
        self,
        sample_rate: int,
        model: str | os.PathLike[str] = "default",
        reduction: str = "mean",
        batch_size: int = BATCH_SIZE,
        revision: str | None = None,
        level_db: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if reduction not in ("mean", "none"):
            raise ValueError(f"`reduction` must be 'mean' or 'none', got {reduction!r}")
        self.sample_rate = check_sample_rate(sample_rate)
        self.model, self.reduction, self.batch_size = resolve_name(model), reduction, check_batch_size(batch_size)
        self.revision, self.level_db = check_revision(revision), check_level(level_db)
        # a collection shares the states of metrics that have the same ones after the first batch: the name of this
        # one tells apart what would not go on being the same
        of = f"{self.sample_rate} {self.model} {self.revision}" + ("" if level_db is None else f" {self.level_db}")
        self.add_state(f"of_{zlib.crc32(of.encode()):08x}", default=torch.zeros(()), dist_reduce_fx="sum")
        if reduction == "none":
            self.add_state("scores", default=[], dist_reduce_fx="cat")
        else:
            self.add_state("mos_sum", default=torch.zeros((), dtype=torch.float32), dist_reduce_fx="sum")
            self.add_state("total", default=torch.zeros((), dtype=torch.float32), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Any = None, lengths: Tensor | None = None) -> None:
        """Score a batch.

        Args:
            preds: Waveforms.
            target: Not used; it is here so that metrics with a reference can stand beside in a collection.
            lengths: Samples of each clip in a padded batch.

        Raises:
            ValueError: If `preds` is no tensor, or `lengths` do not fit it.
        """
        if not isinstance(preds, Tensor):
            raise ValueError(f"`preds` must be a tensor, got {type(preds).__name__}")
        scores = score(
            preds[None] if preds.ndim == 1 else preds,
            self.sample_rate,
            lengths=torch.as_tensor(lengths).reshape(-1) if preds.ndim == 1 and lengths is not None else lengths,
            model=self.model,
            batch_size=self.batch_size,
            revision=self.revision,
            level_db=self.level_db,
        ).reshape(-1)
        if self.reduction == "none":
            self.scores.append(scores)
            return
        valid = ~torch.isnan(scores)
        # in float32 also after `set_dtype`: 16 bits cannot count clips
        self.mos_sum = self.mos_sum.float() + scores[valid].sum()
        self.total = self.total.float() + valid.sum()

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        super()._reduce_states(incoming_state)  # the last step of `forward`, whose value has a gradient
        if self.reduction == "none":
            self.scores[-1:] = [scores.detach() for scores in self.scores[-1:]]  # or they would keep all activations

    def compute(self) -> Tensor:
        """Mean MOS over the clips that could be scored (NaN if there is none), or all scores."""
        if self.reduction == "none":
            nothing = isinstance(self.scores, list) and not self.scores  # after a sync it is one tensor
            return torch.zeros(0, dtype=torch.float32, device=self.device) if nothing else dim_zero_cat(self.scores)
        return self.mos_sum / self.total

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot one or several values; see `torchmetrics.Metric.plot`."""
        return self._plot(val, ax)
