"""The strict reading of answers; for each official trap, what both rules make of it."""

import json

import pytest

from ltu_jax.evaluation.scoring import paper, strict
from ltu_jax.evaluation.scoring.caption_scores import without_lead_in
from ltu_jax.evaluation.scoring.interface import Status


@pytest.mark.parametrize(
    "text, years",
    [
        ("The speaker is 35 years old.", 35),
        ("age:27.", 27),
        ("(29)", 29),
        ("a 45-year-old", 45),
        ("\u0663\u0665", 35),
        ("about 30-40 years old", 35),
        ("30 - 40", 35),
        ("20\u201330 (en dash)", 25),
        ("20 to 25", 22.5),
        ("between 30 and 40", 35),
        ("a 27-35-year-old", 31),
        ("35. Yes, 35.", 35),
        ("0", 0),
        ("100", 100),
        ("101", None),
        ("1990", None),
        ("40-30", None),
        ("40 or 50", None),
        ("30-40-50", None),
        ("29/30", None),
        ("10:30", None),
        ("3,000", None),
        ("-5", None),
        ("100%", None),
        ("$20", None),
        ("over 30+", None),
        ("v2.0 is 33", None),
        ("25x", None),
        ("thirty", None),
        ("no idea", None),
        ("", None),
    ],
)
def test_age_is_one_number_or_one_range(text, years):
    assert strict.age(text) == years


def test_a_decimal_age_is_kept_where_the_official_rule_cuts_it():
    assert paper.age_numbers("27.5 years")[0] == 27
    assert strict.age("27.5 years") == 27.5


def test_a_decade_is_no_number_in_either_rule():
    for text in ("30s", "in his 30s", "in her 30's", "50ish"):
        assert strict.age(text) is None
    assert paper.age_numbers("in his 30s") == []


def test_another_number_before_the_age_does_not_win():
    for text, official in (
        ("Speaker ID 1001, age 52", 1001),
        ("The 2 speakers are 20-25 and 60", 2),
        ("in the 30s, maybe 44", 44),
        ("mid-20s or 24", 24),
    ):
        assert paper.age_numbers(text)[0] == official
        assert strict.age(text) is None


@pytest.mark.parametrize("true, charge", [(0, 100), (35, 65), (50, 50), (70, 70), (104, 104)])
def test_an_answer_without_an_age_is_charged_the_largest_error(true, charge):
    assert strict.largest_age_error(true) == charge


@pytest.mark.parametrize(
    "text, named",
    [
        ("The speaker is female.", "female"),
        ("The speaker is MALE", "male"),
        ("No, a female voice", "female"),
        ("a woman", "female"),
        ("two men", "male"),
        ("human", None),
        ("females and males", None),
        ("", None),
    ],
)
def test_gender_is_named_by_whole_words_of_one_side(text, named):
    assert strict.gender(text) == named


@pytest.mark.parametrize(
    "text, official",
    [
        ("unknown", "male"),
        ("", "male"),
        ("she", "male"),
        ("non-binary", "male"),
        ("not female", "female"),
        ("isn\u2019t a female", "female"),
        ("either male or female", "female"),
        ("femalemale", "female"),
    ],
)
def test_a_gender_is_not_guessed_where_the_official_rule_guesses(text, official):
    assert paper.gender(text) == official
    assert strict.gender(text) is None


def test_a_woman_is_not_male():
    assert paper.gender("a woman") == "male"
    assert strict.gender("a woman") == "female"


def test_every_golden_gender_that_strict_reads_is_what_its_words_say(golden):
    rows = json.loads((golden / "eval_scoring" / "voxceleb_gender.json").read_text())["rows"]
    named = {row["pred"]: strict.gender(row["pred"]) for row in rows}
    assert {text for text, side in named.items() if side == "female"} == {
        "The speaker is female.",
        "Female",
        "FEMALE",
        "a woman",
        "feMALE voice",
        "Gender: female",
        "females",
        "female\n",
    }
    assert {text for text, side in named.items() if side == "male"} == {
        "male",
        "The speaker is male.",
        "a man",
        "fe male",
        "male, not female",
        "gender: Male",
        "males",
    }


def test_a_caption_keeps_its_first_letter_and_its_colons():
    for text, official, kept in (
        ("No colon here", "o colon here", "No colon here"),
        ("Audio caption: A dog barks.", "a dog barks", "A dog barks."),
        ("Time 10:30 the bell rings", "0 the bell rings", "Time 10:30 the bell rings"),
        ("Audio caption: He says: go", "go", "He says: go"),
        ("colon:nospace", "ospace", "colon:nospace"),
        ("Audio caption:no space", "o space", "no space"),
    ):
        assert paper.audiocaps_clean(text) == official
        assert without_lead_in(text) == kept


OPTIONS = ("Man", "Woman", "Woman and child", "Robot")


@pytest.mark.parametrize(
    "text, named",
    [
        ("B", "Woman"),
        (" b", None),
        ("(B)", "Woman"),
        ("B.", "Woman"),
        ("B) Woman", "Woman"),
        ("B: woman", "Woman"),
        ("The answer is B", "Woman"),
        ("option B", "Woman"),
        ("The answer is a woman.", "Woman"),
        ("a woman and child", "Woman and child"),
        ("A", "Man"),
        ("A dog", None),
        ("A woman", "Woman"),
        ("(A) Woman", None),
        ("Man or Robot", None),
        ("E", None),
        ("(B) or (D)", None),
        ("humans", None),
        ("", None),
    ],
)
def test_an_option_is_named_by_letter_or_text(text, named):
    assert strict.option(text, OPTIONS) == named


def test_letters_and_full_stops_of_the_data_are_not_part_of_an_option():
    options = ("(A) It rains.", "(B) It snows.")
    assert strict.option("It snows", options) == "(B) It snows."
    assert strict.option("(B) It snows.", options) == "(B) It snows."
    assert strict.option("A. It snows.", options) is None


def test_a_first_letter_is_no_choice_where_the_official_rule_takes_it():
    assert paper.air_bench_letter("Dog") == "D"
    assert strict.option("Dog", ("Cat", "Dog", "Bird", "Cow")) == "Dog"
    assert paper.air_bench_letter("Boy") == "B"
    assert strict.option("Boy", ("Man", "Woman")) is None


@pytest.mark.parametrize(
    "output, parsed, status",
    [
        (None, False, Status.MISSING),
        ("", False, Status.UNPARSED),
        ("a bell", False, Status.UNPARSED),
        ("I\u2019m sorry, it cannot be determined.", False, Status.REFUSED),
        ("As an  AI language model ...", False, Status.REFUSED),
        ("I'm sorry, but it is a dog.", True, Status.PARSED),
        ("has an aide", False, Status.UNPARSED),
    ],
)
def test_status(output, parsed, status):
    assert strict.status(output, parsed=parsed) is status
