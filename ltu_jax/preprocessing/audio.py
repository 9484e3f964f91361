"""Decoding, resampling, Whisper's log-mel (the same numbers in numpy and in jax), the window rule.

Log-mel follows openai/whisper `audio.py`; the window rule is LTU-AS's: log-mel of the whole clip,
so that its loudest moment sets the floor even when it lies behind the window; the first `frames`
frames; 0.0 after the end of a short clip.
"""

import functools
import io
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
import soundfile
import soxr

from ltu_jax.core.axes import Array, Float
from ltu_jax.core.errors import UserError

SAMPLE_RATE = 16_000
HOP = 160  # samples from one log-mel frame to the next: 10 ms
_WINDOW = 400  # samples of one Fourier window: 25 ms
_TRANSCRIBE_PADDING = 30 * SAMPLE_RATE
_FRAMES_AT_ONCE = 4096  # log-mel of a long clip is made in blocks of this, to bound memory

_MIN_RATE, _MAX_RATE = 1_000, 1_000_000
_LOUDEST = 100.0  # full scale is 1; beyond this the floats are integers in disguise, or garbage
_LOST_SHARE = 0.01  # a decoder may drop its padding; more than this missing is a damaged file
_UNREAD_SHARE = 0.05  # tags may follow the audio; more than this is audio that was not decoded
_FFMPEG_SECONDS = 600  # time limit of a conversion
_HEAD = 65_536  # bytes looked at for text and for an MP3's length tag
_MP3_LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")

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


