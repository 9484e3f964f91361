"""Write a corpus as TFRecords: an Apache Beam pipeline in a tfds builder, one record per clip.

    python -m data_pipelines.write_records --corpus data/mini --out data/mini_records
    python -m data_pipelines.write_records --json mine.jsonl --audio-root clips --out my_records
    python -m data_pipelines.write_records --corpus DIR --out DIR --features WHISPER_WEIGHTS_DIR
    python -m data_pipelines.write_records --corpus DIR --out DIR --runner FlinkRunner -- --flink...

What follows a lone `--` are options of the Beam runner. Audio is stored as 16 kHz mono FLAC: such
files byte for byte, anything else resampled and rounded to 16 bits. The output appears only when it
is complete; valid output of the same input is kept.

A clip whose audio is missing or cannot be decoded is left out and listed in OUT/quarantine.jsonl
with the reason; where more than --max-quarantined of the clips are, nothing is written.
"""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.manifests import clip_manifests
from data_pipelines.records import record_files
from data_pipelines.records.beam_builder import BeamRunner
from data_pipelines.records.quarantine import MAX_SHARE, Quarantine, Quarantined
from data_pipelines.records.schema import SPLITS, AnnotatedClip
from data_pipelines.records.summary import table
from data_pipelines.records.whisper_features import FeatureExtractor
from data_pipelines.records.write import write_records
from ltu_jax.core import errors, outputs
from ltu_jax.core.paths import local_arguments
from ltu_jax.weights.fingerprint import SAME


def command(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.write_records",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--corpus", type=Path, help="corpus directory made by build_mini")
    given.add_argument("--json", type=Path, help="JSON or JSONL file of Open-ASQA records")
    parser.add_argument(
        "--audio-root", type=Path, help="folder of --json's audio (default: its own)"
    )
    parser.add_argument("--out", type=Path, required=True, help="records directory to write")
    parser.add_argument("--features", type=Path, help="Whisper weights whose features to store")
    parser.add_argument(
        "--encoder-dtype",
        choices=tuple(SAME),
        default="float32",
        help="precision of --features, as config.compute.encoder_dtype of the training (default: "
        "float32, that of the mini preset)",
    )
    parser.add_argument("--runner", default="DirectRunner", help="Beam runner (default: here)")
    parser.add_argument("--shards", type=int, help="per split (default: 1 per 256 MiB, at least 4)")
    parser.add_argument("--force", action="store_true", help="write again even if --out is valid")
    parser.add_argument(
        "--max-quarantined",
        type=float,
        default=MAX_SHARE,
        help=f"share of clips that unreadable audio may cost (default: {MAX_SHARE})",
    )
    parser.add_argument("beam_flags", nargs="*", help="after a lone --: options of the runner")
    flags = local_arguments(parser.parse_args(arguments))
    began = time.monotonic()
    read = [flags.corpus, flags.json, flags.audio_root, flags.features]
    outputs.claim(flags.out, record_files.MAKER, inputs=read)
    given = _read(flags)
    extractor = None
    if flags.features is not None:
        extractor = FeatureExtractor(flags.features, dtype=flags.encoder_dtype)
    manifest = write_records(
        given.clips,
        flags.out,
        tag_labels=given.tag_labels,
        extractor=extractor,
        runner=BeamRunner(name=flags.runner, flags=tuple(flags.beam_flags)),
        shards=flags.shards,
        force=flags.force,
        quarantine=Quarantine(given.quarantined, max_share=flags.max_quarantined),
        licences=given.licences,
    )
    print(table(manifest))
    written = sum(split["clips"] for split in manifest["splits"].values())
    print(f"{flags.out}: {written} clips, {time.monotonic() - began:.0f} s")
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Given:
    clips: list[AnnotatedClip]
    quarantined: list[Quarantined]
    tag_labels: list[str] | None
    licences: dict[str, dict[str, int]] | None


def _read(flags: argparse.Namespace) -> _Given:
    if flags.json is not None:
        root = flags.json.parent if flags.audio_root is None else flags.audio_root
        left: list[Quarantined] = []
        clips = list(clip_manifests.read_clips(flags.json, audio_root=root, quarantine=left.append))
        return _Given(clips=clips, quarantined=left, tag_labels=None, licences=None)
    clips = [
        clip for split in SPLITS for clip in clip_manifests.read_corpus(flags.corpus, split=split)
    ]
    return _Given(
        clips=clips,
        quarantined=[],
        tag_labels=list(clip_manifests.tag_labels(flags.corpus)),
        licences=clip_manifests.licences(flags.corpus),
    )


if __name__ == "__main__":
    errors.main(command)
