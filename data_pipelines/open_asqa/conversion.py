"""A file of rows made of another one, with a list of what could not be used.

OUT                     the rows
OUT.bad_rows.jsonl      {"reason"} of each entry that was left out, with file and row
OUT.converted.json      form, file, and how many rows; by it we know the file as ours
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.manifests.row_writer import Layout, RowWriter
from data_pipelines.records.schema import RecordError
from ltu_jax.core import outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_file, write_json
from ltu_jax.core.jsonl import JsonlWriter

MAX_BAD_ROWS = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionOrder:
    """What is made of which file.

    Attributes:
        step: the subcommand.
        file: what is read.
        form: of the other project.
        out: file of rows.
        max_bad_rows: share of the entries that may be unusable.
    """

    step: str
    file: Path
    form: str
    out: Path
    max_bad_rows: float = MAX_BAD_ROWS

    @property
    def maker(self) -> outputs.Maker:
        """The maker of the file."""
        return outputs.Maker(
            name=f"`python -m data_pipelines.open_asqa {self.step}`",
            folder=False,
            before=lambda path: () if _beside(path, "converted.json").is_file() else None,
        )


class Conversion:
    """Takes rows, and the reasons of entries that give none.

    Attributes:
        rows, bad: how many there are of either.
        counts: of rows, by field and value.
    """

    def __init__(self, order: ConversionOrder, writer: RowWriter, left_out: JsonlWriter):
        """Take where both go."""
        self._writer, self._left_out = writer, left_out
        self._order = order
        self.rows, self.bad, self.first = 0, 0, ""
        self.counts: dict[str, Counter[str]] = {"dataset": Counter(), "task": Counter()}

    def write(self, row: Mapping[str, Any], *, official: Mapping[str, Any]) -> None:
        """Write a row, counted by the dataset and task of its official form."""
        self._writer.write(row)
        self.rows += 1
        for field, counter in self.counts.items():
            counter[official[field]] += 1

    def leave_out(self, error: RecordError) -> None:
        """Write down an entry that cannot be used."""
        self.bad, self.first = self.bad + 1, self.first or str(error)
        self._left_out.append({"reason": str(error)})

    def __str__(self) -> str:
        lines = [f"{self._order.out}: {self.rows:,} rows"]
        for field, counter in self.counts.items():
            named = ", ".join(f"{name} {count:,}" for name, count in sorted(counter.items()))
            lines.append(f"  by {field}: {named}")
        if self.bad:
            place = _beside(self._order.out, "bad_rows.jsonl")
            lines.append(f"  {self.bad:,} entries left out, for reasons in {place}")
        return "\n".join(lines)


@contextlib.contextmanager
def converting(order: ConversionOrder, *, layout: Layout) -> Iterator[Conversion]:
    """Yield a conversion; its file takes its place at the end, if enough could be used.

    Raises:
        UserError: the place is taken, too many entries are unusable, or there is none.
    """
    if not 0 <= order.max_bad_rows < 1:
        raise UserError(f"--max-bad-rows is {order.max_bad_rows}; use a share from 0 to below 1")
    if not order.file.is_file():
        raise UserError(f"{order.file} does not exist: give a file of rows")
    outputs.claim(order.out, order.maker, inputs=[order.file])
    list_of_bad = _beside(order.out, "bad_rows.jsonl")
    with atomic_file(order.out, order.maker) as temporary:
        with (
            temporary.open("wb") as file,
            atomic_file(list_of_bad) as reasons,
            JsonlWriter(reasons) as left_out,
        ):
            writer = RowWriter(file, layout)
            conversion = Conversion(order, writer, left_out)
            yield conversion
            writer.finish()
        bad, entries = conversion.bad, conversion.rows + conversion.bad
        if bad > order.max_bad_rows * entries:
            raise UserError(
                f"{conversion.first}; {bad} of {entries} entries cannot be used, all listed in "
                f"{list_of_bad}, and at most {order.max_bad_rows:.2%} may be left out: mend them, "
                f"or raise --max-bad-rows; {order.out} was not written"
            )
        if not entries:
            raise UserError(f"{order.file} has no entries of the form {order.form}")
        write_json(
            _beside(order.out, "converted.json"),
            {
                "form": order.form,
                "step": order.step,
                "file": str(order.file.absolute()),
                "rows": conversion.rows,
                "bad_rows": bad,
                "counts": conversion.counts,
            },
        )


def _beside(out: Path, ending: str) -> Path:
    return out.absolute().with_name(f"{out.name}.{ending}")
