"""Windows of real recordings that no training has heard, and voices that read over some of them.

    data/real/windows.jsonl            what is heard in each window, and what is not
    data/real/audio/val/<window>.flac

The folder is the one of `python -m data_pipelines.real.build_windows`. One recording alone is asked
about by its group and by a class that is heard and one that is not; a voice by its words and
gender, and by both at once; silence and noise by what there is to hear.
"""

import dataclasses
import functools
import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from data_pipelines.metadata import class_phrases
from data_pipelines.metadata.table_files import RecordProblems, check_split
from data_pipelines.real import window_manifest
from data_pipelines.real.recording_table import VALIDATION
from data_pipelines.real.window_manifest import SOUNDS, WindowLine
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.files import inside
from ltu_jax.evaluation.datasets.item import HEARD, AudioClip, Corpus, Item
from ltu_jax.evaluation.scoring import sound_groups
from ltu_jax.evaluation.scoring.attributes import GENDERS
from ltu_jax.evaluation.scoring.presence import NO, YES, YES_OR_NO

SPLITS = (VALIDATION,)
SOUND, AFFIRMED, DENIED, SILENCE = "sound", "presence_affirmed", "presence_denied", "silence"
SPOKEN_TEXT, GENDER, JOINT = "spoken_text", "gender", "joint_questions"
_EXPECTED = "Nothing is heard."  # of silence; noise may be called so too
_TRAINED, _NEW = "trained", "new"


def read(data: Path, *, split: str) -> Corpus:
    """Read the questions about the windows of one split.

    Windows of several recordings, which no held-out side has, are not asked about.

    Raises:
        UserError: no windows.jsonl, an unknown split, a broken line, an unknown group, a recording
            or voice that is learnt from, too.
    """
    check_split(split, SPLITS, dataset="real")
    bad = RecordProblems()
    clips: dict[str, AudioClip] = {}
    items: list[Item] = []
    path = data / window_manifest.WINDOWS_FILE
    for where, line in window_manifest.read_windows(path, bad):
        if line.split != split:
            continue
        with bad.record():
            clip, asked = _clip(data, line, where=where), list(_items(line))
            for name in line.groups:
                if name not in sound_groups.words().groups:
                    raise UserError(
                        f"{where}: {name!r} is none of the 18 groups that answers are graded over: "
                        f"use one of {shorten(sound_groups.words().groups)}"
                    )
            if asked:
                clips[clip.clip_id] = clip
                items += asked
    return bad.none_in(Corpus(items=tuple(items), clips=clips), source=data)


def _clip(data: Path, line: WindowLine, *, where: str) -> AudioClip:
    """Return the window; Whisper writes down what is said, as nothing is given."""
    voice = line.speech.voice if line.speech is not None else line.window_id
    return AudioClip(
        clip_id=line.window_id,
        audio=inside(data, line.file, where=where),
        cluster="+".join(line.clusters) or voice,
    )


def _items(line: WindowLine) -> Iterator[Item]:
    """Yield the questions about a window."""
    if line.speech is not None:
        yield from _spoken(line)
    elif line.kind != SOUNDS:
        yield _item(line, SILENCE, references=(_EXPECTED,), kind=line.kind)
    elif len(line.classes) == 1:
        yield from _alone(line, line.classes[0])


def _alone(line: WindowLine, heard: str) -> Iterator[Item]:
    if len(line.groups) == 1:
        yield _item(
            line,
            SOUND,
            references=line.groups,
            choices=sound_groups.words().groups,
            **{"class": heard},
        )
    yield _presence(line, AFFIRMED, heard, heard=heard)
    denied = [name for name in line.absent if {name, heard} not in class_phrases.kin()]
    if denied:
        yield _presence(line, DENIED, denied[0], heard=heard)


def _presence(line: WindowLine, row: str, name: str, *, heard: str) -> Item:
    phrase = class_phrases.phrases()[name]
    return _item(
        line,
        row,
        references=(YES if row == AFFIRMED else NO, phrase, name),
        choices=YES_OR_NO,
        values={"phrase": phrase, "name": name},
        asked=name,
        **{HEARD: heard},
    )


def _spoken(line: WindowLine) -> Iterator[Item]:
    said = line.speech
    about = {"voice": said.voice, "accent": said.accent}
    yield _item(line, SPOKEN_TEXT, references=(said.text,), **about)
    yield _item(line, GENDER, references=(said.gender,), choices=GENDERS, **about)
    if len(line.classes) == len(line.groups) == 1:
        yield _item(
            line,
            JOINT,
            references=line.groups,
            choices=sound_groups.words().groups,
            **{"class": line.classes[0]},
        )


def _item(
    line: WindowLine,
    row: str,
    *,
    references: tuple[str, ...],
    choices: tuple[str, ...] = (),
    values: Mapping[str, str] | None = None,
    **groups: str,
) -> Item:
    wording = _wording(row, line.window_id)
    if wording.kind:
        groups["wording"] = wording.kind
    return Item(
        item_id=f"{line.window_id}-{row}",
        clip_id=line.window_id,
        row=row,
        question=wording.text.format_map(values or {}),
        references=references,
        choices=choices,
        groups=groups | {"ships": "yes" if line.ships else "no"},
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wording:
    """A question; `kind` says whether training data have it, "" where there is one for all."""

    text: str
    kind: str


@functools.cache
def _questions() -> Mapping[str, Any]:
    file = resources.files(__package__).joinpath("real_questions.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _wording(row: str, window_id: str) -> _Wording:
    if row in (SOUND, SILENCE):
        return _Wording(text=_questions()["heard"], kind="")
    table = {AFFIRMED: "presence", DENIED: "presence", JOINT: "joint"}.get(row, row)
    lists = _questions()[table]
    known = [_Wording(text=text, kind=kind) for kind in (_TRAINED, _NEW) for text in lists[kind]]
    digest = hashlib.sha256(f"{table}:{window_id}".encode()).digest()
    return known[int.from_bytes(digest[:8], "big") % len(known)]
