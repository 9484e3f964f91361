"""Audio against golden numbers, closed forms and other libraries."""

import io
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperFeatureExtractor

from ltu_jax.preprocessing import audio

pytestmark = pytest.mark.optimised

LOG_MEL_ATOL = 1e-4  # facts: the official float32 code is within 1.8e-5 of float64
CLIPS = ("jfk", "silence_2s", "short_0.1s", "exact_10s")


def tone(*, rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype("f4")


def noise(seconds: float, *, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal(int(16_000 * seconds))).astype(np.float32)


def torch_log_mel(samples: np.ndarray, *, n_mels: int) -> np.ndarray:
    """Whisper's log-mel in float64, by torch.stft and librosa's filters."""
    filters = torch.from_numpy(librosa.filters.mel(sr=16_000, n_fft=400, n_mels=n_mels)).double()
    spectrum = torch.stft(
        torch.from_numpy(samples).double(),
        n_fft=400,
        hop_length=160,
        window=torch.hann_window(400, dtype=torch.float64),
        return_complex=True,
    )[:, :-1]
    logs = (filters @ spectrum.abs() ** 2).clamp(min=1e-10).log10()
    return ((logs.clamp(min=logs.max() - 8) + 4) / 4).numpy().T


# --- decoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_and_channel_count_becomes_16_khz_mono(tmp_path: Path, rate: int, channels: int):
    path = tmp_path / "tone.wav"
    sound = tone(rate=rate, seconds=1.5)
    soundfile.write(path, np.stack([sound] * channels, axis=1), rate, subtype="FLOAT")
    clip = audio.load_audio(path)
    assert clip.samples.dtype == np.float32
    assert (clip.source_rate, clip.source_channels) == (rate, channels)
    assert clip.seconds == pytest.approx(1.5, abs=1e-4)
    inner = slice(1_000, 22_000)  # the resampler rings at the ends
    truth = tone(rate=16_000, seconds=1.5)
    np.testing.assert_allclose(clip.samples[inner], truth[inner], atol=1e-4)


@pytest.mark.parametrize(
    ("suffix", "atol"), [("wav", 4e-5), ("flac", 4e-5), ("mp3", 0.02), ("ogg", 0.05)]
)
def test_formats(tmp_path: Path, suffix: str, atol: float):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(rate=16_000, seconds=2), 16_000)
    clip = audio.load_audio(path)
    assert clip.samples.shape == (32_000,)
    inner = slice(2_000, 30_000)
    np.testing.assert_allclose(clip.samples[inner], tone(rate=16_000, seconds=2)[inner], atol=atol)
    np.testing.assert_array_equal(audio.load_audio(path.read_bytes()).samples, clip.samples)
    np.testing.assert_array_equal(audio.load_audio(str(path)).samples, clip.samples)


def test_integer_wav_is_divided_by_full_scale(tmp_path: Path):
    whole = np.array([0, 1, -1, 32767, -32768] * 100, np.int16)
    soundfile.write(tmp_path / "clip.wav", whole, 16_000, subtype="PCM_16")
    clip = audio.load_audio(tmp_path / "clip.wav")
    np.testing.assert_array_equal(clip.samples, whole / np.float32(32768))


def test_stereo_is_averaged(tmp_path: Path):
    both = np.stack([noise(1, seed=1), noise(1, seed=2)], axis=1)
    soundfile.write(tmp_path / "clip.wav", both, 16_000, subtype="FLOAT")
    clip = audio.load_audio(tmp_path / "clip.wav")
    np.testing.assert_allclose(clip.samples, both.mean(axis=1), atol=1e-7)


def test_5_1_is_mixed_by_itu_without_the_low_frequency_channel(tmp_path: Path):
    channels = np.stack([noise(1, seed=seed) for seed in range(6)], axis=1)
    soundfile.write(tmp_path / "film.wav", channels, 16_000, subtype="FLOAT")
    left, right, centre, _, back_left, back_right = channels.T
    # Each speaker gets its front, 0.7071 of the centre and of its surround; then both are averaged.
    stereo_left = left + np.sqrt(0.5) * (centre + back_left)
    stereo_right = right + np.sqrt(0.5) * (centre + back_right)
    truth = (stereo_left + stereo_right) / (2 + 4 * np.sqrt(0.5))
    np.testing.assert_allclose(audio.load_audio(tmp_path / "film.wav").samples, truth, atol=1e-6)


@pytest.mark.parametrize("channels", range(1, 13))
def test_the_same_sound_in_all_channels_keeps_its_level(channels: int):
    sound = noise(0.5)
    clip = audio.from_samples(np.stack([sound] * channels, axis=1), rate=16_000, name="x")
    np.testing.assert_allclose(clip.samples, sound, atol=1e-6)


def test_decoding_in_blocks_equals_resampling_at_once(tmp_path: Path):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * 2**20, 1)).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", sound, 44_100, subtype="FLOAT")
    at_once = audio.from_samples(sound, rate=44_100, name="x").samples
    in_blocks = audio.load_audio(tmp_path / "long.wav").samples
    np.testing.assert_allclose(in_blocks, at_once, atol=1e-6)


