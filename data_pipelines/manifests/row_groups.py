"""The rows of a manifest clip by clip, from a file of any size: sorted through files on disk.

Rows go into buckets by a hash of their audio_id, about `_BUCKET` bytes of JSON each, and one bucket
at a time is held in memory. Rows that cannot be used are set aside, each with its reason.
"""

import contextlib
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from data_pipelines.manifests.official_rows import OPTIONAL, BrokenList, OfficialRow, rows_or_errors
from data_pipelines.records import line_buckets
from data_pipelines.records.schema import RecordError
from ltu_jax.core import staging

_BUCKET = 64 << 20
_ROWS = "rows"  # part of the name of the temporary folder; what is left of a killed one is cleared
SetAside = Callable[[RecordError], None]


class RowGroups:
    """All rows of a manifest, ready to be read clip by clip, as often as need be."""

    def __init__(self, folder: Path, *, source: Path, buckets: int, splits: Counter[str]):
        """Take what `grouped` has written."""
        self._folder, self._source, self._buckets = folder, source, buckets
        self.splits = splits

    def clips(self) -> Iterator[tuple[list[OfficialRow], bool]]:
        """Yield the rows of each audio_id and dataset, and whether the audio_id has no other.

        Rows, and the clips of a bucket, are in the order of the manifest.
        """
        for number in range(self._buckets):
            groups: dict[tuple[str, str], list[OfficialRow]] = {}
            for line in line_buckets.read_lines(self._folder / str(number)):
                place, values = json.loads(line)
                row = OfficialRow(source=self._source, number=place, values=values)
                groups.setdefault((values["audio_id"], values["dataset"]), []).append(row)
            datasets = Counter(audio_id for audio_id, _ in groups)
            for (audio_id, _), rows in groups.items():
                yield rows, datasets[audio_id] == 1


@contextlib.contextmanager
def grouped(
    path: Path,
    *,
    default_split: str,
    set_aside: SetAside | None,
    whole: bool = True,
    scratch: Path | None = None,
) -> Iterator[RowGroups]:
    """Sort the rows of a manifest into groups, kept in a temporary folder below `scratch`.

    Raises:
        RecordError: an unusable row, unless there is `set_aside`, which is told of it instead; a
            list that is cut short, if it must be `whole`.
    """
    path = Path(path)
    buckets = 1 + (path.stat().st_size if path.is_file() else 0) // _BUCKET
    splits: Counter[str] = Counter()

    def usable() -> Iterator[tuple[int, str]]:
        for row in rows_or_errors(path):
            if isinstance(row, RecordError):
                if set_aside is None or (whole and isinstance(row, BrokenList)):
                    raise row
                set_aside(row)
                continue
            splits[row.values.get("split", default_split)] += 1
            bucket = share_of(row.values["audio_id"], salt="bucket") * buckets
            yield int(bucket), json.dumps([row.number, row.values]) + "\n"

    with staging.staging(Path(scratch or tempfile.gettempdir()) / _ROWS) as folder:
        line_buckets.deal_out(usable(), folder / _ROWS)
        yield RowGroups(folder / _ROWS, source=path, buckets=buckets, splits=splits)


def agreeing(rows: list[OfficialRow], *, set_aside: SetAside | None) -> list[OfficialRow]:
    """Return the rows of a clip that agree on its spoken text, split and tags.

    The value that most rows have holds, of several the first. Raises `RecordError` for another one
    unless there is `set_aside`, which is told of it instead.
    """
    for field in ("input", *OPTIONAL):
        held = Counter(json.dumps(row.values.get(field)) for row in rows)
        if len(held) == 1:
            continue
        value = held.most_common(1)[0][0]
        model = next(row for row in rows if json.dumps(row.values.get(field)) == value)
        agreed = []
        for row in rows:
            if json.dumps(row.values.get(field)) == value:
                agreed.append(row)
                continue
            error = RecordError(
                f"{row.where}: field {field!r} is {row.values.get(field)!r}, but row "
                f"{model.number} of the same audio_id {row.values['audio_id']!r} has "
                f"{model.values.get(field)!r}; one clip has one value"
            )
            if set_aside is None:
                raise error
            set_aside(error)
        rows = agreed
    return rows


def share_of(audio_id: str, *, salt: str) -> float:
    """Return a number from 0 to 1 that follows from an audio_id alone, on every machine."""
    digest = hashlib.sha256(f"{salt}:{audio_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
