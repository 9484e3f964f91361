"""Whole pairs, and no others, come out of what models write."""

import json

import pytest

from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer, read_pairs

PAIRS = [
    {"q": "What “is” {heard}?", "a": 'A dog, "barking" at [it].'},
    {"q": "Where?\nHere or there?", "a": "In a yard \\ garden, caf\u00e9 \U0001f415."},
    {"q": "Who }{ speaks?", "a": "Nobody: {}."},
]
READ = tuple(
    QuestionAnswer(" ".join(pair["q"].split()), " ".join(pair["a"].split())) for pair in PAIRS
)
LINES = "\n".join(json.dumps(pair, ensure_ascii=False) for pair in PAIRS)
FORMS = {
    "as asked": json.dumps({"pairs": PAIRS}),
    "not escaped": json.dumps({"pairs": PAIRS}, ensure_ascii=False, indent=1),
    "a line each": LINES,
    "a list": json.dumps(PAIRS, ensure_ascii=False),
    "fenced": f"Sure, {{here}} they are:\n```json\n{json.dumps({'pairs': PAIRS})}\n```\nDone.",
    "thought": f'<think>{{"q": "no", "a": "no"}}</think>{json.dumps({"pairs": PAIRS})}',
    "long names": LINES.replace('"q"', '"Question:"').replace('"a"', '"answer"'),
    "other fields": LINES.replace('{"q"', '{"uses": ["sounds"], "q"'),
    "raw line ends": LINES.replace("\\n", "\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_pairs_of_every_form_are_read(form):
    read = read_pairs(FORMS[form])
    assert (read.pairs, read.broken) == (READ, 0)
    assert read.whole == (form in ("as asked", "not escaped", "thought"))


@pytest.mark.parametrize("form", ["as asked", "not escaped", "a line each", "a list", "fenced"])
def test_cut_anywhere_the_pairs_before_the_cut_are_read(form):
    text = FORMS[form]
    ends, place = [], 0
    for pair in PAIRS:
        for spelled in (
            json.dumps(pair),
            json.dumps(pair, ensure_ascii=False),
            json.dumps({"pairs": [pair]}, ensure_ascii=False, indent=1)[13:-4].strip(),
        ):
            if (found := text.find(spelled, place)) >= 0:
                place = found + len(spelled)
                break
        else:
            raise AssertionError(spelled)
        ends.append(place)
    for cut in range(len(text)):
        whole = sum(end <= cut for end in ends)
        assert read_pairs(text[:cut]).pairs == READ[:whole], text[:cut]


@pytest.mark.parametrize(
    "content, broken",
    [
        ('{"pairs": [{"q": "Only this?"}]}', 1),
        ('{"pairs": [{"q": "What?", "a": ""}, 7, null]}', 3),
        ('{"q": "What?", "a": 7}', 1),
        ('{"q": "What \\ud83d?", "a": "Half a character."}', 1),
        ('{"pairs": "none"}', 1),
        ("I cannot do that.", 0),
        ("", 0),
        ("[" * 100_000, 0),
        ("{" * 100_000, 0),
        ('{"q":' * 20_000, 0),
        ("1" * 5000, 0),
    ],
)
def test_what_is_no_pair_is_none(content, broken):
    read = read_pairs(content)
    assert (read.pairs, read.broken, read.whole) == ((), broken, False)
