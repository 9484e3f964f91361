"""Turn questions and answers in another project's form into official rows.

    python -m data_pipelines.open_asqa import salmonn.json --form salmonn --out rows.json
    python -m data_pipelines.open_asqa import af3.json --form llava --turns all --out rows.jsonl
    python -m data_pipelines.open_asqa import train.jsonl --form slam --prompts multiprompt.jsonl \\
        --dataset my_asr --out rows.jsonl
    python -m data_pipelines.open_asqa import manifest.json --form nemo --out rows.jsonl

Forms: open_asqa, gama, salmonn, llava (Audio Flamingo 3 too), slam, nemo. Rows that name no dataset
get --dataset, those without a task are open-ended. Spoken text is empty where the form has none:
`input` is Whisper's part of the prompt. What comes out goes into `write_records --json`.

Entries that cannot be used are left out and listed with file and row in OUT.bad_rows.jsonl; where
they are more than --max-bad-rows of all, nothing is written.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.manifests import official_rows
from data_pipelines.manifests.official_rows import OfficialRow
from data_pipelines.manifests.peer_forms import ASR, FORMS, PeerForm, in_order
from data_pipelines.manifests.row_writer import Layout
from data_pipelines.open_asqa import draw
from data_pipelines.open_asqa.conversion import (
    MAX_BAD_ROWS,
    Conversion,
    ConversionOrder,
    converting,
)
from data_pipelines.open_asqa.merged_rows import OPEN_TASK
from data_pipelines.records.schema import RecordError
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.files import read_json
from ltu_jax.core.text_files import open_text
from ltu_jax.core.values import real_number

_ASR_TASKS = (ASR, "asr")
_SPEECH = "<Speech><SpeechHere></Speech>"  # where SALMONN's prompts have the audio
_TURNS = ("first", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `import`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="what another project has")
    parser.add_argument("--form", choices=tuple(FORMS), required=True, help="its form")
    parser.add_argument("--out", type=Path, required=True, help=".json (a list) or .jsonl")
    parser.add_argument("--dataset", help="of rows that name none (default: the file's name)")
    parser.add_argument(
        "--prompts",
        type=Path,
        help="questions of tasks, where entries have none: {task: [question, ...]} as SALMONN has "
        'it, or lines of {"task", "prompt"} as SLAM-LLM has them; of ASR ours serve',
    )
    parser.add_argument(
        "--open",
        default="",
        metavar="TASKS",
        help="tasks of the file whose answers are free prose, by comma: they become open-ended",
    )
    parser.add_argument(
        "--turns",
        choices=_TURNS,
        help="take of a conversation of several turns the first question alone, or each one as a "
        "question by itself (default: such a conversation is refused)",
    )
    parser.add_argument(
        "--max-bad-rows",
        type=real_number,
        default=MAX_BAD_ROWS,
        help=f"share of the entries that may be unusable (default: {MAX_BAD_ROWS})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Import a file and print what came of it."""
    order = ConversionOrder(
        step="import",
        file=arguments.file,
        form=arguments.form,
        out=arguments.out,
        max_bad_rows=arguments.max_bad_rows,
    )
    choices = ImportChoices(
        dataset=arguments.dataset or arguments.file.stem,
        prompts=_prompts(arguments.prompts),
        open_tasks=tuple(filter(None, map(str.strip, arguments.open.split(",")))),
        turns=arguments.turns,
    )
    with tqdm(desc="importing", unit="entry", unit_scale=True, disable=None) as bar:
        print(import_rows(order, choices, progress=bar.update))
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportChoices:
    """What entries leave open; see `add_arguments`."""

    dataset: str
    prompts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    open_tasks: tuple[str, ...] = ()
    turns: str | None = None


def import_rows(
    order: ConversionOrder,
    choices: ImportChoices,
    *,
    progress: Callable[[int], object] = lambda entries: None,
) -> Conversion:
    """Write official rows; return what came of it.

    Raises:
        UserError: the place is taken, no such file, or too many entries are unusable.
    """
    form = FORMS[order.form]
    with converting(order, layout=Layout.of(order.out)) as conversion:
        for entry in _entries(order.file, form):
            progress(1)
            try:
                made = list(_rows(entry, form, choices))
            except RecordError as error:
                conversion.leave_out(error)
                continue
            for row in made:
                conversion.write(row, official=row)
    return conversion


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Entry:
    """An entry and where it stands; the value of a broken one is its error."""

    source: Path
    number: int
    value: Any


