"""The one record specification: a clip and its question-answer pairs, with validation.

Writers (``manifests``, ``mini``, ``records.write``) and readers (``input.pipeline``) share
these two dataclasses, so a field exists in every place or in none. The official Open-ASQA JSON
record ``{instruction, input, audio_id, dataset, task, output}`` is one (clip, pair) of this form.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError

SPLITS = ("train", "val", "test")
LEAST_RATE, MOST_RATE = 1000, 384_000  # Hz
UNKNOWN_LICENCE = "unknown"  # of a source that names none

# Names of the official JSON record (facts: Open-ASQA), in the official order.
OFFICIAL_FIELDS = ("instruction", "input", "audio_id", "dataset", "task", "output")

# A task is closed-ended when its answer is a label in a sentence; open-ended answers are free
# prose.
OPEN_ENDED_PREFIX = "open"


class RecordError(UserError):
    """A clip or pair that breaks the record specification; the message names record and field."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QAPair:
    """One question and its answer about a clip.

    ``pair_id`` is unique within the clip; ``task`` is the official free-form task name (such as
    ``"cla_sound"``); ``closed_ended`` tells curriculum stages 1 and 2 (closed only) from stage 3.
    """

    pair_id: str
    instruction: str
    output: str
    task: str
    closed_ended: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnotatedClip:
    """One audio clip with everything that is asked about it.

    ``audio`` is the encoded file's bytes (FLAC, wav, ...) or the path of the file; ``sample_rate``
    in Hz and ``seconds`` describe the decoded audio; ``spoken_text`` is Whisper's transcript (""
    when none); ``tags`` are the label names the tagging stage learns.
    """

    clip_id: str
    audio: bytes | Path
    sample_rate: int
    seconds: float
    spoken_text: str
    dataset: str
    split: str
    synthetic: bool
    tags: tuple[str, ...]
    pairs: tuple[QAPair, ...]


def audio_bytes(clip: AnnotatedClip) -> bytes:
    """Read the encoded audio file of `clip`; raises `RecordError` when it cannot be read."""
    if isinstance(clip.audio, bytes):
        return clip.audio
    try:
        return Path(clip.audio).read_bytes()
    except OSError as error:
        raise RecordError(
            f"clip {clip.clip_id!r}: field 'audio': cannot read {clip.audio}: {error.strerror}; "
            "restore the file or remove the clip"
        ) from error


def is_closed_ended(task: str) -> bool:
    """Return whether a task name is closed-ended: not marked as open-ended."""
    return not task.startswith(OPEN_ENDED_PREFIX)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


_TEXT = "give non-empty text"
_CLIP_RULES = (  # field, test, fix
    ("clip_id", _is_text, _TEXT),
    (
        "audio",
        lambda value: isinstance(value, Path) or (isinstance(value, bytes) and value != b""),
        "give the bytes of an audio file, or a Path",
    ),
    (
        "sample_rate",
        lambda value: type(value) is int and LEAST_RATE <= value <= MOST_RATE,
        f"give whole Hz between {LEAST_RATE} and {MOST_RATE}",
    ),
    (
        "seconds",
        lambda value: isinstance(value, float) and 0.0 < value < float("inf"),
        "give the positive, finite length of the audio as a float",
    ),
    ("spoken_text", lambda value: isinstance(value, str), 'give text ("" for none)'),
    ("dataset", _is_text, _TEXT),
    ("split", lambda value: value in SPLITS, f"use one of {', '.join(SPLITS)}"),
    ("synthetic", lambda value: isinstance(value, bool), "give true or false"),
    (
        "tags",
        lambda value: isinstance(value, tuple) and all(map(_is_text, value)),
        "give a tuple of label names",
    ),
    ("tags", lambda value: len(set(value)) == len(value), "name every label once"),
    ("pairs", lambda value: isinstance(value, tuple), "give a tuple of QAPair"),
)
_PAIR_RULES = (
    *((field, _is_text, _TEXT) for field in ("pair_id", "instruction", "output", "task")),
    ("closed_ended", lambda value: isinstance(value, bool), "give true or false"),
)


def validate(clip: AnnotatedClip, *, where: str | None = None) -> AnnotatedClip:
    """Return `clip` unchanged; `RecordError` names `where`, the field, its value and the fix."""
    where = where or f"clip {clip.clip_id!r}"
    _apply(_CLIP_RULES, clip, where)
    seen: set[str] = set()
    for pair in clip.pairs:
        validate_pair(pair, where=f"{where}, pair {pair.pair_id!r}")
        if pair.pair_id in seen:
            raise RecordError(
                f"{where}: field 'pairs.pair_id' is {pair.pair_id!r}: use an id once per clip"
            )
        seen.add(pair.pair_id)
    return clip


def validate_pair(pair: QAPair, *, where: str) -> QAPair:
    """Return `pair` unchanged, or raise `RecordError` naming `where` and the field."""
    _apply(_PAIR_RULES, pair, where)
    return pair


def _apply(rules: Iterable[tuple[str, Callable, str]], record: Any, where: str) -> None:
    for field, holds, fix in rules:
        value = getattr(record, field)
        if not holds(value):
            raise RecordError(f"{where}: field {field!r} is {value!r}: {fix}")
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                check_unicode(text, field=field, where=where)


def check_unicode(text: str, *, field: str, where: str) -> None:
    """Raise `RecordError` for half characters, which JSON can say and no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f"{where}: field {field!r} is not Unicode ({error}): mend it") from error


def official(clip: AnnotatedClip, pair: QAPair, *, audio_id: str) -> dict[str, str]:
    """Make the official Open-ASQA record of one pair, keys in the official order."""
    values = (pair.instruction, clip.spoken_text, audio_id, clip.dataset, pair.task, pair.output)
    return dict(zip(OFFICIAL_FIELDS, values, strict=True))
