"""Yes and no in answers, against a table that people can check, and what is scored of it."""

import json
from pathlib import Path

import pytest

from data_pipelines.metadata import class_phrases
from data_pipelines.real.window_plan import CLASSES
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.scoring import presence, strict
from ltu_jax.evaluation.scoring.interface import Status


def table(name):
    lines = (Path(__file__).parent / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("row", table("presence_answers"), ids=lambda row: row["answer"][:40])
def test_what_an_answer_says_of_what_is_asked_about(row):
    assert strict.yes_or_no(row["answer"], row["asked"]) == row["meaning"]


@pytest.mark.parametrize("row", table("quiet_answers"), ids=lambda row: row["answer"][:40])
def test_who_says_that_nothing_is_heard_and_invents_nothing(row):
    assert strict.says_quiet(row["answer"]) == row["quiet"]


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_affirmed_and_denied_by_its_name_and_as_people_say_it(name):
    phrase = class_phrases.phrases()[name]
    for event in (name, phrase):
        said = {
            f"Yes, {event} is heard.": "yes",
            f"{event} is heard.": "yes",
            f"I hear {event}.": "yes",
            f"No, {event} is not heard.": "no",
            f"I don't hear {event}.": "no",
            f"Yes, {event} is not heard.": None,
        }
        assert {text: strict.yes_or_no(text, (phrase, name)) for text in said} == said


def test_neither_and_both_are_wrong_and_are_told_apart(answer, figure):
    def asked(output, label):
        return answer(output, label, references=(label, "a dog", "Dog"))

    outputs = ["Yes.", "No dog.", "Yes and no.", "I cannot tell.", "A cat.", None]
    statuses = [
        Status.PARSED, Status.PARSED, Status.UNPARSED, Status.REFUSED, Status.UNPARSED,
        Status.MISSING,
    ]  # fmt: skip
    (metric,) = presence.presence_metrics()
    for label, right in (("yes", [1, 0, 0, 0, 0, 0]), ("no", [0, 1, 0, 0, 0, 0])):
        answers = [asked(output, label) for output in outputs]
        scores = [presence.affirmed_or_denied(one) for one in answers]
        assert [one.value for one in scores] == right
        assert [one.status for one in scores] == statuses
        assert figure(metric.strict, answers) == pytest.approx(1 / 6)
    with pytest.raises(UserError, match=r"the reference 'Dog' is not among \['yes', 'no'\]"):
        presence.affirmed_or_denied(asked("Yes.", "Dog"))


def test_an_answer_about_silence_is_right_or_invents_something(answer, figure):
    outputs = ["Nothing is heard.", "Only noise.", "A dog.", "I cannot tell.", "", None]
    answers = [answer(output, "Silence") for output in outputs]
    scores = [presence.nothing_invented(one) for one in answers]
    assert [one.value for one in scores] == [1, 1, 0, 0, 0, 0]
    assert [one.status for one in scores] == [
        Status.PARSED, Status.PARSED, Status.PARSED, Status.REFUSED, Status.UNPARSED,
        Status.MISSING,
    ]  # fmt: skip
    assert [one.parsed for one in scores] == ["quiet", "quiet", "Dog / wolf", None, None, None]
    (metric,) = presence.quiet_metrics()
    assert figure(metric.strict, answers) == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_that_is_heard_is_no_silence(name):
    phrase = class_phrases.phrases()[name]
    for event in (name, phrase):
        assert not strict.says_quiet(f"{event} is heard.")
        assert not strict.says_quiet(f"Only {event} is heard, and nothing else.")
        if "(" not in event:  # which ends a clause
            assert strict.says_quiet(f"Nothing is heard. There is no {event.removeprefix('a ')}.")


@pytest.mark.parametrize("piece", ["dog (", "yes ", "no, ", "answer is ", "whether ", "? "])
def test_texts_that_no_model_says_are_read(piece):
    strict.yes_or_no(piece * 2_000, ("a dog", "Dog"))
    strict.says_quiet(piece * 2_000)
