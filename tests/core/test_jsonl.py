"""JSON lines: whole or not at all, whatever text they hold and whoever else is writing."""

import json
import resource

import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.core.jsonl import JsonlWriter, parse_object, read_jsonl, write_jsonl

# Line separators of Unicode, a NUL, an emoji, quotes, and an answer of a megabyte.
TEXTS = ("a\u2028b\u2029c\x85d", "\x00\x1e", "\U0001f415", '"\\', "\r\n", "long " * 200_000)


def texts(path):
    return [record["text"] for _, record in read_jsonl(path)]


@pytest.mark.parametrize("whole", [True, False])
def test_any_text_comes_back(tmp_path, whole):
    records = [{"text": text} for text in TEXTS]
    if whole:
        write_jsonl(tmp_path / "x.jsonl", records)
    else:
        with JsonlWriter(tmp_path / "x.jsonl") as file:
            for record in records:
                file.append(record)
    assert texts(tmp_path / "x.jsonl") == list(TEXTS)


def test_a_reader_leaves_an_unfinished_line_to_who_is_writing_it(tmp_path):
    path = tmp_path / "x.jsonl"
    with open(path, "ab", buffering=0) as file:
        file.write(b'{"text": "1"}\n{"text": "\xc3')  # the half of an umlaut
        assert texts(path) == ["1"]
        file.write(b'\xa4"}\n')
    assert texts(path) == ["1", "\u00e4"]


@pytest.mark.parametrize("whole", [b"", b'{"text": "1"}\n'])
@pytest.mark.parametrize("left", [b"", b'{"text": "\xc3', b'{"text": "' + 200_000 * b"x"])
def test_who_appends_cuts_off_what_a_kill_left(tmp_path, whole, left):
    path = tmp_path / "x.jsonl"
    path.write_bytes(whole + left)
    with JsonlWriter(path) as file:
        file.append({"text": "2"})
    assert path.read_bytes() == whole + b'{"text": "2"}\n'


@pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff\xfe", b"\x00" * 512, b"[" * 100_000, b""])
def test_a_broken_line_is_named_with_what_to_do(tmp_path, line):
    (tmp_path / "x.jsonl").write_bytes(json.dumps({"text": "1"}).encode() + b"\n" + line + b"\n")
    with pytest.raises(UserError, match=r"x\.jsonl:2 is not a JSON .*delete that line and run"):
        texts(tmp_path / "x.jsonl")


def test_a_file_that_is_not_there_has_no_lines(tmp_path):
    assert texts(tmp_path / "x.jsonl") == []


def test_a_full_disk_costs_the_line_that_did_not_fit_and_no_other(tmp_path):
    path = tmp_path / "x.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with JsonlWriter(path) as file:
        file.append({"text": "1"})
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 7, hard))
        try:
            with pytest.raises(OSError, match=r"x\.jsonl"):
                file.append({"text": "too long"})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        file.append({"text": "2"})
    assert texts(path) == ["1", "2"]


def test_half_a_character_comes_back(tmp_path):
    with JsonlWriter(tmp_path / "new" / "x.jsonl") as file:
        file.append({"text": "a\ud83dz"})
    assert texts(tmp_path / "new" / "x.jsonl") == ["a\ud83dz"]


def test_the_reader_raises_what_its_caller_needs(tmp_path):
    class Other(UserError):
        pass

    (tmp_path / "x.jsonl").write_text("{\n")
    with pytest.raises(Other, match=r"x\.jsonl:1 .*move it"):
        list(read_jsonl(tmp_path / "x.jsonl", advice="move it", error=Other))


@pytest.mark.parametrize("line", ["{", "[1]", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_a_foreign_line_that_is_no_object_is_named(line):
    with pytest.raises(UserError, match="mine.jsonl:3"):
        parse_object(line, where="mine.jsonl:3")
