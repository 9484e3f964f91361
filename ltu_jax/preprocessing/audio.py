"""Decoding, resampling, Whisper's log-mel, the window rule.

Log-mel follows openai/whisper `audio.py`; the window rule is LTU-AS's: log-mel of the whole clip,
so that its loudest moment sets the floor even when it lies behind the window; the first `frames`
frames; 0.0 after the end of a short clip.
"""

import functools
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soxr

from ltu_jax.core.axes import Float
from ltu_jax.core.paths import local_only
from ltu_jax.preprocessing.formats.decode import sounds
from ltu_jax.preprocessing.formats.sound import AudioError
from ltu_jax.preprocessing.names import find_audio

SAMPLE_RATE = 16_000
HOP = 160  # samples from one log-mel frame to the next: 10 ms
CLIP_FRAMES = 1000  # log-mel frames that LTU-AS takes of a clip: 10 s
_WINDOW = 400  # samples of one Fourier window: 25 ms
_TRANSCRIBE_PADDING = 30 * SAMPLE_RATE
_FRAMES_AT_ONCE = 4096  # log-mel of a long clip is made in blocks of this, to bound memory

_MIN_RATE, _MAX_RATE = 1_000, 1_000_000
_LOUDEST = 100.0  # full scale is 1; beyond this the floats are integers in disguise, or garbage

# ITU-R BS.775 downmix for the channel orders of WAV and FLAC (RFC 9639): front left, front right,
# centre, low frequency (left out), back, side. ffmpeg, and so the official code, does the same; a
# plain mean would let the surround channels carry what a listener does not hear.
_C, _S = 2**0.5, 0.5**0.5
_DOWNMIX = {
    3: (1, 1, _C),
    4: (1, 1, _S, _S),
    5: (1, 1, _C, _S, _S),
    6: (1, 1, _C, 0, _S, _S),
    7: (1, 1, _C, 0, 1, _S, _S),
    8: (1, 1, _C, 0, _S, _S, _S, _S),
}


@dataclass(frozen=True, kw_only=True)
class Audio:
    """A decoded clip: `samples` float32 [C], 16 kHz mono; what the source was; its length."""

    samples: np.ndarray
    source_rate: int
    source_channels: int
    seconds: float


# --- decoding -------------------------------------------------------------------------------------


def load_audio(source: str | Path | bytes, *, max_seconds: float = 10_800) -> Audio:
    """Decode a file, or the bytes of one, to 16 kHz mono float32.

    The format is found by its structure (`formats.decode`): libsndfile reads wav, flac, mp3, ogg,
    aiff, au and others, FFmpeg's libraries (PyAV) m4a, mp4, webm, mka, aac, wma and others, of
    which the default audio track is taken. Files joined together are read to the end.
    Two channels are averaged, 3 to 8 mixed by ITU-R BS.775, more averaged; other rates are
    resampled by soxr (HQ). Decoding runs in blocks and stops at `max_seconds`, whatever the header
    says. Raises AudioError: missing, empty, not audio, damaged or cut off, shorter than 10 ms,
    longer than `max_seconds`, samples that are not numbers in about -1..1.
    """
    if isinstance(source, bytes):
        if not source:
            raise AudioError("<bytes>: empty (0 bytes); send the contents of an audio file")
        return _decode(io.BytesIO(source), name="<bytes>", max_seconds=max_seconds)
    path = _checked(source)
    with path.open("rb") as stream:
        return _decode(stream, name=str(path), max_seconds=max_seconds)


