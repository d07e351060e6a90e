"""Agreement with listeners: correlations and errors, their intervals, and the paired comparison of two metrics.

Conventions: `x` are a metric's scores and `y` those of listeners, both `(clips,)` and finite. Intervals and tests
resample clips; clips of one talker or condition are not independent, so take them as a lower bound of uncertainty.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import numpy as np
import torch
from scipy import stats
from torchmetrics.functional import (
    kendall_rank_corrcoef,
    mean_absolute_error,
    mean_squared_error,
    pearson_corrcoef,
    spearman_corrcoef,
)

Array = np.ndarray[Any, Any]

RESAMPLES = 5000
MIN_CLIPS = 3
"""With fewer, correlations say nothing and are NaN."""
MEASURES = ("pcc", "srcc", "kendall", "rmse", "mae", "rmse_mapped", "mae_mapped")


def first_order_map(x: Array, y: Array) -> Array:
    """Scores moved and stretched to fit listeners' in the least squares sense (ITU-T P.1401)."""
    if len(x) < MIN_CLIPS or np.ptp(x) == 0:
        return np.full_like(y, y.mean() if len(y) else np.nan)
    slope, offset = np.polyfit(x, y, 1)
    return slope * x + offset


def agreement(x: Array, y: Array) -> dict[str, float]:
    """PCC, SRCC and Kendall's tau; RMSE and MAE as they are and after a first-order map; NaN for too few clips."""
    if len(x) < MIN_CLIPS:
        return {"n": len(x)} | dict.fromkeys(MEASURES, float("nan"))
    a, b, mapped = (torch.from_numpy(np.array(v, np.float64)) for v in (x, y, first_order_map(x, y)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant scores, which give NaN
        kendall = cast(torch.Tensor, kendall_rank_corrcoef(a, b))  # a pair only with `t_test`
        correlations = (pearson_corrcoef(a, b), spearman_corrcoef(a, b), kendall)
    errors = (
        mean_squared_error(a, b, squared=False),
        mean_absolute_error(a, b),
        mean_squared_error(mapped, b, squared=False),
        mean_absolute_error(mapped, b),
    )
    return {"n": len(x)} | dict(zip(MEASURES, map(float, (*correlations, *errors)), strict=True))


def pcc(x: Array, y: Array, axis: int = -1) -> Array:
    """Pearson's correlation along an axis; NaN where one side is constant."""
    x, y = x - x.mean(axis=axis, keepdims=True), y - y.mean(axis=axis, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Array = (x * y).sum(axis=axis) / np.sqrt((x * x).sum(axis=axis) * (y * y).sum(axis=axis))
    return ratio


def srcc(x: Array, y: Array, axis: int = -1) -> Array:
    """Spearman's correlation along an axis."""
    return pcc(stats.rankdata(x, axis=axis), stats.rankdata(y, axis=axis), axis=axis)


def _rmse(x: Array, y: Array) -> Array:
    root: Array = np.sqrt(np.square(x - y).mean(axis=-1))
    return root


def _mae(x: Array, y: Array) -> Array:
    mean: Array = np.abs(x - y).mean(axis=-1)
    return mean


def _rmse_mapped(x: Array, y: Array) -> Array:
    """RMSE after a first-order map that is fitted anew to each row."""
    root: Array = y.std(axis=-1) * np.sqrt((1 - np.nan_to_num(pcc(x, y)) ** 2).clip(min=0))
    return root


_STATISTICS = {"pcc": pcc, "srcc": srcc, "rmse": _rmse, "mae": _mae, "rmse_mapped": _rmse_mapped}


def _resampled(clips: int, resamples: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(clips, size=(resamples, clips))


def intervals(x: Array, y: Array, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, float]:
    """95 % bootstrap intervals (percentiles) over clips: `<measure>_low` and `<measure>_high`.

    Resamples whose scores are all alike have no correlation and do not count.
    """
    bounds = {f"{name}_{end}": float("nan") for name in _STATISTICS for end in ("low", "high")}
    if len(x) < MIN_CLIPS:
        return bounds
    index = _resampled(len(y), resamples, seed)
    for name, statistic in _STATISTICS.items():
        values = statistic(x[index], y[index])
        if np.isfinite(values).any():
            bounds[f"{name}_low"], bounds[f"{name}_high"] = map(float, np.nanquantile(values, [0.025, 0.975]))
    return bounds


def paired_test(ours: Array, peer: Array, y: Array, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, float]:
    """Bootstrap of the difference in PCC, ours less the peer's, on the same resampled clips.

    Returns:
        The difference, its 95 % interval and a two-sided p-value (not corrected for the number of peers).
    """
    if len(y) < MIN_CLIPS:
        return {}
    index = _resampled(len(y), resamples, seed)
    differences = pcc(ours[index], y[index]) - pcc(peer[index], y[index])
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return {}
    low, high = np.quantile(differences, [0.025, 0.975])
    tail = min((differences <= 0).sum(), (differences >= 0).sum()) + 1
    return {
        "n": len(y),
        "difference": float(pcc(ours, y) - pcc(peer, y)),
        "low": float(low),
        "high": float(high),
        "p": float(min(1.0, 2 * tail / (len(differences) + 1))),
    }
