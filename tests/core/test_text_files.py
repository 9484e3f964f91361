"""Text files in the encodings that people's programs write, against Python's own codecs."""

import codecs
import csv
import io
import json

import pytest

from data_pipelines.manifests.official_rows import rows_or_errors
from data_pipelines.metadata.table_files import csv_rows, json_file, json_lines
from data_pipelines.records.schema import RecordError
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json
from ltu_jax.core.text_files import open_text, read_text

TEXT = '{"text": "Größe — 犬 🐕"}\r\n{"text": "second"}\r\n'
ENCODINGS = {
    "utf-8": TEXT.encode(),
    "utf-8 with mark": codecs.BOM_UTF8 + TEXT.encode(),
    "utf-16 of PowerShell": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "utf-16 big-endian": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "utf-16 without mark": TEXT.encode("utf-16-le"),
    "utf-16-be without mark": TEXT.encode("utf-16-be"),
    "utf-32": codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
    "marks in the middle": codecs.BOM_UTF8
    + TEXT.encode().replace(b"\r\n{", b"\r\n" + codecs.BOM_UTF8 + b"{"),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_reader_reads_it(tmp_path, name):
    (tmp_path / "mine.jsonl").write_bytes(ENCODINGS[name])
    records = [record for _, record in json_lines(tmp_path / "mine.jsonl", expected="questions")]
    assert records == [{"text": "Größe — 犬 🐕"}, {"text": "second"}]
    rows = list(rows_or_errors(tmp_path / "mine.jsonl"))
    assert all("field 'instruction' is missing" in str(row) for row in rows) and len(rows) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_json_and_tables(tmp_path, encoding):
    value = [{"name": "é", "n": 3}]
    (tmp_path / "x.json").write_text(json.dumps(value, ensure_ascii=False), encoding=encoding)
    assert (
        json_file(tmp_path / "x.json", expected="JSON") == value == read_json(tmp_path / "x.json")
    )
    table = io.StringIO()
    csv.writer(table, delimiter="\t").writerows([["file", "caption"], ["a.wav", "zwei\nÄ"]])
    (tmp_path / "x.tsv").write_bytes(table.getvalue().encode(encoding))
    ((_, row),) = csv_rows(
        tmp_path / "x.tsv", columns=("file", "caption"), expected="a table", delimiter="\t"
    )
    assert row == {"file": "a.wav", "caption": "zwei\nÄ"}


def test_the_list_of_a_manifest_in_utf_16(tmp_path):
    row = dict.fromkeys(("instruction", "input", "audio_id", "dataset", "task", "output"), "ß")
    (tmp_path / "x.json").write_text(json.dumps([row], ensure_ascii=False), encoding="utf-16")
    (found,) = rows_or_errors(tmp_path / "x.json")
    assert found.values == row


@pytest.mark.parametrize("before", [b"", b"x\n" * 700_000])
def test_latin_1_is_named_by_its_line_and_never_guessed(tmp_path, before):
    path = tmp_path / "old.csv"
    path.write_bytes(before + "fine é\nfile,Geräusch\n".encode().replace("ä".encode(), b"\xe4"))
    with pytest.raises(UserError) as caught:
        read_text(path, expected="a table")
    line = before.count(b"\n") + 2
    assert f"{path} is not" in str(caught.value) and f"line {line}, byte 0xE4" in str(caught.value)


@pytest.mark.parametrize(
    "data", [codecs.BOM_UTF16_LE + b"a\0b", codecs.BOM_UTF32_LE + b"abc", b"cut \xc3"]
)
def test_cut_off_inside_a_character_is_named(tmp_path, data):
    (tmp_path / "x.jsonl").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.jsonl"), open_text(tmp_path / "x.jsonl") as file:
        file.read()
    if data.startswith(b"\xff"):
        with pytest.raises(RecordError):
            list(rows_or_errors(tmp_path / "x.jsonl"))
