"""The list of rendered windows: what is heard in each, what is not, who may use it.

A folder of windows has a line of windows.jsonl for each file. Open-ASQA's source `real_windows`
asks about them, and a tagger learns them: `window_line` writes down a `PlannedWindow`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.metadata import table_files
from data_pipelines.metadata.table_files import RecordProblems
from data_pipelines.real.recording_table import TRAIN, VALIDATION, Recording
from data_pipelines.real.speech_lines import GENDERS, SpokenClip, check_below, check_value
from data_pipelines.real.window_plan import CLASSES, NOISE, SILENCE, PlannedWindow
from ltu_jax.core import config
from ltu_jax.core.errors import UserError, shorten

WINDOWS_FILE = "windows.jsonl"
SOUNDS = "sounds"
KINDS = (SOUNDS, SILENCE, NOISE)
_EXPECTED = "a list of windows"
MADE_HERE = "none: synthetic"  # licence of what rests on no recording


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowSpeech:
    """What is said in a window, and by whom; see `SpokenClip`.

    Attributes:
        f0_hz, speech_seconds: of the voice alone, before sounds were added.
    """

    name: str
    text: str
    gender: str
    voice: str
    accent: str
    f0_hz: float | None
    speech_seconds: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowLine:
    """A rendered window.

    Attributes:
        window_id: unique in its file.
        file: audio, below the folder of windows.jsonl.
        split: `TRAIN` or `VALIDATION`.
        kind: `SOUNDS`, or `SILENCE` or `NOISE`, where no event is heard; somebody may speak in all.
        classes: all that is heard but speech; () of other kinds than `SOUNDS`, and of speech alone.
        groups: of the classes that have one.
        absent: classes that are asked about and not heard.
        clusters: of all recordings in it; none stands in two splits.
        licences: of all recordings, and of the voice.
        ships: whether weights that are given away may rest on all of them.
        speech: None where nobody speaks.
    """

    window_id: str
    file: str
    split: str
    kind: str
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    absent: tuple[str, ...]
    clusters: tuple[str, ...]
    licences: tuple[str, ...]
    ships: bool
    speech: WindowSpeech | None

    def to_json(self) -> dict[str, Any]:
        """Return the object of its line."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any], *, where: str) -> "WindowLine":
        """Read a line.

        Raises:
            UserError: a key is missing, unknown or of another type, or values contradict each
                other.
        """
        line = config.read(cls, record, where=where)
        check_value(line.split, (TRAIN, VALIDATION), where=f"{where}.split")
        check_value(line.kind, KINDS, where=f"{where}.kind")
        check_below(line.file, where=f"{where}.file")
        if line.speech is not None:
            check_value(line.speech.gender, GENDERS, where=f"{where}.speech.gender")
        if not line.window_id or not line.licences:
            raise UserError(f"{where}: a window needs a window_id and the licences of its sounds")
        for name in (*line.classes, *line.absent):
            if name not in CLASSES:
                raise UserError(
                    f"{where}: {name!r} is no class of windows: use one of {shorten(CLASSES)}"
                )
        if both := set(line.classes) & set(line.absent):
            raise UserError(f"{where}: {min(both)!r} is in classes and in absent: choose one")
        if line.kind != SOUNDS and line.classes:
            raise UserError(
                f"{where}: kind is {line.kind} and classes is {line.classes[0]!r}: leave the "
                f"classes out, or make the kind {SOUNDS}"
            )
        if line.kind == SOUNDS and not line.classes and line.speech is None:
            raise UserError(
                f"{where}: kind is {SOUNDS}, with neither classes nor speech: name what is heard, "
                f"or make the kind {SILENCE} or {NOISE}"
            )
        return line


def window_line(
    window: PlannedWindow,
    *,
    split: str,
    file: str,
    kind: str = SOUNDS,
    absent: Sequence[str],
    recordings: Mapping[str, Recording],
    speech: SpokenClip | None,
) -> WindowLine:
    """Write down a planned window.

    Args:
        window: the plan.
        split: of its recordings; it goes before the id, as plans of both sides have the same ids.
        file: where its audio lies, below the folder of the list.
        kind: of `KINDS`.
        absent: classes to deny, as `AbsentClasses` draws them.
        recordings: clip name -> recording, of all its layers.
        speech: what is said in it; None for nobody.
    """
    used = [recordings[clip] for layer in window.layers for clip in layer.clips]
    licences = [one.licence for one in used] + ([speech.licence] if speech is not None else [])
    fields = [field.name for field in dataclasses.fields(WindowSpeech)]
    return WindowLine(
        window_id=f"{split}-{window.window_id}",
        file=file,
        split=split,
        kind=kind,
        classes=window.classes,
        groups=window.groups,
        absent=tuple(absent),
        clusters=window.clusters,
        licences=tuple(dict.fromkeys(licences)) or (MADE_HERE,),
        ships=window.ships and (speech is None or speech.ships),
        speech=speech and WindowSpeech(**{name: getattr(speech, name) for name in fields}),
    )


def read_windows(
    path: Path, problems: RecordProblems | None = None
) -> Iterator[tuple[str, WindowLine]]:
    """Yield ("path:line", window) of a list.

    Args:
        path: windows.jsonl.
        problems: takes lines that are broken; None raises for the first.

    Raises:
        UserError: no such file; a broken line; a recording in two splits.
    """
    split_of: dict[str, str] = {}

    def parse(record: Mapping[str, Any], *, where: str) -> WindowLine:
        line = WindowLine.from_json(record, where=where)
        _check_sides(line, split_of, where=where)
        return line

    yield from table_files.parsed_lines(path, parse, expected=_EXPECTED, problems=problems)


def _check_sides(line: WindowLine, split_of: dict[str, str], *, where: str) -> None:
    names = [f"cluster {cluster}" for cluster in line.clusters]
    if line.speech is not None:
        names.append(f"voice {line.speech.voice}")
    for name in names:
        if split_of.setdefault(name, line.split) != line.split:
            raise UserError(
                f"{where}: {name} is in the {line.split} split, and in an earlier line in the "
                f"{split_of[name]} split: what is tested on must not be learnt from"
            )
