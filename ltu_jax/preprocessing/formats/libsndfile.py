"""Decoding by libsndfile, and what it notices without saying so."""

import re
from collections.abc import Container, Iterator
from typing import BinaryIO

import numpy as np
import soundfile

from ltu_jax.preprocessing.formats.sound import AudioError, Sound, is_lost

_BLOCK = 1 << 20  # values decoded at once
# Vorbis and Opus have the centre second and the low frequencies last (Vorbis I, 4.3.9): where the
# channels of WAV's order stand there. libsndfile leaves them as they are.
_FROM_VORBIS = {
    3: [0, 2, 1],
    5: [0, 2, 1, 3, 4],
    6: [0, 2, 1, 5, 3, 4],
    7: [0, 2, 1, 6, 5, 3, 4],
    8: [0, 2, 1, 7, 5, 6, 3, 4],
}
_UNKNOWN = 2**62  # a length beyond this is "not stated"
_STREAMED = 0x7FFF_0000  # a program that writes to a pipe says 0 or about 2 or 4 GiB
_SIZES = re.compile(
    r"^ *(?:data|SSND|BODY|Data Size|Riff size|riff|Data length)\b[ :]*(\d+) \(?should be (\d+)",
    re.MULTILINE,
)
_BROKEN = re.compile(
    r"^(?:Ogg : )?(File ended unexpectedly.*|Skipped \d+ bytes.*|.*file seems to be truncated.*"
    r"|Seems to be a truncated file.*)",
    re.MULTILINE | re.IGNORECASE,
)


def decode(
    stream: BinaryIO, *, name: str, stated: int | None = None, unless: Container[str] = ()
) -> Iterator[Sound]:
    """The one sound of a file; `stated` replaces the length in its header.

    Raises:
        AudioError: libsndfile takes it for one of the formats `unless`; damaged, cut off.
        soundfile.LibsndfileError: libsndfile does not know the file; nothing was decoded.
    """
    with soundfile.SoundFile(stream) as file:
        if file.format in unless:
            raise AudioError(
                f"{name}: damaged {file.format}: nothing in it has the structure of one; "
                "copy or download it again"
            )
        _refuse_damaged(file.extra_info, name=name)
        if stated is None and file.frames < _UNKNOWN:
            stated = file.frames
        yield Sound(
            rate=file.samplerate,
            channels=file.channels,
            stated=stated,
            sure=stated is not None,
            blocks=_blocks(file, stated=stated or 0, name=name),
        )


def length(stream: BinaryIO) -> int:
    """Samples that libsndfile takes a file for, before it has decoded any; 0 if it knows it not."""
    try:
        with soundfile.SoundFile(stream) as file:
            return file.frames
    except soundfile.LibsndfileError:
        return 0
    finally:
        stream.seek(0)


def _blocks(file: soundfile.SoundFile, *, stated: int, name: str) -> Iterator[np.ndarray]:
    got, rate = 0, max(file.samplerate, 1)
    ogg = file.format == "OGG" and file.subtype in ("VORBIS", "OPUS")
    order = _FROM_VORBIS.get(file.channels) if ogg else None
    try:
        while len(block := file.read(_BLOCK // file.channels, dtype="float32", always_2d=True)):
            got += len(block)
            yield block if order is None else block[:, order]
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: damaged after {got / rate:.2f} s ({error.error_string}); "
            "copy or download it again"
        ) from error
    if is_lost(stated - got, of=stated, rate=rate):
        raise AudioError(
            f"{name}: damaged or cut off: {got / rate:.2f} s of {stated / rate:.2f} s could be "
            "decoded; copy or download it again"
        )


def _refuse_damaged(log: str, *, name: str) -> None:
    """Refuse what libsndfile noticed while opening but reads on without an error."""
    for sizes in _SIZES.finditer(log):
        stated, there = int(sizes[1]), int(sizes[2])
        if there < stated < _STREAMED and is_lost(stated - there, of=stated, rate=np.inf):
            raise AudioError(
                f"{name}: cut off: {there} of {stated} bytes of audio; copy or download it again"
            )
    if broken := _BROKEN.search(log):
        reason = broken[1].strip().rstrip(".")
        raise AudioError(f"{name}: damaged or cut off ({reason}); copy or download it again")
