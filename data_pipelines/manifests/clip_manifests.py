"""Read question-answer manifests: official Open-ASQA JSON, JSON Lines, and the mini corpus folder.

A user's own data is one JSON list or JSONL file of ``{instruction, input, audio_id, dataset, task,
output}`` rows (optional: ``split``, ``tags``) and a folder of audio files; ``audio_id`` is a path
below that folder, or absolute. Every bad row is one error naming file, row and field.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.manifests.audio_finder import AudioFinder, AudioGone
from data_pipelines.manifests.official_rows import (
    OfficialRow,
    lines_or_errors,
    rows_or_errors,
)
from data_pipelines.manifests.row_groups import SetAside, agreeing, grouped, share_of
from data_pipelines.records import schema
from data_pipelines.records.quarantine import Quarantined
from ltu_jax.core.files import inside, read_json
from ltu_jax.preprocessing.audio import AudioError, probe
from ltu_jax.preprocessing.names import AmbiguousName, find_audio

LABEL_TASK, LABELS_BEGIN = "cla_label", "Labels:"  # how Open-ASQA writes the labels of a clip
CLIPS = "clips.jsonl"  # of a corpus folder
LICENCES = ".licences.json"  # ending of the file beside rows that has their clips by licence
_ENTRY = {"clip_id": str, "audio": str, "dataset": str, "split": str, "spoken_text": str,
          "tags": list}  # fmt: skip


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


def corpus_audio(corpus: Path, name: str) -> Path:
    """Find the file of a clip of a corpus folder; if missing, return its expected place.

    Raises:
        UserError: a name that leads out of the folder; a RecordError where two files fit it.
    """
    place = inside(corpus, name, where=corpus / CLIPS)
    try:
        return find_audio(place) or place
    except AmbiguousName as error:
        raise schema.RecordError(f"{corpus / CLIPS}: field 'audio': {error}") from error


def corpus_entries(corpus: Path) -> Iterator[tuple[str, Mapping[str, Any] | schema.RecordError]]:
    """Read where each line of ``clips.jsonl`` stands, and its fields or what is wrong with it."""
    path = Path(corpus) / CLIPS
    for number, entry in lines_or_errors(path):
        where = f"{path}, row {number}"
        if not isinstance(entry, schema.RecordError) and (wrong := _wrong_field(entry)):
            entry = schema.RecordError(f"{where}: {wrong}")
        yield where, entry


def _wrong_field(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return f"is {type(entry).__name__}, expected an object with fields"
    for field, kind in _ENTRY.items():
        if not isinstance(entry.get(field), kind):
            return f"field {field!r} is {entry.get(field)!r}: give a {kind.__name__}"
    return None


def corpus_pairs(
    manifest: Path, *, set_aside: SetAside | None = None
) -> dict[str, list[schema.QAPair]]:
    """Read the pairs of a split of a corpus by the audio that they are about.

    An unusable row raises its `schema.RecordError`, unless `set_aside` is told of it instead.
    """
    pairs: dict[str, list[schema.QAPair]] = {}
    for row in rows_or_errors(manifest):
        if not isinstance(row, schema.RecordError):
            of_clip = pairs.setdefault(row.values["audio_id"], [])
            of_clip.append(pair(row, len(of_clip)))
        elif set_aside is None:
            raise row
        else:
            set_aside(row)
    return pairs


def corpus_licence(entry: Mapping[str, Any]) -> str:
    """Return the licence of a clip of a corpus."""
    source = entry.get("source")
    named = source.get("license") if isinstance(source, dict) else None
    return named or schema.UNKNOWN_LICENCE


def read_corpus(corpus: Path, *, split: str) -> Iterator[schema.AnnotatedClip]:
    """Read the clips of one split, with their pairs, of a folder built by `build_mini`."""
    corpus = Path(corpus)
    if split not in schema.SPLITS:
        raise schema.RecordError(f"split is {split!r}: use one of {', '.join(schema.SPLITS)}")
    if not (corpus / CLIPS).is_file():
        raise schema.RecordError(
            f"{corpus} holds no corpus (no {CLIPS}); build it with: python -m "
            f"data_pipelines.build_mini --out {corpus}"
        )
    pairs = corpus_pairs(corpus / f"open_asqa_{split}.json")
    for _, record in corpus_entries(corpus):
        if isinstance(record, schema.RecordError):
            raise record
        if record["split"] != split:
            continue
        clip = schema.AnnotatedClip(
            clip_id=record["clip_id"],
            audio=corpus_audio(corpus, record["audio"]),
            sample_rate=record["sample_rate"],
            seconds=record["seconds"],
            spoken_text=record["spoken_text"],
            dataset=record["dataset"],
            split=split,
            synthetic=record["synthetic"],
            tags=tuple(record["tags"]),
            pairs=tuple(pairs.get(record["audio"], ())),
        )
        yield schema.validate(clip)


def tag_labels(corpus: Path) -> tuple[str, ...]:
    """Read the label names of the tagging stage, in the order of the target vector."""
    return tuple(read_json(Path(corpus) / "tag_labels.json"))


def licences(corpus: Path) -> dict[str, dict[str, int]]:
    """Count the clips of a corpus by dataset and licence ("unknown" where none is named)."""
    counts: dict[str, dict[str, int]] = {}
    for _, clip in corpus_entries(corpus):
        if isinstance(clip, schema.RecordError):
            raise clip
        of_dataset, licence = counts.setdefault(clip["dataset"], {}), corpus_licence(clip)
        of_dataset[licence] = of_dataset.get(licence, 0) + 1
    return counts


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


def check_disjoint(clips: list[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Assert that no source recording, synthesis seed or sentence is in two splits; returns counts
    per split.

    `clips` are the rows of ``clips.jsonl``. Raises `schema.RecordError` naming the shared value and
    both splits.
    """
    kinds = {
        "seeds": lambda clip: clip["source"]["seed"],
        "recordings": lambda clip: clip["source"]["recording"],
        "sentences": lambda clip: clip["labels"].get("truth_text"),
    }
    counts: dict[str, dict[str, int]] = {split: {} for split in schema.SPLITS}
    for kind, value_of in kinds.items():
        owner: dict[Any, str] = {}
        for clip in clips:
            value = value_of(clip)
            if value in (None, ""):
                continue
            split = owner.setdefault(value, clip["split"])
            if split != clip["split"]:
                raise schema.RecordError(
                    f"clip {clip['clip_id']!r}: {kind} {value!r} is in {split} and in "
                    f"{clip['split']}; "
                    "splits must not share it: rebuild the corpus"
                )
        for split in schema.SPLITS:
            counts[split][kind] = sum(1 for owned in owner.values() if owned == split)
    return counts


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
