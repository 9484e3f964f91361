"""Six kinds of music, composed at random and played by a SoundFont.

Random are key, scale, tempo, chord progression, melody, note lengths, velocities and instruments.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator

from data_pipelines.mini.audio import midi
from data_pipelines.mini.audio.midi import DRUMS, Note

_MAJOR, _MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
_PROGRESSIONS = ((0, 3, 4, 0), (0, 5, 3, 4), (5, 3, 0, 4), (1, 4, 0, 5), (0, 4, 5, 3))
_KICK, _SNARE, _HAT, _CRASH, _RIDE = 36, 38, 42, 49, 51
_Piece = tuple[list[Note], dict[int, int]]


class _Score:
    """Notes on a beat grid in one random key; `chord(bar)` gives the pitches of that bar's triad or
    seventh.
    """

    def __init__(self, rng: Generator, *, bpm: tuple[float, float], seconds: float):
        self.rng = rng
        self.beat = 60.0 / rng.uniform(*bpm)
        self.beats = int(np.ceil(seconds / self.beat)) + 1
        self.tonic = int(rng.integers(55, 67))
        self.scale = _MAJOR if rng.uniform() < 0.6 else _MINOR
        self.progression = _PROGRESSIONS[rng.integers(len(_PROGRESSIONS))]
        self.notes: list[Note] = []

    def degree(self, index: int) -> int:
        octave, step = divmod(int(index), 7)
        return self.tonic + 12 * octave + self.scale[step]

    def chord(self, bar: int, *, size: int = 3) -> list[int]:
        root = self.progression[bar % 4]
        return [self.degree(root + 2 * k) for k in range(size)]

    def add(self, channel: int, pitch: int, beat: float, beats: float, velocity: int) -> None:
        loud = int(np.clip(velocity + self.rng.integers(-8, 9), 20, 127))
        self.notes.append(
            Note(
                channel=channel,
                pitch=int(np.clip(pitch, 24, 108)),
                velocity=loud,
                start=beat * self.beat,
                length=beats * self.beat,
            )
        )

    def melody(self, channel: int, *, steps: tuple[float, ...], octave: int, velocity: int) -> None:
        """Draw a random walk on the scale with note lengths drawn from `steps` (beats)."""
        at, degree = 0.0, int(self.rng.integers(0, 7))
        while at < self.beats:
            length = float(self.rng.choice(steps))
            degree = int(np.clip(degree + self.rng.integers(-2, 3), -2, 10))
            self.add(channel, self.degree(degree) + 12 * octave, at, 0.95 * length, velocity)
            at += length


def piano(rng: Generator, seconds: float) -> _Piece:
    """Compose a melody over broken chords, one grand piano."""
    score = _Score(rng, bpm=(70, 130), seconds=seconds)
    score.melody(0, steps=(0.5, 0.5, 1.0), octave=1, velocity=88)
    for half in range(2 * score.beats):
        tones = score.chord(half // 8)
        score.add(0, tones[(0, 1, 2, 1)[half % 4]] - 12, half / 2, 0.6, 66)
    return score.notes, {0: int(rng.integers(0, 2))}


def strings(rng: Generator, seconds: float) -> _Piece:
    """Compose slow sustained chords of a string ensemble with a violin line and a cello bass."""
    score = _Score(rng, bpm=(55, 85), seconds=seconds)
    for beat in range(0, score.beats, 2):
        tones = score.chord(beat // 2)
        for pitch in tones:
            score.add(0, pitch, beat, 2.1, 84)
        score.add(1, tones[0] - 24, beat, 2.1, 88)
    score.melody(2, steps=(1.0, 2.0), octave=1, velocity=88)
    return score.notes, {0: int(rng.choice([48, 49])), 1: 42, 2: 40}


def rock(rng: Generator, seconds: float) -> _Piece:
    """Compose distorted power chords in eighth notes, electric bass, and a backbeat."""
    score = _Score(rng, bpm=(105, 165), seconds=seconds)
    for half in range(2 * score.beats):
        root = score.chord(half // 8)[0] - 24
        for pitch in (root, root + 7, root + 12):
            score.add(0, pitch, half / 2, 0.48, 104)
        score.add(1, root - 12, half / 2, 0.45, 100)
        score.add(DRUMS, _HAT if half else _CRASH, half / 2, 0.2, 84)
        if half % 4 == 2:
            score.add(DRUMS, _SNARE, half / 2, 0.2, 118)
        elif half % 4 == 0 or rng.uniform() < 0.3:
            score.add(DRUMS, _KICK, half / 2, 0.2, 118)
    return score.notes, {0: int(rng.choice([29, 30])), 1: int(rng.choice([33, 34])), DRUMS: 0}


def jazz(rng: Generator, seconds: float) -> _Piece:
    """Compose walking double bass, swung ride cymbal, seventh chords and a solo over them."""
    score = _Score(rng, bpm=(110, 180), seconds=seconds)
    for beat in range(score.beats):
        tones = score.chord(beat // 4, size=4)
        score.add(0, tones[beat % 4] - 24, beat, 0.9, 100)
        score.add(DRUMS, _RIDE, beat, 0.3, 92)
        if beat % 2:
            score.add(DRUMS, _RIDE, beat + 2 / 3, 0.2, 76)
            score.add(DRUMS, 44, beat, 0.1, 80)
        if rng.uniform() < 0.45:
            for pitch in tones:
                score.add(1, pitch, beat + float(rng.choice([0.0, 2 / 3])), 0.4, 72)
    score.melody(2, steps=(1 / 3, 2 / 3, 1.0), octave=0, velocity=98)
    return score.notes, {
        0: 32,
        1: int(rng.choice([0, 4])),
        2: int(rng.choice([65, 66, 26])),
        DRUMS: 0,
    }


def electronic(rng: Generator, seconds: float) -> _Piece:
    """Compose four-on-the-floor kick, offbeat hats, synthesiser bass and a saw arpeggio."""
    score = _Score(rng, bpm=(118, 142), seconds=seconds)
    pattern = rng.permutation([0, 1, 2, 3, 1, 2, 0, 2])
    for sixteenth in range(4 * score.beats):
        tones = [*score.chord(sixteenth // 16), score.chord(sixteenth // 16)[0] + 12]
        at = sixteenth / 4
        score.add(0, tones[pattern[sixteenth % 8]] + 12, at, 0.22, 92)
        if sixteenth % 4 == 0:
            score.add(DRUMS, _KICK, at, 0.2, 124)
        if sixteenth % 4 == 2:
            score.add(DRUMS, 46, at, 0.2, 92)
            score.add(1, tones[0] - 24, at, 0.4, 112)
    return score.notes, {0: int(rng.choice([80, 81])), 1: int(rng.choice([38, 39])), DRUMS: 0}


def organ(rng: Generator, seconds: float) -> _Piece:
    """Compose a chorale in full chords on a church organ with pedal."""
    score = _Score(rng, bpm=(55, 90), seconds=seconds)
    for beat in range(score.beats):
        tones = score.chord(beat)
        for pitch in (*tones, tones[0] + 12):
            score.add(0, pitch, beat, 1.0, 92)
        score.add(0, tones[0] - 24, beat, 1.0, 96)
    score.melody(0, steps=(0.5, 1.0), octave=1, velocity=88)
    return score.notes, {0: 19}


MUSIC: dict[str, Callable[[Generator, float], _Piece]] = {
    "solo piano": piano,
    "string orchestra": strings,
    "rock band": rock,
    "jazz trio": jazz,
    "electronic dance": electronic,
    "church organ": organ,
}


def piece(label: str, *, rng: Generator, seconds: float, cache: Path) -> np.ndarray:
    """Compose a random piece of the kind `label`: float32 [C] mono at 16 kHz, `seconds` long."""
    notes, programs = MUSIC[label](rng, seconds)
    notes = [note for note in notes if note.start < seconds]
    return midi.render(notes, programs=programs, seconds=seconds, cache=cache)
