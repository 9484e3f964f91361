"""The benchmarks of the server: their own validator, their rows, what they would miss."""

import json

import pytest

from benchmarks import json_schemas, serving_truths
from benchmarks.serving_rows import rows
from ltu_jax.serving.timed_chat import TimedAnswer

PAIR = {"question": "a", "answer": "b"}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"enum": ["a", "b"]}, ["a"], ["c", 1]),
        ({"const": 3}, [3], [4]),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, [None, True], [1, "x"]),
        ({"type": "integer", "minimum": 0, "maximum": 5}, [0, 5], [6, -1, 2.5, True, "1"]),
        ({"type": "string", "minLength": 1, "maxLength": 3}, ["abc"], ["", "abcd", 1]),
        ({"type": "string", "pattern": "^[A-Z]-[0-9]$"}, ["A-1"], ["A-12", "a-1"]),
        (
            {"type": "array", "items": {"const": 1}, "minItems": 1, "maxItems": 2},
            [[1], [1, 1]],
            [[], [1, 1, 1], [2], 1],
        ),
    ],
)
def test_the_validator_knows_good_from_bad(schema, good, bad):
    assert all(json_schemas.valid(one, schema) for one in good)
    assert not any(json_schemas.valid(one, schema) for one in bad)


def test_an_object_has_its_fields_and_no_others():
    schema = json_schemas.schema_of(0)
    count = schema["properties"]["pairs"]["minItems"]
    good = {"item": 0, "pairs": [PAIR] * count}
    assert json_schemas.valid(good, schema)
    short = {**good, "pairs": [{"question": "a"}] * count}
    more = {**good, "pairs": [PAIR] * (count + 1)}
    for wrong in (more, short, {"item": 0}, {**good, "x": 1}, {**good, "item": 1}, []):
        assert not json_schemas.valid(wrong, schema)


def test_no_two_schemas_are_the_same():
    known = {json.dumps(json_schemas.schema_of(number)) for number in range(200)}
    assert len(known) == 200


def answer(**changed):
    told = {
        "status": 200, "error": None, "id": "x", "text": "a word", "first": 0.1, "last": 0.4,
        "total": 0.5, "tokens": 2, "counted": True, "finish_reason": "stop", "left": False,
        "ltu": {"tokens": [5, 2], "spoken_text": "hi", "seconds_dropped": 0.0},
    }  # fmt: skip
    return TimedAnswer(**told | changed)


def test_an_answer_is_the_same_in_every_respect_or_different():
    want = {"tokens": [5, 2], "text": "a word", "spoken_text": "hi", "seconds_dropped": 0.0,
            "finish_reason": "stop"}  # fmt: skip
    same = serving_truths.is_same
    assert same(answer(), want)
    assert same(answer(left=True, text="a w", finish_reason="", ltu={}), want)
    assert not same(answer(left=True, text="a x", finish_reason="", ltu={}), want)
    assert not same(answer(text="a wor"), want)
    assert not same(answer(finish_reason="length"), want)
    for name, value in (("tokens", [5, 3]), ("spoken_text", "ho"), ("seconds_dropped", 1.0)):
        assert not same(answer(ltu={**answer().ltu, name: value}), want)


def test_the_page_has_a_row_for_every_bar():
    part = {
        "date": "today", "load_average": [2.4], "requests": 200, "settled_at": 20,
        "memory_mb": [100.0, 101.0],
        "memory_growth_percent": 1.0, "descriptors": [9, 10], "unexpected": {"500: x": 2},
        "unequal_answers": 0, "about_cached_clips": 100, "hardware": {"processor": "A, 2 cores"},
    }  # fmt: skip
    made = rows({"parts": {"soak, toy": part}, "hardware": {"processor": "A, 2 cores"}})
    assert made[0][3:] == ["10,000", "**no**"]
    assert made[1][2:] == ["2", "0", "**no**"] and made[2][2:] == ["0", "0", "yes"]
    assert made[3][2].endswith("+1.0 %") and made[3][4] == "yes"
    assert made[4][2:] == ["9 to 10", "flat", "**no**"]
    assert all(row[0] == "soak (toy, today, load 2)" for row in made)
    (first, *_) = rows({"parts": {"soak, toy": part}, "hardware": {"processor": "B, 2 cores"}})
    assert first[0] == "soak (toy, today, load 2, A, 2 cores)"  # another machine than the page's
