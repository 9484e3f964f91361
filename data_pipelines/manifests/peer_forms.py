"""The forms in which other projects keep questions and answers about audio, both ways.

    open_asqa  [{"instruction", "input", "audio_id", "dataset", "task", "output"}, ...]
    gama       the same without "input"; "dataset" and "task" may be missing
    salmonn    {"annotation": [{"path", "text", "task", "Q", "expand_wav"?}, ...]}
    llava      [{"id", "sound", "duration"?, "conversations": [{"from", "value"}, ...]}, ...], as
               LLaVA and Audio Flamingo 3 have it
    slam       lines of {"key", "source", "target", "prompt"?, "task"?}, as SLAM-LLM has it
    nemo       lines of {"audio_filepath", "duration", "text"}, or "context" and "answer" for "text"

What a form has no field for (dataset, task, spoken text) goes out under our own names, which the
projects' readers pass over, and comes in again.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from data_pipelines.manifests.row_writer import ANNOTATION, LINES, LIST, Layout
from data_pipelines.records import schema
from data_pipelines.records.schema import RecordError

ASR, SPOKEN_TEXT = "ASR", "Spoken text: "
Fields = Mapping[str, Any]
# Asks for the question of a task: (task, where) -> a wording.
Prompts = Callable[[str, str], str]
_KEPT = ("dataset", "task", "input", "split", "tags")
_HUMAN, _MODEL = ("human", "user"), ("gpt", "assistant")
_PLACEHOLDER = re.compile(r"<(sound|audio|speech|music|image)(-\d+)?>\n?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeerForm:
    """How a project writes rows.

    Attributes:
        layout: of its files.
        read: (entry, its place, prompts) -> official fields of each pair, those that it tells.
        write: (official row, its number, seconds of its audio or None) -> an entry.
        under: the key of the list, where the file is an object.
    """

    layout: Layout
    read: Callable[[Fields, str, Prompts], Iterator[dict[str, Any]]]
    write: Callable[[Fields, int, float | None], dict[str, Any]]
    under: str | None = None


def _text(entry: Fields, field: str, where: str, *, missing: str | None = None) -> str:
    value = entry.get(field, missing)
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f"{where}: field {field!r} is {value!r}: give text")
    return value


def _kept(entry: Fields) -> dict[str, Any]:
    return {name: entry[name] for name in _KEPT if name in entry}


def _official_in(entry: Fields, where: str, prompts: Prompts) -> Iterator[dict[str, Any]]:
    yield dict(entry)


def _official_out(row: Fields, number: int, seconds: float | None) -> dict[str, Any]:
    return dict(row)


def _gama_out(row: Fields, number: int, seconds: float | None) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "input"}


def _salmonn_in(entry: Fields, where: str, prompts: Prompts) -> Iterator[dict[str, Any]]:
    if entry.get("expand_wav"):
        raise RecordError(
            f"{where}: field 'expand_wav' joins several files to one clip: join them to a file of "
            "their own, and give it as 'path'"
        )
    task = _text(entry, "task", where, missing="asr")
    question = entry.get("Q") or prompts(task, where)
    yield _kept(entry) | {
        "audio_id": _text(entry, "path", where),
        "instruction": question,
        "task": task,
        "output": _text(entry, "text", where),
    }


def _salmonn_out(row: Fields, number: int, seconds: float | None) -> dict[str, Any]:
    entry = {"path": row["audio_id"], "text": row["output"], "task": row["task"]}
    return entry | {"Q": row["instruction"]} | _kept(row)


def _llava_in(entry: Fields, where: str, prompts: Prompts) -> Iterator[dict[str, Any]]:
    sound = entry.get("sound", entry.get("audio"))
    if isinstance(sound, list):
        if len(sound) != 1:
            raise RecordError(
                f"{where}: field 'sound' names {len(sound)} files: a question is about one clip; "
                "join them to a file"
            )
        sound = sound[0]
    audio = _text({"sound": sound}, "sound", where)
    turns = entry.get("conversations")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise RecordError(
            f"{where}: field 'conversations' is {str(turns)[:60]!r}: give question and answer in "
            "turn"
        )
    for asked, answered in zip(turns[::2], turns[1::2], strict=True):
        texts = []
        for turn, speakers in ((asked, _HUMAN), (answered, _MODEL)):
            if not isinstance(turn, dict) or turn.get("from") not in speakers:
                raise RecordError(
                    f"{where}: field 'conversations' has {str(turn)[:60]!r} where one from "
                    f"{speakers[0]!r} belongs"
                )
            texts.append(_text(turn, "value", where))
        question = _PLACEHOLDER.sub("", texts[0]).strip()
        yield _kept(entry) | {"audio_id": audio, "instruction": question, "output": texts[1]}


def _llava_out(row: Fields, number: int, seconds: float | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": str(number), "sound": row["audio_id"]}
    if seconds is not None:
        entry["duration"] = seconds
    entry["conversations"] = [
        {"from": _HUMAN[0], "value": f"<sound>\n{row['instruction']}"},
        {"from": _MODEL[0], "value": row["output"]},
    ]
    return entry | _kept(row)


def _slam_in(entry: Fields, where: str, prompts: Prompts) -> Iterator[dict[str, Any]]:
    task = entry.get("task") or entry.get("task-type") or ASR
    if not isinstance(task, str):
        raise RecordError(f"{where}: field 'task' is {task!r}: give text")
    source = entry.get("source", entry.get("path"))
    yield _kept(entry) | {
        "audio_id": _text({"source": source}, "source", where),
        "instruction": entry.get("prompt") or prompts(task, where),
        "task": task,
        "output": _text(entry, "target", where),
    }


def _slam_out(row: Fields, number: int, seconds: float | None) -> dict[str, Any]:
    entry = {"key": f"{number:08d}", "source": row["audio_id"], "target": row["output"]}
    return entry | {"prompt": row["instruction"]} | _kept(row)


def _nemo_in(entry: Fields, where: str, prompts: Prompts) -> Iterator[dict[str, Any]]:
    if entry.get("offset"):
        raise RecordError(
            f"{where}: field 'offset' is {entry['offset']!r}: the clip is a part of its file; cut "
            "it out to a file of its own"
        )
    question = entry.get("context") or entry.get("question")
    fields = _kept(entry) | {"audio_id": _text(entry, "audio_filepath", where)}
    if question is None and "answer" not in entry:
        text = _text(entry, "text", where)
        yield (
            {"task": ASR, "instruction": prompts(ASR, where)}
            | fields
            | {"output": SPOKEN_TEXT + text}
        )
        return
    answer = _text(entry, "answer" if "answer" in entry else "text", where)
    task = fields.get("task", "")
    yield fields | {"instruction": question or prompts(task, where), "output": answer}


def _nemo_out(row: Fields, number: int, seconds: float | None) -> dict[str, Any]:
    entry = {"audio_filepath": row["audio_id"], "duration": seconds}
    entry |= {"context": row["instruction"], "answer": row["output"]}
    if row["task"] == ASR and row["output"].startswith(SPOKEN_TEXT):
        entry["text"] = row["output"].removeprefix(SPOKEN_TEXT)
    return entry | _kept(row)


FORMS: Mapping[str, PeerForm] = {
    "open_asqa": PeerForm(layout=LIST, read=_official_in, write=_official_out),
    "gama": PeerForm(layout=LIST, read=_official_in, write=_gama_out),
    "salmonn": PeerForm(
        layout=ANNOTATION, read=_salmonn_in, write=_salmonn_out, under="annotation"
    ),
    "llava": PeerForm(layout=LIST, read=_llava_in, write=_llava_out),
    "slam": PeerForm(layout=LINES, read=_slam_in, write=_slam_out),
    "nemo": PeerForm(layout=LINES, read=_nemo_in, write=_nemo_out),
}


def in_order(fields: Fields) -> dict[str, Any]:
    """Return official fields in the official order, then the optional ones."""
    known = {name: fields[name] for name in schema.OFFICIAL_FIELDS}
    return known | {name: fields[name] for name in ("split", "tags") if name in fields}
