"""From a file to its sounds: the format is found by structure and given to who reads it."""

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

import soundfile

from ltu_jax.preprocessing.formats import (
    boxes,
    ffmpeg,
    flac,
    libsndfile,
    mpeg,
    ogg,
    pcm,
    riff,
    tags,
)
from ltu_jax.preprocessing.formats.sound import AudioError, Sound
from ltu_jax.preprocessing.formats.splice import Content

_HEAD = 65_536  # bytes looked at for text
_BY_STRUCTURE = ("MP3", "WAV", "WAVEX", "RF64", "FLAC", "OGG")  # found before libsndfile looks


def sounds(stream: BinaryIO, *, name: str) -> Iterator[Sound]:
    """The sounds of a file, one behind the other; each is decoded as its blocks are taken.

    Raises:
        AudioError: not audio, of an unknown kind, damaged, cut off.
    """
    content = Content(stream)
    start = tags.skip(content, 0)
    if start >= content.size and start:
        raise AudioError(
            f"{name}: cut off in its tags: they state {start} bytes, the file has {content.size}; "
            "copy or download it again"
        )
    if not start:
        _refuse_text(content.at(0, _HEAD), name=name)
    if not content.at(start, 4).strip(b"\0") and not boxes.format_of(content, start):
        start = tags.skip(content, start + content.zeros(start))
        if start >= content.size:
            raise AudioError(f"{name}: holds nothing but zeros; copy or record it again")
    head = content.at(start, 16)
    if head.startswith(b"fLaC"):
        return _flac(content, start, name=name)
    if riff.is_wav(content, start):
        return _wav(content, start, name=name)
    if head.startswith(b"OggS"):
        return _ogg(content, start, name=name)
    format = boxes.format_of(content, start) or boxes.format_of(content, 0)
    if format is None and (begin := mpeg.begins_at(content, start)) is not None:
        return mpeg.sounds(content, begin, name=name)
    return _other(content, start, format=format, name=name)


def _flac(content: Content, start: int, *, name: str) -> Iterator[Sound]:
    end = tags.begin_of_trailers(content, start=start)
    part = content.part((start, end))
    if flac.length_is_unsure(content, start, end):
        yield from ffmpeg.sounds(part, name=name, format="flac", length_is_known=False)
        return
    if (start, end) == (0, content.size):
        part = content.stream
        part.seek(0)
    try:
        yield from libsndfile.decode(part, name=name)
    except soundfile.LibsndfileError:  # more than 24 bits, or damaged, which FFmpeg says
        part = content.part((start, end))
        yield from ffmpeg.sounds(part, name=name, format="flac", length_is_known=True)


def _wav(content: Content, start: int, *, name: str) -> Iterator[Sound]:
    wav = riff.parse(content, start, name=name)
    if wav.tag in riff.MPEG:
        part = Content(content.part(wav.data))
        if (begin := mpeg.begins_at(part, 0)) is not None:
            yield from mpeg.sounds(part, begin, name=name)
            return
    pieces = wav.pieces()
    try:
        yield from libsndfile.decode(content.part(*pieces), name=name)
    except soundfile.LibsndfileError:
        yield from ffmpeg.sounds(content.part(*pieces), name=name, format="wav")


def _ogg(content: Content, start: int, *, name: str) -> Iterator[Sound]:
    end = tags.begin_of_trailers(content, start=start)
    for link in ogg.links(content, start, end, name=name):
        with contextlib.suppress(soundfile.LibsndfileError):
            if link.streams == 1:
                part = content.part((link.start, link.end))
                yield from libsndfile.decode(part, name=name)
                continue
        part = content.part((link.start, link.end))
        yield from ffmpeg.sounds(part, name=name, format="ogg", length_is_known=False)


def _other(content: Content, start: int, *, format: str | None, name: str) -> Iterator[Sound]:
    """By libsndfile; what it does not know, by FFmpeg if its structure says what it is."""
    pcm.check_all_stated(content, start, name=name)
    try:
        part = content.part((start, content.size))
        yield from libsndfile.decode(part, name=name, unless=_BY_STRUCTURE)
        return
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
    if format is None:
        raise AudioError(
            f"{name}: not audio of a known format ({reason}). If it should be wav, flac, mp3, ogg, "
            "m4a or the like, it is damaged: copy it again; if it is another, convert it to wav"
        )
    boxes.check_complete(content, start, format, name=name)
    yield from ffmpeg.sounds(
        content.part((start, content.size)), name=name, format=format,
        length_is_known=format in boxes.STATES_LENGTH,
    )  # fmt: skip


def _refuse_text(head: bytes, *, name: str) -> None:
    """Refuse text with a sound's name (a git-lfs pointer, an error page), showing its beginning."""
    if not any(byte < 32 and byte not in b"\t\n\r" for byte in head):
        start = head.decode("utf-8", errors="replace")[:40]
        raise AudioError(
            f"{name}: is text, not audio (it begins {start!r}); download or export the audio again"
        )