class AudioError(UserError):
    """Audio that cannot be used: the message names the file, what is wrong and the fix."""


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

    wav, flac, mp3 and ogg go through libsndfile, other formats through ffmpeg if it is installed.
    Two channels are averaged, 3 to 8 mixed by ITU-R BS.775, more averaged; other rates are
    resampled by soxr (HQ). Decoding runs in blocks and stops at `max_seconds`, whatever the header
    says. Raises AudioError: missing, empty, not audio, damaged or cut off, shorter than 10 ms,
    longer than `max_seconds`, samples that are not numbers in about -1..1.
    """
    if isinstance(source, bytes):
        if not source:
            raise AudioError("<bytes>: empty (0 bytes); send the contents of an audio file")
        return _decode(io.BytesIO(source), name="<bytes>", max_seconds=max_seconds)
    path = Path(source)
    if path.is_dir():
        raise AudioError(f"{path}: is a folder; name one audio file in it")
    if not path.exists():
        raise AudioError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise AudioError(f"{path}: not a regular file; name an audio file")
    if not os.access(path, os.R_OK):
        raise AudioError(f"{path}: may not be read; change its permissions")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: empty (0 bytes); copy or record it again")
    if path.suffix.lower() in (".raw", ".pcm"):
        # libsndfile would ask for the rate and the sample format, which nobody knows here.
        raise AudioError(f"{path}: samples without a header, rate unknown; convert it to wav")
    with path.open("rb") as stream:
        return _decode(stream, name=str(path), max_seconds=max_seconds)


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
    return collector.finish()


class _Collector:
    """Takes decoded blocks, checks, mixes and resamples them, and gives the Audio."""

    def __init__(self, *, name: str, rate: int, channels: int, max_seconds: float):
        if not _MIN_RATE <= rate <= _MAX_RATE:
            raise AudioError(
                f"{name}: sample rate {rate} Hz is outside {_MIN_RATE}..{_MAX_RATE}; "
                "the header may be damaged, export the file again"
            )
        if channels < 1:
            raise AudioError(f"{name}: holds no channels; export it again")
        self.name, self.rate, self.channels, self.max_seconds = name, rate, channels, max_seconds
        self.frames = 0
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
        if frames > self.max_seconds * self.rate:
            raise AudioError(
                f"{self.name}: lasts at least {frames / self.rate:.1f} s; the limit is "
                f"{self.max_seconds:g} s. Cut it into shorter files, or raise max_seconds"
            )

    def finish(self) -> Audio:
        if self._resampler is not None:
            self._blocks.append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        samples = np.concatenate([np.zeros(0, np.float32), *self._blocks])
        if self.frames == 0:
            raise AudioError(f"{self.name}: holds no audio (0 s); record or export it again")
        if len(samples) < HOP:
            raise AudioError(
                f"{self.name}: lasts {1000 * self.frames / self.rate:.1f} ms; "
                "at least 10 ms of audio are needed, record a longer clip"
            )
        return Audio(
            samples=samples,
            source_rate=self.rate,
            source_channels=self.channels,
            seconds=len(samples) / SAMPLE_RATE,
        )


def _decode(stream: BinaryIO, *, name: str, max_seconds: float) -> Audio:
    head = stream.read(_HEAD)
    stream.seek(0)
    try:
        file = soundfile.SoundFile(stream)
    except soundfile.LibsndfileError as error:
        _refuse_text(head, name=name)
        reason = error.error_string.strip().rstrip(".")
        return _decode_by_ffmpeg(stream, name=name, max_seconds=max_seconds, reason=reason)
    with file:
        # Without one of these tags libsndfile guesses the length of an MP3 from its first frame.
        guessed = file.format == "MP3" and not any(tag in head for tag in _MP3_LENGTH_TAGS)
        promised = None if guessed else file.frames
        clip = _decode_opened(file, promised=promised, name=name, max_seconds=max_seconds)
        used, size = stream.tell(), stream.seek(0, os.SEEK_END)
    if file.format in ("MP3", "OGG") and used < (1 - _UNREAD_SHARE) * size:
        raise AudioError(
            f"{name}: goes on after the {clip.seconds:.2f} s that libsndfile decodes "
            "(files joined together?); convert it to wav"
        )
    return clip


def _decode_opened(
    file: soundfile.SoundFile, *, promised: int | None, name: str, max_seconds: float
) -> Audio:
    """Decode in blocks; `promised` is the number of frames that the header states, if it does."""
    if file.frames >= 2**62:
        raise AudioError(
            f"{name}: does not state its length (written to a pipe?); convert it to wav"
        )
    collector = _Collector(
        name=name, rate=file.samplerate, channels=file.channels, max_seconds=max_seconds
    )
    collector.check_length(promised or 0)
    _refuse_damaged(file.extra_info, name=name)
    try:
        while len(block := file.read(2**20 // file.channels, dtype="float32", always_2d=True)):
            collector.add(block)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: damaged after {collector.frames / collector.rate:.2f} s "
            f"({error.error_string}); copy or download it again"
        ) from error
    if collector.frames < (1 - _LOST_SHARE) * (promised or 0):
        raise AudioError(
            f"{name}: damaged or cut off: {collector.frames / collector.rate:.2f} s of "
            f"{promised / collector.rate:.2f} s could be decoded; copy or download it again"
        )
    return collector.finish()


def _refuse_damaged(log: str, *, name: str) -> None:
    """Refuse what libsndfile noticed while opening but reads on without an error."""
    sizes = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    # A program writing a WAV to a pipe cannot know its size and says 0 or about 2 or 4 GiB.
    if sizes and int(sizes[1]) < 0x7FFF_0000 and int(sizes[2]) < (1 - _LOST_SHARE) * int(sizes[1]):
        raise AudioError(
            f"{name}: cut off: {sizes[2]} of {sizes[1]} bytes of audio; copy or download it again"
        )
    broken = re.search(r"^Ogg : (File ended unexpectedly.*|Skipped \d+ bytes.*)", log, re.MULTILINE)
    if broken:
        reason = broken[1].strip().rstrip(".")
        raise AudioError(f"{name}: damaged or cut off ({reason}); copy or download it again")


def _refuse_text(head: bytes, *, name: str) -> None:
    """Refuse text with a sound's name (a git-lfs pointer, an error page), showing its beginning."""
    if not any(byte < 32 and byte not in b"\t\n\r" for byte in head):
        start = head.decode("utf-8", errors="replace")[:40]
        raise AudioError(
            f"{name}: is text, not audio (it begins {start!r}); download or export the audio again"
        )


