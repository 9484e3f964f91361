"""Open-ended questions about a clip: replies to the prompt of the mini corpus, recorded once.

A clip is asked about as those of Open-ASQA are: the prompt file says what is told of it, what comes
is read as any model's reply, and every pair is judged by the rules. Only the reply is not asked
for: recorded_replies.toml has it, for each set of facts that a clip can have. What is spoken stands
in as `WORDS` in both, so that a reply is of all clips of a class.
"""

import dataclasses
import functools
import json
import tomllib
from collections.abc import Mapping
from importlib import resources

from data_pipelines.mini.audio.sounds import SOUNDS
from data_pipelines.mini.clip_facts import Facts
from data_pipelines.open_asqa import draw
from data_pipelines.open_asqa.merged_rows import OPEN_TASK
from data_pipelines.open_asqa.open_ended.material import KnownClip, material
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer, read_pairs
from data_pipelines.open_asqa.open_ended.pair_rules import ClassNames, PairRules
from data_pipelines.open_asqa.open_ended.prompt_files import prompt_of
from data_pipelines.open_asqa.source_clip import SourceClip
from data_pipelines.records.schema import QAPair
from ltu_jax.core import config

PROMPT = "mini"
WORDS = "<words>"
_FILE = "recorded_replies.toml"
_DRAWN, _DRAWN_OF_SPEECH = 2, 1  # pairs of a clip, of those that its reply has


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedReply:
    """A reply: `asked` is the JSON of the clip in the request."""

    asked: str
    reply: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedReplies:
    """The file of replies.

    Attributes:
        version: raised with any change.
        prompt: name and versions of the prompt that they answer.
        made_by: who wrote them, of what.
        replies: one for each set of facts.
    """

    version: int
    prompt: str
    made_by: str
    replies: tuple[RecordedReply, ...]


@functools.cache
def recorded_replies() -> RecordedReplies:
    """Return what the file of the package holds.

    Raises:
        ConfigError: it answers another prompt than that of today.
    """
    text = resources.files(__package__).joinpath(_FILE).read_text(encoding="utf-8")
    found = config.read(RecordedReplies, tomllib.loads(text), where=_FILE)
    name = prompt_of(PROMPT).name
    if found.prompt != name:
        raise config.ConfigError(
            f"{_FILE} answers the prompt {found.prompt!r}, and prompts/{PROMPT}.toml is {name!r}: "
            "record replies to that one"
        )
    return found


def open_pairs(facts: Facts) -> tuple[QAPair, ...]:
    """Return the pairs of a clip: some of those of its reply that are sound, by a hash."""
    accepted = accepted_pairs(facts)
    count = _DRAWN if facts.sound or facts.music or facts.group else _DRAWN_OF_SPEECH
    chosen = draw.lowest([pair.question for pair in accepted], count, seed=f"mini/{facts.clip_id}")
    return tuple(
        QAPair(
            pair_id=f"open-{number}",
            instruction=pair.question,
            output=pair.answer,
            task=OPEN_TASK,
            closed_ended=False,
        )
        for number, pair in enumerate(pair for pair in accepted if pair.question in chosen)
    )


def accepted_pairs(facts: Facts) -> list[QuestionAnswer]:
    """Return the pairs of a clip's reply that may be used, its own words in their places."""
    known = _known(facts)
    rules = PairRules(known, prompt_of(PROMPT).file, ClassNames(SOUNDS))
    found = [
        QuestionAnswer(pair.question, pair.answer.replace(WORDS, facts.spoken_text))
        for pair in read_pairs(reply_of(facts)).pairs
    ]
    return [pair for pair in found if not rules.problem(pair)]


def reply_of(facts: Facts) -> str:
    """Return the recorded reply about clips of these facts.

    Raises:
        ConfigError: nobody was asked about such clips.
    """
    known = _known(facts)
    if known.spoken_text:
        known = dataclasses.replace(known, spoken_text=WORDS)
    file = prompt_of(PROMPT).file
    asked = material(known, required=file.required, optional=file.optional)
    try:
        return _replies()[_name(asked)]
    except KeyError:
        raise config.ConfigError(
            f"{_FILE} has no reply about {json.dumps(asked)}: record one to the prompt "
            f"{recorded_replies().prompt!r}"
        ) from None


@functools.cache
def _replies() -> Mapping[str, str]:
    return {_name(json.loads(one.asked)): one.reply for one in recorded_replies().replies}


def _name(asked: Mapping[str, object]) -> str:
    return json.dumps(asked, sort_keys=True)


def _known(facts: Facts) -> KnownClip:
    label = facts.sound or ("animal" if facts.group == "animal" else "")
    clip = SourceClip(
        source="mini",
        clip_id=facts.clip_id,
        dataset=f"mini_{facts.kind}",
        files=(facts.clip_id,),
        where="",
        licence="",
        labels=(label,) if label else (),
        gender=facts.gender,
        genres=(facts.music,) if facts.music else (),
    )
    return KnownClip(clip=clip, spoken_text=facts.spoken_text if facts.gender else "")
