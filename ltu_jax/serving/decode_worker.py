"""A process that decodes audio of strangers: what it may take is limited, and no JAX is in it.

It reads requests from stdin and writes replies to where stdout was (all numbers little-endian):

    u64 bytes, f64 most seconds, f64 CPU seconds, then the bytes of a file
    -> b"A", u64 bytes: i64 source rate, i64 source channels, f64 seconds, then float32 samples
    -> b"E" (the audio cannot be used) or b"M" (it needs too much memory), u64 bytes: a text

Before the first request it writes b"R": ready. It ends with its stdin.
"""

import os
import resource
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO

REQUEST = struct.Struct("<Qdd")
REPLY = struct.Struct("<cQ")
SOUND = struct.Struct("<qqd")
READY = b"R"

_SPARE = 128 << 20  # bytes beside the samples: codecs, blocks, resampling
_COPIES = 3  # of the samples, while blocks are joined


def main() -> None:
    """Serve requests until stdin ends."""
    replies = os.fdopen(os.dup(1), "wb")
    silent = os.open(os.devnull, os.O_RDWR)
    os.dup2(silent, 1)  # libraries that print do not reach the protocol, or a log
    os.dup2(silent, 2)
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (0, 0))
    _import_decoders()
    mapped = _mapped_bytes()
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    replies.write(READY)
    replies.flush()
    requests = sys.stdin.buffer
    while head := requests.read(REQUEST.size):
        size, most_seconds, cpu_seconds = REQUEST.unpack(head)
        allowed = mapped + 2 * size + _SPARE + _COPIES * int(most_seconds * 64_000)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, resource.RLIM_INFINITY))
        spent = int(time.process_time() + cpu_seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (spent, resource.RLIM_INFINITY))
        _answer(replies, requests, size=size, most_seconds=most_seconds)


def _answer(replies: BinaryIO, requests: BinaryIO, *, size: int, most_seconds: float) -> None:
    from ltu_jax.preprocessing.audio import AudioError, load_audio

    try:
        audio = load_audio(requests.read(size), max_seconds=most_seconds)
        data = memoryview(audio.samples).cast("B")
        head = SOUND.pack(audio.source_rate, audio.source_channels, audio.seconds)
        kind = b"A"
    except AudioError as error:
        kind, head, data = b"E", b"", str(error).encode(errors="replace")
    except MemoryError:
        kind, head, data = b"M", b"", b""
    replies.write(REPLY.pack(kind, len(head) + len(data)) + head)
    replies.write(data)
    replies.flush()


def _import_decoders() -> None:
    """Decode by every library once: what is first mapped under the limit might not fit."""
    import io

    import numpy as np
    import soundfile

    from ltu_jax.preprocessing.audio import load_audio
    from ltu_jax.preprocessing.formats import ffmpeg

    file = io.BytesIO()
    soundfile.write(file, np.zeros(4410), 44_100, format="WAV")
    load_audio(file.getvalue(), max_seconds=1)
    for sound in ffmpeg.sounds(io.BytesIO(file.getvalue()), name="WAV", format="wav"):
        assert sum(map(len, sound.blocks)) == 4410


def _mapped_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
