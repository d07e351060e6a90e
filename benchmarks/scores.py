"""Scores of clips, kept by content: a second run computes only what is new."""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks.baselines.base import ROOT, Baseline, Unavailable, file_hash, score_file
from benchmarks.datasets import Clip

CACHE = ROOT / ".cache" / "benchmarks" / "scores"


class ScoreCache:
    """Scores of one version of a metric, in a file of JSON lines that only grows."""

    def __init__(self, baseline: Baseline, folder: Path = CACHE) -> None:
        self._path = folder / f"{baseline.name}-{baseline.cache_key}.jsonl"
        self._scores: dict[str, float] = {}
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # a line that an interrupted run left unfinished
                    entry = json.loads(line)
                    self._scores[entry["key"]] = math.nan if entry["score"] is None else entry["score"]

    def get(self, key: str) -> float | None:
        """The score, or None if there is none yet."""
        return self._scores.get(key)

    def put(self, key: str, score: float, file: str) -> None:
        """Keep a score; NaN is kept too."""
        self._scores[key] = score
        self._path.parent.mkdir(parents=True, exist_ok=True)
        entry = {"key": key, "score": None if math.isnan(score) else score, "file": file}
        with self._path.open("a", encoding="utf-8") as file_handle:
            file_handle.write("\n" + json.dumps(entry))  # newline first: a torn line spoils no other


def clip_key(clip: Clip, full_reference: bool) -> str:
    """Content of a clip, and of its reference where that counts."""
    key = file_hash(clip.path)
    return f"{key}+{file_hash(clip.reference)}" if full_reference and clip.reference else key


def score_clips(
    baseline: Baseline, clips: Sequence[Clip], device: str = "cpu", folder: Path = CACHE
) -> tuple[list[float], str]:
    """Score clips, loading the metric only if a score is missing.

    Returns:
        A score for each clip (NaN where there is none), and what went wrong ("" if nothing).

    Raises:
        Unavailable: If scores are missing and the metric cannot run.
    """
    if baseline.full_reference and not any(clip.reference for clip in clips):
        raise Unavailable("needs clean references; this set has none")
    cache, loaded, errors = ScoreCache(baseline, folder), False, []
    scores = []
    for clip in tqdm(clips, desc=baseline.name, disable=None):
        if baseline.full_reference and clip.reference is None:
            scores.append(math.nan)  # a reference itself
            continue
        key = clip_key(clip, baseline.full_reference)
        value = cache.get(key)
        if value is None:
            if not loaded:
                baseline.load(device)
                loaded = True
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    value = score_file(baseline, clip.path, clip.reference)
                cache.put(key, value, clip.path.name)
            except Exception as error:  # noqa: BLE001 - whatever a peer raises is one clip without a score
                value = math.nan
                errors.append(f"{type(error).__name__}: {error}")
        scores.append(value)
    return scores, f"{len(errors)} clips failed, first with {errors[0]}" if errors else ""