def _entries(path: Path, form: PeerForm) -> Iterator[_Entry]:
    """Yield the entries of a file: of a list, of lines, or of the list under a key."""
    with open_text(path, expected="rows", errors="surrogateescape") as file:
        begin = file.read(1 << 16).lstrip()[:1]
    if form.under is not None and begin != "[":
        values = official_rows.list_or_error(path, under=form.under)
    elif begin == "[":
        values = official_rows.list_or_error(path)
    else:
        values = official_rows.lines_or_errors(path)
    for number, value in values:
        yield _Entry(source=path, number=number, value=value)


def _rows(entry: _Entry, form: PeerForm, choices: ImportChoices) -> Iterator[dict[str, Any]]:
    """Yield the official rows of an entry; raises `RecordError`."""
    where = f"{entry.source}, row {entry.number}"
    if isinstance(entry.value, RecordError):
        raise entry.value
    if not isinstance(entry.value, dict):
        raise RecordError(f"{where}: is {str(entry.value)[:60]!r}: give an object with fields")

    def prompt(task: str, place: str) -> str:
        return _prompt(choices.prompts, task, place, name=f"{entry.source.name}:{entry.number}")

    made = list(form.read(entry.value, where, prompt))
    if len(made) > 1 and choices.turns is None:
        raise RecordError(
            f"{where}: field 'conversations' has {len(made)} questions, and a row has one: give "
            "--turns first, or --turns all if each can be understood by itself"
        )
    for fields in made[:1] if choices.turns == "first" else made:
        given = {"input": "", "dataset": choices.dataset, "task": OPEN_TASK}
        missing = {name: value for name, value in given.items() if fields.get(name) is None}
        row = {"instruction": "", "audio_id": "", "output": ""} | fields | missing
        if row["task"] in choices.open_tasks:
            row["task"] = OPEN_TASK
        row = in_order(row)
        official_rows.check(OfficialRow(source=entry.source, number=entry.number, values=row))
        yield row


def _prompt(prompts: Mapping[str, tuple[str, ...]], task: str, where: str, *, name: str) -> str:
    options = prompts.get(task) or (draw.wordings()[ASR] if task in _ASR_TASKS else ())
    if not options:
        known = shorten(sorted(prompts)) or "none"
        raise RecordError(
            f"{where}: has no question, and its task {task!r} has none in --prompts (there: "
            f"{known}): add one there"
        )
    return draw.choose(options, "import", name)


def _prompts(path: Path | None) -> dict[str, tuple[str, ...]]:
    """Read task -> questions of a file of SALMONN or SLAM-LLM.

    Raises:
        UserError: another form.
    """
    if path is None:
        return {}
    options: dict[str, list[str]] = {}
    if path.suffix.lower() == ".jsonl":
        for number, value in official_rows.lines_or_errors(path):
            if not isinstance(value, dict) or not all(
                isinstance(value.get(field), str) for field in ("task", "prompt")
            ):
                raise UserError(
                    f"--prompts {path}, row {number} is {json.dumps(str(value)[:60])}: give lines "
                    'of {"task": ..., "prompt": ...}'
                )
            options.setdefault(value["task"], []).append(value["prompt"])
    else:
        value = read_json(path)
        if not isinstance(value, dict):
            raise UserError(f"--prompts {path} is no object: give {{task: [question, ...]}}")
        for task, texts in value.items():
            texts = [texts] if isinstance(texts, str) else texts
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise UserError(f"--prompts {path}: {task!r} is no list of questions")
            # "{}" is where SALMONN puts a question that the entry itself has.
            options[task] = [text for text in texts if "{}" not in text]
    return {
        task: tuple(text.replace(_SPEECH, "").strip() for text in texts)
        for task, texts in options.items()
        if texts
    }
