"""What `score` takes and refuses: types, layouts, rates, channels, files, and clips that cannot be scored."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import EXAMPLES
from julius import resample_frac
from scipy.signal import resample_poly

from jsqa_metric import AudioError, score
from jsqa_metric.audio import MAX_CHANNELS, resample, resampled_length

RATE = 16000


def test_integers_are_scaled_by_their_type(speech):
    clip = speech[:32000]
    expected = score(np.round(clip * 32767) / 32768, RATE)
    int16 = np.round(clip * 32767).astype(np.int16)
    assert score(int16, RATE) == pytest.approx(expected, abs=1e-5)
    assert score(torch.from_numpy(int16), RATE) == pytest.approx(expected, abs=1e-5)
    assert score(int16.astype(np.int32) << 16, RATE) == pytest.approx(expected, abs=1e-5)
    assert score((int16.astype(np.int32) + 32768).astype(np.uint16), RATE) == pytest.approx(expected, abs=1e-5)
    assert score(clip.astype(np.float64), RATE) == pytest.approx(score(clip, RATE), abs=1e-5)
    if hasattr(torch, "uint16"):  # since torch 2.3
        unsigned = torch.from_numpy(int16.astype(np.int32) + 32768)
        assert score(unsigned.to(torch.uint16), RATE) == pytest.approx(expected, abs=1e-5)
        wide = (unsigned.to(torch.int64) * 65536).to(torch.uint32)
        assert score(wide, RATE) == pytest.approx(expected, abs=1e-3)
    assert score((int16 // 256 + 128).astype(np.uint8), RATE) < expected  # 8 bit is heard


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex64, "S1"])
def test_types_without_a_full_scale_are_refused(dtype):
    with pytest.raises(ValueError, match="must be floating point or 8, 16 or 32 bit integer"):
        score(np.zeros(16000, dtype), RATE)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_tensors_without_a_full_scale_are_refused(dtype):
    with pytest.raises(ValueError, match="must be floating point or 8, 16 or 32 bit integer"):
        score(torch.zeros(16000, dtype=dtype), RATE)


def test_a_file_of_too_many_channels_has_a_reason(write_wav):
    path = write_wav("many.wav", np.zeros((1600, MAX_CHANNELS + 1)), RATE)
    with pytest.raises(AudioError, match=f"{MAX_CHANNELS + 1} channels; at most {MAX_CHANNELS} are read"):
        score(path)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_unusual_memory_layouts(speech, tmp_path):
    expected = score(speech, RATE)
    wide = np.zeros((len(speech), 3), np.float32)
    wide[:, 1] = speech
    assert score(wide[:, 1], RATE) == pytest.approx(expected, abs=1e-6)
    assert score(torch.from_numpy(wide)[:, 1], RATE) == pytest.approx(expected, abs=1e-6)
    assert score(speech[::-1][::-1], RATE) == pytest.approx(expected, abs=1e-6)
    for dtype in (">f4", ">f8", np.longdouble):
        assert score(speech.astype(dtype), RATE) == pytest.approx(expected, abs=1e-6)
    assert score(np.asmatrix(speech), RATE) == pytest.approx([expected], abs=1e-6)
    frozen = speech.copy()
    frozen.setflags(write=False)
    assert score(frozen, RATE) == pytest.approx(expected, abs=1e-6)
    strided = torch.from_numpy(wide)[:, 1].requires_grad_()
    assert score(strided, RATE).item() == pytest.approx(expected, abs=1e-6)
    np.save(tmp_path / "clip.npy", speech)
    mapped = np.load(tmp_path / "clip.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score(mapped, RATE) == pytest.approx(expected, abs=1e-6)


UNSCORABLE = {
    "empty": (np.zeros(0, np.float32), "empty"),
    "short": (np.ones(1599, np.float32) / 9, "too short: 0.0999 s is less than 0.1 s"),
    "wrong axis": (np.ones((16000, 2), np.float32)[0], "is time the last axis"),
    "silent": (np.zeros(16000, np.float32), "silent"),
    "nan": (np.where(np.arange(16000) == 700, np.nan, 0.1), "NaN or infinite"),
    "inf": (np.where(np.arange(16000) == 700, np.inf, 0.1), "NaN or infinite"),
    "unscaled": (np.full(16000, 20000.0), "scale integer samples"),
}


@pytest.mark.parametrize("kind", UNSCORABLE)
def test_what_cannot_be_scored_is_nan_with_a_reason_and_spoils_nothing(speech, kind):
    clip, reason = UNSCORABLE[kind]
    with pytest.warns(UserWarning, match=reason):
        assert math.isnan(score(clip, RATE))
    with pytest.warns(UserWarning, match="1 of 2 clips not scored"):
        scores = score([clip, speech.astype(clip.dtype)], RATE)
    assert math.isnan(scores[0])
    assert scores[1] == pytest.approx(score(speech, RATE), abs=1e-5)
    with pytest.warns(UserWarning, match=reason):
        details = score(clip, RATE, return_details=True)
    assert reason in details.reason
    assert math.isnan(details.mos)


def test_time_before_channels_is_an_error_and_not_a_clip_for_each_sample(speech):
    stereo = np.stack([speech, speech], 1)
    for audio in (stereo, stereo[None], torch.from_numpy(stereo), [stereo]):
        with pytest.raises(ValueError, match="time as its last axis"):
            score(audio, RATE)
    with pytest.warns(UserWarning, match="is time the last axis"):
        assert score(np.zeros((3, 2)), RATE).shape == (3,)


def test_each_line_that_gets_nan_is_warned():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # once for each place
        score(np.zeros(RATE), RATE)
        score(np.zeros(RATE), RATE)
    assert [record.filename for record in caught] == [__file__] * 2


def test_the_shortest_clip_is_scored(speech):
    assert 1 <= score(speech[8000:9600], RATE) <= 5


def test_samples_over_full_scale_are_taken_as_they_are(speech):
    assert 1 <= score(speech * (2 / np.abs(speech).max()), RATE) <= 5


def test_bad_arguments_are_errors(speech, tmp_path):
    for arguments, message in [
        ({"audio": speech}, "`sample_rate`"),
        ({"audio": speech, "sample_rate": -1}, "`sample_rate`"),
        ({"audio": speech, "sample_rate": 16000.5}, "`sample_rate`"),
        ({"audio": speech, "sample_rate": float("nan")}, "`sample_rate`"),
        ({"audio": speech, "sample_rate": "16000"}, "`sample_rate`"),
        ({"audio": speech, "sample_rate": [RATE]}, "`sample_rate`"),
        ({"audio": speech, "sample_rate": torch.tensor([RATE, RATE])}, "`sample_rate`"),
        ({"audio": speech, "sample_rate": True}, "`sample_rate`"),
        ({"audio": speech, "sample_rate": 10**400}, "`sample_rate`"),
        ({"audio": torch.zeros(RATE).to_sparse(), "sample_rate": RATE}, "`audio`"),
        ({"audio": torch.zeros(RATE, device="meta"), "sample_rate": RATE}, "`audio`"),
        ({"audio": [[speech]], "sample_rate": RATE}, "`audio`"),
        ({"audio": (clip for clip in [speech]), "sample_rate": RATE}, "`audio`"),
        ({"audio": b"clip.wav"}, "`audio`"),
        ({"audio": EXAMPLES / "english_clean.flac", "lengths": [16000]}, "`lengths`"),
        ({"audio": speech[:32000].reshape(2, -1), "sample_rate": RATE, "lengths": [[1], [1, 2]]}, "`lengths`"),
        ({"audio": speech[None], "sample_rate": RATE, "lengths": [-1]}, "`lengths`"),
        ({"audio": speech, "sample_rate": RATE, "batch_size": 2.0}, "`batch_size`"),
        ({"audio": speech, "sample_rate": RATE, "batch_size": True}, "`batch_size`"),
        ({"audio": speech, "sample_rate": RATE, "device": "meta"}, "`device`"),
        ({"audio": speech[None], "sample_rate": RATE, "channel": "\u00b2"}, "`channel`"),
        ({"audio": speech[None], "sample_rate": RATE, "channel": -1}, "`channel`"),
        ({"audio": speech[None], "sample_rate": RATE, "channel": np.array([0, 1])}, "`channel`"),
        ({"audio": 3.0, "sample_rate": RATE}, "`audio`"),
        ({"audio": np.float32(3), "sample_rate": RATE}, "`audio`"),
        ({"audio": np.array(3.0), "sample_rate": RATE}, "at least 1 axes"),
        ({"audio": [speech, "file.wav"], "sample_rate": RATE}, "list of"),
        ({"audio": [speech[None]], "sample_rate": RATE}, "one clip per item"),
        ({"audio": speech[None], "sample_rate": RATE, "lengths": [99999999]}, "`lengths`"),
        ({"audio": speech[None], "sample_rate": RATE, "lengths": [0.5]}, "`lengths`"),
        ({"audio": speech[None], "sample_rate": RATE, "lengths": [1, 2]}, "`lengths`"),
        ({"audio": [speech], "sample_rate": RATE, "lengths": [5]}, "`lengths`"),
        ({"audio": speech, "sample_rate": RATE, "batch_size": 0}, "`batch_size`"),
        ({"audio": speech, "sample_rate": RATE, "channel": "left"}, "`channel`"),
        ({"audio": speech, "sample_rate": RATE, "channel": "first"}, "at least 2 axes"),
        ({"audio": speech, "sample_rate": RATE, "model": "no-such-model"}, "no model 'no-such-model'"),
        ({"audio": speech, "sample_rate": RATE, "model": 3}, "`model`"),
        ({"audio": speech, "sample_rate": RATE, "device": "abacus"}, "`device`"),
    ]:
        with pytest.raises(ValueError, match=message):
            score(**arguments)


def test_numbers_of_numpy_and_torch_are_numbers(speech):
    expected = score(speech, RATE)
    for rate in (np.int64(RATE), np.float32(RATE), torch.tensor(RATE), np.array(RATE)):
        assert score(speech, rate) == expected
    assert score(speech, RATE, batch_size=np.int64(2)) == expected
    assert score(speech[None], RATE, channel=np.int64(0)) == expected
    assert score(speech[None], RATE, lengths=np.array([20000], np.uint16)).shape == (1,)


def test_a_single_file_that_cannot_be_read_is_an_error_in_a_list_a_nan(tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("this is no audio " * 100)
    with pytest.raises(AudioError, match="not a readable audio file"):
        score(text)
    with pytest.raises(FileNotFoundError):
        score(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="not a file"):
        score(tmp_path)
    with pytest.warns(UserWarning, match="3 of 4 clips not scored"):
        scores = score([text, tmp_path / "missing.wav", EXAMPLES / "english_clean.flac", tmp_path])
    assert np.isnan(scores).tolist() == [True, True, False, True]


def test_channels_of_files_and_arrays(speech, noisy, write_wav):
    stereo = np.stack([speech, noisy])
    path = write_wav("stereo.wav", stereo.T, subtype="FLOAT")
    for channel, expected in [("mean", stereo.mean(0)), ("first", speech), (1, noisy), ("1", noisy)]:
        assert score(path, channel=channel) == pytest.approx(score(expected, RATE), abs=1e-5)
        assert score(stereo, RATE, channel=channel) == pytest.approx(score(expected, RATE), abs=1e-5)
    assert score(path) == score(path, channel="mean")
    assert score(stereo, RATE).shape == (2,), "without a channel, leading indices are clips"
    with pytest.warns(UserWarning, match="no channel 5"):
        assert math.isnan(score(path, channel=5))
    six = np.tile(speech, (6, 1))
    six_file = write_wav("six.wav", six.T, subtype="FLOAT")
    for mos in (score(six, RATE, channel="mean"), score(six_file), score(six_file, channel=5)):
        assert mos == pytest.approx(score(speech, RATE), abs=1e-4)
    with pytest.warns(UserWarning, match="has no channels"):
        assert math.isnan(score(np.zeros((0, RATE)), RATE, channel="mean"))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_file_formats(speech, write_wav, suffix):
    path = write_wav(f"clip.{suffix}", speech)
    assert score(path) == pytest.approx(score(sf.read(path, dtype="float32")[0], RATE), abs=1e-4)


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "GSM610"), ("AIFF", "GSM610"), ("AU", "G721_32")])
def test_files_that_are_read_from_the_beginning_on_only(speech, tmp_path, kind, subtype):
    long = np.tile(speech, 6)[: 26 * RATE]  # three windows
    sf.write(tmp_path / "clip", long, RATE, format=kind, subtype=subtype)
    assert not sf.SoundFile(tmp_path / "clip").seekable()
    assert score(tmp_path / "clip") == pytest.approx(score(sf.read(tmp_path / "clip")[0], RATE), abs=1e-4)


def test_odd_rates_do_not_exhaust_memory(speech):
    assert score(speech, 15999) == pytest.approx(score(speech, RATE), abs=0.05)


@pytest.mark.parametrize(
    ("old", "new"), [(48000, 16000), (8000, 16000), (44100, 16000), (11025, 16000), (96000, 16000)]
)
@pytest.mark.parametrize("samples", [1, 100, 4801])
def test_resampling_is_that_of_julius(old, new, samples):
    wav = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    blocks = 100  # julius repeats the edges, we take them as silent
    silence, offset = blocks * old // math.gcd(old, new), blocks * new // math.gcd(old, new)
    length = resampled_length(samples, old, new)
    expected = resample_frac(torch.nn.functional.pad(wav, (silence, silence)), old, new, full=True)
    ours = resample(wav, old, new)
    assert ours.shape == (2, length)
    torch.testing.assert_close(ours, expected[:, offset : offset + length], atol=1e-5, rtol=0)


RATES = [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000]


@pytest.mark.parametrize("model", ["default", "light"])
@pytest.mark.parametrize("gain", [0.3, 1.0])  # quiet ones are turned up, and with them the rounding noise of 16 bits
@pytest.mark.parametrize("talker", ["english", "german"])
def test_the_rate_of_the_same_content_does_not_matter(talker, gain, model):
    telephone = sf.read(EXAMPLES / f"{talker}_telephone.flac")[0]  # nothing above 4 kHz, so all rates hold it
    telephone = np.round(gain * telephone * 32768) / 32768
    scores = [score(resample_poly(telephone, rate // 25, RATE // 25), rate, model=model) for rate in RATES]
    assert np.ptp(scores) < 0.1
