"""A minimal MIDI writer and SoundFont rendering through the pinned `midirenderer` package."""

import dataclasses
import functools
import importlib
import io
import struct
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ltu_jax.sources import packages

SAMPLE_RATE = 16_000
DRUMS = 9  # General MIDI percussion channel
_TICKS_PER_SECOND = 960  # 480 ticks per quarter note at 120 quarter notes per minute


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
    """MIDI `channel` 0-15, `pitch` and `velocity` 0-127, `start` and `length` in seconds."""

    channel: int
    pitch: int
    velocity: int
    start: float
    length: float


def midi_bytes(notes: list[Note], *, programs: dict[int, int], seconds: float) -> bytes:
    """Write a MIDI file (format 0) with `programs[channel]` as instruments, lasting `seconds`."""
    events: list[tuple[int, int, bytes]] = []  # (tick, order within a tick, message)
    for channel, program in programs.items():
        events.append((0, 0, bytes([0xC0 | channel, program])))
    for note in notes:
        start = round(note.start * _TICKS_PER_SECOND)
        end = max(start + 1, round((note.start + note.length) * _TICKS_PER_SECOND))
        events.append((start, 2, bytes([0x90 | note.channel, note.pitch, note.velocity])))
        events.append((end, 1, bytes([0x80 | note.channel, note.pitch, 0])))
    events.sort()
    track, now = bytearray(b"\x00\xff\x51\x03" + (500_000).to_bytes(3, "big")), 0
    for tick, _, message in events:
        track += _variable_length(tick - now) + message
        now = tick
    end = max(now, round(seconds * _TICKS_PER_SECOND))
    track += _variable_length(end - now) + b"\xff\x2f\x00"
    return (
        b"MThd"
        + struct.pack(">IHHH", 6, 0, 1, 480)
        + b"MTrk"
        + struct.pack(">I", len(track))
        + track
    )


def render(
    notes: list[Note], *, programs: dict[int, int], seconds: float, cache: Path
) -> np.ndarray:
    """Play `notes` with TimGM6mb.sf2: float32 mono at 16 kHz, exactly `seconds` long."""
    renderer, soundfont = _renderer(Path(cache))
    wave = renderer.render_wave_from(
        soundfont, midi_bytes(notes, programs=programs, seconds=seconds + 0.5)
    )
    samples, rate = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE).astype(np.float32)
    length = round(seconds * SAMPLE_RATE)
    return np.pad(mono, (0, max(0, length - len(mono))))[:length]


@functools.cache
def _renderer(cache: Path):
    import_from(packages.root("midirenderer", cache=cache))
    module = importlib.import_module("midirenderer")
    soundfont = packages.root("pretty_midi", cache=cache) / "pretty_midi" / "TimGM6mb.sf2"
    return module, soundfont.read_bytes()


def import_from(folder: Path) -> None:
    """Let Python import the modules of an unpacked package."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _variable_length(value: int) -> bytes:
    out = bytes([value & 0x7F])
    while value := value >> 7:
        out = bytes([0x80 | (value & 0x7F)]) + out
    return out
