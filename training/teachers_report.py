"""How well each teacher tells codec settings apart, whoever talks.

    python -m training.teachers_report --speech ../shared/speech/train --out training/results/teachers_codecs

Each talker's speech passes through the same settings of codecs. A good judge's labels differ between settings and
hardly between talkers; no listener is asked.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from training.data import codecs, speech_codecs
from training.data.calibration import relative_to_reference
from training.data.corpus import SAMPLE_RATE, Corpus, Signal, active_rms, change_rate
from training.data.simulate import draw_reference
from training.report import append_rows, markdown, provenance, this_command
from training.teachers import CODEC_TEACHERS, REFERENCE_LABEL, TEACHERS, Teachers

LEVEL = 0.05
"""Active level of the speech (-26 dB full scale)."""
RELATIVE = "distillmos, relative"


def _codec2(signal: Signal, bit_rate: int) -> Signal:
    rate = speech_codecs.CODEC2_RATE
    return change_rate(speech_codecs.codec2(change_rate(signal, SAMPLE_RATE, rate), bit_rate), rate, SAMPLE_RATE)


def _classic(signal: Signal, name: str, bit_rate: int) -> Signal:
    codec = codecs.CODECS[name]
    decoded = codecs.encode_decode(change_rate(signal, SAMPLE_RATE, codec.rate), codec, bit_rate)
    return change_rate(decoded, codec.rate, SAMPLE_RATE)


def settings() -> dict[str, Callable[[Signal], Signal]]:
    """Codecs from good to bad, at `SAMPLE_RATE`."""
    named: dict[str, Callable[[Signal], Signal]] = {"none": lambda signal: signal}
    for step, hold, pitch in ((0, 1, 0), (0.3, 1, 0), (0.6, 1, 0), (1, 1, 0), (0, 2, 0), (0, 4, 0), (0, 1, 0.1)):
        name = f"FARGAN, cepstrum {step}, every {hold}, pitch {pitch}"
        named[name] = partial(speech_codecs.fargan, step=step, hold=hold, pitch_step=pitch)
    for bit_rate in (3200, 1300, 700):
        named[f"Codec 2, {bit_rate} bit/s"] = partial(_codec2, bit_rate=bit_rate)
    for bit_rate, loss in ((6000, 0), (9000, 0), (16000, 0), (16000, 5), (16000, 20)):
        name = f"Opus with networks, {bit_rate} bit/s, {loss} % lost"
        named[name] = partial(speech_codecs.opus, bit_rate=bit_rate, loss_percent=loss, networks=True, redundancy=False)
    for name, bit_rates in (("opus-wb", (6000, 12000, 24000)), ("amr-wb", (6600, 12650, 23850))):
        named |= {f"{name}, {rate} bit/s": partial(_classic, name=name, bit_rate=rate) for rate in bit_rates}
    return named


def references(speech: list[str], talkers: int, seed: int) -> Iterator[tuple[str, Signal]]:
    """One excerpt of 5 to 7 s of each of so many talkers."""
    corpus, seen, index = Corpus.from_folders(speech), set[str](), 0
    if talkers > (there := len({entry.group for entry in corpus.entries})):
        raise ValueError(f"{talkers} talkers are wanted, there are {there} in {', '.join(speech)}")
    while len(seen) < talkers:
        signal, talker = draw_reference(corpus, np.random.default_rng([seed, index]), (5, 7), vary_voices=False)
        index += 1
        if talker not in seen:
            seen.add(talker)
            yield talker, np.clip(signal / active_rms(signal) * LEVEL, -1, 1).astype(np.float32)


def label_all(table: Path, speech: list[str], talkers: int, seed: int) -> pd.DataFrame:
    """All labels of all talkers; those that are in the table already are not asked again."""
    known = set(pd.read_csv(table, dtype={"talker": str})["talker"]) if table.exists() else set()
    teachers = Teachers()
    for talker, reference in tqdm(references(speech, talkers, seed), total=talkers):
        if talker in known:
            continue
        rows = []
        for name, process in settings().items():
            degraded = codecs.align(process(reference).astype(np.float32), reference)
            labels = teachers.label(degraded, reference, "codec").items()
            rows.append({"talker": talker, "setting": name} | {k: round(v, 4) for k, v in labels})
        append_rows(table, rows)
    return pd.read_csv(table, dtype={"talker": str})


def shares(labels: NDArray[np.float64]) -> tuple[float, float]:
    """Share of the variance of labels `(settings, talkers)` that is between settings, and that between talkers."""
    total = labels.var()
    return float(labels.mean(1).var() / total), float(labels.mean(0).var() / total)


def report(labels: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The teachers' shares of variance, and the mean label of each setting."""
    of_references = labels[REFERENCE_LABEL].to_numpy()
    relative = relative_to_reference(labels["distillmos"].to_numpy(), of_references, of_references.mean())
    labels = labels.assign(**{RELATIVE: relative})
    rows = []
    for teacher in (*TEACHERS, RELATIVE, *CODEC_TEACHERS):
        square = labels.pivot(index="setting", columns="talker", values=teacher).dropna(axis=1)
        of_settings, of_talkers = shares(square.to_numpy())
        row = {"teacher": teacher, "talkers": square.shape[1]}
        rows.append(row | {"between settings": of_settings, "between talkers": of_talkers})
    means = labels.groupby("setting", sort=False)[[*TEACHERS, RELATIVE, *CODEC_TEACHERS]].mean().round(2).reset_index()
    return pd.DataFrame(rows).round(3), means


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m training.teachers_report`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", required=True, nargs="+", action="extend", help="folders of clean speech")
    parser.add_argument("--out", type=Path, required=True, help="OUT.md and OUT.csv; resumable")
    parser.add_argument("--talkers", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    labels = label_all(args.out.with_suffix(".csv"), args.speech, args.talkers, args.seed)
    by_teacher, by_setting = report(labels)
    parts = [
        "# Teachers on codecs\n",
        provenance(this_command()),
        f"{labels['talker'].nunique()} talkers through each of {labels['setting'].nunique()} settings. Share of the "
        "variance of the labels between settings (what a judge of codecs is for) and between talkers; the rest is how "
        "differently a setting does with different talkers, and chance. WARP-Q compares cepstra, which some of the "
        "settings quantise: these favour it.\n",
        markdown(by_teacher),
        "\n## Means\n",
        "WARP-Q is a cost (lower is better), the others rise with quality; ViSQOL is its similarity, not its MOS.\n",
        markdown(by_setting),
    ]
    args.out.with_suffix(".md").write_text("\n".join(parts) + "\n")
    print(args.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
