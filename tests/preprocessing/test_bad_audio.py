"""Audio that cannot be used: one clear error each, naming the file, the finding and the fix."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.audio import AudioError

SECOND = (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)


def refused(source: str | Path | bytes, message: str, **options: float) -> None:
    """Require an AudioError that begins with the source's name and goes on with `message`."""
    name = "<bytes>" if isinstance(source, bytes) else str(source)
    with pytest.raises(AudioError, match="^" + re.escape(f"{name}: ") + message):
        audio.load_audio(source, **options)


def test_an_audio_error_is_a_user_error():
    assert issubclass(AudioError, UserError)


def test_missing(tmp_path: Path):
    refused(tmp_path / "gone.wav", "no such file; check the path")


def test_folder(tmp_path: Path):
    refused(tmp_path, "is a folder; name one audio file in it")


def test_pipe(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.wav")
    refused(tmp_path / "pipe.wav", "not a regular file; name an audio file")


def test_empty_file(tmp_path: Path):
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", r"empty \(0 bytes\); copy or record it again")
    refused(b"", r"empty \(0 bytes\); send the contents of an audio file")


def test_zero_seconds(tmp_path: Path):
    soundfile.write(tmp_path / "clip.wav", np.zeros(0, np.float32), 44_100)
    refused(tmp_path / "clip.wav", r"holds no audio \(0 s\); record or export it again")


@pytest.mark.parametrize(
    ("rate", "frames"), [(16_000, 1), (16_000, 159), (48_000, 1), (48_000, 470)]
)
def test_too_short(tmp_path: Path, rate: int, frames: int):
    soundfile.write(tmp_path / "click.wav", SECOND[:frames], rate)
    refused(tmp_path / "click.wav", r"lasts [\d.]+ ms; at least 10 ms of audio are needed")


def test_text_named_wav(tmp_path: Path):
    path = tmp_path / "pointer.wav"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    begins = r"is text, not audio \(it begins 'version https://git-lfs.github.com/spec/'\)"
    refused(path, begins + "; download or export the audio again")
    refused(path.read_bytes(), begins)
    path.write_text("これは音ではありません", encoding="utf-8")
    refused(path, "is text, not audio")


@pytest.mark.parametrize("name", ["noise.wav", "noise.mp3", "noise.m4a", "noise"])
def test_noise_is_no_format(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(np.random.default_rng(1).bytes(5_000))
    refused(path, r"not audio of a known format \(.+\).* it is damaged: copy it again")


def test_samples_without_a_header(tmp_path: Path):
    (tmp_path / "clip.raw").write_bytes(SECOND.tobytes())
    refused(tmp_path / "clip.raw", "samples without a header, rate unknown; convert it to wav")


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("wav", r"cut off: 15978 of 32000 bytes of audio \(0.50 s of 1.00 s\); copy or download"),
        ("flac", r"damaged after 0.00 s \(.*lost sync"),
        ("mp3", r"damaged or cut off: 0.4. s of 1.00 s are there"),
        ("ogg", r"damaged or cut off \(its last page has \d+ of \d+ bytes\)"),
    ],
)
def test_cut_off(tmp_path: Path, suffix: str, message: str):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, SECOND, 16_000)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, message)
    refused(path.read_bytes(), message)


@pytest.mark.parametrize("suffix", ["flac", "mp3", "ogg"])
def test_overwritten_middle(tmp_path: Path, suffix: str):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, SECOND, 16_000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = np.random.default_rng(2).bytes(400)
    path.write_bytes(content)
    refused(path, "damaged")


def mp3_without_length(path: Path, *, loudest_first: bool) -> bytes:
    """Two MP3s of a high and a low bit rate, joined, without the frames that state a length."""
    parts = []
    for samples, level in ((SECOND, 0.0), (np.tile(SECOND, 4), 0.7)):
        soundfile.write(path, samples, 16_000, compression_level=level, bitrate_mode="CONSTANT")
        content = path.read_bytes()
        assert b"Info" in content[:100]
        parts.append(content[content.index(content[:2], 4) :])
    return b"".join(parts if loudest_first else reversed(parts))


