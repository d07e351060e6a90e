"""The JND classifier: does a listener hear a difference between two mixtures of the same speech and noise?

    python -m training.jnd --judgements ../shared/jnd/dataset_linear.txt --speech ../shared/speech/train \
        --noise ../shared/noise/train --out training/results/jnd_classifier

An SVM on PESQ (and SI-SDR) of a pair, with the less noisy signal as reference, learns human judgements; see
`training.data.jnd_human` for how the judged pairs are made again. Written are `<out>.md` with every figure,
`<out>.csv` with a row for each judged pair, and `<out>.png` with the psychometric curves. The measured features
are kept in the CSV file; a second run on the same judgements reads them from there, unless a pair of each noise that is
measured again says that speech, noise or code have changed.

Source: Fan and Williamson 2025 (JSQA), section 2.2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pesq import NoUtterancesError, pesq
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio
from tqdm import tqdm

from training.data.corpus import SAMPLE_RATE, Signal
from training.data.jnd_human import Judgement, Remake, read_judgements
from training.data.jnd_pairs import JndPairs
from training.data.readers import open_corpus

FEATURES = {"PESQ": ["pesq"], "SI-SDR": ["si_sdr"], "PESQ and SI-SDR": ["pesq", "si_sdr"]}
MAX_SI_SDR_DB = 60.0
"""Two equal signals have an infinite one."""
NOISE_RMS_DB = -33.0
"""Level of the judged noise recordings, in dB full scale. It is not published; `--calibrate` on 1,200 pairs (of all
noises but applause and siren, whose recordings came later) gave the accuracies -46: 0.778, -40: 0.791, -36: 0.789,
-33: 0.794, -30: 0.785, -27: 0.781 and, on 600 pairs, -18: 0.767, -12: 0.753, 0: 0.727. Chosen on the judgements
themselves, so their accuracy is a little too high."""


def features(reference: Signal, degraded: Signal) -> dict[str, float]:
    """Wideband PESQ (NaN where it finds no speech) and SI-SDR in dB of a pair, the less noisy signal first."""
    try:
        quality = float(pesq(SAMPLE_RATE, reference, degraded, "wb"))
    except NoUtterancesError:
        quality = float("nan")
    pair = torch.from_numpy(np.stack([degraded, reference]))
    ratio = float(scale_invariant_signal_distortion_ratio(pair[0], pair[1]))
    return {"pesq": quality, "si_sdr": float(np.clip(ratio, -MAX_SI_SDR_DB, MAX_SI_SDR_DB))}


def classifier() -> Pipeline:
    """The SVM (radial basis functions) on standardised features; 1 means that a difference is heard."""
    return make_pipeline(StandardScaler(), SVC())


def measure(judgements: Sequence[Judgement], remake: Remake) -> pd.DataFrame:
    """Features of the judged pairs that can be made again, one row each."""
    rows = []
    for judgement in tqdm(judgements, desc="judged pairs"):
        values = features(*remake.pair(judgement))
        rows.append(vars(judgement) | {"delta_snr_db": judgement.delta_snr_db} | values)
    table = pd.DataFrame(rows)
    table["different"] = table["different"].astype(int)
    return table


def kept_features(path: Path, judgements: Sequence[Judgement], remake: Remake) -> pd.DataFrame | None:
    """The table that was measured before, if it is of these judgements and of such pairs; None otherwise."""
    if not path.exists():
        return None
    table, wanted = pd.read_csv(path), pd.DataFrame(map(vars, judgements))
    columns = ["noise", "low", "high", "talker", "excerpt", "different"]
    wanted["different"] = wanted["different"].astype(int)
    if len(table) != len(wanted) or not table[columns].equals(wanted[columns].round(4)):
        print(f"{path} is of other judgements: measuring anew")
        return None
    first = table.groupby("noise").head(1).index  # a pair of each noise says whether it is still made in the same way
    again = measure([judgements[i] for i in first], remake)
    if not np.allclose(again[["pesq", "si_sdr"]], table.loc[first, ["pesq", "si_sdr"]], atol=1e-3, equal_nan=True):
        print(f"{path} is of other speech, noise or code: measuring anew")
        return None
    print(f"features of {path}")
    return table


def out_of_fold(table: pd.DataFrame, columns: list[str], group: str) -> NDArray[np.int64]:
    """Answers of the classifier for pairs whose talker (or noise) it was not trained on."""
    folds = GroupKFold(5) if group == "talker" else LeaveOneGroupOut()
    answers: NDArray[np.int64] = cross_val_predict(
        classifier(), table[columns], table["different"], groups=table[group], cv=folds
    )
    return answers


def cross_validate(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each set of features, over all pairs and over those of unequal signals."""
    unequal = (table["delta_snr_db"] > 0).to_numpy()
    rows = []
    for name, columns in {**FEATURES, "ΔSNR alone": ["delta_snr_db"]}.items():
        row: dict[str, float | str] = {"features": name}
        for group in ("talker", "noise"):
            right = out_of_fold(table, columns, group) == table["different"].to_numpy()
            row |= {f"by {group}": right.mean(), f"by {group}, unequal pairs": right[unequal].mean()}
        rows.append(row)
    return pd.DataFrame(rows)


