"""Open-ASQA: open-ended questions about sound and speech (Gong et al. 2023, YuanGongND/ltu).

Published is one JSON list (4.6 GB in full) of

    {"instruction", "input", "audio_id", "dataset", "task", "output"}

where `input` is the spoken text ("" when nobody speaks) and `audio_id` a path: absolute, or
relative to the JSON's folder. Asked are the rows whose task is open-ended ("open-ended question");
the closed-ended ones have labels, which other benchmarks score better.

Split `sample` is a fixed draw of 10,000 of them, those with the smallest hash of their content, so
that the full file fits in memory and judges are affordable; `all` is every one.
"""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from data_pipelines.metadata.table_files import check_split, field, need, visible
from data_pipelines.records.schema import OFFICIAL_FIELDS
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.files import inside
from ltu_jax.core.text_files import open_text
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems, text

SPLITS = ("sample", "all")
SAMPLE = 10_000

_EXPECTED = "a JSON list of Open-ASQA, or a folder that holds one"
_OPEN = "open"  # begins the task of every open-ended row
_CHUNK = 1 << 20  # characters read at a time
_LONGEST = 1 << 24  # no row is longer; without it a syntax error would read the rest of the file

_Row = tuple[str, ...]  # values of `OFFICIAL_FIELDS`


def read(data: Path, *, split: str) -> Corpus:
    """Read the open-ended rows of a JSON file, or of the only one in a folder, in the file's order.

    The file is read in a stream; what stays in memory is what is asked. An item's id is "row N",
    counted from 1 over all rows. The clip, and the cluster, is the `audio_id`; its transcript is
    `input`, and another transcript of the same audio makes another clip of the same cluster.

    Raises:
        UserError: unknown split; no file, or several; broken JSON; a row that lacks a field or has
            an empty one other than `input`; no open-ended row.
    """
    check_split(split, SPLITS, dataset="Open-ASQA")
    path = _file(data)
    collected = CollectedItems()
    rows = _open_ended(path, collected)
    if split == "sample":
        smallest = heapq.nsmallest(SAMPLE, ((_draw(row), number, row) for number, row in rows))
        rows = iter(sorted((number, row) for _, number, row in smallest))
    clips: dict[tuple[str, str], str] = {}
    transcripts: Counter[str] = Counter()
    for number, (instruction, spoken_text, audio, dataset, task, output) in rows:
        if (audio, spoken_text) not in clips:
            transcripts[audio] += 1
            more = f", transcript {transcripts[audio]}" if transcripts[audio] > 1 else ""
            clips[audio, spoken_text] = f"{audio}{more}"
        clip = AudioClip(
            clip_id=clips[audio, spoken_text],
            audio=inside(path.parent, audio, where=f"{path}, record {number}", owned=True),
            cluster=audio,
            spoken_text=spoken_text,
        )
        item = Item(
            item_id=f"row {number}",
            clip_id=clip.clip_id,
            row="open_asqa",
            question=instruction,
            references=(output,),
            groups={"dataset": dataset, "task": task},
        )
        with collected.record():
            collected.add(item, clip, where=f"{path}, record {number}")
    return collected.corpus(path, split=split)


def _file(data: Path) -> Path:
    need(data, expected=_EXPECTED)
    if not data.is_dir():
        return data
    files = [path for path in visible(data) if path.suffix.lower() == ".json"]
    if len(files) != 1:
        names = shorten(path.name for path in files) or "none"
        raise UserError(f"{data} should hold one JSON file, but has {names}: name the file itself")
    return files[0]


def _draw(row: _Row) -> bytes:
    return hashlib.blake2b("\0".join(row).encode(), digest_size=8).digest()


def _open_ended(path: Path, collected: CollectedItems) -> Iterator[tuple[int, _Row]]:
    for number, record in _stream(path):
        where, row = f"{path}, record {number}", None
        with collected.record():
            if not isinstance(record, dict):
                raise UserError(f"{where} is {str(record)[:60]!r}: it should be an object")
            row = tuple(
                field(record, name, where) if name == "input" else text(record, name, where)
                for name in OFFICIAL_FIELDS
            )
        if row is not None and row[OFFICIAL_FIELDS.index("task")].startswith(_OPEN):
            yield number, row


def _stream(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (N, element) of a JSON list, N from 1, of which only a piece is in memory."""
    with open_text(path, expected=_EXPECTED) as file:
        yield from _elements(_Pieces(file), path)


class _Pieces:
    """Text of a file from a place on; earlier text is let go as more is read."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.place = file, "", 0

    def more(self) -> bool:
        """Read another piece; False at the end of the file."""
        piece = self.file.read(_CHUNK)
        self.text, self.place = self.text[self.place :] + piece, 0
        return bool(piece)

    def sign(self) -> str:
        """Return the next character that is no space, without passing it; "" at the end."""
        while True:
            while self.place < len(self.text):
                if not self.text[self.place].isspace():
                    return self.text[self.place]
                self.place += 1
            if not self.more():
                return ""


def _elements(pieces: _Pieces, path: Path) -> Iterator[tuple[int, Any]]:
    if pieces.sign() != "[":
        raise UserError(f"{path} does not begin with '[': it should be {_EXPECTED}")
    pieces.place += 1
    decoder, number = json.JSONDecoder(), 0
    while pieces.sign() != "]":
        where = f"{path}, record {number + 1}"
        if number:
            if pieces.sign() != ",":
                at = repr(pieces.sign()) if pieces.sign() else "the end of the file"
                raise UserError(f"{where}: {at} where ',' or ']' should be: the file is damaged")
            pieces.place += 1
            pieces.sign()
        while True:
            try:
                value, pieces.place = decoder.raw_decode(pieces.text, pieces.place)
                break
            except json.JSONDecodeError as error:
                # The row may only be cut by the end of the piece.
                if len(pieces.text) - pieces.place > _LONGEST or not pieces.more():
                    raise UserError(f"{where} is not valid JSON: {error.msg}") from None
        number += 1
        yield number, value
