"""Sixteen classes of sound events: parametric synthesis with wide ranges, General MIDI effects.

Every generator takes ``(rng, n)`` and returns float32 ``[n]`` at 16 kHz with events spread over the
whole length. `event` chooses between the parametric and the sampled version; both carry the same
label.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator

from data_pipelines.mini.audio import midi
from data_pipelines.mini.audio.synthesis import (
    SAMPLE_RATE,
    band_noise,
    bell,
    decay,
    harmonics,
    hump,
    path,
    place,
    resonate,
)

Synth = Callable[[Generator, int], np.ndarray]


def dog(rng: Generator, n: int) -> np.ndarray:
    """Synthesise short barks: a fast arch of pitch through mouth resonances, with breath noise."""
    base = rng.uniform(170, 600)
    mouth = rng.uniform(700, 1500)

    def bark(m: int) -> np.ndarray:
        f0 = (
            base
            * rng.uniform(0.9, 1.1)
            * path(rng.uniform(0.7, 1.0), 1.4, rng.uniform(0.5, 0.8), m=m)
        )
        voiced = harmonics(f0, count=14, slope=0.8) + 0.35 * rng.standard_normal(m)
        return resonate(voiced, (mouth, 2.2 * mouth), width=350) * decay(m, attack=0.012, rate=9)

    gap = rng.uniform(0.28, 0.65)
    return _repeat(rng, n, bark, length=(0.12, 0.26), gap=(gap, gap * 1.3))


def cat(rng: Generator, n: int) -> np.ndarray:
    """Synthesise meows: long harmonic tones that rise and fall while the mouth opens and closes."""
    base = rng.uniform(380, 720)

    def meow(m: int) -> np.ndarray:
        f0 = base * path(0.85, rng.uniform(1.15, 1.4), rng.uniform(0.7, 0.95), m=m)
        f0 = f0 * (1 + 0.015 * np.sin(2 * np.pi * rng.uniform(5, 9) * np.arange(m) / SAMPLE_RATE))
        closed = resonate(harmonics(f0, count=12, slope=1.3), (900,), width=300)
        opened = resonate(harmonics(f0, count=12, slope=0.7), (1500, 2900), width=500)
        mouth = hump(m, 0.45)
        return ((1 - mouth) * closed + 1.4 * mouth * opened) * hump(m, 0.5) ** 0.5

    return _repeat(rng, n, meow, length=(0.6, 1.2), gap=(0.1, 0.5))


def cow(rng: Generator, n: int) -> np.ndarray:
    """Synthesise moos: a long low buzz through a dark throat."""
    base = rng.uniform(85, 160)

    def moo(m: int) -> np.ndarray:
        f0 = base * path(0.8, 1.1, rng.uniform(0.75, 0.95), m=m)
        f0 = f0 * (1 + 0.02 * rng.standard_normal(m // 400 + 2).repeat(400)[:m])
        dark = resonate(harmonics(f0, count=24, slope=0.6), (rng.uniform(250, 400), 750), width=160)
        return dark * hump(m, 0.4) ** 0.4

    return _repeat(rng, n, moo, length=(1.1, 2.0), gap=(0.1, 0.4))


def rooster(rng: Generator, n: int) -> np.ndarray:
    """Synthesise cock-a-doodle-doo: three short loud notes and a long falling one, harsh."""
    base = rng.uniform(480, 800)

    def crow(m: int) -> np.ndarray:
        out = np.zeros(m)
        steps = ((0.0, 0.14, 0.85), (0.17, 0.12, 1.2), (0.31, 0.14, 1.0), (0.47, 0.53, 1.35))
        for start, share, height in steps:
            k = int(share * m)
            f0 = base * height * path(0.85, 1.05, 0.65 if share > 0.5 else 0.9, m=k)
            note = resonate(harmonics(f0, count=10, slope=0.3), (1900, 3000), width=900)
            at = int(start * m)
            out[at : at + k] += note * hump(k, 0.4) ** 0.35
        return out * (1 + 0.25 * rng.standard_normal(m))

    return _repeat(rng, n, crow, length=(1.5, 2.2), gap=(0.15, 0.4))


def frog(rng: Generator, n: int) -> np.ndarray:
    """Synthesise croaks: slow pulse trains ringing in a throat sac."""
    pulses = rng.uniform(28, 65)
    ring = rng.uniform(500, 1500)

    def croak(m: int) -> np.ndarray:
        train = np.zeros(m)
        rate = pulses * path(0.8, 1.0, 1.25, m=m)
        train[np.flatnonzero(np.diff(np.floor(np.cumsum(rate) / SAMPLE_RATE)) > 0)] = 1.0
        return resonate(train, (ring, 2.1 * ring), width=110) * hump(m, 0.6) ** 0.4

    gap = rng.uniform(0.12, 0.4)
    return _repeat(rng, n, croak, length=(0.22, 0.55), gap=(gap, gap * 1.4))


def owl(rng: Generator, n: int) -> np.ndarray:
    """Synthesise hoots: soft, almost pure low tones in a long-short-short-long rhythm."""
    base = rng.uniform(300, 520)
    tremor = rng.uniform(0.0, 0.02)
    rhythm = iter(rng.permutation([0.7, 0.25, 0.25, 0.8]).tolist() * 8)

    def hoot(m: int) -> np.ndarray:
        m = max(2000, int(m * next(rhythm)))
        f0 = base * path(0.94, 1.0, 0.92, m=m)
        f0 = f0 * (1 + tremor * np.sin(2 * np.pi * 11 * np.arange(m) / SAMPLE_RATE))
        return harmonics(f0, count=2, slope=3.2) * hump(m, 0.5) ** 0.7

    return _repeat(rng, n, hoot, length=(0.8, 1.0), gap=(0.15, 0.35))


def bird(rng: Generator, n: int) -> np.ndarray:
    """Synthesise chirps: very fast high frequency sweeps in little groups."""
    center = rng.uniform(2600, 5200)
    shape = rng.uniform(0.75, 1.35, size=3)

    def chirp(m: int) -> np.ndarray:
        f0 = center * path(*(shape * rng.uniform(0.95, 1.05, size=3)), m=m)
        return harmonics(f0, count=1, slope=1.0) * hump(m, 0.4)

    gap = rng.uniform(0.03, 0.14)
    return _repeat(rng, n, chirp, length=(0.04, 0.13), gap=(gap, 2.0 * gap), rest=0.18)


def telephone(rng: Generator, n: int) -> np.ndarray:
    """Synthesise a telephone: a hammer on two small bells, 20 times a second; ring and pause."""
    low = rng.uniform(900, 1600)
    rate = rng.uniform(15, 26)

    def ring(m: int) -> np.ndarray:
        out = np.zeros(m)
        for index, at in enumerate(np.arange(0, m, SAMPLE_RATE / rate).astype(int)):
            k = min(m - at, 2400)
            out[at : at + k] += bell(k, low * (1.0 if index % 2 else 1.19), (1, 2.4, 3.9), rate=14)
        return out

    return _repeat(rng, n, ring, length=(0.7, 1.3), gap=(0.25, 0.6))


def helicopter(rng: Generator, n: int) -> np.ndarray:
    """Synthesise rotor blades: low noise beaten ten to twenty times a second over a turbine."""
    rate = rng.uniform(10, 19)
    phase = rate * np.arange(n) / SAMPLE_RATE + rng.uniform()
    beat = np.exp(-rng.uniform(4, 8) * (phase % 1.0))
    blades = band_noise(rng, n, 40, rng.uniform(350, 900)) * beat
    turbine = band_noise(rng, n, 1200, 3500) * rng.uniform(0.02, 0.08)
    return blades / (np.std(blades) + 1e-9) + turbine / 0.1 * np.std(turbine)


def applause(rng: Generator, n: int) -> np.ndarray:
    """Synthesise many hands: dense random claps, each a short band of noise."""
    out = np.zeros(n + 800)
    claps = [
        band_noise(rng, 800, c, 1.9 * c) * decay(800, attack=0.001, rate=rng.uniform(90, 200))
        for c in rng.uniform(700, 2000, size=12)
    ]
    density = rng.uniform(45, 160)
    for at in rng.integers(0, n, size=int(density * n / SAMPLE_RATE)):
        out[at : at + 800] += rng.uniform(0.2, 1.0) * claps[rng.integers(len(claps))]
    return out[:n]


def gunshots(rng: Generator, n: int) -> np.ndarray:
    """Synthesise shots: a crack of white noise, then a dark rolling tail."""
    tail_rate = rng.uniform(5, 11)

    def shot(m: int) -> np.ndarray:
        crack = rng.standard_normal(m) * decay(m, attack=0.0004, rate=rng.uniform(45, 90))
        tail = band_noise(rng, m, 60, rng.uniform(500, 1200)) * decay(
            m, attack=0.004, rate=tail_rate
        )
        return 1.6 * crack + tail / (np.std(tail) + 1e-9) * 0.12

    gap = rng.uniform(0.0, 0.5)
    return _repeat(rng, n, shot, length=(0.45, 0.8), gap=(gap, gap + 0.25))


def waves(rng: Generator, n: int) -> np.ndarray:
    """Synthesise surf: bright noise that swells every few seconds over a steady low wash."""
    t = np.arange(n) / SAMPLE_RATE
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * (t * rng.uniform(0.22, 0.5) + rng.uniform()))
    wash = band_noise(rng, n, 80, rng.uniform(500, 1000))
    foam = band_noise(rng, n, 500, rng.uniform(3500, 6500))
    return 0.5 * wash / np.std(wash) * (0.4 + swell) + foam / np.std(foam) * swell**1.5


def siren(rng: Generator, n: int) -> np.ndarray:
    """Synthesise an emergency siren: a wail, a yelp or two alternating tones."""
    low, high = rng.uniform(450, 750), rng.uniform(1100, 1600)
    t = np.arange(n) / SAMPLE_RATE
    kind = rng.integers(3)
    rate = (rng.uniform(0.3, 0.6), rng.uniform(2.0, 4.0), rng.uniform(0.8, 1.4))[kind]
    wave = 0.5 - 0.5 * np.cos(2 * np.pi * (rate * t + rng.uniform()))
    if kind == 2:
        wave, high = (wave > 0.5).astype(float), low * rng.uniform(1.25, 1.45)
    f0 = low + (high - low) * wave
    return resonate(harmonics(f0, count=8, slope=0.9), (1300, 2600), width=1200)


def clock(rng: Generator, n: int) -> np.ndarray:
    """Synthesise tick-tock: tiny clicks with two alternating colours at a strict pace."""
    color = rng.uniform(1800, 4200)
    period = rng.uniform(0.22, 0.5)
    out = np.zeros(n + 1600)
    for index, at in enumerate(np.arange(rng.uniform(0, period), n / SAMPLE_RATE, period)):
        c = color * (1.0 if index % 2 else rng.uniform(0.74, 0.76))
        click = bell(1600, c, (1, 1.7, 2.6), rate=160) + 0.4 * bell(1600, 0.3 * c, (1,), rate=90)
        start = int(at * SAMPLE_RATE)
        out[start : start + 1600] += click
    return out[:n]


def church_bell(rng: Generator, n: int) -> np.ndarray:
    """Synthesise a big bell: inharmonic partials that ring for seconds, struck again and again."""
    strike = rng.uniform(220, 520)
    out = np.zeros(n + 4 * SAMPLE_RATE)
    partials = (0.5, 1.0, 1.19, 1.5, 2.0, 2.52, 3.0, 4.1)
    for at in np.arange(0, n, rng.uniform(0.9, 1.7) * SAMPLE_RATE).astype(int):
        k = 4 * SAMPLE_RATE
        out[at : at + k] += bell(k, strike, partials, rate=rng.uniform(1.2, 2.4))
    return out[:n]


def car_horn(rng: Generator, n: int) -> np.ndarray:
    """Synthesise honks: two steady buzzing tones a third apart, hard on and off."""
    low = rng.uniform(320, 480)
    ratio = rng.choice([1.19, 1.25, 1.33])

    def honk(m: int) -> np.ndarray:
        steady = np.ones(m)
        tone = harmonics(low * steady, count=12, slope=0.4)
        tone += harmonics(low * ratio * steady, count=10, slope=0.4)
        gate = np.minimum(1.0, np.minimum(np.arange(m), np.arange(m)[::-1]) / 250.0)
        return resonate(tone, (1500, 2800), width=1500) * gate

    return _repeat(rng, n, honk, length=(0.25, 1.2), gap=(0.08, 0.35))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundClass:
    """A label, its generator, the group it belongs to, and General MIDI `(program, pitches)` if
    there are any.
    """

    label: str
    synth: Synth
    group: str
    program: int | None = None
    pitches: tuple[int, int] = (0, 0)


_CLASSES = (
    SoundClass(label="dog barking", synth=dog, group="animal"),
    SoundClass(label="cat meowing", synth=cat, group="animal"),
    SoundClass(label="cow mooing", synth=cow, group="animal"),
    SoundClass(label="rooster crowing", synth=rooster, group="animal"),
    SoundClass(label="frog croaking", synth=frog, group="animal"),
    SoundClass(label="owl hooting", synth=owl, group="animal"),
    SoundClass(label="bird chirping", synth=bird, group="animal", program=123, pitches=(56, 72)),
    SoundClass(
        label="telephone ringing", synth=telephone, group="device", program=124, pitches=(54, 68)
    ),
    SoundClass(
        label="helicopter", synth=helicopter, group="vehicle", program=125, pitches=(52, 66)
    ),
    SoundClass(label="applause", synth=applause, group="people", program=126, pitches=(54, 68)),
    SoundClass(label="gunshots", synth=gunshots, group="people", program=127, pitches=(50, 66)),
    SoundClass(label="sea waves", synth=waves, group="nature", program=122, pitches=(54, 68)),
    SoundClass(label="siren", synth=siren, group="vehicle"),
    SoundClass(label="clock ticking", synth=clock, group="device"),
    SoundClass(
        label="church bell", synth=church_bell, group="device", program=14, pitches=(50, 66)
    ),
    SoundClass(label="car horn", synth=car_horn, group="vehicle"),
)
SOUNDS = {sound.label: sound for sound in _CLASSES}


def event(label: str, *, rng: Generator, seconds: float, sampled: bool, cache: Path) -> np.ndarray:
    """Synthesise a clip of the class `label`, RMS 1, float32 [C] at 16 kHz; `sampled` asks for the
    General MIDI effect.
    """
    sound, n = SOUNDS[label], round(seconds * SAMPLE_RATE)
    if sampled and sound.program is not None:
        samples = _general_midi(sound, rng, seconds, cache)
    else:
        samples = sound.synth(rng, n)
    return (samples / (np.sqrt(np.mean(samples**2)) + 1e-9)).astype(np.float32)


def _general_midi(sound: SoundClass, rng: Generator, seconds: float, cache: Path) -> np.ndarray:
    length = rng.uniform(0.9, 1.5) if sound.label in ("gunshots", "church bell") else seconds
    pitch = int(rng.integers(*sound.pitches))
    notes = [
        midi.Note(
            channel=0,
            pitch=pitch,
            velocity=int(rng.integers(80, 127)),
            start=float(start),
            length=length,
        )
        for start in np.arange(0.0, seconds - 0.3, length)
    ]
    return midi.render(notes, programs={0: sound.program or 0}, seconds=seconds, cache=cache)


def _repeat(
    rng: Generator,
    n: int,
    event_of: Callable[[int], np.ndarray],
    *,
    length: tuple[float, float],
    gap: tuple[float, float],
    rest: float = 0.0,
) -> np.ndarray:
    """Repeat events of `length` seconds with `gap` seconds between; after each, with probability
    `rest`, a longer pause.
    """
    out = np.zeros(n)
    at = int(rng.uniform(0, 0.12) * SAMPLE_RATE)
    while at < n - 800:
        samples = event_of(int(rng.uniform(*length) * SAMPLE_RATE)) * rng.uniform(0.7, 1.0)
        place(out, samples, at)
        at += len(samples) + int(rng.uniform(*gap) * SAMPLE_RATE)
        if rng.uniform() < rest:
            at += int(rng.uniform(0.15, 0.45) * SAMPLE_RATE)
    return out
