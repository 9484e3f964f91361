"""Every form of audio against two other decoders, at the file's own rate, before any resampling.

Lossless forms sample for sample, with FFmpeg and with what was encoded (or scipy and the standard
library); lossy ones in length within a frame and the codec's priming, and to 60 dB after alignment,
with FFmpeg where libsndfile decodes and with libsndfile, in another container, where FFmpeg does.
AAC is held against Symphonia (babycat), AC-3 against liba52 where it is installed; WMA, which only
FFmpeg decodes, against what was encoded.
"""

import io
import wave

import babycat
import liba52
import making_audio as make
import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal
import soundfile

from ltu_jax.preprocessing.formats.decode import sounds


def ours(content: bytes) -> tuple[np.ndarray, int]:
    (sound,) = ((one.rate, list(one.blocks)) for one in sounds(io.BytesIO(content), name="x"))
    return np.concatenate(sound[1]), sound[0]


def noise(*, channels: int, bits: int, frames: int = 4_000) -> np.ndarray:
    """Whole numbers of so many bits, divided by full scale; the ends of the range are there."""
    full = 2 ** (bits - 1)
    whole = np.random.default_rng(bits).integers(-full, full, (frames, channels))
    whole[:2] = [[-full], [full - 1]]
    return whole / full


LOSSLESS = {  # form of libsndfile -> bits kept
    "WAV PCM_U8": 8, "WAV PCM_16": 16, "WAV PCM_24": 24, "WAV PCM_32": 32, "WAV FLOAT": 24,
    "WAV DOUBLE": 24, "WAVEX PCM_16": 16, "WAVEX PCM_24": 24, "RF64 PCM_16": 16, "W64 PCM_24": 24,
    "AIFF PCM_S8": 8, "AIFF PCM_16": 16, "AIFF PCM_24": 24, "AIFF FLOAT": 24, "AU PCM_16": 16,
    "AU PCM_24": 24, "CAF PCM_16": 16, "CAF PCM_24": 24,
    "FLAC PCM_S8": 8, "FLAC PCM_16": 16, "FLAC PCM_24": 24, "NIST PCM_16": 16, "VOC PCM_16": 16,
}  # fmt: skip


@pytest.mark.parametrize("form", LOSSLESS)
def test_lossless_forms_of_libsndfile(form: str):
    rate, channels = ((8_000, 1), (44_100, 2), (192_000, 6))[list(LOSSLESS).index(form) % 3]
    if form.startswith("VOC") and channels > 2:
        channels = 2
    truth = noise(channels=channels, bits=LOSSLESS[form])
    content = make.by_libsndfile(truth, rate, form)
    samples, found = ours(content)
    assert found == rate
    np.testing.assert_array_equal(samples, truth.astype(np.float32))
    other, found = make.decoded_by_ffmpeg(content)
    assert found == rate
    np.testing.assert_array_equal(samples, other.astype(np.float32))