def _decode_by_ffmpeg(stream: BinaryIO, *, name: str, max_seconds: float, reason: str) -> Audio:
    """Let ffmpeg rewrite the first audio stream as Wave64, same rate and channels; decode that."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise AudioError(
            f"{name}: not wav, flac, mp3 or ogg ({reason}). If it is another format "
            "(m4a, webm, wma, ...), install ffmpeg or convert it to wav; if not, it is damaged"
        )
    with tempfile.TemporaryDirectory(prefix="ltu_jax_audio_") as folder:
        if isinstance(stream, io.BytesIO):
            given = Path(folder) / "source"
            given.write_bytes(stream.getvalue())
        else:
            given = Path(stream.name).resolve()
        converted = Path(folder) / "converted.w64"
        # Only local files: a playlist must not make ffmpeg open addresses. One second more than
        # the limit is enough to notice that the clip is too long.
        command = [ffmpeg, "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe"]
        command += ["-i", f"file:{given}", "-map", "0:a:0", "-t", f"{max_seconds + 1:g}"]
        command += ["-c:a", "pcm_f32le", "-f", "w64", str(converted)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_FFMPEG_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise AudioError(
                f"{name}: ffmpeg did not finish in {_FFMPEG_SECONDS} s; convert it to wav"
            ) from error
        if done.returncode:
            detail = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise AudioError(f"{name}: not audio, or damaged; ffmpeg says: {detail}")
        with soundfile.SoundFile(converted) as file:
            return _decode_opened(file, promised=file.frames, name=name, max_seconds=max_seconds)


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
def _hann() -> np.ndarray:
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)).astype(np.float32)
    window.setflags(write=False)
    return window


def _check_samples(samples: np.ndarray | Array) -> int:
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
    filters, out = mel_filters(n_mels).T, np.empty((frames, n_mels), np.float32)
    for start in range(0, frames, _FRAMES_AT_ONCE):
        spectrum = np.fft.rfft(windows[start : start + _FRAMES_AT_ONCE] * _hann())
        out[start : start + _FRAMES_AT_ONCE] = (spectrum.real**2 + spectrum.imag**2) @ filters
    np.log10(np.maximum(out, 1e-10, out=out), out=out)
    np.maximum(out, out.max() - 8, out=out)
    return (out + 4) / 4


def log_mel_jax(samples: Float[Array, "C"], *, n_mels: int) -> Float[Array, "F M"]:
    """Return the numbers of `log_mel`, float32 [C // 160, M]; pure, for `jax.jit`."""
    frames = _check_samples(samples)
    padded = jnp.pad(samples.astype(jnp.float32), _WINDOW // 2, mode="reflect")
    windows = padded[HOP * jnp.arange(frames)[:, None] + jnp.arange(_WINDOW)]
    spectrum = jnp.fft.rfft(windows * _hann())
    power = spectrum.real**2 + spectrum.imag**2
    # The default precision of a TPU's products is bfloat16: too coarse under a logarithm.
    mels = jnp.matmul(power, mel_filters(n_mels).T, precision=jax.lax.Precision.HIGHEST)
    logs = jnp.log10(jnp.maximum(mels, 1e-10))
    return (jnp.maximum(logs, logs.max() - 8) + 4) / 4


@dataclass(frozen=True, kw_only=True)
class Windowed:
    """What the model hears: `log_mel` float32 [frames, M]; the clip's and the dropped seconds."""

    log_mel: np.ndarray
    seconds: float
    seconds_dropped: float


def window(log_mel: Float[np.ndarray, "F M"], *, frames: int = 1000) -> Float[np.ndarray, "_ M"]:
    """Return the first `frames` frames, with 0.0 (silence is -1.5) after a shorter clip."""
    out = np.zeros((frames, log_mel.shape[1]), np.float32)
    out[: len(log_mel)] = log_mel[:frames]
    return out


def model_log_mel(samples: Float[np.ndarray, "C"], *, n_mels: int, frames: int = 1000) -> Windowed:
    """Return LTU-AS's input: log-mel of the whole clip, cut or filled to `frames` (1000 = 10 s)."""
    seconds = len(samples) / SAMPLE_RATE
    heard = frames * HOP / SAMPLE_RATE
    return Windowed(
        log_mel=window(log_mel(samples, n_mels=n_mels), frames=frames),
        seconds=seconds,
        seconds_dropped=max(0.0, seconds - heard),
    )


def transcribe_log_mel(samples: Float[np.ndarray, "C"], *, n_mels: int) -> Float[np.ndarray, "F M"]:
    """Return Whisper's own input: log-mel of the clip and 30 s of silence, [C // 160 + 3000, M].

    The 30 s segment from frame s is [s : s + 3000], as in openai/whisper `transcribe.py`; a clip of
    at most 30 s needs [:3000] only.
    """
    return log_mel(np.pad(np.asarray(samples, np.float32), (0, _TRANSCRIBE_PADDING)), n_mels=n_mels)
