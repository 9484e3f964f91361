"""What rendered voices say: a line of speech.jsonl for each file of speech, written and read.

`python -m data_pipelines.speech.render_speech` makes such a folder; windows
take what is said from it.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.metadata import table_files
from data_pipelines.metadata.table_files import RecordProblems
from data_pipelines.real.recording_table import TRAIN, VALIDATION
from ltu_jax.core import config
from ltu_jax.core.errors import UserError

SPEECH_FILE = "speech.jsonl"
GENDERS = ("female", "male")
_EXPECTED = "the list of speech that `python -m data_pipelines.speech.render_speech` writes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpokenClip:
    """A sentence that a voice speaks.

    Attributes:
        name: unique in its file.
        file: audio, below the folder of speech.jsonl.
        seconds: of the file.
        text: what is said.
        gender: of the voice, by its publisher: female or male.
        voice: name of the speaker; none speaks in two splits.
        accent: of what language, or of which English.
        speed: against the voice's own pace.
        split: `TRAIN` or `VALIDATION`; no text is in both.
        licence: of the voice.
        ships: whether weights that are given away may rest on it.
        f0_hz: median pitch of the file; None where it has too little voice.
        speech_seconds: how long of it is spoken; None where that is not told from the background.
        packages: that the voice is made of, as `ltu_jax.sources.packages` names them.
    """

    name: str
    file: str
    seconds: float
    text: str
    gender: str
    voice: str
    accent: str
    speed: float
    split: str
    licence: str
    ships: bool
    f0_hz: float | None
    speech_seconds: float | None
    packages: tuple[str, ...]

    @classmethod
    def from_json(cls, record: Mapping[str, Any], *, where: str) -> "SpokenClip":
        """Read a line.

        Raises:
            UserError: a key is missing, unknown or of another type, or a value is impossible.
        """
        clip = config.read(cls, record, where=where)
        check_value(clip.gender, GENDERS, where=f"{where}.gender")
        check_value(clip.split, (TRAIN, VALIDATION), where=f"{where}.split")
        check_below(clip.file, where=f"{where}.file")
        for name in ("name", "text", "voice", "licence"):
            if not getattr(clip, name).strip():
                raise UserError(f"{where}.{name} is empty: give text")
        return clip


def read_speech(folder: Path, problems: RecordProblems | None = None) -> Iterator[SpokenClip]:
    """Yield the clips of a folder of speech.

    Args:
        folder: with speech.jsonl.
        problems: takes lines that are broken; None raises for the first.

    Raises:
        UserError: no such file, or a broken line.
    """
    lines = table_files.parsed_lines(
        folder / SPEECH_FILE, SpokenClip.from_json, expected=_EXPECTED, problems=problems
    )
    yield from (clip for _, clip in lines)


def check_value(value: str, allowed: Iterable[str], *, where: str) -> None:
    """Raise `UserError` unless `value` is one of those that are allowed."""
    if value not in (allowed := tuple(allowed)):
        raise UserError(f"{where} is {value!r}: give one of {', '.join(allowed)}")


def check_below(name: str, *, where: str) -> None:
    """Raise `UserError` unless `name` is a file below a folder, written with `/`."""
    parts = name.split("/")
    if "\\" in name or any(part in ("", ".", "..") for part in parts) or ":" in parts[0]:
        raise UserError(f"{where} is {name!r}: give a file below the folder of the list")
