"""Write a corpus as TFRecords, one record per clip, its shards by an Apache Beam pipeline.

    python -m data_pipelines.write_records --corpus data/mini --out data/mini_records
    python -m data_pipelines.write_records --json mine.jsonl --audio-root clips --out my_records
    python -m data_pipelines.write_records --corpus DIR --out DIR --features WHISPER_WEIGHTS_DIR
    python -m data_pipelines.write_records --corpus DIR --out DIR --runner FlinkRunner -- --flink...

The shards are written by this process, by several (--workers 2), by a Dask cluster (--runner
DaskRunner) or any other runner of Beam; what follows a lone `--` are its options. Every one writes
the same bytes, and a writing that was killed goes on with the shards it lacks.

Audio is stored as 16 kHz mono FLAC: such files byte for byte, anything else resampled and rounded
to 16 bits. The output appears only when it is complete; valid output of the same input is kept.

Absolute audio_ids of another machine are found by --rewrite and by the names of the files below
--audio-root; OUT.audio_report.json says how. Rows that are broken, empty or contradict their clip
are left out and listed in OUT.bad_rows.jsonl.

A clip whose audio is missing or cannot be decoded is left out and listed in OUT/quarantine.jsonl
with the reason; where more than --max-quarantined of the clips are, nothing is written.
"""

import argparse
import dataclasses
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipelines import token_lengths
from data_pipelines.input import token_counts
from data_pipelines.manifests import clip_manifests, corpus_folders
from data_pipelines.manifests.audio_finder import AudioFinder, Rewrite
from data_pipelines.manifests.audio_finder import table as table_of_audio
from data_pipelines.manifests.clip_manifests import ReadRules
from data_pipelines.manifests.file_index import FileIndex
from data_pipelines.records import record_files
from data_pipelines.records.beam_runner import BeamRunner
from data_pipelines.records.quarantine import MAX_SHARE, Quarantine, Quarantined
from data_pipelines.records.schema import SPLITS, AnnotatedClip, RecordError
from data_pipelines.records.summary import table
from data_pipelines.records.whisper_features import FeatureExtractor
from data_pipelines.records.write import write_records
from ltu_jax.core import errors, outputs
from ltu_jax.core.bucket_copies import local_copy
from ltu_jax.core.files import atomic_file, write_json
from ltu_jax.core.jsonl import JsonlWriter
from ltu_jax.core.paths import argument, is_remote, local_arguments
from ltu_jax.core.values import real_number
from ltu_jax.preprocessing.text import load_tokenizer
from ltu_jax.weights import places
from ltu_jax.weights.fingerprint import SAME

VALIDATION_SHARE = 0.01
MAX_BAD_ROWS = 0.05


def command(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    flags = _flags(arguments)
    _fetch(flags)
    began = time.monotonic()
    read = [flags.corpus, flags.questions, flags.json, flags.audio_root, flags.features]
    outputs.claim(flags.out, record_files.MAKER, inputs=read)
    quarantine = Quarantine(max_share=flags.max_quarantined)
    given = _read(flags, quarantine)
    extractor = None
    if flags.features is not None:
        extractor = FeatureExtractor(flags.features, dtype=flags.encoder_dtype)
    manifest = write_records(
        given.clips,
        flags.out,
        tag_labels=given.tag_labels,
        extractor=extractor,
        runner=BeamRunner(name=flags.runner, flags=tuple(flags.beam_flags), workers=flags.workers),
        shards=flags.shards,
        force=flags.force,
        quarantine=quarantine,
        licences=given.licences,
    )
    print(table(manifest))
    written = sum(split["clips"] for split in manifest["splits"].values())
    print(f"{flags.out}: {written} clips, {time.monotonic() - began:.0f} s")
    if flags.no_tokens:
        return 0
    if flags.tokenizer is None:
        asked = token_counts.command(flags.out, "LLAMA_WEIGHTS")
        print(f"tokens were not counted, as no --tokenizer is given; to count them: {asked}")
    else:
        token_lengths.count(flags.out, tokenizer=flags.tokenizer, workers=os.cpu_count() or 1)
    return 0


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.write_records",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--corpus", type=Path, help="corpus folder of build_mini or build_windows")
    given.add_argument(
        "--json",
        type=argument,
        help="JSON or JSONL file of Open-ASQA records; one of a bucket is copied here first",
    )
    parser.add_argument(
        "--questions",
        type=Path,
        help="rows about the clips of --corpus (JSON or JSONL, as open_asqa's `merge` writes "
        "them), whose spoken text and dataset count too",
    )
    parser.add_argument(
        "--audio-root", type=Path, help="folder of --json's audio (default: its own)"
    )
    parser.add_argument(
        "--rewrite",
        action="append",
        default=[],
        type=Rewrite.parse,
        metavar="OLD=NEW",
        help="let audio_ids that begin with the folder OLD begin with NEW; several add up",
    )
    parser.add_argument(
        "--audio-index",
        type=Path,
        help="file names of --audio-root, made when absolute audio_ids are not there (default: "
        "OUT.audio_index.sqlite)",
    )
    parser.add_argument(
        "--val-share",
        type=real_number,
        default=VALIDATION_SHARE,
        help="of the clips of a --json without a split val that become it, by a hash of their "
        f"audio_id (default: {VALIDATION_SHARE}; 0 for none)",
    )
    parser.add_argument(
        "--max-bad-rows",
        type=real_number,
        default=MAX_BAD_ROWS,
        help="share of the rows of --json that may be broken or contradict others of their clip "
        f"(default: {MAX_BAD_ROWS})",
    )
    parser.add_argument("--out", type=Path, required=True, help="records directory to write")
    parser.add_argument("--features", type=argument, help="Whisper weights whose features to store")
    parser.add_argument(
        "--encoder-dtype",
        choices=tuple(SAME),
        default="float32",
        help="precision of --features, as config.compute.encoder_dtype of the training (default: "
        "float32, that of the mini preset)",
    )
    parser.add_argument(
        "--tokenizer",
        type=argument,
        help="weights of the language model, whose tokens of all pairs are counted too; training "
        "on more than 200,000 pairs asks for them",
    )
    parser.add_argument("--no-tokens", action="store_true", help="count none, and say nothing")
    parser.add_argument("--runner", default="DirectRunner", help="Beam runner (default: here)")
    parser.add_argument(
        "--workers", type=int, help="processes of DirectRunner or of a Dask cluster on this machine"
    )
    parser.add_argument(
        "--shards", type=int, help="per split (default: 1 per 256 MiB or 4096 clips, at least 4)"
    )
    parser.add_argument("--force", action="store_true", help="write again even if --out is valid")
    parser.add_argument(
        "--max-quarantined",
        type=real_number,
        default=MAX_SHARE,
        help=f"share of clips that unreadable audio may cost (default: {MAX_SHARE})",
    )
    parser.add_argument("beam_flags", nargs="*", help="after a lone --: options of the runner")
    flags = local_arguments(parser.parse_args(arguments))
    if flags.questions is not None and flags.corpus is None:
        raise errors.UserError(
            f"--questions {flags.questions} go with --corpus; rows alone are --json"
        )
    return flags


