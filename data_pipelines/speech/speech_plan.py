"""Who says what: a plan of speech, of which a longer one has a shorter one as its beginning.

Each sentence is spoken once, by one voice; women and men take turns. No sentence is planned twice,
and no voice on both sides.
"""

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence

from data_pipelines.real.recording_table import TRAIN, VALIDATION
from data_pipelines.speech import spoken_sentences
from data_pipelines.speech.speakers import Speaker
from ltu_jax.core.errors import UserError

SPEEDS = (0.8, 1.25)
_HELD_OUT_EVERY = 5  # one sentence of so many is of the validation side
_LONG = 14  # words of a text that is not spoken slower than the voice's own pace
_TRIES = 1_000  # for a sentence that is not planned yet


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedSpeech:
    """A sentence, who says it and how fast."""

    name: str
    text: str
    speaker: Speaker
    speed: float


def speech_plan(count: int, speakers: Sequence[Speaker], *, seed: int) -> list[PlannedSpeech]:
    """Plan so many sentences.

    Args:
        count: sentences.
        speakers: of one side or both; where a side has none, the other one says everything.
        seed: of all draws.

    Raises:
        UserError: there are not so many different sentences.
    """
    turns = {
        split: _in_turn([one for one in speakers if one.split == split], seed=seed)
        for split in (TRAIN, VALIDATION)
        if any(one.split == split for one in speakers)
    }
    rng, said, planned = random.Random(f"speech-{seed}"), set(), []
    for number in range(count):
        wanted = VALIDATION if number % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1 else TRAIN
        speaker = next(turns[wanted if wanted in turns else next(iter(turns))])
        text = _new_sentence(rng, said)
        slowest = 1.0 if len(text.split()) > _LONG else SPEEDS[0]
        planned.append(
            PlannedSpeech(
                name=f"{number:05d}_{speaker.name}",
                text=text,
                speaker=speaker,
                speed=round(rng.uniform(slowest, SPEEDS[1]), 2),
            )
        )
    return planned


def _new_sentence(rng: random.Random, said: set[str]) -> str:
    for _ in range(_TRIES):
        text = spoken_sentences.sentence(rng)
        if text not in said:
            said.add(text)
            return text
    raise UserError(f"--sentences: there are no more than about {len(said)} different sentences")


def _in_turn(speakers: Sequence[Speaker], *, seed: int) -> Iterator[Speaker]:
    """Yield speakers for ever, in a drawn order, women and men in turn as far as there are both."""
    drawn = random.Random(f"turns-{seed}").sample(list(speakers), len(speakers))
    genders = [
        itertools.cycle(own)
        for gender in dict.fromkeys(one.gender for one in drawn)
        if (own := [one for one in drawn if one.gender == gender])
    ]
    for own in itertools.cycle(genders):
        yield next(own)