def _measure_generated(index: int, pairs: JndPairs, seed: int) -> dict[str, float]:
    pair = pairs.draw(seed, index)
    first_is_cleaner = pair.snrs_db[0] >= pair.snrs_db[1]
    ordered = (pair.first, pair.second) if first_is_cleaner else (pair.second, pair.first)
    return {"delta_snr_db": abs(pair.snrs_db[0] - pair.snrs_db[1])} | features(*ordered)


def measure_generated(pairs: JndPairs, count: int, seed: int, workers: int = 1) -> pd.DataFrame:
    """ΔSNR and features of generated training pairs."""
    measure_one = partial(_measure_generated, pairs=pairs, seed=seed)
    if workers == 1:
        return pd.DataFrame([measure_one(i) for i in tqdm(range(count), desc="generated pairs")])
    with get_context("spawn").Pool(workers) as pool:
        return pd.DataFrame(list(tqdm(pool.imap(measure_one, range(count), 8), total=count)))


def human_share_different(table: pd.DataFrame, delta_snr_db: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of listeners who hear the given differences: a rising curve (isotonic) fitted to their answers."""
    curve = IsotonicRegression(out_of_bounds="clip").fit(table["delta_snr_db"], table["different"])
    return np.asarray(curve.predict(delta_snr_db))


def calibrate(judgements: Sequence[Judgement], speech: str, noise: str, levels: Sequence[float]) -> pd.DataFrame:
    """Which level of the noise recordings makes PESQ explain the humans best: accuracy by talker for each."""
    rows = []
    for level in levels:
        table = measure(judgements, Remake(open_corpus(speech), noise, level)).dropna()
        right = out_of_fold(table, ["pesq"], "talker") == table["different"].to_numpy()
        rows.append({"noise_rms_db": level, "accuracy": right.mean(), "pairs": len(table)})
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.jnd`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgements", required=True, help="DPAM's dataset_linear.txt")
    parser.add_argument("--speech", required=True, help="folder of clean speech")
    parser.add_argument("--noise", required=True, help="folder of noise recordings")
    parser.add_argument("--out", type=Path, required=True, help="path of the results, without a suffix")
    parser.add_argument("--limit", type=int, default=0, help="use a random choice of so many judged pairs (0: all)")
    parser.add_argument("--generated", type=int, default=1000, help="training pairs to classify")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--calibrate", type=float, nargs="*", help="only try these levels of the noise recordings")
    args = parser.parse_args(arguments)

    torch.set_num_threads(1)
    judgements = read_judgements(args.judgements)
    remake = Remake(open_corpus(args.speech), args.noise, NOISE_RMS_DB)
    possible = [j for j in judgements if j.noise in remake.noises]
    if args.limit:
        chosen = np.random.default_rng(0).choice(len(possible), args.limit, replace=False)
        possible = [possible[i] for i in sorted(chosen)]
    if args.calibrate:
        print(calibrate(possible, args.speech, args.noise, args.calibrate).to_string(index=False))
        return
    table = kept_features(args.out.with_suffix(".csv"), possible, remake)
    if table is None:
        table = measure(possible, remake)
        table.round(4).to_csv(args.out.with_suffix(".csv"), index=False)
    pairs = JndPairs(open_corpus(args.speech), open_corpus(args.noise), (2.5, 2.5))
    generated = measure_generated(pairs, args.generated, seed=1, workers=args.workers)
    from training.jnd_report import write_report  # it uses this module

    write_report(args.out, judgements, table, generated)


if __name__ == "__main__":
    main()