def _fetch(flags: argparse.Namespace) -> None:
    """Bring rows and tokenizer here; a wrong one fails before hours of work."""
    if flags.tokenizer is not None:
        where = places.find(flags.tokenizer, option="--tokenizer", numbers=False)
        flags.tokenizer = where.path
        load_tokenizer(flags.tokenizer)
    if flags.json is not None and is_remote(flags.json):
        if flags.audio_root is None:
            raise errors.UserError(f"--json {flags.json}: give the folder of its --audio-root")
        flags.json = local_copy(flags.json, option="--json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Given:
    """The clips, read one by one while they are written; no `tag_labels`: those they have."""

    clips: Iterator[AnnotatedClip]
    tag_labels: Sequence[str] | None = None
    licences: dict[str, dict[str, int]] | None = None


def _read(flags: argparse.Namespace, quarantine: Quarantine) -> _Given:
    if flags.json is not None:
        licences = clip_manifests.manifest_licences(flags.json)
        return _Given(clips=_read_json(flags, quarantine), licences=licences or None)
    questions = None
    if flags.questions is not None:
        questions = corpus_folders.corpus_questions(flags.corpus, flags.questions)
    return _Given(
        clips=itertools.chain.from_iterable(
            corpus_folders.read_corpus(flags.corpus, split=split, questions=questions)
            for split in SPLITS
        ),
        tag_labels=corpus_folders.tag_labels(flags.corpus),
        licences=corpus_folders.licences(flags.corpus),
    )


def _beside(out: Path, ending: str) -> Path:
    """Return the place of a report about the records in `out`."""
    return out.absolute().with_name(f"{out.absolute().name}.{ending}")


class _BadRows:
    """Writes down rows that cannot be used, one by one; keeps their number and the first reason."""

    def __init__(self, file: JsonlWriter):
        self._file, self.count, self.first = file, 0, ""

    def __call__(self, error: RecordError) -> None:
        self.first = self.first or str(error)
        self.count += 1
        self._file.append({"reason": str(error)})


def _read_json(flags: argparse.Namespace, quarantine: Quarantine) -> Iterator[AnnotatedClip]:
    """Yield the clips of --json; at their end report how audio was found, and rows of no use."""
    root = flags.json.parent if flags.audio_root is None else flags.audio_root
    if not 0 <= flags.val_share < 1:
        raise errors.UserError(f"--val-share is {flags.val_share}; use a share from 0 to below 1")
    index = flags.audio_index or _beside(flags.out, "audio_index.sqlite")
    finder = AudioFinder(root, rewrites=flags.rewrite, index=lambda: FileIndex(index, root=root))
    used = 0

    def leave_out(clip: Quarantined) -> None:
        nonlocal used
        used += clip.pairs
        quarantine.entries.append(clip)

    rows_file = _beside(flags.out, "bad_rows.jsonl")
    with atomic_file(rows_file) as temporary, JsonlWriter(temporary) as file:
        bad = _BadRows(file)
        rules = ReadRules(
            validation_share=flags.val_share,
            quarantine=leave_out,
            set_aside=bad,
            scratch=flags.out.absolute().parent,
        )
        for clip in clip_manifests.read_clips(flags.json, audio=finder, rules=rules):
            used += len(clip.pairs)
            yield clip
    found = finder.report()
    write_json(_beside(flags.out, "audio_report.json"), found)
    if found["datasets"]:
        print(table_of_audio(found))
    if bad.count > flags.max_bad_rows * (used + bad.count):
        raise errors.UserError(
            f"{bad.first}; {bad.count} of {used + bad.count} rows cannot be used, all listed in "
            f"{rows_file}, and at most {flags.max_bad_rows:.2%} may be left out: mend them, or "
            "raise --max-bad-rows; nothing was written"
        )
    if bad.count:
        print(f"{bad.count} of {used + bad.count} rows left out, for reasons in {rows_file}")


if __name__ == "__main__":
    errors.main(command)
