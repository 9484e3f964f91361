"""The three kinds of data the doctor examines, as one stream of clips and of what is wrong.

    a corpus folder       clips.jsonl and open_asqa_{train,val,test}.json
    a records directory   manifest.json, index and shards of write_records
    a JSON or JSONL file  official Open-ASQA rows, and a folder of audio

A problem never ends the stream: it stands where the clip would have stood.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from data_pipelines.manifests import clip_manifests, corpus_folders
from data_pipelines.manifests.official_rows import lines_or_errors
from data_pipelines.records import record_files, schema
from data_pipelines.records.schema import QAPair, RecordError
from ltu_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A clip with all that is asked about it; `audio` is None where its file is missing."""

    clip_id: str
    where: str
    audio: bytes | Path | None
    sha256: str | None
    spoken_text: str
    dataset: str
    split: str
    licence: str
    tags: tuple[str, ...]
    pairs: tuple[QAPair, ...]

    @property
    def audio_id(self) -> str:
        """The name of its audio, which clips of several datasets may share."""
        return self.clip_id.removesuffix(f"@{self.dataset}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong; `check` names its kind (see `checks.CHECKS`)."""

    check: str
    where: str
    detail: str


def kind_of(path: Path, *, audio_root: Path | None) -> str:
    """Return the kind of data at `path`: "corpus", "records" or "manifest"; raises `UserError`."""
    if path.is_file():
        return "manifest"
    if audio_root is not None:
        raise UserError(f"--audio-root belongs to a JSON file of rows, but {path} is none")
    if (path / corpus_folders.CLIPS).is_file():
        return "corpus"
    if (path / record_files.MANIFEST).is_file():
        return "records"
    raise UserError(
        f"{path} is no data: give a corpus folder ({corpus_folders.CLIPS}), a records directory "
        f"({record_files.MANIFEST}), or a JSON or JSONL file of rows"
    )


def cases(path: Path, *, audio_root: Path | None) -> Iterator[Case | Problem]:
    """Stream everything at `path`; raises `UserError` when it is no data at all."""
    kind = kind_of(path, audio_root=audio_root)
    if kind == "manifest":
        return _of_manifest(path, root=path.parent if audio_root is None else audio_root)
    return (_of_corpus if kind == "corpus" else _of_records)(path)


def label_names(path: Path) -> tuple[str, ...] | None:
    """Read the labels of the tagging stage, where the data has a list of them."""
    return corpus_folders.tag_labels(path) if (path / record_files.TAG_LABELS).is_file() else None


# --- official rows --------------------------------------------------------------------------------


def _of_manifest(path: Path, *, root: Path) -> Iterator[Case | Problem]:
    unusable: list[RecordError] = []
    rules = clip_manifests.ReadRules(set_aside=unusable.append, whole=False)
    licences = clip_manifests.manifest_licences(path)
    for clip in clip_manifests.clips_of_rows(path, rules=rules):
        yield from _bad_rows(path, unusable)
        unusable.clear()
        where, audio = clip.rows[0].where, None
        try:
            audio = clip_manifests.resolve_audio(clip.values["audio_id"], root=root, where=where)
        except RecordError as error:  # not there, or not in the audio folder
            yield Problem(check="missing", where=where, detail=str(error))
        yield Case(
            clip_id=clip.clip_id,
            where=where,
            audio=audio,
            sha256=None,
            spoken_text=clip.values["input"],
            dataset=clip.values["dataset"],
            split=clip.split,
            licence=_licence(clip.values["dataset"], licences),
            tags=clip.tags,
            pairs=clip.pairs,
        )
    yield from _bad_rows(path, unusable)


def _bad_rows(path: Path, errors: Iterable[RecordError]) -> Iterator[Problem]:
    return (Problem(check="rows", where=str(path), detail=str(error)) for error in errors)


# --- corpus folder --------------------------------------------------------------------------------


def _of_corpus(path: Path) -> Iterator[Case | Problem]:
    pairs: dict[str, dict[str, list[QAPair]]] = {split: {} for split in schema.SPLITS}
    for split in schema.SPLITS:
        manifest = path / f"open_asqa_{split}.json"
        if not manifest.is_file():
            yield Problem(check="rows", where=str(manifest), detail="no such file")
            continue
        unusable: list[RecordError] = []
        pairs[split] = corpus_folders.corpus_pairs(manifest, set_aside=unusable.append)
        yield from _bad_rows(manifest, unusable)
    for where, clip in corpus_folders.corpus_entries(path):
        if isinstance(clip, RecordError):
            yield Problem(check="rows", where=where, detail=str(clip))
            continue
        audio: Path | None = None
        try:
            audio = corpus_folders.corpus_audio(path, clip["audio"])
        except RecordError as error:
            yield Problem(check="missing", where=where, detail=str(error))
        except UserError as error:  # a name that leads out of the corpus
            yield Problem(check="rows", where=where, detail=str(error))
            continue
        if audio is not None and not audio.is_file():
            yield Problem(check="missing", where=where, detail=f"no file {audio}")
            audio = None
        yield Case(
            clip_id=clip["clip_id"],
            where=where,
            audio=audio,
            sha256=clip.get("sha256"),
            spoken_text=clip["spoken_text"],
            dataset=clip["dataset"],
            split=clip["split"],
            licence=corpus_folders.corpus_licence(clip),
            tags=tuple(clip["tags"]),
            pairs=tuple(pairs.get(clip["split"], {}).pop(clip["audio"], ())),
        )
    for split, of_split in pairs.items():
        for audio_id in of_split:
            detail = f"{split}: rows about {audio_id!r}, which is no clip of {corpus_folders.CLIPS}"
            yield Problem(check="rows", where=str(path / f"open_asqa_{split}.json"), detail=detail)


# --- records --------------------------------------------------------------------------------------


def _of_records(path: Path) -> Iterator[Case | Problem]:
    manifest = record_files.read_manifest(path)
    licences = manifest.get("licences") or {}
    shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    yield from _files(path, [shard["file"] for shard in shards])
    for shard in shards:
        if detail := record_files.shard_problem(path, shard):
            yield Problem(check="shards", where=shard["file"], detail=detail)
    for split in manifest["splits"]:
        try:
            store = record_files.RecordStore(path, split=split)
        except UserError as error:
            yield Problem(check="shards", where=f"split {split}", detail=str(error))
            continue
        for number in range(len(store)):
            yield _of_record(store, number, licences=licences)


def _files(path: Path, shards: list[str]) -> Iterator[Problem]:
    """List files that the manifest does not know, and the clips left out at writing."""
    known = {*shards, "dataset_info.json", "features.json"}
    folder = record_files.shard_path(path, "")
    for file in sorted(folder.iterdir() if folder.is_dir() else ()):
        if file.name not in known:
            yield Problem(check="foreign", where=str(file), detail="not of these records; not read")
    if (path / record_files.QUARANTINE).is_file():
        for _, entry in lines_or_errors(path / record_files.QUARANTINE):
            detail = str(entry.get("reason") if isinstance(entry, dict) else entry)
            yield Problem(check="quarantined", where=record_files.QUARANTINE, detail=detail)


def _licence(dataset: str, licences: Mapping[str, Mapping[str, int]]) -> str:
    """Return the licence of a dataset; of several it is not known which clip has which."""
    return " | ".join(sorted(licences.get(dataset, ()))) or schema.UNKNOWN_LICENCE


def _of_record(
    store: record_files.RecordStore, number: int, *, licences: Mapping[str, Mapping[str, int]]
) -> Case | Problem:
    where = store.where(number)
    try:
        record = store.read(number)
    except RecordError as error:
        return Problem(check="damaged", where=where, detail=str(error))
    if record.features is not None and not np.isfinite(record.features).all():
        return Problem(check="damaged", where=where, detail="its features are not finite")
    return Case(
        clip_id=record.clip_id,
        where=where,
        audio=record.audio,
        sha256=None,
        spoken_text=record.spoken_text,
        dataset=record.dataset,
        split=record.split,
        licence=_licence(record.dataset, licences),
        tags=record.tags,
        pairs=record.pairs,
    )
