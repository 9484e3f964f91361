"""Read question-answer manifests: official Open-ASQA JSON, JSON Lines, and the mini corpus folder.

A user's own data is one JSON list or JSONL file of ``{instruction, input, audio_id, dataset, task,
output}`` rows (optional: ``split``, ``tags``) and a folder of audio files; ``audio_id`` is a path
below that folder, or absolute. Every bad row is one error naming file, row and field.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.manifests.official_rows import OPTIONAL, OfficialRow, jsonl, read_rows
from data_pipelines.records import schema
from data_pipelines.records.quarantine import Quarantined
from ltu_jax.core.files import inside, read_json
from ltu_jax.preprocessing.audio import AudioError, probe
from ltu_jax.preprocessing.names import ENDINGS, AmbiguousName, find_audio


class AudioGone(schema.RecordError):
    """The audio that a row names is missing or not audio."""


def read_clips(
    path: Path,
    *,
    audio_root: Path,
    split: str = "train",
    synthetic: bool = False,
    quarantine: Callable[[Quarantined], None] | None = None,
) -> Iterator[schema.AnnotatedClip]:
    """Read the clips of a manifest, in order of first appearance, each with all its pairs.

    Rows of one audio_id and dataset are grouped in memory (text only). Open-ASQA has audio in two
    datasets (82k clips of AudioSet are audio and joint data): it makes a clip in each, whose id is
    then ``audio_id@dataset``, so that either can be trained on without the other. A row's own
    ``split`` replaces `split`. Raises `schema.RecordError` when rows of a clip contradict each
    other, or when audio is missing or unreadable; with `quarantine` such a clip is left out and
    handed there.
    """
    groups: dict[tuple[str, str], list[OfficialRow]] = {}
    for row in read_rows(path):
        groups.setdefault((row.values["audio_id"], row.values["dataset"]), []).append(row)
    datasets = Counter(audio_id for audio_id, _ in groups)
    for (audio_id, dataset), rows in groups.items():
        clip_id = audio_id if datasets[audio_id] == 1 else f"{audio_id}@{dataset}"
        try:
            audio = _Audio.find(audio_id, root=Path(audio_root), where=rows[0].where)
        except AudioGone as error:
            if quarantine is None:
                raise
            quarantine(
                Quarantined(
                    clip_id=clip_id,
                    audio=str(Path(audio_root) / audio_id),
                    dataset=dataset,
                    split=rows[0].values.get("split", split),
                    pairs=len(rows),
                    reason=str(error),
                )
            )
            continue
        yield _clip(clip_id, rows, audio=audio, split=split, synthetic=synthetic)


def resolve_audio(audio_id: str, *, root: Path, where: str) -> Path:
    """Find the file of an audio_id, in either normal form, with or without its ending.

    Raises `AudioGone` naming the places that were looked at, or the files that could be meant.
    """
    field = f"{where}: field 'audio_id'"
    place = inside(root, audio_id, where=field, owned=True, error=schema.RecordError)
    try:
        file = find_audio(place, endings=ENDINGS)
    except AmbiguousName as error:
        raise AudioGone(f"{field}: {error}") from error
    if file is None:
        raise AudioGone(
            f"{field} is {audio_id!r}: no file {Path(root) / audio_id} "
            f"(also tried {', '.join(ENDINGS)}); give the path relative to the audio folder"
        )
    return file


def corpus_audio(corpus: Path, name: str) -> Path:
    """Find the file of a clip of a corpus folder; if missing, return its expected place.

    Raises:
        UserError: a name that leads out of the folder; a RecordError where two files fit it.
    """
    place = inside(corpus, name, where=corpus / "clips.jsonl")
    try:
        return find_audio(place) or place
    except AmbiguousName as error:
        raise schema.RecordError(f"{corpus / 'clips.jsonl'}: field 'audio': {error}") from error


def read_corpus(corpus: Path, *, split: str) -> Iterator[schema.AnnotatedClip]:
    """Read the clips of one split, with their pairs, of a folder built by `build_mini`."""
    corpus = Path(corpus)
    if split not in schema.SPLITS:
        raise schema.RecordError(f"split is {split!r}: use one of {', '.join(schema.SPLITS)}")
    if not (corpus / "clips.jsonl").is_file():
        raise schema.RecordError(
            f"{corpus} holds no corpus (no clips.jsonl); build it with: python -m "
            f"data_pipelines.build_mini --out {corpus}"
        )
    pairs: dict[str, list[schema.QAPair]] = {}
    for row in read_rows(corpus / f"open_asqa_{split}.json"):
        of_clip = pairs.setdefault(row.values["audio_id"], [])
        of_clip.append(pair(row, len(of_clip)))
    for _, record in jsonl(corpus / "clips.jsonl"):
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
    for _, clip in jsonl(Path(corpus) / "clips.jsonl"):
        of_dataset = counts.setdefault(clip["dataset"], {})
        licence = clip.get("source", {}).get("license") or schema.UNKNOWN_LICENCE
        of_dataset[licence] = of_dataset.get(licence, 0) + 1
    return counts


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
    def find(cls, audio_id: str, *, root: Path, where: str) -> "_Audio":
        path = resolve_audio(audio_id, root=root, where=where)
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


def _clip(
    clip_id: str, rows: list[OfficialRow], *, audio: _Audio, split: str, synthetic: bool
) -> schema.AnnotatedClip:
    first = rows[0]
    audio_id = first.values["audio_id"]
    for row in rows[1:]:
        for field in ("input", *OPTIONAL):
            if row.values.get(field) != first.values.get(field):
                raise schema.RecordError(
                    f"{row.where}: field {field!r} is {row.values.get(field)!r}, but row "
                    f"{first.number} of the same "
                    f"audio_id {audio_id!r} has {first.values.get(field)!r}; one clip has one value"
                )
    clip = schema.AnnotatedClip(
        clip_id=clip_id,
        audio=audio.path,
        sample_rate=audio.rate,
        seconds=audio.seconds,
        spoken_text=first.values["input"],
        dataset=first.values["dataset"],
        split=first.values.get("split", split),
        synthetic=synthetic,
        tags=tuple(first.values.get("tags", ())),
        pairs=tuple(pair(row, index) for index, row in enumerate(rows)),
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