@pytest.mark.parametrize(
    ("codec", "form", "bits"),
    [
        ("flac", "flac", 16), ("flac", "ogg", 24), ("flac", "matroska", 24), ("alac", "ipod", 16),
        ("pcm_s16le", "wav", 16), ("pcm_s24le", "matroska", 24), ("pcm_s16be", "mov", 16),
        ("pcm_f32le", "caf", 24), ("wavpack", "wv", 24), ("tta", "tta", 24),
        ("pcm_s16be", "au", 16),
        ("pcm_s16le", "w64", 16), ("pcm_s16le", "avi", 16),
    ],
)  # fmt: skip
def test_lossless_forms_of_ffmpeg(codec: str, form: str, bits: int):
    truth = noise(channels=2, bits=16)
    content = make.by_ffmpeg(truth, 44_100, codec, form)
    samples, rate = ours(content)
    assert rate == 44_100
    np.testing.assert_array_equal(samples, truth.astype(np.float32))
    other, _ = make.decoded_by_ffmpeg(content)
    np.testing.assert_array_equal(samples, other.astype(np.float32))


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_wav_by_scipy_and_the_standard_library(bits: int):
    truth = noise(channels=2, bits=bits)
    content = make.by_libsndfile(truth, 22_050, f"WAV PCM_{'U8' if bits == 8 else bits}")
    samples, _ = ours(content)
    rate, whole = scipy.io.wavfile.read(io.BytesIO(content))
    assert rate == 22_050
    if bits == 8:
        whole = whole.astype(int) - 128
    full = 2.0 ** (31 if bits == 24 else bits - 1)  # scipy moves 24 bits to the top of 32
    np.testing.assert_array_equal(samples, (whole / full).astype(np.float32))
    with wave.open(io.BytesIO(content)) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), np.uint8)
    wide = np.zeros((len(data) * 8 // bits, 4), np.uint8)
    wide[:, 4 - bits // 8 :] = data.reshape(-1, bits // 8)
    whole = wide.view("<i4")[:, 0].astype(float)
    if bits == 8:
        whole -= 2.0**31 * np.where(whole >= 0, 1, -1)  # unsigned
    np.testing.assert_array_equal(samples.ravel(), (whole / 2.0**31).astype(np.float32))


def test_g711_by_its_formula():
    codes = np.arange(256, dtype=np.uint8)
    flipped = ~codes.astype(int) & 0xFF
    size = (((flipped & 15) << 3) + 132 << (flipped >> 4 & 7)) - 132
    mu_law = np.where(flipped & 0x80, -size, size)
    flipped = codes.astype(int) ^ 0x55
    exponent, mantissa = flipped >> 4 & 7, (flipped & 15) << 4
    size = np.where(exponent == 0, mantissa + 8, mantissa + 264 << np.maximum(exponent - 1, 0))
    a_law = np.where(flipped & 0x80, size, -size)
    for tag, truth in ((7, mu_law), (6, a_law)):
        content = make.wav(codes.tobytes(), bits=8, tag=tag)
        samples, _ = ours(content)
        np.testing.assert_array_equal(samples[:, 0], (truth / 32_768).astype(np.float32))
        other, _ = make.decoded_by_ffmpeg(content)
        np.testing.assert_array_equal(samples, other.astype(np.float32))


def music(rate: int, channels: int) -> np.ndarray:
    """A second of tones that come and go over a little noise, below 6 kHz."""
    generator = np.random.default_rng(rate)
    time = np.arange(rate) / rate
    sound = 0.01 * generator.standard_normal((rate, channels))
    for hertz in (220, 571, 1_330, 2_900):
        phase = generator.uniform(0, 6, channels)
        swell = np.sin(np.pi * time * generator.uniform(1, 5))[:, None]
        sound += 0.1 * swell * np.sin(2 * np.pi * hertz * time[:, None] + phase)
    lowpass = scipy.signal.firwin(201, min(6_000, 0.45 * rate), fs=rate)
    return scipy.signal.lfilter(lowpass, 1, sound, axis=0)


def check(samples: np.ndarray, other: np.ndarray, *, decibels: float, slack: int) -> None:
    """Require that two decodings differ by at most `slack` samples and, aligned, by so little."""
    assert abs(len(samples) - len(other)) <= slack, (len(samples), len(other))
    one, two = samples[:, 0].astype(float), other[:, 0].astype(float)
    shift = int(np.argmax(scipy.signal.correlate(one, two, method="fft"))) - (len(two) - 1)
    assert abs(shift) <= slack, shift
    one, two = samples[max(shift, 0) :], other[max(-shift, 0) :]
    size = min(len(one), len(two)) - 2 * slack
    one, two = one[slack : slack + size].astype(float), two[slack : slack + size].astype(float)
    assert size > 0.5 * len(samples)
    error = np.sum((one - two) ** 2)
    assert error <= 10 ** (-decibels / 10) * np.sum(one**2), 10 * np.log10(np.sum(one**2) / error)


LOSSY = {  # form of libsndfile -> samples of a frame and of priming, at most
    "MP3": 1_152 + 1_105, "OGG VORBIS": 2_048, "OGG OPUS": 960 + 312, "WAV IMA_ADPCM": 2_048,
}  # fmt: skip


@pytest.mark.parametrize(
    ("form", "rate", "channels"),
    [(form, 48_000, 2) for form in LOSSY]
    + [(form, 16_000, 1) for form in LOSSY if form != "OGG OPUS"],  # FFmpeg: at 48 kHz only
)
def test_lossy_forms_of_libsndfile(form: str, rate: int, channels: int):
    sound = music(rate, channels)
    content = make.by_libsndfile(sound, rate, form)
    samples, found = ours(content)
    assert found == rate
    other, _ = make.decoded_by_ffmpeg(content)
    check(samples, other, decibels=60, slack=LOSSY[form])
    check(samples, sound, decibels=10, slack=LOSSY[form])  # and with what was encoded


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("form", ["OGG VORBIS", "OGG OPUS"])
def test_channels_of_ogg_come_in_the_order_of_wav(form: str, channels: int):
    """The downmix goes by it: taken as they are, the centre would be heard as the right side."""
    hertz = 200.0 * np.arange(1, channels + 1)
    sound = 0.3 * np.sin(2 * np.pi * hertz * np.arange(24_000)[:, None] / 48_000)
    content = make.by_libsndfile(sound, 48_000, form)
    samples, _ = ours(content)
    other, _ = make.decoded_by_ffmpeg(content)
    check(samples, other, decibels=50, slack=2_048)


@pytest.mark.parametrize(
    ("codec", "form", "elsewhere", "slack"),
    [
        ("libopus", "webm", "ogg", 960 + 312),
        ("libopus", "matroska", "ogg", 960 + 312),
        ("vorbis", "webm", "ogg", 2_048),
        ("libmp3lame", "mp4", "mp3", 1_152 + 1_105),
        ("libmp3lame", "matroska", "mp3", 1_152 + 1_105),
        ("libmp3lame", "avi", "mp3", 2 * 1_152 + 1_105),
    ],
)
def test_lossy_forms_of_ffmpeg(codec: str, form: str, elsewhere: str, slack: int):
    """libsndfile decodes the same packets, moved to a container that it reads."""
    sound = music(48_000, 2)
    content = make.by_ffmpeg(sound, 48_000, codec, form)
    samples, rate = ours(content)
    assert rate == 48_000
    other, _ = soundfile.read(io.BytesIO(make.remuxed(content, elsewhere)), always_2d=True)
    check(samples, other, decibels=60, slack=slack)
    check(samples, sound, decibels=10, slack=slack)


def test_mp2_by_libsndfile_and_by_ffmpeg():
    sound = music(48_000, 2)
    content = make.by_ffmpeg(sound, 48_000, "mp2", "mp2")
    samples, _ = ours(content)
    other, _ = make.decoded_by_ffmpeg(content)
    check(samples, other, decibels=60, slack=1_152 + 481)
    check(samples, sound, decibels=10, slack=1_152 + 481)


@pytest.mark.parametrize("form", ["WAV MS_ADPCM", "AIFF IMA_ADPCM"])
def test_adpcm_that_decoders_round_differently(form: str):
    """libsndfile (as sox) shifts where FFmpeg divides; both are as near to what was encoded."""
    sound = music(16_000, 1)
    content = make.by_libsndfile(sound, 16_000, form)
    samples, _ = ours(content)
    other, _ = make.decoded_by_ffmpeg(content)
    check(samples, other, decibels=30, slack=1_024)
    check(samples, sound, decibels=15, slack=1_024)


@pytest.mark.parametrize(("kind", "bits"), [("ALAC_16", 16), ("ALAC_24", 24)])
def test_alac_in_caf(kind: str, bits: int):
    """FFmpeg takes the padding of the last packet off twice; libsndfile gives what was encoded."""
    truth = noise(channels=1, bits=bits)
    content = make.by_libsndfile(truth, 44_100, f"CAF {kind}")
    samples, _ = ours(content)
    np.testing.assert_array_equal(samples, truth.astype(np.float32))
    other, _ = make.decoded_by_ffmpeg(content)
    np.testing.assert_array_equal(samples[: len(other)], other.astype(np.float32))


@pytest.mark.parametrize("form", ["ipod", "mp4", "adts", "mpegts", "matroska", "latm"])
def test_aac_by_symphonia(form: str):
    sound = music(44_100, 2)
    content = make.by_ffmpeg(sound, 44_100, "aac", form)
    samples, rate = ours(content)
    assert rate == 44_100
    check(samples, sound, decibels=15, slack=2_048 + 1_024)
    packets = (
        make.by_ffmpeg(sound, 44_100, "aac", "adts")  # the same ones: no other form holds LATM's
        if form == "latm"
        else make.remuxed(content, "adts")
    )
    stream = babycat.Waveform.from_encoded_bytes(packets)
    assert stream.frame_rate_hz == rate
    check(samples, stream.to_numpy(), decibels=60, slack=2_048 + 1_024)


@pytest.mark.skipif(liba52.library() is None, reason="apt install liba52-0.7.4")
@pytest.mark.parametrize("channels", [1, 2])
def test_ac3_by_liba52(channels: int):
    sound = music(44_100, channels)
    # With fewer bits some coefficients have none, and a decoder puts noise of its own there.
    content = make.by_ffmpeg(sound, 44_100, "ac3", "ac3", bit_rate=448_000)
    samples, rate = ours(content)
    check(samples, sound, decibels=15, slack=1_536)
    other, elsewhere = liba52.decode(liba52.library(), content)
    assert rate == elsewhere == 44_100
    check(samples, other, decibels=60, slack=1_536)


def test_wma_which_only_ffmpeg_decodes():
    sound = music(44_100, 2)
    content = make.by_ffmpeg(sound, 44_100, "wmav2", "asf")
    samples, rate = ours(content)
    assert rate == 44_100
    check(samples, sound, decibels=15, slack=2_048 + 1_024)
    other, _ = make.decoded_by_ffmpeg(content)
    check(samples, other, decibels=60, slack=2_048 + 1_024)