def _checked(source: str | Path) -> Path:
    """The file that is meant, which can be read; AudioError where there is none."""
    path = local_only(source, option="audio")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder; name one audio file in it")
    if not path.exists():
        file = find_audio(path)
        if file is None:
            raise AudioError(f"{path}: no such file; check the path")
        path = file
    if not path.is_file():
        raise AudioError(f"{path}: not a regular file; name an audio file")
    if not os.access(path, os.R_OK):
        raise AudioError(f"{path}: may not be read; change its permissions")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: empty (0 bytes); copy or record it again")
    if path.suffix.lower() in (".raw", ".pcm"):
        # libsndfile would ask for the rate and the sample format, which nobody knows here.
        raise AudioError(f"{path}: samples without a header, rate unknown; convert it to wav")
    return path


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a file holds, without its samples: those of its first sound; its length in all."""

    rate: int
    channels: int
    seconds: float


def probe(path: str | Path) -> Shape:
    """What `load_audio` would find; decoded only where the file does not state its length.

    Raises:
        AudioError: what can be seen to be wrong without decoding.
    """
    path = _checked(path)
    with path.open("rb") as stream:
        first, seconds = None, 0.0
        for sound in sounds(stream, name=str(path)):
            first = first or sound
            frames = sound.stated if sound.sure else sum(len(block) for block in sound.blocks)
            seconds += frames / sound.rate
    if first is None or seconds == 0:
        raise AudioError(f"{path}: holds no audio (0 s); record or export it again")
    return Shape(rate=first.rate, channels=first.channels, seconds=seconds)


def content(samples: Float[np.ndarray, "C"]) -> bytes:
    """Return a hash of 16 kHz mono samples as 16-bit: one for all lossless files of a recording."""
    rounded = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    return hashlib.blake2b(rounded.tobytes(), digest_size=16).digest()


def from_samples(samples: Float[np.ndarray, "C *channels"], *, rate: int, name: str) -> Audio:
    """Make an Audio of floats in memory, [C] or [C, channels]; errors call the clip `name`."""
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"{name}: samples are {samples.dtype} {list(samples.shape)}; "
            "pass floats in -1..1 of shape [samples] or [samples, channels]"
        )
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    collector = _Collector(name=name, rate=rate, channels=channels, max_seconds=np.inf)
    collector.add(samples.reshape(-1, channels))
    return _audio([collector], name=name)


class _Collector:
    """Takes decoded blocks, checks, mixes and resamples them, and gives the Audio."""

    def __init__(
        self, *, name: str, rate: int, channels: int, max_seconds: float, before: float = 0.0
    ):
        if not _MIN_RATE <= rate <= _MAX_RATE:
            raise AudioError(
                f"{name}: sample rate {rate} Hz is outside {_MIN_RATE}..{_MAX_RATE}; "
                "the header may be damaged, export the file again"
            )
        if channels < 1:
            raise AudioError(f"{name}: holds no channels; export it again")
        self.name, self.rate, self.channels, self.max_seconds = name, rate, channels, max_seconds
        self.frames, self._before = 0, before  # seconds of the same file in front
        weights = np.asarray(_DOWNMIX.get(channels, (1,) * channels), np.float32)
        self._weights = weights / weights.sum()
        self._resampler = None
        if rate != SAMPLE_RATE:
            self._resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        self._blocks: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Take a block [frames, channels]."""
        block = np.asarray(block, np.float32)
        if not np.isfinite(block).all():
            frame, channel = np.argwhere(~np.isfinite(block))[0]
            raise AudioError(
                f"{self.name}: sample {self.frames + frame} of channel {channel} is "
                f"{block[frame, channel]}, not a number in -1..1; export the file again"
            )
        peak = float(np.abs(block).max(initial=0))
        if peak > _LOUDEST:
            raise AudioError(
                f"{self.name}: samples reach {peak:g}; divide by full scale to bring them to -1..1"
            )
        self.frames += len(block)
        self.check_length(self.frames)
        mono = block[:, 0] if self.channels == 1 else block @ self._weights
        if self._resampler is not None:
            mono = self._resampler.resample_chunk(mono)
        self._blocks.append(mono)

    def check_length(self, frames: int) -> None:
        """Refuse more than `max_seconds`: before decoding (the header) and during (what came)."""
        if frames > (self.max_seconds - self._before) * self.rate:
            raise AudioError(
                f"{self.name}: lasts at least {self._before + frames / self.rate:.1f} s; the limit "
                f"is {self.max_seconds:g} s. Cut it into shorter files, or raise max_seconds"
            )

    def finish(self) -> np.ndarray:
        """Return what came as 16 kHz mono."""
        if self._resampler is not None:
            self._blocks.append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        return np.concatenate([np.zeros(0, np.float32), *self._blocks])


def _audio(parts: list[_Collector], *, name: str) -> Audio:
    """The parts of a file, one behind the other; rate and channels are those of the first."""
    seconds = sum(part.frames / part.rate for part in parts)
    if seconds == 0:
        raise AudioError(f"{name}: holds no audio (0 s); record or export it again")
    pieces = [part.finish() for part in parts]
    samples = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    if len(samples) < HOP:
        raise AudioError(
            f"{name}: lasts {1000 * seconds:.1f} ms; "
            "at least 10 ms of audio are needed, record a longer clip"
        )
    return Audio(
        samples=samples,
        source_rate=parts[0].rate,
        source_channels=parts[0].channels,
        seconds=len(samples) / SAMPLE_RATE,
    )


def _decode(stream: BinaryIO, *, name: str, max_seconds: float) -> Audio:
    parts: list[_Collector] = []
    seconds = 0.0
    for sound in sounds(stream, name=name):
        part = _Collector(
            name=name,
            rate=sound.rate,
            channels=sound.channels,
            max_seconds=max_seconds,
            before=seconds,
        )
        part.check_length(sound.stated or 0)
        for block in sound.blocks:
            part.add(block)
        seconds += part.frames / part.rate
        parts.append(part)
    return _audio(parts, name=name)


