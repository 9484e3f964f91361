"""Read corpus folders, as `build_mini` and `build_windows` make them: `clips.jsonl` and rows.

The rows of a split are `open_asqa_<split>.json`, official rows about the files that `clips.jsonl`
names. Every bad line is one error naming file, row and field.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.manifests.clip_manifests import ClipRows, ReadRules, clips_of_rows, pair
from data_pipelines.manifests.official_rows import lines_or_errors, rows_or_errors
from data_pipelines.manifests.row_groups import SetAside
from data_pipelines.records import schema
from ltu_jax.core.files import inside, read_json
from ltu_jax.preprocessing.names import AmbiguousName, find_audio

CLIPS = "clips.jsonl"
_ENTRY = {"clip_id": str, "audio": str, "dataset": str, "split": str, "spoken_text": str,
          "tags": list}  # fmt: skip


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


def corpus_questions(corpus: Path, rows: Path) -> dict[str, ClipRows]:
    """Read rows about the clips of a corpus folder that somebody else asked.

    Returns:
        audio of a clip, as ``clips.jsonl`` names it -> its rows.

    Raises:
        schema.RecordError: a row is broken, contradicts another, or is about another file.
    """
    named = {
        os.path.realpath(corpus_audio(corpus, entry["audio"])): entry["audio"]
        for _, entry in corpus_entries(corpus)
        if not isinstance(entry, schema.RecordError)
    }
    found: dict[str, ClipRows] = {}
    for told in clips_of_rows(rows, rules=ReadRules()):
        first = told.rows[0]
        audio = named.get(os.path.realpath(Path(corpus) / first.values["audio_id"]))
        if audio is None:
            raise schema.RecordError(
                f"{first.where}: field 'audio_id': {first.values['audio_id']} is no clip of "
                f"{corpus / CLIPS}: give the rows that were made of this corpus"
            )
        if audio in found:
            raise schema.RecordError(
                f"{first.where}: field 'dataset': {audio} is in {told.values['dataset']!r} and in "
                f"{found[audio].values['dataset']!r}: give rows of one"
            )
        found[audio] = told
    return found


def read_corpus(
    corpus: Path, *, split: str, questions: Mapping[str, ClipRows] | None = None
) -> Iterator[schema.AnnotatedClip]:
    """Read the clips of one split, with their pairs, of a folder built by `build_mini`.

    Args:
        corpus: the folder.
        split: of its clips.
        questions: of `corpus_questions`, whose pairs, spoken text and dataset a clip has instead
            of its own.

    Raises:
        schema.RecordError: a line is broken; questions of another split.
    """
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
        told = (questions or {}).get(record["audio"])
        if told is not None and told.split != split:
            raise schema.RecordError(
                f"{told.rows[0].where}: field 'split' is {told.split!r}, and the clip is in "
                f"{split!r}: make the rows anew"
            )
        clip = schema.AnnotatedClip(
            clip_id=record["clip_id"],
            audio=corpus_audio(corpus, record["audio"]),
            sample_rate=record["sample_rate"],
            seconds=record["seconds"],
            spoken_text=record["spoken_text"] if told is None else told.values["input"],
            dataset=record["dataset"] if told is None else told.values["dataset"],
            split=split,
            synthetic=record["synthetic"],
            tags=tuple(record["tags"]),
            pairs=tuple(pairs.get(record["audio"], ())) if told is None else told.pairs,
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
