"""Write official rows in another project's form.

    python -m data_pipelines.open_asqa export open_asqa.json --form salmonn --out salmonn.json
    python -m data_pipelines.open_asqa export open_asqa.json --form llava --audio-root audio \\
        --out af3.json
    python -m data_pipelines.open_asqa export open_asqa.json --form nemo --out manifest.jsonl

Forms: open_asqa, gama, salmonn, llava (Audio Flamingo 3 too), slam, nemo. With --audio-root the
files are found there, named by their paths, and their lengths are written where a form has them.
Dataset, task and spoken text go along under our own names; `import` reads them again. Rows that are
broken, or whose audio is not there, are left out and listed with file and row in
OUT.bad_rows.jsonl; where they are more than --max-bad-rows of all, nothing is written.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from data_pipelines.manifests.audio_finder import AudioFinder
from data_pipelines.manifests.file_index import FileIndex
from data_pipelines.manifests.official_rows import OfficialRow, rows_or_errors
from data_pipelines.manifests.peer_forms import FORMS
from data_pipelines.open_asqa.conversion import (
    MAX_BAD_ROWS,
    Conversion,
    ConversionOrder,
    converting,
)
from data_pipelines.records.schema import RecordError
from ltu_jax.core.values import real_number
from ltu_jax.preprocessing.audio import AudioError, probe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    parser.add_argument("file", type=Path, metavar="ROWS", help="official rows: JSON or JSONL")
    parser.add_argument("--form", choices=tuple(FORMS), required=True, help="form to write")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--audio-root", type=Path, help="folder of the audio")
    parser.add_argument(
        "--max-bad-rows",
        type=real_number,
        default=MAX_BAD_ROWS,
        help=f"share of the rows that may be unusable (default: {MAX_BAD_ROWS})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Export a file and print what came of it."""
    order = ConversionOrder(
        step="export",
        file=arguments.file,
        form=arguments.form,
        out=arguments.out,
        max_bad_rows=arguments.max_bad_rows,
    )
    with tqdm(desc="exporting", unit="row", unit_scale=True, disable=None) as bar:
        print(export_rows(order, audio_root=arguments.audio_root, progress=bar.update))
    return 0


def export_rows(
    order: ConversionOrder,
    *,
    audio_root: Path | None = None,
    progress: Callable[[int], object] = lambda rows: None,
) -> Conversion:
    """Write the rows in another form; return what came of it.

    Raises:
        UserError: the place is taken, no such file, or too many rows are unusable.
    """
    form = FORMS[order.form]
    audio = None if audio_root is None else _Audio(audio_root, out=order.out)
    with converting(order, layout=form.layout) as conversion:
        for row in rows_or_errors(order.file):
            progress(1)
            try:
                if isinstance(row, RecordError):
                    raise row
                fields, seconds = dict(row.values), None
                if audio is not None:
                    path, seconds = audio.of(row)
                    fields["audio_id"] = str(path)
            except RecordError as error:
                conversion.leave_out(error)
                continue
            entry = form.write(fields, conversion.rows + 1, seconds)
            conversion.write(entry, official=fields)
    return conversion


class _Audio:
    """Files of audio_ids and their lengths; rows of one clip mostly stand together."""

    def __init__(self, root: Path, *, out: Path):
        index = out.absolute().with_name(f"{out.name}.audio_index.sqlite")
        self._finder = AudioFinder(root, index=lambda: FileIndex(index, root=root))
        self._last: tuple[str, tuple[Path, float]] | None = None

    def of(self, row: OfficialRow) -> tuple[Path, float]:
        audio_id = row.values["audio_id"]
        if self._last is None or self._last[0] != audio_id:
            path = self._finder.find(audio_id, dataset=row.values["dataset"], where=row.where)
            try:
                seconds = round(probe(path).seconds, 3)
            except AudioError as error:
                raise RecordError(f"{row.where}: {error}") from error
            self._last = (audio_id, (path.absolute(), seconds))
        return self._last[1]
