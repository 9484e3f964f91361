"""The reader of answers against 475 sentences that were labelled before it was written.

`sentences.jsonl` says what each means to a person, None where it answers nothing or several things
at once. Every third line was not looked at while the reader was made. The table of both kinds of
error in docs/evaluation.md is the one counted here; `python tests/evaluation/scoring/
test_sentences.py` prints it and the sentences that are read wrongly.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ltu_jax.evaluation.scoring import strict

FOLDER = Path(__file__).resolve().parent
CHOICES = json.loads((FOLDER / "sentence_choices.json").read_text(encoding="utf-8"))
SENTENCES = [
    json.loads(line)
    for line in (FOLDER / "sentences.jsonl").read_text(encoding="utf-8").splitlines()
]
TASKS = ("classification", "multilabel", "gender", "age", "choice")


def _several(text, choices):
    return "; ".join(sorted(strict.named_classes(text, choices))) or None


READERS: dict[str, Callable] = {
    "classification": strict.named_class,
    "multilabel": _several,
    "gender": lambda text, choices: strict.gender(text),
    "age": lambda text, choices: strict.age(text),
    "choice": strict.option,
}


def wrong(sentence) -> str | None:
    """ "accepted" or "rejected" where the reader takes a sentence for something else."""
    read = READERS[sentence["task"]](sentence["text"], CHOICES.get(sentence["choices"]))
    meaning = sentence["meaning"]
    if sentence["task"] == "multilabel" and meaning is not None:
        meaning = "; ".join(sorted(meaning.split("; ")))
    return None if read == meaning else "rejected" if read is None else "accepted"


def table() -> str:
    """Counts by task, as docs/evaluation.md has them."""
    lines = [
        "| sentences for | labelled | of them answer nothing | wrong meaning accepted "
        "| right meaning missed |",
        "|---|---|---|---|---|",
    ]
    held_out = [one for place, one in enumerate(SENTENCES) if place % 3 == 2]
    parts = {task: [one for one in SENTENCES if one["task"] == task] for task in TASKS}
    for name, part in {**parts, "all": SENTENCES, "all held out": held_out}.items():
        errors = Counter(map(wrong, part))
        nothing = sum(one["meaning"] is None for one in part)
        lines.append(
            f"| {name} | {len(part)} | {nothing} | {errors['accepted']} | {errors['rejected']} |"
        )
    return "\n".join(lines)


def test_the_documented_errors_are_those_of_the_labelled_sentences(pytestconfig):
    assert len(SENTENCES) >= 300
    docs = (pytestconfig.rootpath / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert table() in docs


@pytest.mark.parametrize(
    ("task", "choices", "text", "meaning"),
    [
        ("classification", "esc50", "This is not a dog.", None),
        ("classification", "esc50", "cow bell", None),
        ("classification", "esc50", "rain forest", None),
        ("classification", "esc50", "Frogs are croaking", "frog"),
        ("classification", "esc50", "Birds are chirping", "chirping birds"),
        ("classification", "esc50", "A church bell rings", "church bells"),
        ("classification", "esc50", "A man sneezes", "sneezing"),
        ("classification", "iemocap", "anger", "angry"),
        ("choice", "animals", "It is not A.", None),
        ("gender", None, "I don't think the speaker is a man", None),
        ("gender", None, "male, not female", "male"),
        ("age", None, "under 18", None),
        ("age", None, "not 25", None),
        ("age", None, "between thirty and 40", None),
    ],
)
def test_answers_that_were_read_wrongly(task, choices, text, meaning):
    assert READERS[task](text, CHOICES.get(choices)) == meaning


@pytest.mark.parametrize(
    "piece", ["dog (", "dog. ", "man, ", "30 ", "B. ", "answer is ", " - ", "\n"]
)
def test_texts_that_no_model_says_are_read(piece):
    for read in READERS.values():
        read(piece * 2_000, ("dog", "dog barking"))


if __name__ == "__main__":
    print(table())
    for sentence in SENTENCES:
        if wrong(sentence):
            print(wrong(sentence), json.dumps(sentence, ensure_ascii=False))
