"""Records that cannot be used: counted, written down with file and offset, and too many of them.

    RUN/bad_records.jsonl       a line per record: file, offset, clip, reason, first step
    RUN/bad_records.N.jsonl     the same of process N

A bad record costs itself only (`InputPipeline` says what stands in its place). Each is counted
once however often its turn comes. The share that a config allows is one of all records of the
split, so whether a run stops does not depend on how far it has come; each process judges by those
it met itself.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from data_pipelines.records.schema import RecordError
from ltu_jax.core.errors import shorten
from ltu_jax.core.jsonl import JsonlWriter, read_jsonl
from ltu_jax.core.paths import as_path

FILE = "bad_records.jsonl"
_LISTED = 10  # in the message; the log has all
_MOVE = "move the file away"


class TooManyBadRecords(RecordError):
    """More bad records than `data.max_bad_share` allows; the message lists them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadRecord:
    """One of them; `offset` in bytes of its payload in `file`, `step` the first that met it."""

    file: str
    offset: int
    record: int
    clip_id: str
    split: str
    step: int
    reason: str


class BadRecordLog:
    """The file of one process; what an earlier start of the run wrote is read back."""

    def __init__(self, run_dir: str | Path, *, process: int = 0):
        """Open RUN/bad_records.jsonl, which is made with its first line.

        Raises:
            RecordError: a line that is not of this kind.
        """
        name = FILE if process == 0 else f"bad_records.{process}.jsonl"
        self.path = as_path(run_dir) / name
        self._read()

    def __call__(self, bad: BadRecord) -> None:
        """Write a record down, unless it stands there already."""
        if _key(bad) in map(_key, self._read()):  # perhaps by another pipeline of the run
            return
        with JsonlWriter(self.path) as file:
            file.append(dataclasses.asdict(bad))

    def before(self, step: int, *, split: str) -> list[BadRecord]:
        """List the records met before `step`: a run that goes on counts as if it never stopped."""
        return [bad for bad in self._read() if bad.split == split and bad.step < step]

    def _read(self) -> list[BadRecord]:
        lines = read_jsonl(self.path, advice=_MOVE, error=RecordError)
        try:
            return [BadRecord(**record) for _, record in lines]
        except TypeError as error:
            raise RecordError(
                f"{self.path}: not a list of bad records ({error}); {_MOVE}"
            ) from error


class BadRecordCounter:
    """Those that one pipeline has met."""

    def __init__(
        self,
        *,
        records: int,
        max_share: float,
        where: str,
        report: Callable[[BadRecord], None] | None,
    ):
        """Begin with no record met.

        Args:
            records: number of records of the split.
            max_share: of them that may be bad.
            where: name of the split in a message.
            report: told of each record once.
        """
        self.found: dict[tuple[str, int], BadRecord] = {}
        self._records, self._share = records, max_share
        self._where, self._report = where, report

    def __len__(self) -> int:
        return len(self.found)

    def note(self, *met: BadRecord) -> None:
        """Count records, and report each when it is met for the first time; then judge.

        Raises:
            TooManyBadRecords: there are more than may be.
        """
        for bad in met:
            if _key(bad) not in self.found:
                self.found[_key(bad)] = bad
                if self._report is not None:
                    self._report(bad)
        self._judge()

    def recall(self, met: Iterable[BadRecord]) -> None:
        """Count records that an earlier start of the same run has met; raises as `note` does."""
        self.found = {_key(bad): bad for bad in met} | self.found
        self._judge()

    def _judge(self) -> None:
        if len(self) > self._share * self._records:
            raise TooManyBadRecords(self._message())

    def _message(self) -> str:
        reasons = [bad.reason for bad in self.found.values()]
        lines = shorten(reasons, most=_LISTED, separator="\n  ")
        return (
            f"{len(self)} of {self._records} records of {self._where} are bad, more than "
            f"data.max_bad_share = {self._share:g} allows:\n  {lines}\n"
            "write or copy them again, or raise data.max_bad_share to train without them"
        )


def _key(bad: BadRecord) -> tuple[str, int]:
    return bad.file, bad.record
