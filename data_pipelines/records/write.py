"""Write clips as a records directory: lines on disk, shards by Apache Beam, one folder at the end.

The work is done in `.NAME.writing` beside the output. What a killed writing has finished there is
used by the next one: shards that are sealed and made from the same clips are not written again.
Neither the bytes nor the order of records depend on the runner or on the number of workers.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.records import clip_lines, record_files, shard_writer, tfds_format
from data_pipelines.records.beam_runner import BeamRunner, write_shards
from data_pipelines.records.clip_lines import ClipLine
from data_pipelines.records.quarantine import Quarantine, Quarantined
from data_pipelines.records.schema import SPLITS, AnnotatedClip, RecordError, validate
from data_pipelines.records.shard_writer import ShardItem
from data_pipelines.records.summary import summarise
from data_pipelines.records.whisper_features import FeatureExtractor
from ltu_jax.core import outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_dir, read_json, sha256_json, write_json
from ltu_jax.core.lock import RunLock
from ltu_jax.weights.fingerprint import KEY

_SHARD_BYTES = 256 << 20
_SHARD_CLIPS = 4096
_FEWEST_SHARDS = 4
_FORMAT = 2  # of how clips are dealt out to shards
_LINES = "clips"


def write_records(
    clips: Iterable[AnnotatedClip],
    out: str | Path,
    *,
    tag_labels: Sequence[str] | None = None,
    extractor: FeatureExtractor | None = None,
    runner: BeamRunner | None = None,
    shards: int | None = None,
    force: bool = False,
    quarantine: Quarantine | None = None,
    licences: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """Write `clips` (audio as paths) as a records directory, unless `out` holds the same already.

    Args:
        clips: of any splits, each id once; read once, one by one.
        out: directory to make; on storage that all workers share when the runner is not local, as
            is the audio.
        tag_labels: label list of the tagging stage, which has every tag of a clip; None for the
            tags that the clips have, sorted.
        extractor: computes the features that are stored too.
        runner: of Beam; None for this process.
        shards: per split; None for one per 256 MiB or 4096 clips, at least 4.
        force: write even if `out` is valid.
        quarantine: clips that the reader of `clips` had to leave out, and how many may be; the
            reader may add to it while it reads.
        licences: clips by dataset and licence, for the manifest.

    Returns:
        The manifest.

    Raises:
        UserError: a clip breaks the specification, has an unknown tag, or the audio of too many is
            unreadable; another process writes the same output.
    """
    runner, quarantine = runner or BeamRunner(), quarantine or Quarantine()
    if shards is not None and shards < 1:
        raise UserError(f"--shards is {shards}; use at least 1")
    weights = None if extractor is None else extractor.weights_dir
    place = outputs.claim(out, record_files.MAKER, inputs=[weights])
    features = None if extractor is None else dict(extractor.describe())
    with _work_folder(place) as work:
        given = _write_lines(
            quarantine.readable(_checked(clips, tag_labels=tag_labels)), work / _LINES
        )
        if not given.clips and not quarantine.entries:
            raise UserError("there are no clips to write; check the corpus")
        outputs.claim(out, record_files.MAKER, inputs=[weights, *sorted(given.folders)])
        tag_labels = sorted(given.tags) or None if tag_labels is None else list(tag_labels)
        reasons = [entry.reason for entry in quarantine.entries]
        settings = [_FORMAT, tag_labels, features, quarantine.max_share, licences, reasons]
        source = sha256_json([given.digest, settings])
        quarantine.check(written=sum(given.clips.values()))
        if not force and (existing := _existing(Path(out), source=source)) is not None:
            return existing
        if shards is None:
            by_size = max(given.bytes / _SHARD_BYTES, max(given.clips.values()) / _SHARD_CLIPS)
            shards = max(_FEWEST_SHARDS, int(-(-by_size // 1)))
        clip_lines.deal_out(ClipLine.read(work / _LINES), work / shard_writer.PARTS, shards=shards)
        items = [
            ShardItem(
                work=work,
                split=split,
                number=number,
                shards=shards,
                extractor=extractor,
                features=None if features is None else json.dumps(features, sort_keys=True),
            )
            for split in SPLITS
            if given.clips[split]
            for number in range(shards)
        ]
        write_shards(items, runner=runner)
        headers = _collect(items, quarantine)
        if extractor is not None:
            # not part of the source's name: another device may round its last digits otherwise
            features[KEY] = extractor.clip_fingerprint().to_json()
        manifest = summarise(work, splits=list(headers), source=source, features=features)
        manifest |= {"quarantined": len(quarantine.entries), "licences": licences}
        with atomic_dir(out, record_files.MAKER) as folder:
            _move(work, folder, headers=headers)
            shape = None if extractor is None else extractor.shape
            data = folder / record_files.BUILDER / record_files.VERSION
            tfds_format.write_dataset_info(data, splits=headers, shape=shape)
            quarantine.write(folder / record_files.QUARANTINE)
            if tag_labels is not None:
                write_json(folder / record_files.TAG_LABELS, tag_labels)
            write_json(folder / record_files.MANIFEST, manifest)
        shutil.rmtree(work, ignore_errors=True)
    return manifest


@contextlib.contextmanager
def _work_folder(place: Path) -> Iterator[Path]:
    """Lock the folder beside an output where it is made, and clear it of what cannot be used."""
    work = place.with_name(f".{place.name}.writing")
    work.mkdir(parents=True, exist_ok=True)
    # The lock goes with the process; its folder may be gone at the end, with the work.
    with RunLock(work, job=f"the records {place}").hold():
        for name in (shard_writer.PARTS, shard_writer.FAILED):
            shutil.rmtree(work / name, ignore_errors=True)
        for part in work.glob(f"{shard_writer.SHARDS}/*.part-*"):
            part.unlink()
        folders = (shard_writer.SHARDS, shard_writer.SEALED, shard_writer.FAILED)
        for name in (*folders, record_files.INDEX):
            (work / name).mkdir(exist_ok=True)
        try:
            yield work
        finally:
            if not any((work / shard_writer.SEALED).glob("*.json")):
                shutil.rmtree(work, ignore_errors=True)


@dataclasses.dataclass(kw_only=True)
class _Given:
    """What the clips are that were written as lines: number by split, audio, places, tags."""

    clips: Counter[str]
    bytes: int
    folders: set[Path]
    tags: set[str]
    digest: str


def _checked(
    clips: Iterable[AnnotatedClip], *, tag_labels: Sequence[str] | None
) -> Iterator[AnnotatedClip]:
    labels = None if tag_labels is None else set(tag_labels)
    for clip in clips:
        validate(clip)
        unknown = [tag for tag in clip.tags if labels is not None and tag not in labels]
        if unknown:
            raise RecordError(
                f"clip {clip.clip_id!r}: field 'tags': {unknown[0]!r} is not in "
                f"{record_files.TAG_LABELS}; add it there"
            )
        yield clip


def _write_lines(clips: Iterable[AnnotatedClip], path: Path) -> _Given:
    """Write the lines of clips, one by one; return what they add up to."""
    given = _Given(clips=Counter(), bytes=0, folders=set(), tags=set(), digest="")
    digest = hashlib.sha256()
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for clip in clips:
            line = ClipLine.of(clip)
            file.write(line.text)
            digest.update(line.text.encode())
            given.clips[clip.split] += 1
            given.bytes += int(line.file.partition("|")[0])
            given.folders.add(Path(clip.audio).parent)
            given.tags.update(clip.tags)
    given.digest = digest.hexdigest()
    return given


def _collect(items: Sequence[ShardItem], quarantine: Quarantine) -> dict[str, list[dict[str, Any]]]:
    """Read the seals of all shards; return their headers by split.

    Raises:
        UserError: too many clips cannot be read, or all those of a split.
    """
    headers: dict[str, list[dict[str, Any]]] = {}
    left_out: list[Quarantined] = []
    for item in items:
        seal = read_json(item.seal)
        headers.setdefault(item.split, []).append(seal["header"])
        left_out += [Quarantined(**clip) for clip in seal["left_out"]]
    left_out.sort(key=lambda entry: entry.clip_id)
    quarantine.entries += left_out
    written = {split: sum(header["records"] for header in of) for split, of in headers.items()}
    quarantine.check(written=sum(written.values()))
    for split, count in written.items():
        if not count:
            first = next(entry for entry in left_out if entry.split == split)
            raise UserError(
                f"{first.reason}; no clip of split {split!r} can be read: repair or remove them, "
                "nothing was written"
            )
    return headers


def _move(work: Path, folder: Path, *, headers: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Move the shards and their indexes to where a records directory has them."""
    data, index = folder / record_files.BUILDER / record_files.VERSION, folder / record_files.INDEX
    data.mkdir(parents=True)
    index.mkdir()
    for header in (header for of_split in headers.values() for header in of_split):
        name = header["file"]
        (work / shard_writer.SHARDS / name).rename(data / name)
        for ending in (".jsonl", ".npz"):
            (work / record_files.INDEX / f"{name}{ending}").rename(index / f"{name}{ending}")


def _existing(out: Path, *, source: str) -> dict[str, Any] | None:
    """Return the manifest of `out` when it was made from the same source and is whole."""
    if not (out / record_files.MANIFEST).is_file():
        return None
    try:
        manifest = record_files.verify(out)
    except UserError as error:
        print(f"{error}\nwriting the records again", file=sys.stderr)
        return None
    return manifest if manifest["source_fingerprint"] == source else None
