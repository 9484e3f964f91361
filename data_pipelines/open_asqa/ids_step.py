"""List the clips that a published file of Open-ASQA has, so that the same ones can be taken again.

    python -m data_pipelines.open_asqa ids --from openasqa_9.6M_v1.json --out lists

Writes lists/SOURCE.txt, a name a line: YouTube ids with what follows them, Freesound numbers, turns
and utterances, as the file names them. In sources.toml, `clips = "lists/SOURCE.txt"` lets `build`
take these clips alone. The file is read in a stream.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from data_pipelines.manifests.official_rows import rows_or_errors
from data_pipelines.open_asqa.statistics_step import SOURCE_OF
from data_pipelines.open_asqa.text_tables import table
from data_pipelines.records.schema import RecordError
from ltu_jax.core import outputs
from ltu_jax.core.files import atomic_dir
from ltu_jax.preprocessing.names import stem_key

MAKER = outputs.Maker(name="`python -m data_pipelines.open_asqa ids`")
# An utterance of VoxCeleb2 in one name or three: id00012/21Uxsk56VDQ/00001, id00012-21U...-00001.
_UTTERANCE = re.compile(r"(id\d{5})[/_-](.{11})[/_-](\d{5})")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this step."""
    parser.add_argument(
        "--from", dest="file", type=Path, required=True, help="a JSON or JSONL file of rows"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the lists")


def run(flags: argparse.Namespace) -> int:
    """Write a list for each source, and print how long each is."""
    outputs.claim(flags.out, MAKER, inputs=[flags.file])
    names: dict[str, set[str]] = {}
    unknown: dict[str, int] = {}
    for dataset, audio_id in _rows(flags.file):
        source = SOURCE_OF.get(dataset)
        if source is None:
            unknown[dataset] = unknown.get(dataset, 0) + 1
            continue
        names.setdefault(source, set()).add(clip_name(source, audio_id))
    with atomic_dir(flags.out, MAKER) as folder:
        for source, own in names.items():
            text = "".join(f"{name}\n" for name in sorted(own))
            (folder / f"{source}.txt").write_text(text, encoding="utf-8")
    print(table(("source", "clips"), [(source, len(own)) for source, own in names.items()]))
    for dataset, rows in sorted(unknown.items()):
        print(f"{rows:,} rows are of the dataset {dataset!r}, which is of no source")
    return 0


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    for row in tqdm(rows_or_errors(path), desc="reading", unit="row", disable=None):
        if isinstance(row, RecordError):
            raise row
        yield row.values["dataset"], row.values["audio_id"]


def clip_name(source: str, audio_id: str) -> str:
    """Return the name of a clip in an audio_id: its file without folders and ending."""
    path = audio_id.replace("\\", "/")
    if source == "voxceleb2" and (match := _UTTERANCE.search(path)):
        return "/".join(match.groups())
    return stem_key(path.rpartition("/")[2])
