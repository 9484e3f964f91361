"""Read question-answer manifests: official Open-ASQA JSON and JSON Lines.

A user's own data is one JSON list or JSONL file of ``{instruction, input, audio_id, dataset, task,
output}`` rows (optional: ``split``, ``tags``) and a folder of audio files; ``audio_id`` is a path
below that folder, or absolute. Every bad row is one error naming file, row and field.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.manifests.audio_finder import AudioFinder, AudioGone
from data_pipelines.manifests.official_rows import OfficialRow
from data_pipelines.manifests.row_groups import SetAside, agreeing, grouped, share_of
from data_pipelines.records import schema
from data_pipelines.records.quarantine import Quarantined
from ltu_jax.core.files import read_json
from ltu_jax.preprocessing.audio import AudioError, probe

LABEL_TASK, LABELS_BEGIN = "cla_label", "Labels:"  # how Open-ASQA writes the labels of a clip
LICENCES = ".licences.json"  # ending of the file beside rows that has their clips by licence


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadRules:
    """How rows become clips.

    Attributes:
        split: of rows that name none.
        validation_share: of the clips of "train" that become "val" where no row is in "val",
            chosen by a hash of the audio_id.
        synthetic: whether the audio is.
        quarantine: is handed a clip that cannot be used, as its audio is gone; None raises.
        set_aside: is told of a row that is broken or contradicts the others; None raises.
        whole: whether a list that is cut short raises; else `set_aside` is told of it too.
        scratch: folder for temporary files as large as the manifest; None for the system's.
    """

    split: str = "train"
    validation_share: float = 0.0
    synthetic: bool = False
    quarantine: Callable[[Quarantined], None] | None = None
    set_aside: SetAside | None = None
    whole: bool = True
    scratch: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipRows:
    """A clip as its rows tell it: they agree on all that a clip has once."""

    clip_id: str
    split: str
    rows: list[OfficialRow]

    @property
    def values(self) -> Mapping[str, Any]:
        """The fields of its first row."""
        return self.rows[0].values

    @property
    def pairs(self) -> tuple[schema.QAPair, ...]:
        """Its pairs, in the order of its rows."""
        return tuple(pair(row, index) for index, row in enumerate(self.rows))

    @property
    def tags(self) -> tuple[str, ...]:
        """The labels of a clip: its "tags", else those of its answers "Labels: A; B"."""
        given = self.values.get("tags")
        if given is not None:
            return tuple(given)
        names: list[str] = []
        for row in self.rows:
            answer = row.values["output"].strip()
            if row.values["task"] == LABEL_TASK and answer.startswith(LABELS_BEGIN):
                parts = answer.removeprefix(LABELS_BEGIN).split(";")
                names += [name for part in parts if (name := part.strip().rstrip(".").rstrip())]
        return tuple(dict.fromkeys(names))


def clips_of_rows(path: Path, *, rules: ReadRules) -> Iterator[ClipRows]:
    """Gather the rows of a manifest by clip, whatever became of its audio.

    A file up to 64 MB gives clips in order of first appearance, a larger one in an order that
    follows from its size and rows alone; a part of it is in memory at a time. Open-ASQA has audio
    in two datasets (82k clips of AudioSet are audio and joint data): it makes a clip in each, whose
    id is then ``audio_id@dataset``, so that either can be trained on without the other. Raises
    `schema.RecordError` when rows of a clip contradict each other; see `ReadRules`.
    """
    with grouped(
        path,
        default_split=rules.split,
        set_aside=rules.set_aside,
        whole=rules.whole,
        scratch=rules.scratch,
    ) as groups:
        cut = rules.validation_share if not groups.splits["val"] else 0.0
        for rows, alone in groups.clips():
            rows = agreeing(rows, set_aside=rules.set_aside)
            values = rows[0].values
            audio_id, split = values["audio_id"], values.get("split", rules.split)
            if split == "train" and share_of(audio_id, salt="validation") < cut:
                split = "val"
            clip_id = audio_id if alone else f"{audio_id}@{values['dataset']}"
            yield ClipRows(clip_id=clip_id, split=split, rows=rows)


def read_clips(
    path: Path, *, audio: AudioFinder, rules: ReadRules | None = None
) -> Iterator[schema.AnnotatedClip]:
    """Read the clips of a manifest, each with all its pairs and its audio; see `clips_of_rows`.

    A clip without tags has those that its ``cla_label`` answers name. Raises `schema.RecordError`
    when rows contradict each other, or when audio is missing or unreadable; see `ReadRules`.
    """
    rules = rules or ReadRules()
    for told in clips_of_rows(path, rules=rules):
        try:
            clip = _clip(told, finder=audio, synthetic=rules.synthetic)
        except schema.RecordError as error:
            if rules.quarantine is None:
                raise
            rules.quarantine(
                Quarantined(
                    clip_id=told.clip_id,
                    audio=told.values["audio_id"],
                    dataset=told.values["dataset"],
                    split=told.split,
                    pairs=len(told.rows),
                    reason=str(error),
                )
            )
            continue
        yield clip


def resolve_audio(audio_id: str, *, root: Path, where: str) -> Path:
    """Find the file of an audio_id below `root`, or of an absolute one, by no rule and no index.

    Raises `AudioGone` naming the places that were looked at, or the files that could be meant.
    """
    return AudioFinder(root).find(audio_id, dataset="", where=where)


def manifest_licences(manifest: Path) -> dict[str, dict[str, int]]:
    """Read the clips by dataset and licence of a JSON file of rows, as `merge` leaves them beside.

    Returns:
        {} where there is no such file.

    Raises:
        schema.RecordError: the file says something else.
    """
    path = Path(manifest).with_name(f"{Path(manifest).name}{LICENCES}")
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict) or not all(
        isinstance(of, dict) and all(isinstance(clips, int) for clips in of.values())
        for of in found.values()
    ):
        raise schema.RecordError(f"{path}: give {{dataset: {{licence: clips}}}}, or delete it")
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Audio:
    path: Path
    rate: int
    seconds: float

    @classmethod
    def find(cls, row: OfficialRow, *, finder: AudioFinder) -> "_Audio":
        values, where = row.values, row.where
        path = finder.find(values["audio_id"], dataset=values["dataset"], where=where)
        try:
            shape = probe(path)
        except AudioError as error:
            raise AudioGone(f"{where}: field 'audio_id': {error}") from error
        if not schema.LEAST_RATE <= shape.rate <= schema.MOST_RATE:
            raise AudioGone(
                f"{where}: field 'audio_id': {path} has {shape.rate} samples a second; "
                "record or export it again"
            )
        return cls(path=path, rate=shape.rate, seconds=shape.seconds)


def _clip(told: ClipRows, *, finder: AudioFinder, synthetic: bool) -> schema.AnnotatedClip:
    first = told.rows[0]
    audio = _Audio.find(first, finder=finder)
    clip = schema.AnnotatedClip(
        clip_id=told.clip_id,
        audio=audio.path,
        sample_rate=audio.rate,
        seconds=audio.seconds,
        spoken_text=first.values["input"],
        dataset=first.values["dataset"],
        split=told.split,
        synthetic=synthetic,
        tags=told.tags,
        pairs=told.pairs,
    )
    return schema.validate(clip, where=first.where)


def pair(row: OfficialRow, index: int) -> schema.QAPair:
    """Make the pair of an official row, `index` its number within the clip."""
    values = row.values
    return schema.QAPair(
        pair_id=f"{index:03d}",
        instruction=values["instruction"],
        output=values["output"],
        task=values["task"],
        closed_ended=schema.is_closed_ended(values["task"]),
    )