def test_an_mp3_that_does_not_state_its_length(tmp_path: Path):
    path = tmp_path / "clip.mp3"
    path.write_bytes(mp3_without_length(path, loudest_first=False))
    assert audio.load_audio(path).seconds == pytest.approx(5, abs=0.3)


def test_an_mp3_that_libsndfile_would_cut_off(tmp_path: Path):
    # libsndfile guesses the length from the bit rate of the first frame.
    path = tmp_path / "clip.mp3"
    path.write_bytes(mp3_without_length(path, loudest_first=True))
    assert audio.load_audio(path).seconds == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_random_damage_gives_an_audio_error_or_finite_samples(suffix: str):
    generator = np.random.default_rng(3)
    file = io.BytesIO()
    soundfile.write(file, SECOND[:8_000], 16_000, format=suffix)
    whole = np.frombuffer(file.getvalue(), np.uint8)
    for _ in range(50):
        content = whole.copy()[: generator.integers(1, len(whole) + 1)]
        where = generator.integers(0, len(content), generator.integers(1, 30))
        content[where] = generator.integers(0, 256, len(where))
        try:
            clip = audio.load_audio(content.tobytes())
        except AudioError:
            continue
        assert np.isfinite(clip.samples).all() and len(clip.samples) >= audio.HOP


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path: Path, value: float):
    samples = np.stack([SECOND, SECOND], axis=1)
    samples[1234, 1] = value
    soundfile.write(tmp_path / "clip.wav", samples, 16_000, subtype="FLOAT")
    refused(tmp_path / "clip.wav", f"sample 1234 of channel 1 is {value}, not a number in -1..1")


def test_integers_stored_as_floats(tmp_path: Path):
    soundfile.write(tmp_path / "clip.wav", 32768 * SECOND, 16_000, subtype="FLOAT")
    refused(tmp_path / "clip.wav", r"samples reach [\d.]+; divide by full scale")


def test_a_rate_that_is_no_audio(tmp_path: Path):
    soundfile.write(tmp_path / "clip.wav", SECOND, 8)
    refused(tmp_path / "clip.wav", "sample rate 8 Hz is outside 1000..1000000")


def test_too_long_by_its_header_is_refused_before_decoding(tmp_path: Path):
    path = tmp_path / "day.wav"
    soundfile.write(path, SECOND, 16_000)
    header = bytearray(path.read_bytes()[:44])
    size = 24 * 3600 * 2 * 16_000 // 2  # 12 hours of 16-bit samples, as a sparse file
    header[40:44] = size.to_bytes(4, "little")
    header[4:8] = (size + 36).to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(header)
        file.truncate(44 + size)
    refused(path, r"lasts at least 43200.0 s; the limit is 10800 s. Cut it into shorter files")


def test_too_long_whatever_the_header_says(tmp_path: Path):
    soundfile.write(tmp_path / "clip.flac", np.tile(SECOND, 3), 16_000)
    refused(tmp_path / "clip.flac", "lasts at least 3.0 s; the limit is 2.5 s", max_seconds=2.5)
    collector = audio._Collector(name="x", rate=16_000, channels=1, max_seconds=2.5)
    collector.add(np.zeros((40_000, 1)))
    with pytest.raises(AudioError, match="x: lasts at least 2.5 s; the limit is 2.5 s"):
        collector.add(np.zeros((1, 1)))


@pytest.mark.parametrize(
    "samples", [np.zeros(16_000, np.int16), np.zeros((1, 2, 3)), np.float32(0)]
)
def test_wrong_arrays(samples: np.ndarray):
    with pytest.raises(AudioError, match=r"mic: samples are .*; pass floats in -1..1 of shape"):
        audio.from_samples(samples, rate=16_000, name="mic")


@pytest.mark.parametrize("samples", [np.zeros(159, np.float32), np.zeros((2, 16_000), np.float32)])
def test_log_mel_of_nothing(samples: np.ndarray):
    with pytest.raises(AudioError, match="log-mel needs one channel, 160 or more"):
        audio.log_mel(samples, n_mels=80)
