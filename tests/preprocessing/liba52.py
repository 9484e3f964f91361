"""AC-3 by liba52, through ctypes: a decoder that shares nothing with FFmpeg's."""

import ctypes
import ctypes.util

import numpy as np

CHANNELS = {1: 1, 2: 2}  # A52_MONO, A52_STEREO -> channels
BLOCKS = 6  # of a frame, 256 samples each


def library() -> ctypes.CDLL | None:
    """Return liba52 (Debian: liba52-0.7.4), or None where it is not installed."""
    name = ctypes.util.find_library("a52-0.7.4") or ctypes.util.find_library("a52")
    if name is None:
        return None
    a52 = ctypes.CDLL(name)
    a52.a52_init.restype = a52.a52_samples.restype = ctypes.c_void_p
    a52.a52_init.argtypes = [ctypes.c_uint32]
    a52.a52_samples.argtypes = a52.a52_block.argtypes = a52.a52_free.argtypes = [ctypes.c_void_p]
    pointer = ctypes.POINTER(ctypes.c_int)
    a52.a52_syncinfo.argtypes = [ctypes.c_char_p, pointer, pointer, pointer]
    return a52


def decode(a52: ctypes.CDLL, content: bytes) -> tuple[np.ndarray, int]:
    """Decode a raw AC-3 stream of one or two channels into [frames, channels] and its rate."""
    flags, rate, bits = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    a52.a52_frame.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int),
        ctypes.POINTER(ctypes.c_float), ctypes.c_float,
    ]  # fmt: skip
    state = a52.a52_init(0)
    samples = (ctypes.c_float * (256 * 12)).from_address(a52.a52_samples(state))
    blocks, at = [], 0
    while at + 7 <= len(content):
        frame = content[at:]
        size = a52.a52_syncinfo(frame, flags, rate, bits)
        assert size, f"no frame at byte {at}"
        level = ctypes.c_float(1.0)
        assert a52.a52_frame(state, frame, flags, level, 0.0) == 0
        for _ in range(BLOCKS):
            assert a52.a52_block(state) == 0
            channels = CHANNELS[flags.value & 15]
            block = np.array(samples[: 256 * channels], np.float32)
            blocks.append(block.reshape(channels, 256).T)
        at += size
    a52.a52_free(state)
    return np.concatenate(blocks), rate.value
