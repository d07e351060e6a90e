"""What the parameters of the simulation lead one to expect of a clip's label, whoever talks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

if TYPE_CHECKING:
    from training.data.labels import LabelledClip

FOLDS = 5
LEAST_CLIPS = 10


def _name(clip: LabelledClip) -> str:
    return "/".join(clip.path.resolve().parts[-3:])  # set, shard and file


def _fold(clip: LabelledClip) -> int:
    return crc32(_name(clip).encode()) % FOLDS


def _table(clips: Sequence[LabelledClip]) -> pd.DataFrame:
    """The parameters of clips, and whether each kind of damage is among theirs."""
    kinds = pd.DataFrame([{f"kind {kind}": 1.0 for kind in clip.kinds} for clip in clips])
    return pd.concat([pd.DataFrame([clip.parameters for clip in clips]), kinds.fillna(0.0)], axis=1)


class Expected:
    """Boosted trees from parameters to labels. What is expected of a clip has been learned without that clip.

    Of damage that is not among `kinds`, those of at least `LEAST_CLIPS` training clips, nothing can be expected.

    The training clips fall into `FOLDS` parts by their names; a clip's expectation comes from the trees that were grown
    without its part, and that of a clip that is not among them is the mean of all.

    Args:
        clips: The training set.
        labels: Theirs, `(clips,)`.

    Raises:
        ValueError: If there are too few clips to leave any out.
    """

    def __init__(self, clips: Sequence[LabelledClip], labels: NDArray[np.float64]) -> None:
        if len(clips) < LEAST_CLIPS:
            raise ValueError(f"{len(clips)} clips do not tell what to expect: at least {LEAST_CLIPS} are needed")
        self._names = frozenset(map(_name, clips))
        counts = Counter(kind for clip in clips for kind in clip.kinds)
        self.kinds = frozenset(kind for kind, count in counts.items() if count >= LEAST_CLIPS)
        table = _table(clips)
        words = table.select_dtypes(exclude="number").columns
        self._types = {name: pd.CategoricalDtype(sorted(table[name].dropna().unique())) for name in words}
        table, folds = table.astype(self._types), np.array([_fold(clip) for clip in clips])
        self._trees = []
        for fold in range(FOLDS):
            others = table[folds != fold]
            others = others.loc[:, others.nunique(dropna=False) > 1]  # there must be something to split
            trees = HistGradientBoostingRegressor(
                max_iter=200,
                learning_rate=0.06,
                max_leaf_nodes=15,
                min_samples_leaf=10,
                l2_regularization=5.0,
                categorical_features="from_dtype",
                early_stopping=False,  # it would draw clips by chance, and with them labels
                random_state=0,
            )
            self._trees.append(trees.fit(others, labels[folds != fold]))

    def __call__(self, clips: Sequence[LabelledClip]) -> NDArray[np.float64]:
        """Expected labels of clips, `(clips,)`."""
        table = _table(clips)
        for name, words in self._types.items():
            known = table.get(name, pd.Series(index=table.index, dtype=object))
            table[name] = known.where(known.isin(words.categories)).astype(words)  # what was never seen is unknown
        of_all = [trees.predict(table.reindex(columns=trees.feature_names_in_)) for trees in self._trees]
        without_it = np.array(of_all)[[_fold(clip) for clip in clips], np.arange(len(clips))]
        return np.where([_name(clip) in self._names for clip in clips], without_it, np.mean(of_all, axis=0))