# --- log-mel --------------------------------------------------------------------------------------


@functools.cache
def mel_filters(n_mels: int) -> Float[np.ndarray, "M bins"]:
    """Return the triangular filters of Slaney's auditory toolbox, area-normalised, float32.

    The same as librosa.filters.mel(sr=16000, n_fft=400, n_mels=M), which Whisper's files hold.
    """
    step, knee = 200 / 3, 1000.0  # Hz per mel below the knee; logarithmic above
    log_step = np.log(6.4) / 27
    top = knee / step + np.log(SAMPLE_RATE / 2 / knee) / log_step
    mels = np.linspace(0, top, n_mels + 2)
    above = knee * np.exp(log_step * (mels - knee / step))
    edges = np.where(mels < knee / step, mels * step, above)
    bins = np.linspace(0, SAMPLE_RATE / 2, _WINDOW // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    filters = (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    filters.setflags(write=False)  # the cache hands out one array
    return filters


@functools.cache
def _sparse_filters(n_mels: int) -> Any:
    """Return the filters, of which 1 number in 40 is not zero, as `scipy.sparse` rows.

    A product with them adds in one order on every CPU. BLAS has another one for each kernel, and
    with some kernels for each number of its threads, which also spin at the next core's expense.
    """
    from scipy import sparse

    return sparse.csr_array(mel_filters(n_mels))


@functools.cache
def _hann() -> np.ndarray:
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)).astype(np.float32)
    window.setflags(write=False)
    return window


def _check_samples(samples: np.ndarray) -> int:
    """Return the number of log-mel frames; AudioError on a wrong shape or not one frame."""
    if samples.ndim != 1 or len(samples) < HOP:
        raise AudioError(
            f"samples have shape {list(samples.shape)}; log-mel needs one channel, {HOP} or more"
        )
    return len(samples) // HOP


def log_mel(samples: Float[np.ndarray, "C"], *, n_mels: int) -> Float[np.ndarray, "F M"]:
    """Return Whisper's log-mel of the whole clip: float32 [C // 160, M], about -1.5 to 1.5.

    25 ms Hann windows every 10 ms of the reflect-padded clip, without the last one; power, Slaney
    filters, log10, a floor 8 below the clip's own maximum, then (x + 4) / 4.
    """
    frames = _check_samples(samples)
    padded = np.pad(np.asarray(samples, np.float32), _WINDOW // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP][:frames]
    filters, out = _sparse_filters(n_mels), np.empty((frames, n_mels), np.float32)
    for start in range(0, frames, _FRAMES_AT_ONCE):
        spectrum = np.fft.rfft(windows[start : start + _FRAMES_AT_ONCE] * _hann())
        power = spectrum.real**2 + spectrum.imag**2
        out[start : start + _FRAMES_AT_ONCE] = (filters @ power.T).T
    np.log10(np.maximum(out, 1e-10, out=out), out=out)
    np.maximum(out, out.max() - 8, out=out)
    return (out + 4) / 4


@dataclass(frozen=True, kw_only=True)
class Windowed:
    """What the model hears: `log_mel` float32 [frames, M]; the clip's and the dropped seconds."""

    log_mel: np.ndarray
    seconds: float
    seconds_dropped: float


def window(
    log_mel: Float[np.ndarray, "F M"], *, frames: int = CLIP_FRAMES
) -> Float[np.ndarray, "_ M"]:
    """Return the first `frames` frames, with 0.0 (silence is -1.5) after a shorter clip."""
    out = np.zeros((frames, log_mel.shape[1]), np.float32)
    out[: len(log_mel)] = log_mel[:frames]
    return out


def model_log_mel(
    samples: Float[np.ndarray, "C"], *, n_mels: int, frames: int = CLIP_FRAMES
) -> Windowed:
    """Return LTU-AS's input: log-mel of the whole clip, cut or filled to `frames`."""
    seconds = len(samples) / SAMPLE_RATE
    window_seconds = frames * HOP / SAMPLE_RATE
    return Windowed(
        log_mel=window(log_mel(samples, n_mels=n_mels), frames=frames),
        seconds=seconds,
        seconds_dropped=max(0.0, seconds - window_seconds),
    )


def transcribe_log_mel(samples: Float[np.ndarray, "C"], *, n_mels: int) -> Float[np.ndarray, "F M"]:
    """Return Whisper's own input: log-mel of the clip and 30 s of silence, [C // 160 + 3000, M].

    The 30 s segment from frame s is [s : s + 3000], as in openai/whisper `transcribe.py`; a clip of
    at most 30 s needs [:3000] only.
    """
    return log_mel(np.pad(np.asarray(samples, np.float32), (0, _TRANSCRIBE_PADDING)), n_mels=n_mels)
