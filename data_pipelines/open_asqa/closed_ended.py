"""Closed-ended questions about a clip, with answers in the official forms.

    Labels: A; B; C                     Speech emotion: happy.
    Labels with acoustic features: DESCRIPTION -> A; DESCRIPTION -> B
    Audio caption: TEXT                 Music genre: Folk, Pop.
    Spoken text: TEXT                   The speaker's age is 43.

Wordings are drawn by a hash of seed, clip and task.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from data_pipelines.open_asqa import draw, temporal, window_questions
from data_pipelines.open_asqa.source_clip import SourceClip
from data_pipelines.open_asqa.temporal import Question

PREFIX = "Closed-ended question: "
# Tasks that half of the time begin with `PREFIX`: those about sounds.
_PREFIXED = ("cla_label", "cla_label_des", "caption", "temporal")
STYLE_TASKS = {"pitch": "pitch_cla", "speed": "speed_cla", "volume": "energy_cla"}
SCORE_WORDS = {
    -3: "highly negative", -2: "negative", -1: "weakly negative", 0: "neutral",
    1: "weakly positive", 2: "positive", 3: "highly positive",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedPair:
    """A closed-ended question and its answer; `wording` is a key of wordings.toml and a number."""

    task: str
    question: str
    answer: str
    wording: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipFindings:
    """What is known of a clip beside its metadata.

    Attributes:
        spoken_text: what is asked for as spoken text; "" for no such question.
        style: pitch, speed, volume -> their class; axes without a class are missing.
        descriptions: class -> acoustic descriptions of it.
        absent: classes that are surely not heard; () where the labels are not complete.
        gender_with_emotion: ask for gender and emotion together.
    """

    spoken_text: str = ""
    style: Mapping[str, str] = dataclasses.field(default_factory=dict)
    descriptions: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    absent: Sequence[str] = ()
    gender_with_emotion: bool = False


def closed_pairs(
    clip: SourceClip, findings: ClipFindings, *, tasks: Iterable[str], seed: str
) -> list[ClosedPair]:
    """Return the questions of these tasks that the facts of a clip allow.

    Args:
        clip: what its source says.
        findings: what was measured and transcribed.
        tasks: of the source; `temporal` stands for all temporal ones.
        seed: of the draws.
    """
    names = (seed, clip.source, clip.clip_id)
    wanted = frozenset(tasks)
    pairs = []
    for question in _questions(clip, findings, names):
        group = "temporal" if question.task.startswith("temporal") else question.task
        if group not in wanted:
            continue
        options = draw.wordings()[question.wording]
        number = draw.choose(range(len(options)), *names, question.wording)
        text = options[number].format(**question.values)
        if group in _PREFIXED and draw.fraction(*names, question.wording, "prefix") < 0.5:
            text = PREFIX + text
        pairs.append(
            ClosedPair(
                task=question.task,
                question=text,
                answer=question.answer,
                wording=f"{question.wording}/{number}",
            )
        )
    return pairs


def _questions(
    clip: SourceClip, findings: ClipFindings, names: Sequence[str]
) -> Iterator[Question]:
    def plain(task: str, answer: str) -> Question:
        return Question(task=task, wording=task, answer=answer)

    if clip.labels:
        yield plain("cla_label", f"Labels: {'; '.join(clip.labels)}")
        if all(findings.descriptions.get(label) for label in clip.labels):
            described = (
                f"{draw.choose(findings.descriptions[label], *names, label)} -> {label}"
                for label in clip.labels
            )
            yield plain("cla_label_des", f"Labels with acoustic features: {'; '.join(described)}")
    for caption in clip.captions:
        yield plain("caption", f"Audio caption: {caption}")
    if clip.events is not None:
        yield from temporal.questions(clip.events, absent=findings.absent, names=names)
    if clip.window_kind:
        yield from window_questions.questions(clip, spoken_text=findings.spoken_text, names=names)
    if clip.genres:
        yield plain("genre_cla", f"Music genre: {', '.join(clip.genres)}.")
    yield from map(lambda pair: plain(*pair), _about_speaker(clip, findings))


def _about_speaker(clip: SourceClip, findings: ClipFindings) -> Iterator[tuple[str, str]]:
    """Yield (task, answer) of the questions about a speaker."""
    if clip.gender:
        if findings.gender_with_emotion and clip.emotion:
            yield (
                "gender_emotion_cla",
                f"Speaker gender: {clip.gender}. Speech emotion: {clip.emotion}.",
            )
        else:
            yield "gender_cla", f"Speaker gender: {clip.gender}."
    if clip.age is not None:
        yield "age_cla", f"The speaker's age is {clip.age}."
    for axis, task in STYLE_TASKS.items():
        if axis in findings.style:
            yield task, f"Speech {axis}: {findings.style[axis]}."
    if clip.emotion:
        yield "emotion_cla", f"Speech emotion: {clip.emotion}."
    if clip.negative is not None:
        polarity = "negative" if clip.negative else "non-negative"
        yield "emotion_bin", f"Sentiment polarity: {polarity}."
    if clip.score is not None:
        yield "emotion_score", f"Sentiment score: {clip.score}."
        if clip.emotion:
            yield (
                "emotion_detail",
                f"{clip.emotion.capitalize()}, with a sentiment score of {clip.score} "
                f"({SCORE_WORDS[clip.score]}).",
            )
    if findings.spoken_text:
        yield "ASR", f"Spoken text: {findings.spoken_text}"
