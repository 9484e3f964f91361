"""Decoding by FFmpeg's libraries, as PyAV brings them: what libsndfile cannot read.

A file may be hostile. The format is decided here, by its structure, and FFmpeg gets no other; it
sees one stream of bytes, and may open nothing else: no address, no other file, no playlist. Only
audio codecs are ever set up, streams are counted, and blocks are handed on as they are decoded.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from ltu_jax.preprocessing.formats.sound import AudioError, Sound, is_lost

# Formats of one file without references to others, by FFmpeg's names.
FORMATS = (
    "aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "dts", "eac3", "flac", "flv",
    "loas", "matroska", "mov", "mp3", "mpc", "mpc8", "mpeg", "mpegts", "ogg", "tak", "tta", "w64",
    "wav", "wv",
)  # fmt: skip
_CODECS = (
    "aac", "aac_latm", "ac3", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "adpcm_swf", "alac",
    "amrnb", "amrwb", "ape", "dca", "eac3", "flac", "gsm", "gsm_ms", "libgsm", "libgsm_ms",
    "libopencore_amrnb", "libopencore_amrwb", "libopus", "libspeex", "libvorbis", "mace3", "mace6",
    "mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "mpc7", "mpc8", "nellymoser", "opus",
    "pcm_alaw", "pcm_bluray", "pcm_dvd", "pcm_f32be", "pcm_f32le", "pcm_f64be", "pcm_f64le",
    "pcm_mulaw", "pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s24le", "pcm_s32be", "pcm_s32le",
    "pcm_s8", "pcm_u8", "qdm2", "qdmc", "speex", "tak", "truehd", "tta", "vorbis", "wavpack",
    "wmalossless", "wmapro", "wmav1", "wmav2", "wmavoice",
)  # fmt: skip
_MOST_STREAMS = 32
_TIMEOUT = 60  # seconds for opening, and for one packet


def sounds(
    stream: BinaryIO, *, name: str, format: str, length_is_known: bool = True
) -> Iterator[Sound]:
    """The audio track of a file: the one marked as default, else the first.

    `stream` has no name that FFmpeg could go by; `format` is one of FORMATS. A change of rate or
    channels begins another sound. Where `length_is_known`, less than the track's stated length is
    an error.
    """
    assert format in FORMATS, format
    av = _library(name)
    try:
        container = av.open(
            stream, mode="r", format=format, io_open=_refuse_to_open,
            container_options={
                "format_whitelist": _format_names(av, format), "protocol_whitelist": "none",
                "codec_whitelist": ",".join(_CODECS), "max_streams": str(_MOST_STREAMS),
            },
            metadata_errors="replace", timeout=_TIMEOUT,
        )  # fmt: skip
    except (av.FFmpegError, ValueError, OSError) as error:
        raise AudioError(
            f"{name}: damaged, or no {format} after all ({_reason(error)}); "
            "copy or download it again"
        ) from error
    with container:
        track = _track(container, name=name)
        stated = None
        if length_is_known and track.duration and track.time_base:
            stated = float(track.duration * track.time_base)
            if container.duration and container.duration > 0:  # after cuts ("edit lists")
                stated = min(stated, container.duration / av.time_base)
        yield from _split(_frames(av, container, track, name=name), stated=stated, name=name)


def _library(name: str) -> ModuleType:
    try:
        import av
        import av.error
    except ImportError as error:
        raise AudioError(f"{name}: needs PyAV ({error}); run: pip install av") from error
    return av


def _format_names(av: ModuleType, format: str) -> str:
    return f"{format},{av.ContainerFormat(format, 'r').name}"


def _refuse_to_open(url: str, *_: Any) -> None:
    raise PermissionError(f"a file that names another ({url!r}) is not followed")


def _track(container: Any, *, name: str) -> Any:
    tracks = [track for track in container.streams if track.type == "audio"]
    known = [track for track in tracks if track.codec_context is not None]
    known = [track for track in known if track.codec_context.codec.name in _CODECS]
    if not tracks:
        kinds = ", ".join(sorted({track.type or "unknown" for track in container.streams}))
        raise AudioError(f"{name}: holds no audio track (only: {kinds or 'nothing'})")
    if not known:
        codecs = ", ".join(sorted({_codec(track) for track in tracks}))
        raise AudioError(
            f"{name}: its audio is {codecs}, which is not read; convert it to wav or flac"
        )
    marked = [track for track in known if track.disposition.value & 1]
    return (marked or known)[0]


def _codec(track: Any) -> str:
    context = track.codec_context
    return "of an unknown codec" if context is None else context.codec.name


def _frames(av: ModuleType, container: Any, track: Any, *, name: str) -> Iterator[Any]:
    """Decoded frames; AudioError where a packet is damaged or cut off."""
    done = 0.0
    if track.codec_context.codec.name == "flac":  # whose frames have a checksum
        track.codec_context.options = {"err_detect": "crccheck+explode"}
    packets = container.demux(track)
    while True:
        try:
            packet = next(packets, None)
            frames = [] if packet is None or packet.is_corrupt else packet.decode()
        except (av.FFmpegError, ValueError, OSError) as error:
            raise AudioError(
                f"{name}: damaged after {done:.2f} s ({_reason(error)}); copy or download it again"
            ) from error
        if packet is None:
            return
        if packet.is_corrupt:
            raise AudioError(
                f"{name}: damaged or cut off after {done:.2f} s; copy or download it again"
            )
        for frame in frames:
            if frame.sample_rate > 0:
                done += frame.samples / frame.sample_rate
            yield frame


def _split(frames: Iterator[Any], *, stated: float | None, name: str) -> Iterator[Sound]:
    """One sound for each run of frames with the same rate and channels."""
    waiting: list[Any] = [next(frames, None)]
    seconds = [0.0]

    def run(rate: int, channels: int) -> Iterator[np.ndarray]:
        while (frame := waiting[0]) is not None:
            if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                return
            seconds[0] += frame.samples / rate
            if frame.samples:
                yield _samples(frame, channels=channels)
            waiting[0] = next(frames, None)
        if stated is not None and is_lost(stated - seconds[0], of=stated, rate=1):
            raise AudioError(
                f"{name}: damaged or cut off: {seconds[0]:.2f} s of {stated:.2f} s could be "
                "decoded; copy or download it again"
            )

    while (frame := waiting[0]) is not None:
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        if rate < 1 or channels < 1:
            raise AudioError(f"{name}: damaged: a rate of {rate} Hz, {channels} channels")
        left = None if stated is None else round((stated - seconds[0]) * rate)
        blocks = run(rate, channels)
        yield Sound(rate=rate, channels=channels, stated=left, sure=False, blocks=blocks)
        for _ in blocks:  # what was not taken lies in front of the next sound
            pass


def _samples(frame: Any, *, channels: int) -> np.ndarray:
    """float32 [frames, channels], integers divided by full scale."""
    array = frame.to_ndarray()
    block = array.T if frame.format.is_planar else array.reshape(-1, channels)
    if block.dtype == np.uint8:
        return (block.astype(np.float32) - 128) / 128
    if np.issubdtype(block.dtype, np.integer):
        return (block / -float(np.iinfo(block.dtype).min)).astype(np.float32)
    return block.astype(np.float32)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.strip().rstrip(".")
