"""Readers of published corpora: small folders in exactly the published layouts."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

pytest.importorskip("lightning", reason="needs the training environment: bash training/install.sh")
pytest.importorskip("onnxruntime", reason="needs the training environment: bash training/install.sh")

from training.data.corpus import SAMPLE_RATE, read_audio
from training.data.modules import RatedData
from training.data.readers import chime3, librispeech, nisqa, open_corpus, open_rated, rated_folder

NISQA_COLUMNS = (  # noqa: SIM905
    "db con file con_description filename_deg filename_ref source lang votes_mos votes_noi votes_dis votes_col "
    "votes_loud mos noi dis col loud noi_std dis_std col_std loud_std mos_std filepath_deg filepath_ref"
).split()


@pytest.fixture
def libri_root(tmp_path, speech) -> Path:
    for split, talker, chapter in [
        ("train-clean-100", 19, 198),
        ("train-clean-100", 26, 495),
        ("dev-clean", 84, 121123),
    ]:
        folder = tmp_path / "LibriSpeech" / split / str(talker) / str(chapter)
        folder.mkdir(parents=True)
        for utterance in range(2):
            sf.write(folder / f"{talker}-{chapter}-{utterance:04d}.flac", speech[:32000], SAMPLE_RATE)
        (folder / f"{talker}-{chapter}.trans.txt").write_text(f"{talker}-{chapter}-0000 SOME WORDS\n")
    return tmp_path / "LibriSpeech"


@pytest.fixture
def chime_root(tmp_path, noisy) -> Path:
    folder = tmp_path / "CHiME3" / "data" / "audio" / "16kHz" / "backgrounds"
    folder.mkdir(parents=True)
    for name in ("BGD_150203_010_STR", "BGD_150204_010_BUS"):
        for channel in (1, 5):
            sf.write(folder / f"{name}.CH{channel}.wav", noisy * channel / 5, SAMPLE_RATE)
    return tmp_path / "CHiME3"


@pytest.fixture
def nisqa_root(tmp_path, speech) -> Path:
    split = tmp_path / "NISQA_Corpus" / "NISQA_VAL_SIM"
    (split / "deg").mkdir(parents=True)
    (split / "ref").mkdir()
    with (split / "NISQA_VAL_SIM_file.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, NISQA_COLUMNS)
        writer.writeheader()
        for number, mos in enumerate((1.25, 4.5)):
            name = f"c{number:05d}_dev_{number}.wav"
            sf.write(split / "deg" / name, np.repeat(speech[:16000], 3), 48000)  # the corpus has 48 kHz
            row = {"db": "NISQA_VAL_SIM", "con": number, "file": number, "con_description": f"codec {number}"}
            row |= {"filename_deg": name, "mos": mos, "noi": 2.0, "dis": 3.0, "col": 4.0, "loud": 4.5}
            writer.writerow(row | {"filepath_deg": f"NISQA_VAL_SIM/deg/{name}"})
    return tmp_path / "NISQA_Corpus"


def test_librispeech_groups_by_talker(libri_root):
    corpus = librispeech(libri_root, ["train-clean-100", "dev-clean"])
    assert [e.group for e in corpus.entries] == ["19", "19", "26", "26", "84", "84"]
    excerpt, entry = corpus.draw_speech(np.random.default_rng(0), 48000)
    assert excerpt.shape == (48000,)
    assert entry.group in {"19", "26", "84"}
    assert len(librispeech(libri_root, ["dev-clean"]).entries) == 2


def test_chime3_reads_the_channel_asked_for(chime_root):
    loud, quiet = chime3(chime_root, channel=5), chime3(chime_root, channel=1)
    assert [e.group for e in loud.entries] == ["STR", "BUS"]
    assert np.abs(read_audio(loud.entries[0].path)).max() > 4 * np.abs(read_audio(quiet.entries[0].path)).max()


def test_nisqa_gives_clips_with_all_ratings(nisqa_root):
    clips = nisqa(nisqa_root, "NISQA_VAL_SIM")
    assert [c.mos for c in clips] == [1.25, 4.5]
    assert clips[1].condition == "codec 1"
    assert clips[0].dimensions == {"noi": 2.0, "dis": 3.0, "col": 4.0, "loud": 4.5}
    assert len(read_audio(clips[0].path)) == 16000


def test_rated_folder_and_recipes_spelling(nisqa_root, libri_root, tmp_path, speech):
    folder = tmp_path / "rated"
    folder.mkdir()
    sf.write(folder / "a.flac", speech, SAMPLE_RATE)
    (folder / "labels.csv").write_text("file,mos,condition\na.flac,3.5,clean\n")
    assert rated_folder(folder) == open_rated(str(folder)) == open_rated({"layout": "folder", "root": folder})
    same = {"layout": "nisqa", "root": nisqa_root, "split": "NISQA_VAL_SIM"}
    assert open_rated(same) == nisqa(nisqa_root, "NISQA_VAL_SIM")
    assert open_corpus({"layout": "librispeech", "root": libri_root, "splits": ["dev-clean"]}).entries
    assert len(open_corpus(libri_root).entries) == 6
    with pytest.raises(ValueError, match="`layout` must be one of"):
        open_corpus({"layout": "timit", "root": "."})


@pytest.mark.parametrize(
    ("read", "published"),
    [
        (lambda root: librispeech(root, ["train-other-500"]), "openslr.org/12"),
        (lambda root: chime3(root), "chimechallenge.org"),
        (lambda root: nisqa(root), "NISQA-Corpus"),
    ],
)
def test_what_is_missing_and_where_to_get_it(read, published, tmp_path):
    with pytest.raises(FileNotFoundError, match=published) as caught:
        read(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_table_that_does_not_fit_its_folder_is_an_error(tmp_path):
    (tmp_path / "files.csv").write_text("name,speaker\na.wav,1\n")
    with pytest.raises(ValueError, match="lacks the column file; it has name, speaker"):
        open_corpus(tmp_path)
    (tmp_path / "files.csv").write_text("file,speaker\na.wav,1\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 1 files of .*files.csv are missing, first a.wav"):
        open_corpus(tmp_path)


def test_partly_missing_corpora(libri_root, chime_root, nisqa_root):
    with pytest.raises(FileNotFoundError, match="channels there: 1, 5"):
        chime3(chime_root, channel=2)
    (libri_root / "test-clean").mkdir()
    with pytest.raises(FileNotFoundError, match=r"test-clean.*openslr"):
        librispeech(libri_root, ["test-clean"])
    split = nisqa_root / "NISQA_VAL_SIM"
    (split / "deg" / "c00001_dev_1.wav").unlink()
    with pytest.raises(FileNotFoundError, match="1 of the table's 2 clips are missing"):
        nisqa(nisqa_root, "NISQA_VAL_SIM")
    table = split / "NISQA_VAL_SIM_file.csv"
    table.write_text(table.read_text().replace(",mos,", ",score,"))
    with pytest.raises(ValueError, match="lacks the columns mos"):
        nisqa(nisqa_root, "NISQA_VAL_SIM")
    shutil.rmtree(split)
    with pytest.raises(FileNotFoundError, match="NISQA_VAL_SIM"):
        nisqa(nisqa_root, "NISQA_VAL_SIM")


@pytest.mark.parametrize("rating", ["", "nan", "inf", "9", "-1", "good"])
def test_a_rating_that_is_none_is_named_with_its_row(tmp_path, rating):
    sf.write(tmp_path / "a.flac", np.zeros(1600), SAMPLE_RATE)
    (tmp_path / "labels.csv").write_text(f"file,mos\na.flac,2\na.flac,{rating}\n")
    with pytest.raises(ValueError, match=r"labels.csv, row 2: `mos` must be a number from 1 to 5"):
        rated_folder(tmp_path)


def test_rows_without_a_file_and_splits_without_a_list_are_errors(tmp_path, libri_root):
    (tmp_path / "labels.csv").write_text("file,mos\n,2\n")
    with pytest.raises(ValueError, match="row 1: no file is named"):
        rated_folder(tmp_path)
    for splits in ("dev-clean", []):
        with pytest.raises(ValueError, match="`splits` must be a list"):
            librispeech(libri_root, splits)


def test_part_of_a_corpus_validates_and_layouts_do_not_mix(nisqa_root):
    source = {"layout": "nisqa", "root": str(nisqa_root), "split": "NISQA_VAL_SIM"}
    data = RatedData(source, source | {"part": [1, 2]}, limit=1, seed=5)
    data.setup("fit")
    assert [c.mos for c in data.valid_set.clips] == [4.5]
    assert len(data.train_set) == 1
    with pytest.raises(ValueError, match="together"):
        RatedData({"layout": "simulated", "root": "sets/train"}, source).setup("fit")
