"""The one record specification: a clip and its question-answer pairs, with validation.

Writers (``manifests``, ``mini``, ``records.write``) and readers (``input.pipeline``) share
these two dataclasses, so a field exists in every place or in none. The official Open-ASQA JSON
record ``{instruction, input, audio_id, dataset, task, output}`` is one (clip, pair) of this form.
"""

import dataclasses
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


def validate(clip: AnnotatedClip, *, where: str | None = None) -> AnnotatedClip:
    """Return `clip` unchanged, or raise `RecordError` naming `where`, the field, its value and the
    fix.
    """
    where = where or f"clip {clip.clip_id!r}"
    _text(clip.clip_id, "clip_id", where)
    if isinstance(clip.audio, bytes):
        _require(len(clip.audio) > 0, where, "audio", b"", "give the bytes of an audio file")
    else:
        _require(isinstance(clip.audio, Path), where, "audio", clip.audio, "give bytes or a Path")
    _require(
        _whole(clip.sample_rate) and LEAST_RATE <= clip.sample_rate <= MOST_RATE,
        where, "sample_rate", clip.sample_rate,
        f"give whole Hz between {LEAST_RATE} and {MOST_RATE}",
    )  # fmt: skip
    _require(
        isinstance(clip.seconds, float) and 0.0 < clip.seconds < float("inf"),
        where, "seconds", clip.seconds, "give the positive, finite length of the audio as a float",
    )  # fmt: skip
    _require(
        isinstance(clip.spoken_text, str),
        where,
        "spoken_text",
        clip.spoken_text,
        'give text ("" for none)',
    )
    check_unicode(clip.spoken_text, field="spoken_text", where=where)
    _text(clip.dataset, "dataset", where)
    _require(clip.split in SPLITS, where, "split", clip.split, f"use one of {', '.join(SPLITS)}")
    _require(
        isinstance(clip.synthetic, bool), where, "synthetic", clip.synthetic, "give true or false"
    )
    _require(isinstance(clip.tags, tuple), where, "tags", clip.tags, "give a tuple of label names")
    for tag in clip.tags:
        _text(tag, "tags", where)
    _require(
        len(set(clip.tags)) == len(clip.tags), where, "tags", clip.tags, "name every label once"
    )
    _require(isinstance(clip.pairs, tuple), where, "pairs", clip.pairs, "give a tuple of Pair")
    seen: set[str] = set()
    for pair in clip.pairs:
        validate_pair(pair, where=f"{where}, pair {pair.pair_id!r}")
        _require(
            pair.pair_id not in seen,
            where,
            "pairs.pair_id",
            pair.pair_id,
            "use an id once per clip",
        )
        seen.add(pair.pair_id)
    return clip


def validate_pair(pair: QAPair, *, where: str) -> QAPair:
    """Return `pair` unchanged, or raise `RecordError` naming `where` and the field."""
    for field in ("pair_id", "instruction", "output", "task"):
        _text(getattr(pair, field), field, where)
    _require(
        isinstance(pair.closed_ended, bool),
        where,
        "closed_ended",
        pair.closed_ended,
        "give true or false",
    )
    return pair


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


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: Any, field: str, where: str) -> None:
    _require(
        isinstance(value, str) and value.strip() != "", where, field, value, "give non-empty text"
    )
    check_unicode(value, field=field, where=where)


def _require(ok: bool, where: str, field: str, value: Any, fix: str) -> None:
    if not ok:
        raise RecordError(f"{where}: field {field!r} is {value!r}: {fix}")
