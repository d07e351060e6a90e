"""Human-rated sets in the layouts that the benchmarks read."""

from __future__ import annotations

import shutil

import pytest

pd = pytest.importorskip("pandas", reason="needs the bench extra")
pytest.importorskip("scipy", reason="needs the bench extra")
pytest.importorskip("soxr", reason="needs the bench extra")
pytest.importorskip("matplotlib", reason="needs the bench extra")

from conftest import write_noise  # noqa: E402

from benchmarks.datasets import read_set, read_sets  # noqa: E402

RATE = 16000


def test_reads_own_layout_and_finds_references(rated_folder):
    (rated,) = read_set(rated_folder)
    assert rated.name == "own"
    assert len(rated.clips) == 13
    assert rated.clips[3].condition == "b"
    assert rated.clips[3].mos == pytest.approx(2.0)
    assert rated.clips[3].reference == rated_folder / "clip_ref.wav"
    assert rated.clips[-1].reference is None


def test_reference_column_wins(rated_folder):
    write_noise(rated_folder / "clean.wav", 0.2)
    (rated_folder / "labels.csv").write_text("file,mos,reference\nclip_00.wav,2,clean.wav\nclip_01.wav,3,\n")
    clips = read_set(rated_folder)[0].clips
    assert clips[0].reference == rated_folder / "clean.wav"
    assert clips[1].reference is None
    assert clips[1].condition == ""


@pytest.mark.parametrize("column", ["file", "filename_deg"])
def test_reads_nisqa_corpus(tmp_path, column):
    for split in ("NISQA_TEST_FOR", "NISQA_VAL_SIM"):
        write_noise(tmp_path / split / "deg" / "a.wav")
        write_noise(tmp_path / split / "ref" / "r.wav")
        table = f"db,con,{column},filename_ref,mos,noi,dis,col,loud\n{split},7,a.wav,r.wav,3.5,3,3,3,3\n"
        (tmp_path / split / f"{split}_file.csv").write_text(table)
    (tmp_path / "NISQA_corpus_file.csv").write_text("db,con,file,mos\n")
    sets = read_set(tmp_path)
    assert [rated.name for rated in sets] == ["NISQA_TEST_FOR", "NISQA_VAL_SIM"]
    clip = sets[0].clips[0]
    assert (clip.mos, clip.condition) == (3.5, "NISQA_TEST_FOR/7")
    assert clip.reference == tmp_path / "NISQA_TEST_FOR" / "ref" / "r.wav"
    assert read_set(tmp_path / "NISQA_VAL_SIM")[0].clips[0].path.is_file()


def test_reads_nisqa_corpus_by_its_common_table(tmp_path):
    write_noise(tmp_path / "NISQA_TEST_P501" / "deg" / "a.wav")
    (tmp_path / "NISQA_corpus_file.csv").write_text(
        "db,con,file,filepath_deg,mos\nNISQA_TEST_P501,1,a.wav,NISQA_TEST_P501/deg/a.wav,4\n"
    )
    (rated,) = read_set(tmp_path)
    assert rated.name == "NISQA_TEST_P501"
    assert rated.clips[0].path.is_file()


def test_reads_voicemos(tmp_path):
    write_noise(tmp_path / "DATA" / "wav" / "sys01-utt1.wav")
    (tmp_path / "DATA" / "sets").mkdir()
    (tmp_path / "DATA" / "sets" / "val_mos_list.txt").write_text("sys01-utt1.wav,2.5\n")
    (rated,) = read_set(tmp_path)
    assert rated.name.endswith("-val")
    assert rated.clips[0].condition == "sys01"
    assert rated.clips[0].mos == 2.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,score\na.wav,1\n", "no column mos"),
        ("file,mos\nno.wav,1\n", "missing"),
        (None, "no rated set"),
        ("", "no CSV table"),
        ("file,mos\n", "no clips"),
        ("file;mos\na.wav;1\n", "separated by commas"),
        ("file,mos\na.wav,good\n", "row 1: a score is missing or not a number: 'good'"),
        ("file,mos\na.wav,inf\n", "row 1: a score"),
        ("file,mos\n,2\n", "row 1: no file"),
        ("file,mos\na.wav,2\na.wav,4\n", "rated twice"),
        ("file,mos\na.wav,85\n", "expected a MOS from 1 to 5"),
        ("file,mos,reference\na.wav,2,clean.wav\n", "missing, first .*clean.wav"),
        ("file,mos\nlabels.csv,2\n", "labels.csv is no audio file"),
    ],
)
def test_bad_sets_say_why(tmp_path, content, message):
    write_noise(tmp_path / "a.wav")
    if content is not None:
        (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_set(tmp_path)


def test_names_like_numbers_spaces_and_a_byte_order_mark_are_read(tmp_path):
    write_noise(tmp_path / "a.wav")
    (tmp_path / "a.wav").rename(tmp_path / "001")
    (tmp_path / "labels.csv").write_text("\ufefffile, mos\r\n001, 2.5\r\n", encoding="utf-8")
    (clip,) = read_set(tmp_path)[0].clips
    assert (clip.path.name, clip.mos) == ("001", 2.5)


def test_sets_of_one_name_are_refused(rated_folder, tmp_path):
    shutil.copytree(rated_folder, tmp_path / "other" / "own")
    with pytest.raises(ValueError, match="two sets are called own"):
        read_sets([rated_folder, tmp_path / "other" / "own"])
    with pytest.raises(ValueError, match="no such folder: .*nothing"):
        read_sets([rated_folder, tmp_path / "nothing"])
    (tmp_path / "README.md").touch()
    assert len(read_sets([rated_folder, tmp_path / "README.md"])) == 1