# --- log-mel --------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", CLIPS)
def test_golden_log_mel(golden: Path, clip: str):
    stored = np.load(golden / "whisper_tiny_random" / f"{clip}.npz")
    samples = stored["pcm16k"].astype(np.float32) / 32768
    windowed = audio.model_log_mel(samples, n_mels=80)
    assert windowed.log_mel.shape == (1000, 80)
    assert windowed.log_mel.dtype == np.float32
    np.testing.assert_allclose(
        windowed.log_mel.T, stored["log_mel_1000"], rtol=0, atol=LOG_MEL_ATOL
    )


def test_golden_mel_filters(golden: Path):
    stored = np.load(golden / "whisper_tiny_random" / "mel_filters.npz")["mel_80"]
    np.testing.assert_allclose(audio.mel_filters(80), stored, rtol=0, atol=1e-8)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_mel_filters_are_librosas(n_mels: int):
    truth = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=n_mels)
    np.testing.assert_allclose(audio.mel_filters(n_mels), truth, rtol=0, atol=1e-8)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("samples", [161, 201, 3_333, 16_000, 700_007])
def test_log_mel_of_any_length(samples: int, n_mels: int):
    sound = noise(samples / 16_000 + 1)[:samples]
    ours = audio.log_mel(sound, n_mels=n_mels)
    assert ours.shape == (samples // 160, n_mels)
    if samples > 200:  # torch pads by reflection once only
        truth = torch_log_mel(sound, n_mels=n_mels)
        np.testing.assert_allclose(ours, truth, rtol=0, atol=LOG_MEL_ATOL)


@pytest.mark.parametrize("hertz", [50.0, 1_000.0, 7_900.0])
def test_log_mel_of_a_pure_tone(hertz: float):
    sound = tone(rate=16_000, seconds=10, hertz=hertz)
    truth = torch_log_mel(sound, n_mels=80)
    np.testing.assert_allclose(audio.log_mel(sound, n_mels=80), truth, rtol=0, atol=LOG_MEL_ATOL)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("seconds", [1.7, 29.5])
def test_transcribers_log_mel_is_transformers(seconds: float, n_mels: int):
    sound = noise(seconds)
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    truth = extractor(sound, sampling_rate=16_000, return_tensors="np").input_features[0].T
    ours = audio.transcribe_log_mel(sound, n_mels=n_mels)
    assert ours.shape == (len(sound) // 160 + 3000, n_mels)
    np.testing.assert_allclose(ours[:3000], truth, rtol=0, atol=LOG_MEL_ATOL)


# --- the window rule ------------------------------------------------------------------------------


def test_a_short_clip_is_filled_with_zeros_not_with_silence():
    windowed = audio.model_log_mel(np.zeros(32_000, np.float32), n_mels=80)
    np.testing.assert_allclose(windowed.log_mel[:200], -1.5, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(windowed.log_mel[200:], 0.0)
    assert (windowed.seconds, windowed.seconds_dropped) == (2.0, 0.0)


def test_a_loud_event_after_the_window_lifts_its_floor_and_is_reported():
    quiet, loud = 1e-3 * noise(10), np.clip(9 * noise(2, seed=1), -1, 1)
    quiet[80_000:] = 0
    sound = np.concatenate([quiet, loud])
    windowed = audio.model_log_mel(sound, n_mels=80)
    assert (windowed.seconds, windowed.seconds_dropped) == (12.0, 2.0)
    truth = torch_log_mel(sound, n_mels=80)[:1000]
    np.testing.assert_allclose(windowed.log_mel, truth, rtol=0, atol=LOG_MEL_ATOL)
    alone = audio.model_log_mel(sound[:160_000], n_mels=80)
    assert np.abs(alone.log_mel - windowed.log_mel).max() > 0.3


def test_another_window_length():
    windowed = audio.model_log_mel(noise(4), n_mels=80, frames=300)
    assert windowed.log_mel.shape == (300, 80)
    assert windowed.seconds_dropped == pytest.approx(1.0)


def test_samples_that_look_like_a_frame_of_flac_are_samples():
    """Noise is stored as it is, so any bytes may stand in a frame: here a header and its CRC."""
    header = bytes.fromhex("fff88c64425b")  # of 12 bits and 7 channels, far behind the end
    crc = 0
    for byte in header:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 ^ (0x107 if crc & 0x80 else 0)
    samples = np.random.default_rng(0).integers(-32768, 32768, 3200).astype(">i2")
    samples[1600:1604] = np.frombuffer(header + bytes([crc, 0]), ">i2")
    file = io.BytesIO()
    soundfile.write(file, samples.astype(np.int16), 16_000, format="FLAC", subtype="PCM_16")
    assert header + bytes([crc]) in file.getvalue()
    found = audio.load_audio(file.getvalue()).samples
    np.testing.assert_array_equal(found, samples.astype(np.float32) / 32768)
