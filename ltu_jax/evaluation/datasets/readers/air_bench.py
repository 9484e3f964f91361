"""AIR-Bench foundation: single-choice questions, 19 tasks (Yang et al. 2024, OFA-Sys/AIR-Bench).

Published layout (folder Foundation of the data set qyang1021/AIR-Bench-Dataset):

    Foundation_meta.json                 a list of {"path", "question", "choice_a" ... "choice_d",
                                         "answer_gt", "task_name", "dataset_name", "uniq_id"}
    <task_name>_<dataset_name>/<path>    the audio; of task Audio_Grounding it is flac, though
                                         "path" ends in wav

Prompt and file names are those of the official `Inference_Foundation.py`. It lists four options
whatever the question has, so a missing one reads "C. None"; here too, since scores depend on it.
"""

from pathlib import Path
from typing import Any

from data_pipelines.metadata.table_files import check_split, find
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems, json_records, text

SPLITS = ("test",)

_EXPECTED = "the questions of AIR-Bench's foundation part"
_INSTRUCTION = (
    "Choose the most suitable answer from options A, B, C, and D to respond the question in next "
    "line, you may only choose A or B or C or D."
)
_LETTERS = "abcd"


def read(data: Path, *, split: str) -> Corpus:
    """Read all questions in the order of the file; choices are the options that a question has.

    Raises:
        UserError: unknown split; no file or broken JSON; a record that lacks a field, has a gap in
            its options, or whose answer is none of them (the official scorer stops there as well);
            an id used twice.
    """
    check_split(split, SPLITS, dataset="AIR-Bench")
    path = find(
        data, ("Foundation_meta.json", "Foundation/Foundation_meta.json"), expected=_EXPECTED
    )
    collected = CollectedItems()
    for where, record in json_records(path, expected=_EXPECTED, problems=collected):
        with collected.record():
            task, source = text(record, "task_name", where), text(record, "dataset_name", where)
            question, answer = text(record, "question", where), text(record, "answer_gt", where)
            options = _options(record, where)
            if answer not in options:
                raise UserError(f"{where}: answer_gt {answer!r} is none of the choices {options}")
            number = record.get("uniq_id")
            if isinstance(number, bool) or not isinstance(number, int | str):
                raise UserError(f"{where}: field 'uniq_id' is {number!r}: it should be a number")
            file = text(record, "path", where)
            if task == "Audio_Grounding":
                file = f"{file[:-3]}flac"
            clip_id = f"{task}_{source}/{file}"
            clip = AudioClip(clip_id=clip_id, audio=path.parent / clip_id, cluster=clip_id)
            item = Item(
                item_id=f"{task}_{source}/{number}",
                clip_id=clip_id,
                row="air_bench",
                question=_prompt(question, options),
                references=(answer,),
                choices=options,
                groups={"task_name": task, "dataset_name": source},
            )
            collected.add(item, clip, where=where)
    return collected.corpus(path, split=split)


def _prompt(question: str, options: tuple[str, ...]) -> str:
    four = (*options, *("None",) * (len(_LETTERS) - len(options)))
    lines = [f"{letter.upper()}. {option}" for letter, option in zip(_LETTERS, four, strict=True)]
    return "\n".join((_INSTRUCTION, question, *lines))


def _options(record: dict[str, Any], where: str) -> tuple[str, ...]:
    given = [record.get(f"choice_{letter}") for letter in _LETTERS]
    while given and (given[-1] is None or given[-1] == ""):
        given.pop()
    if len(given) < 2 or not all(isinstance(option, str) and option.strip() for option in given):
        raise UserError(
            f"{where}: choices are {given}: give choice_a and choice_b, then the others"
        )
    return tuple(option.strip() for option in given)
