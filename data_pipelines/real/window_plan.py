"""Plan windows of ten seconds: one to three real sounds, with or without somebody speaking.

A plan is a function of its recordings and seed; whoever plans each side of a split apart has no
recording on both. Short recordings are strung together with gaps, as strokes and steps are; of long
ones a part is cut. `window_mix` makes the samples.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.random import Generator

from data_pipelines.real.recording_table import Recording
from ltu_jax.core.errors import UserError

SECONDS = 10.0
MOST_OF_PACKAGE = 40  # recordings of a class from one package
_DAMAGED = frozenset({"tuxtype_data__buzz"})  # its header states less audio than it has
_SHORT = 1.0  # seconds below which recordings are strung together
_STRING = (3.0, 10.0)  # seconds of such a string
_GAP = (0.05, 0.5)  # seconds between two of a string
_PAUSE = 0.3  # seconds between two times of a recording that is alone
_FAINTER = (-8.0, 0.0)  # dB of a second and third sound against the first
_SPEECH_ABOVE = (0.0, 10.0)  # dB of a voice above the sounds
SILENCE, NOISE = "silence", "noise"  # kinds of windows without events
_STILL = 1 / 3  # of the silent windows that have no sound at all
_LEVELS = {SILENCE: (-75.0, -55.0), NOISE: (-30.0, -6.0)}  # dB of the loudest sample
_OVER = {SILENCE: (40.0, 60.0), NOISE: _SPEECH_ABOVE}  # dB of a voice
_FAMILY = 0.5  # share of absent classes that are drawn from the groups of what is heard
_BIRD = "Bird vocalization, bird call, bird song"
_SAME = (
    "Dog", "Howl", "Cat", "Horse", "Cattle, bovinae", "Pig", "Sheep", "Chicken, rooster", "Duck",
    _BIRD, "Owl", "Insect", "Frog", "Roaring cats (lions, tigers)", "Laughter", "Screaming",
    "Crowd", "Applause", "Walk, footsteps", "Fart", "Wind", "Rain", "Thunder", "Stream", "Ocean",
    "Splash, splatter", "Fire", "Engine", "Traffic noise, roadway noise",
    "Vehicle horn, car horn, honking", "Train", "Siren", "Helicopter", "Door", "Bell", "Alarm",
    "Telephone", "Clock", "Typing", "Hammer", "Sawing", "Power tool", "Mechanisms",
    "Smash, crash", "Explosion", "Gunshot, gunfire", "Music", "Guitar", "Piano", "Organ", "Flute",
    "Saxophone", "Brass instrument", "Mallet percussion", "Accordion", "Choir", "Drum kit",
)  # fmt: skip
_MERGED = {
    "Sheep": ("Goat",),
    _BIRD: ("Crow",),
    "Applause": ("Clapping",),
    "Engine": ("Truck",),
    "Aircraft": ("Aircraft engine", "Jet engine"),
    "Glass": ("Shatter",),
    "Hammer": ("Chop",),
    "Guitar": ("Electric guitar",),
    "Bowed string instrument": ("Violin, fiddle", "Cello"),
    "Drum kit": ("Snare drum", "Bass drum", "Hi-hat", "Cymbal", "Drum", "Tabla", "Tambourine"),
}
# label of a recording -> one of 60 classes
CLASS_OF: Mapping[str, str] = {name: name for name in _SAME} | {
    label: name for name, labels in _MERGED.items() for label in labels
}
CLASSES = tuple(dict.fromkeys(CLASS_OF.values()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundLayer:
    """A sound within a window.

    Attributes:
        clips: recordings that follow each other; one, where it is long enough.
        gaps: seconds before each but the first.
        part: where the part of a longer recording begins: 0 at its start, 1 as late as can be.
        start: seconds into the window.
        decibels: against the first sound.
    """

    clips: tuple[str, ...]
    gaps: tuple[float, ...] = ()
    part: float = 0.0
    start: float = 0.0
    decibels: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseLayer:
    """Noise in which nothing happens.

    Attributes:
        slope: its power falls with frequency to this power: 0 is white, 1 pink, 2 brown.
        decibels: of its loudest sample under full scale, where nobody speaks.
        seed: of its samples.
    """

    slope: int
    decibels: float
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedWindow:
    """Ten seconds of sound.

    Attributes:
        window_id: unique in its plan.
        classes: what is heard, of each layer.
        groups: those of the recordings that have one.
        layers: sounds.
        noise: instead of sounds; None for none.
        speech: name of what is said; "" for nobody.
        speech_start: seconds.
        speech_decibels: of the voice above the sounds.
        clusters: of all recordings.
        ships: whether weights that are given away may rest on all of them.
    """

    window_id: str
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    layers: tuple[SoundLayer, ...]
    noise: NoiseLayer | None = None
    speech: str = ""
    speech_start: float = 0.0
    speech_decibels: float = 0.0
    clusters: tuple[str, ...] = ()
    ships: bool = True


def usable(given: Sequence[Recording], *, seed: int) -> dict[str, list[Recording]]:
    """Return class -> its recordings: trusted ones, at most 40 of a package, in drawn order."""
    found: dict[str, list[Recording]] = {name: [] for name in CLASSES}
    taken: Counter[tuple[str, str]] = Counter()
    for one in sorted(given, key=lambda one: _digest(seed, one.clip)):
        name = CLASS_OF.get(one.label)
        if name is None or one.preset or not one.trusted or one.clip in _DAMAGED:
            continue
        if taken[one.package, name] < MOST_OF_PACKAGE:
            taken[one.package, name] += 1
            found[name].append(one)
    return {name: own for name, own in found.items() if own}


def plan(
    given: Sequence[Recording],
    *,
    of_class: int,
    voices: Mapping[str, float],
    speech: float,
    more: float,
    seed: int,
) -> list[PlannedWindow]:
    """Return so many windows of each class that the recordings have.

    Args:
        given: recordings of one side of a split.
        of_class: windows whose first sound is of a class.
        voices: name -> seconds of what may be said; each is used as often as the others.
        speech: share of the windows in which somebody speaks.
        more: share of the windows with a second sound; half of these have a third.
        seed: of all draws.

    Raises:
        UserError: somebody should speak and nothing is given to say.
    """
    if speech > 0 and not voices:
        raise UserError("voices is empty: give clips of speech, or speech=0")
    by_class = usable(given, seed=seed)
    said = _in_turn(sorted(voices, key=lambda name: _digest(seed, name)))
    windows = []
    for name, own in by_class.items():
        turns = _by_cluster(own)
        for number in range(of_class):
            window_id = f"{name.split(',')[0].replace(' ', '_').lower()}_{number:04d}"
            rng = np.random.default_rng(_digest(seed, window_id))
            sounds = [(name, next(turns))]
            while len(sounds) < 3 and rng.random() < (more if len(sounds) == 1 else 0.5 * more):
                heard = {one.group or label for label, one in sounds}
                sounds += _another(by_class, heard, rng)
            window = _window(window_id, sounds, by_class, rng)
            windows.append(_spoken_over(window, said, voices, rng, speech, _SPEECH_ABOVE))
    return windows


def _spoken_over(
    window: PlannedWindow,
    said: Iterator[str],
    voices: Mapping[str, float],
    rng: Generator,
    share: float,
    above: tuple[float, float],
) -> PlannedWindow:
    """Let somebody speak in a share of windows, so many dB above what else is heard."""
    if rng.random() >= share:
        return window
    spoken = next(said)
    return dataclasses.replace(
        window,
        speech=spoken,
        speech_start=_place(rng, voices[spoken]),
        speech_decibels=round(rng.uniform(*above), 2),
    )


def quiet(
    count: int, *, voices: Mapping[str, float], speech: float, seed: int
) -> dict[str, list[PlannedWindow]]:
    """Return so many windows of silence, and of noise, in which no event is heard.

    A third of the silent ones has no sound at all, the others a hiss that is hardly heard.

    Args:
        count: windows of either kind.
        voices, speech, seed: see `plan`.
    """
    said = _in_turn(sorted(voices, key=lambda name: _digest(seed, f"quiet {name}")))
    made: dict[str, list[PlannedWindow]] = {SILENCE: [], NOISE: []}
    for kind, windows in made.items():
        for number in range(count):
            window_id = f"{kind}_{number:04d}"
            rng = np.random.default_rng(_digest(seed, window_id))
            noise = NoiseLayer(
                slope=int(rng.integers(3)),
                decibels=round(rng.uniform(*_LEVELS[kind]), 2),
                seed=int(rng.integers(1 << 31)),
            )
            still = kind == SILENCE and rng.random() < _STILL
            window = PlannedWindow(
                window_id=window_id, classes=(), groups=(), layers=(),
                noise=None if still else noise,
            )  # fmt: skip
            windows.append(_spoken_over(window, said, voices, rng, speech, _OVER[kind]))
    return made


def alone(given: Sequence[Recording], *, seed: int) -> list[PlannedWindow]:
    """Return one window of each usable recording, of nothing else: what a side is scored on.

    It begins with the window, as a file that somebody asks about does; one under a second comes
    again and again with a gap, as a stroke or a step does, until the window is full.
    """
    windows = []
    for name, own in usable(given, seed=seed).items():
        for one in own:
            times = 1 + int((SECONDS - one.seconds) // (one.seconds + _PAUSE))
            times = max(1, times) if one.seconds < _SHORT else 1
            layer = SoundLayer(clips=(one.clip,) * times, gaps=(_PAUSE,) * (times - 1))
            window_id = f"alone_{one.clip}"
            windows.append(_planned(window_id, [(name, one)], layers=[layer], used=[one]))
    return windows


def spoken(
    given: Sequence[Recording], *, voices: Mapping[str, float], seed: int
) -> list[PlannedWindow]:
    """Return one window of each thing that is said, over a recording: what a side is scored on.

    The classes come in turn, so that each is spoken over as often as another.

    Args:
        given: recordings of one side of a split.
        voices: name -> seconds of what is said.
        seed: of all draws.
    """
    by_class = usable(given, seed=seed)
    turns = {name: _by_cluster(own) for name, own in by_class.items()}
    names = sorted(voices, key=lambda name: _digest(seed, f"spoken {name}"))
    windows = []
    for name, label in zip(names, _in_turn(tuple(by_class)), strict=False):
        window_id = f"spoken_{name}"
        rng = np.random.default_rng(_digest(seed, window_id))
        window = _window(window_id, [(label, next(turns[label]))], by_class, rng)
        windows.append(_spoken_over(window, iter((name,)), voices, rng, 1.0, _SPEECH_ABOVE))
    return windows


class AbsentClasses:
    """Draws classes that a window of a plan lacks: half near by, the others by their frequency.

    What is asked about is thus denied about as often as it is affirmed, in every family, and a
    question alone does not tell the answer.
    """

    def __init__(self, windows: Sequence[PlannedWindow], *, seed: int):
        """Count the classes of a plan."""
        self._seed = seed
        self._frequency = Counter(name for one in windows for name in one.classes)
        self._group = {
            one.classes[0]: one.groups[0] for one in windows if len(one.classes) == 1 and one.groups
        }

    def of(self, window: PlannedWindow, *, count: int) -> list[str]:
        """Return so many classes that are not heard, or all there are."""
        rng = np.random.default_rng(_digest(self._seed, f"absent {window.window_id}"))
        left = [name for name in self._frequency if name not in window.classes]
        chosen: list[str] = []
        while left and len(chosen) < count:
            near = [name for name in left if self._group.get(name) in window.groups]
            pool = near if near and rng.random() < _FAMILY else left
            weights = np.asarray([self._frequency[name] for name in pool], float)
            chosen.append(pool[rng.choice(len(pool), p=weights / weights.sum())])
            left.remove(chosen[-1])
        return chosen


def _window(
    window_id: str,
    sounds: Sequence[tuple[str, Recording]],
    by_class: Mapping[str, Sequence[Recording]],
    rng: Generator,
) -> PlannedWindow:
    layers, used = [], []
    for number, (name, one) in enumerate(sounds):
        decibels = round(rng.uniform(*_FAINTER), 2) if number else 0.0
        layer, own = _layer(one, by_class[name], rng)
        layers.append(dataclasses.replace(layer, decibels=decibels))
        used += own
    return _planned(window_id, sounds, layers=layers, used=used)


def _planned(
    window_id: str,
    sounds: Sequence[tuple[str, Recording]],
    *,
    layers: Sequence[SoundLayer],
    used: Sequence[Recording],
) -> PlannedWindow:
    return PlannedWindow(
        window_id=window_id,
        classes=tuple(dict.fromkeys(name for name, _ in sounds)),
        groups=tuple(dict.fromkeys(one.group for _, one in sounds if one.group)),
        layers=tuple(layers),
        clusters=tuple(dict.fromkeys(one.cluster for one in used)),
        ships=all(one.ships for one in used),
    )


def _layer(
    one: Recording, same: Sequence[Recording], rng: Generator
) -> tuple[SoundLayer, list[Recording]]:
    """Return a recording as it is, or several short ones of its package and class in a string."""
    if one.seconds >= _SHORT:
        start = _place(rng, one.seconds)
        return SoundLayer(clips=(one.clip,), part=round(rng.random(), 4), start=start), [one]
    others = [other for other in same if other.package == one.package and other.seconds < _SHORT]
    length, used, gaps = rng.uniform(*_STRING), [one], []
    reached = one.seconds
    while reached < length:
        gaps.append(round(rng.uniform(*_GAP), 3))
        used.append(others[rng.integers(len(others))])
        reached += gaps[-1] + used[-1].seconds
    clips = tuple(other.clip for other in used)
    return SoundLayer(clips=clips, gaps=tuple(gaps), start=_place(rng, reached)), used


def _place(rng: Generator, seconds: float) -> float:
    return round(rng.uniform(0.0, max(0.0, SECONDS - seconds)), 3)


def _another(
    by_class: Mapping[str, Sequence[Recording]], heard: set[str], rng: Generator
) -> list[tuple[str, Recording]]:
    """Return a sound of a class whose group is not heard yet; none where there is no other."""
    names = [name for name, own in by_class.items() if (own[0].group or name) not in heard]
    if not names:
        return []
    name = names[rng.integers(len(names))]
    return [(name, by_class[name][rng.integers(len(by_class[name]))])]


def _by_cluster(own: Sequence[Recording]) -> Iterator[Recording]:
    """Yield recordings for ever: one of each cluster, then the next of each."""
    clusters: dict[str, list[Recording]] = {}
    for one in own:
        clusters.setdefault(one.cluster, []).append(one)
    turn = 0
    while True:
        for members in clusters.values():
            yield members[turn % len(members)]
        turn += 1


def _in_turn(names: Sequence[str]) -> Iterator[str]:
    while True:
        yield from names


def _digest(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\x1f{name}".encode()).digest()[:8])
