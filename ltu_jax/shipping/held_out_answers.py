"""Six answers about real clips that were held out, chosen by hash and printed as they come."""

import dataclasses
import hashlib
from collections.abc import Collection
from pathlib import Path

from data_pipelines.real import fetch_recordings, recording_table
from data_pipelines.real.recording_table import VALIDATION, Recording
from ltu_jax import inference

COUNT = 6
QUESTION = "What do you hear?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOutAnswer:
    """What a model answered about a clip of a package that it did not learn from."""

    group: str
    label: str
    clip: str
    package: str
    answer: str


def chosen(folder: Path, *, learnt: Collection[str]) -> list[tuple[Recording, Path]]:
    """Return the first clip of each of six groups, both by hash of their names.

    Clips are of the packages held out for validation; `folder` is where they were fetched to, and
    clips that are not there leave the list short, and so do packages in `learnt`.
    """
    by_group: dict[str, Recording] = {}
    for one in sorted(recording_table.recordings(), key=lambda one: _hash(one.clip)):
        held = one.split == VALIDATION and one.package not in learnt
        if held and one.group and one.trusted and not one.preset:
            by_group.setdefault(one.group, one)
    groups = sorted(by_group, key=_hash)[:COUNT]
    known = recording_table.recording_packages()
    found = []
    for group in groups:
        one = by_group[group]
        package = fetch_recordings.package_folder(folder, known[one.package])
        found.append((one, fetch_recordings.audio_file(package, one)))
    return [(one, path) for one, path in found if path.is_file()]


def ask(shipped: Path, folder: Path, *, learnt: Collection[str]) -> list[HeldOutAnswer]:
    """Ask the model in a folder about the chosen clips, greedily; [] where none is there."""
    clips = chosen(folder, learnt=learnt)
    model = inference.load(shipped) if clips else None
    return [
        HeldOutAnswer(
            group=one.group,
            label=one.label,
            clip=one.clip,
            package=one.package,
            answer=model.answer(path, QUESTION).text,
        )
        for one, path in clips
    ]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
