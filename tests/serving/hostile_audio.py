"""Bytes that a stranger may send for audio: nothing, lies, bombs. None is a clip of two seconds."""

import functools
import io
import struct

import numpy as np
import soundfile

from tests.preprocessing.making_audio import wav

MOST_SECONDS = 2.0  # of the table: what is longer is a bomb


@functools.cache
def silence(seconds: float, *, format: str, rate: int = 48_000, **options) -> bytes:
    """Return silence, which packs well."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(int(seconds * rate)), rate, format=format, **options)
    return file.getvalue()


def table() -> dict[str, bytes]:
    """Return each by its name."""
    good = wav(bytes(16_000))
    flac, opus = silence(1, format="FLAC"), silence(1, format="OGG", subtype="OPUS")
    noise = np.random.default_rng(0).bytes(50_000)
    return {
        "nothing": b"",
        "one byte": b"R",
        "text": b"<html>404 not found</html>",
        "a playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "zeros": bytes(100_000),
        "noise": noise,
        "noise behind RIFF": b"RIFF" + noise,
        "noise behind fLaC": b"fLaC" + noise,
        "noise behind OggS": b"OggS" + noise,
        "noise behind ID3": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + noise,
        "noise behind ftyp": b"\0\0\0\x20ftypM4A " + noise,
        "noise behind EBML": b"\x1a\x45\xdf\xa3" + noise,
        "0 s": wav(b""),
        "1 ms": wav(bytes(32)),
        "a WAV cut in its header": good[:30],
        "a WAV cut in its samples": good[: len(good) // 2],
        "a WAV that states 1 GiB": wav(bytes(16_000), size=1 << 30, riff_size=1 << 30),
        "no channels": wav(bytes(16_000), channels=0),
        "65,535 channels": wav(bytes(16_000), channels=65_535, bits=0),
        "rate 0": wav(bytes(16_000), rate=0),
        "rate 4 GHz": wav(bytes(16_000), rate=4_000_000_000),
        "0 bits": wav(bytes(16_000), bits=0),
        "an unknown codec": wav(bytes(16_000), tag=0x7777),
        "not numbers": wav(np.full(16_000, np.nan, "<f4").tobytes(), tag=3, bits=32),
        "huge numbers": wav(np.full(16_000, 1e30, "<f4").tobytes(), tag=3, bits=32),
        "a FLAC bomb": silence(600, format="FLAC"),
        "an Opus bomb": silence(120, format="OGG", subtype="OPUS"),
        "255 channels, a bomb": silence_of_channels(255, seconds=3),
        "a FLAC cut off": flac[: len(flac) - 40],
        "an Opus cut off": opus[: len(opus) // 2],
        "a FLAC that states a day": _stated(flac, 86_400 * 48_000),
    }


def silence_of_channels(channels: int, *, seconds: float) -> bytes:
    """Return 8 kHz of many channels."""
    return wav(bytes(int(seconds * 8_000) * channels), rate=8_000, channels=channels, bits=8)


def _stated(flac: bytes, samples: int) -> bytes:
    """A FLAC whose STREAMINFO states another number of samples (36 bits from byte 21 on)."""
    head = bytearray(flac)
    head[21] = (head[21] & 0xF0) | samples >> 32 & 0x0F
    head[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    return bytes(head)
