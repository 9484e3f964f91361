"""What clips the mini corpus has: a pure function of the seed, before any sample is made.

A plan entry fixes everything that is random about a clip (class, voice, sentence, levels through
its own seed). The splits never share a synthesis seed, a sentence or a source recording, and the
`TEST_ONLY` voices occur in test alone.
"""

import dataclasses
import random
import zlib

from data_pipelines.mini.audio.animals import RECORDINGS
from data_pipelines.mini.audio.music import MUSIC
from data_pipelines.mini.audio.sentences import split_sentences
from data_pipelines.mini.audio.sounds import SOUNDS
from data_pipelines.mini.audio.voices import ESPEAK_TRAIN, NEURAL, TEST_ONLY, VOICES

KINDS = ("sound", "real_sound", "music", "speech", "joint", "unseen_voice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """Clips of every kind in every split; `real_crops` stretches of each real recording."""

    train: dict[str, int]
    val: dict[str, int]
    test: dict[str, int]
    real_crops: int


SIZES = {
    "mini": Size(
        train={"sound": 176, "music": 168, "speech": 160, "espeak": 40, "joint": 310},
        val={"sound": 32, "music": 30, "speech": 20, "joint": 32},
        test={"sound": 64, "music": 66, "speech": 66, "joint": 68, "unseen_voice": 30},
        real_crops=4,
    ),
    "tiny": Size(
        train={"sound": 2, "music": 1, "speech": 2, "espeak": 1, "joint": 2},
        val={"sound": 1, "joint": 1},
        test={"sound": 1, "music": 1, "speech": 1, "joint": 1, "unseen_voice": 1},
        real_crops=0,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedClip:
    """One planned clip; fields that do not apply to its kind are empty."""

    clip_id: str
    split: str
    kind: str
    seed: int
    sound: str = ""
    music: str = ""
    voice: str = ""
    sentence: str = ""
    tempo: str = ""  # "slow", "normal" or "fast": a range, the pace itself is measured later
    level: str = ""  # "quiet", "normal" or "loud"
    sampled: bool = False  # a General MIDI sample instead of parametric synthesis
    recording: str = ""

    @property
    def gender(self) -> str:
        return VOICES[self.voice].gender if self.voice else ""


def make_plan(size: Size, *, seed: int) -> tuple[PlannedClip, ...]:
    """Plan all clips of a corpus of this size; every class, voice, tempo and level in nearly
    equal numbers.
    """
    counts = {split: getattr(size, split) for split in ("train", "val", "test")}
    spoken = ("speech", "espeak", "joint", "unseen_voice")
    sentences = split_sentences(
        {split: sum(count.get(kind, 0) for kind in spoken) for split, count in counts.items()},
        seed=seed,
    )
    entries: list[PlannedClip] = []
    for split, count in counts.items():
        lines = iter(sentences[split])
        for kind in ("sound", "music", "speech", "espeak", "joint", "unseen_voice"):
            entries += _entries(kind, split, count.get(kind, 0), lines=lines, seed=seed)
        entries += _real(split, size.real_crops, seed=seed)
    return tuple(entries)


def _entries(kind: str, split: str, count: int, *, lines, seed: int) -> list[PlannedClip]:
    rng = random.Random(f"plan-{seed}-{split}-{kind}")
    voices = {
        "speech": NEURAL,
        "joint": NEURAL,
        "espeak": ESPEAK_TRAIN,
        "unseen_voice": TEST_ONLY,
    }.get(kind, ())
    sounds = _balanced(rng, tuple(SOUNDS), count) if kind in ("sound", "joint") else None
    kinds_of_music = _balanced(rng, tuple(MUSIC), count) if kind == "music" else None
    speakers = _balanced(rng, voices, count) if voices else None
    # Style needs clips clearly at either end, so the middle is rare where style is asked.
    styled = kind in ("speech", "unseen_voice", "espeak")
    tempos = _balanced(
        rng, ("slow", "fast", "slow", "fast", "normal") if styled else ("normal",), count
    )
    levels = _balanced(
        rng, ("quiet", "loud", "quiet", "loud", "normal") if styled else ("normal",), count
    )
    entries = []
    for index in range(count):
        clip_id = f"{split}-{kind}-{index:04d}"
        entries.append(
            PlannedClip(
                clip_id=clip_id,
                split=split,
                kind="speech" if kind == "espeak" else kind,
                seed=clip_seed(clip_id, seed=seed),
                sound=sounds[index] if sounds else "",
                music=kinds_of_music[index] if kinds_of_music else "",
                voice=speakers[index] if speakers else "",
                sentence=next(lines) if speakers else "",
                tempo=tempos[index] if speakers else "",
                level=levels[index] if speakers else "",
                sampled=bool(
                    sounds and SOUNDS[sounds[index]].program is not None and rng.random() < 0.4
                ),
            )
        )
    return entries


def _real(split: str, crops: int, *, seed: int) -> list[PlannedClip]:
    entries = []
    for recording in RECORDINGS.values():
        if recording.split != split:
            continue
        for index in range(crops * (2 if split == "test" else 1)):
            clip_id = f"{split}-real-{recording.animal}-{index}"
            entries.append(
                PlannedClip(
                    clip_id=clip_id,
                    split=split,
                    kind="real_sound",
                    seed=clip_seed(clip_id, seed=seed),
                    sound=recording.sound or "",
                    recording=recording.animal,
                )
            )
    return entries


def clip_seed(clip_id: str, *, seed: int) -> int:
    """Return the synthesis seed of a clip; ids name the split, so no two splits share one."""
    return zlib.crc32(f"{seed}/{clip_id}".encode())


def _balanced(rng: random.Random, values: tuple[str, ...], count: int) -> list[str]:
    """Return `count` values, each as often as the others (give or take one), in random order."""
    result: list[str] = []
    while len(result) < count:
        result += rng.sample(values, len(values))
    result = result[:count]
    rng.shuffle(result)
    return result
